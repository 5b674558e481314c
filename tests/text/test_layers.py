"""Relevance by layer, head and neuron."""

import functools

import jax
import numpy as np
import pytest

from jxai import lrp, text

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
layers = functools.partial(jax.jit, static_argnames=("num_heads", "num_layers", "composite"))(text.layers)


@pytest.fixture(scope="module")
def found(model, ids):
    return layers(model, ids, None, num_heads=2)


@pytest.mark.slow
def test_unrolled_the_layers_are_the_same(unrolled, ids, found):
    for one, other in zip(layers(unrolled, ids, None, num_heads=2, num_layers=2), found, strict=True):
        np.testing.assert_allclose(one, other, **CLOSE)


def test_shapes_tokens_and_the_score(model, ids, found):
    assert found.stream.shape == (2, 2, 4)
    assert found.heads.shape == (2, 2, 4, 2) and found.neurons.shape == (2, 2, 4, 8)
    np.testing.assert_allclose(found.tokens, text.explain(model, ids, None), **CLOSE)
    np.testing.assert_allclose(found.score, model(ids)[:, -1].max(-1), **CLOSE)
    # The last block's output goes through a norm and the vocabulary alone: nothing is absorbed.
    np.testing.assert_allclose(found.stream[:, -1].sum(-1), found.score, rtol=1e-3)


@pytest.mark.slow
def test_where_attention_is_held_each_layer_conserves(model, ids):
    """Without biases, and with ε = 0, CP-LRP loses nothing."""
    held = layers(model, ids, None, num_heads=2, composite=lrp.CPLRP(epsilon=0))
    for sums in (*np.moveaxis(np.asarray(held.stream).sum(-1), 1, 0), held.tokens.sum(-1)):
        np.testing.assert_allclose(sums, held.score, rtol=1e-3)


@pytest.mark.slow
def test_heads_and_neurons_are_what_is_watched(unrolled, ids, found):
    y, pullback = lrp.vjp(
        lambda x: unrolled.unembed(unrolled.encode(x, None))[:, -1],
        unrolled.embed(ids),
        composite=lrp.AttnLRP(),
        watch=["layer1/attention/context", "layer0/mlp/neurons"],
    )
    _, watched = pullback(y * jax.nn.one_hot(y.argmax(-1), y.shape[-1]))
    heads = np.asarray(watched["layer1/attention/context"]).reshape(2, 4, 2, 3).sum(-1)
    np.testing.assert_allclose(found.heads[:, 1], heads, **CLOSE)
    np.testing.assert_allclose(found.neurons[:, 0], watched["layer0/mlp/neurons"], **CLOSE)


@pytest.mark.slow
def test_contrast_and_positions_of_layers(model, ids):
    options = {"positions": 2, "contrast": np.array([1, 2])}
    one = text.layers(model, ids, np.array([3, 4]), num_heads=2, **options)
    np.testing.assert_allclose(one.tokens, text.explain(model, ids, np.array([3, 4]), **options), **CLOSE)


def test_the_strongest_come_first(found):
    ranked = text.strongest(found.heads, count=3)
    sums = np.asarray(found.heads, np.float64).sum((0, 2))
    assert ranked[0][2] == pytest.approx(sums.flat[abs(sums).argmax()])
    assert [abs(value) for *_, value in ranked] == sorted((abs(v) for *_, v in ranked), reverse=True)
    assert len(text.strongest(found.heads, count=99)) == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, i: text.layers(m, i, None, num_heads=4), "divides 6 channels"),
        (lambda m, i: text.layers(m, i, None, num_heads=2, num_layers=0), "num_layers"),
        (lambda m, i: text.layers(m, i, None, num_heads=2, score="nonsense"), "score among"),
        (lambda m, i: text.layers(m, i, None, num_heads=2, contrast=np.zeros(3, int)), "`contrast` of shape"),
        (lambda m, i: text.layers(m, i, None, num_heads=2, num_layers=1), "layer0"),
        (lambda m, i: text.strongest(np.ones((2, 2))), "shape"),
        (lambda m, i: text.strongest(np.ones((1, 1, 1, 1)), count=0), "count"),
    ],
)
def test_what_is_refused(model, ids, call, message):
    with pytest.raises(ValueError, match=f"expected .*{message}"):
        call(model, ids)
