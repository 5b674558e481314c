"""Max pooling as slices, against Flax's: values, gradients, ties, relevance."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import lrp
from jxai.models.layers import max_pool, max_pool_2x2

RNG = np.random.default_rng(0)
# Size, sides, padding of both axes: those of the encoders, and windows that reach far beyond the map.
CASES = {
    "2x2, odd sides": (2, (5, 7), ((0, 0), (0, 0))),
    "stem of 224": (3, (8, 7), ((1, 1), (1, 1))),
    "SqueezeNet": (3, (8, 7), ((0, 1), (0, 0))),
    "SqueezeNet, smallest": (3, (2, 3), ((0, 1), (0, 0))),
    "uneven": (4, (6, 9), ((3, 0), (1, 3))),
    "single position": (4, (1, 2), ((3, 0), (0, 3))),
}


def flax_pool(x, size, padding):
    return nn.max_pool(x, (size, size), strides=(2, 2), padding=padding)


@pytest.mark.parametrize("name", CASES)
def test_as_flax_pools(name):
    size, sides, padding = CASES[name]
    x = RNG.normal(size=(2, *sides, 3)).astype(np.float32) - 3  # zeros would win
    want = flax_pool(x, size, padding)
    weights = RNG.normal(size=want.shape).astype(np.float32)

    @jax.jit
    def pooled(x):
        y, pullback = jax.vjp(lambda x: max_pool(x, size, padding=padding), x)
        _, expected = jax.vjp(lambda x: flax_pool(x, size, padding), x)
        return y, pullback(weights)[0], expected(weights)[0]

    y, gradient, expected = pooled(x)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_2x2_leaves_out_an_odd_row():
    x = jnp.asarray(RNG.normal(size=(1, 5, 4, 2)), jnp.float32)
    np.testing.assert_array_equal(max_pool_2x2(x), flax_pool(x, 2, ((0, 0), (0, 0))))


def test_equal_winners_share_the_gradient():
    gradient = jax.jit(jax.grad(lambda x: max_pool(x, 3).sum()))(jnp.ones((1, 3, 3, 1)))[0, :, :, 0]
    share = np.array([0.25, 0.25, 0.5])  # of three, two are compared first
    np.testing.assert_allclose(gradient, np.outer(share, share))


def test_relevance_goes_to_the_winner():
    x = RNG.normal(size=(1, 7, 8, 2)).astype(np.float32)
    padding = ((1, 1), (1, 1))
    found = []
    for pool in (lambda x: max_pool(x, 3, padding=padding), lambda x: flax_pool(x, 3, padding)):

        @jax.jit
        def explain(x, pool=pool):
            y, pullback = lrp.vjp(lambda x: pool(nn.relu(x)), x, composite=lrp.EpsilonPlus())
            return pullback(y)[0]

        found.append(explain(x))
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)
    assert np.isfinite(found[0]).all()
