"""Attention probabilities read from a program, and rollout against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import text
from tiny import HEADS, LAYERS, WIDTH, block, norm

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def test_rollout_against_a_loop():
    rng = np.random.default_rng(0)
    attention = rng.dirichlet(np.ones(5), size=(2, 3, 2, 5)).astype(np.float32)
    found = text.attention_rollout(attention, residual=0.3)
    for n in range(2):
        expected = np.eye(5)
        for layer in range(3):
            expected = (0.3 * np.eye(5) + 0.7 * attention[n, layer].mean(0)) @ expected
        np.testing.assert_allclose(found[n], expected, **CLOSE)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_attention_is_the_softmax_of_each_layer(model, ids):
    mask = np.array([[True] * 4, [True] * 3 + [False]])
    found = jax.jit(text.attention)(model, ids, mask=mask)
    allowed = np.tril(np.ones((4, 4), bool))[None] & mask[:, None]
    x = model.embed(ids)
    for layer in range(LAYERS):
        p = jax.tree.map(lambda p, layer=layer: p[layer], model.params["layers"])
        q, k = (np.asarray(norm(x) @ p[name]).reshape(2, 4, HEADS, -1) for name in ("query", "key"))
        logits = np.einsum("nthd,nshd->nhts", q, k) / np.sqrt(WIDTH / HEADS)
        expected = jax.nn.softmax(jnp.where(allowed[:, None], logits, -jnp.inf))
        np.testing.assert_allclose(found[:, layer], expected, **CLOSE)
        x = jax.jit(block)(p, x, allowed)


@pytest.mark.slow
def test_unrolled_and_within_calls_it_is_the_same(model, unrolled, ids):
    found = text.attention(model, ids)
    np.testing.assert_allclose(text.attention(unrolled, ids), found, **CLOSE)

    class Called:
        embed = staticmethod(model.embed)

        @staticmethod
        def encode(x, mask):
            return jax.jit(jax.checkpoint(lambda x: model.encode(x, mask)))(x)

    np.testing.assert_allclose(text.attention(Called, ids), found, **CLOSE)


def test_what_is_refused(model, ids):
    class Without:
        embed = staticmethod(model.embed)

        @staticmethod
        def encode(x, mask):
            return x

    with pytest.raises(ValueError, match="expected a model with probabilities"):
        text.attention(Without, ids)
    for attention, message in ((np.ones((1, 2, 3, 3)), "shape"), (np.ones((1, 1, 1, 3, 3)), "add up to 1")):
        with pytest.raises(ValueError, match=f"expected attention .*{message}"):
            text.attention_rollout(attention)
    with pytest.raises(ValueError, match="residual"):
        text.attention_rollout(np.ones((1, 1, 1, 1, 1)), residual=2.0)
