"""Pairs kept as two halves give what the pairs written out give."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from jxai import lrp
from jxai.fewshot.heads import PairConv, Pairs, pairs
from jxai.lrp.rules.presets import SUN2020_CONVOLUTION

WAY, QUERIES, SIDE, CHANNELS = 3, 4, 5, 2


def draw(nonnegative=False):
    random = np.random.default_rng(0)
    prototype, query = (
        random.normal(size=(n, SIDE, SIDE, CHANNELS)).astype(np.float32) for n in (WAY, QUERIES)
    )
    return Pairs(*(np.maximum(a, 0) if nonnegative else a for a in (prototype, query)))


def test_dense_holds_prototype_then_query():
    both = draw()
    dense = np.asarray(both.dense())
    assert both.shape == dense.shape == (QUERIES, WAY, SIDE, SIDE, 2 * CHANNELS)
    for q in range(QUERIES):
        for w in range(WAY):
            np.testing.assert_array_equal(dense[q, w, ..., :CHANNELS], both.prototype[w])
            np.testing.assert_array_equal(dense[q, w, ..., CHANNELS:], both.query[q])


def test_product_with_weights_is_written_out():
    both, weights = draw(), np.random.default_rng(1).normal(size=draw().shape).astype(np.float32)
    np.testing.assert_array_equal(both * weights, both.dense() * weights)
    np.testing.assert_array_equal(jax.numpy.asarray(weights) * both, both.dense() * weights)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("use_bias", [True, False])
def test_pair_convolution_of_halves_equals_flax_conv_on_all_pairs(padding, use_bias):
    both = draw()
    module = PairConv(3, padding, use_bias)
    variables = module.init(jax.random.key(0), both)
    assert set(variables["params"]) == ({"kernel", "bias"} if use_bias else {"kernel"})
    params = jax.tree.map(lambda leaf: leaf + 0.5, variables["params"])
    conv = nn.Conv(3, (3, 3), padding=padding, use_bias=use_bias)
    expected = conv.apply({"params": params}, both.dense())
    for given in (both, both.dense()):
        np.testing.assert_allclose(module.apply({"params": params}, given), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("nonnegative", [True, False])
def test_relevance_of_halves_equals_the_rule_on_all_pairs(padding, nonnegative):
    both = draw(nonnegative)
    module = PairConv(3, padding)
    variables = module.init(jax.random.key(0), both)
    composite = lrp.Composite(((PairConv, SUN2020_CONVOLUTION),))
    y, pullback = lrp.vjp(lambda x: module.apply(variables, x), both.dense(), composite=composite)
    relevance = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    expected = np.asarray(pullback(relevance)[0])
    kernel = variables["params"]["kernel"]
    ours = pairs.relevance_of_pairs(both, kernel, padding, relevance, nonnegative=nonnegative)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
