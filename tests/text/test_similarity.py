"""Both sides of a similarity, and pairs of tokens, against closed forms of a linear encoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution, lrp, text
from tiny import tiny

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Linear:
    table: jax.Array
    weights: jax.Array

    def embed(self, ids):
        return self.table[ids]

    def encode(self, x, mask):
        return x @ self.weights

    def sentence(self, hidden, mask):
        return (hidden * mask[..., None]).sum(axis=1)


@pytest.fixture(scope="module")
def linear():
    rng = np.random.default_rng(0)
    return Linear(
        jnp.asarray(rng.normal(size=(9, 4)), jnp.float32), jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    )


FIRST, SECOND = np.array([[1, 2, 3], [4, 5, 0]]), np.array([[6, 7], [8, 2]])
MASK = np.array([[True] * 3, [True, True, False]])


@pytest.mark.slow
def test_pairs_of_a_linear_encoder_are_products(linear):
    found = jax.jit(lambda linear: text.token_pairs(linear, FIRST, SECOND, mask=MASK, chunk_size=2))(linear)
    u, v = linear.table[FIRST] @ linear.weights, linear.table[SECOND] @ linear.weights
    expected = jnp.einsum("ntk,nsk->nts", u * MASK[..., None], v)
    np.testing.assert_allclose(found, expected, **CLOSE)
    sides = text.similarity(linear, FIRST, SECOND, mask=MASK)
    np.testing.assert_allclose(sides.score, expected.sum((1, 2)), **CLOSE)
    np.testing.assert_allclose(sides.first, expected.sum(2), **CLOSE)
    np.testing.assert_allclose(sides.second, expected.sum(1), **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("method", [lrp.AttnLRP(), attribution.input_x_gradient])
def test_sides_of_a_transformer(method):
    model = tiny(scan=True)
    mask = np.array([[True, True, True], [True, True, False]])
    ids, other = np.array([[1, 2, 3], [4, 5, 0]]), np.array([[3, 2], [7, 8]])
    found = jax.jit(text.similarity, static_argnames="method")(model, ids, other, mask=mask, method=method)
    alone = text.similarity(model, ids[1:, :2], other[1:], method=method)
    np.testing.assert_allclose(found.first[1, :2], alone.first[0], **CLOSE)
    np.testing.assert_allclose(found.second[1], alone.second[0], **CLOSE)
    np.testing.assert_allclose(found.first[1, 2], 0, atol=1e-6)
    assert (abs(found.score) <= 1 + 1e-5).all()


def test_what_is_refused(linear):
    with pytest.raises(ValueError, match="as many second sentences"):
        text.similarity(linear, FIRST, SECOND[:1])
    with pytest.raises(TypeError, match="composite"):
        text.token_pairs(linear, FIRST, SECOND, composite="lrp")
