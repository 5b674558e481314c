"""Starts, watches and masks inside of a model; several inputs, tokens and trees; what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import formulas
from formulas import draw, of_layers
from jxai import lrp

# In float32.
assert_close = functools.partial(formulas.assert_close, rtol=1e-4, atol=2e-5)


# Somewhere else than from the outputs to the inputs.


class Middle(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Dense(3, name="inner")(x))


class Steps(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(4, name="first")(x))
        return nn.Dense(2, name="last")(Middle(name="middle")(x))


@pytest.fixture(scope="module")
def steps():
    """(function of x and options of `vjp` to its results, function from the middle's input, params, x)."""
    x = np.random.default_rng(3).normal(size=(2, 5)).astype(np.float32)
    variables = draw(Steps(), x)

    def explain(**options):
        return lrp.vjp(lambda x: Steps().apply(variables, x), x, composite=lrp.EpsilonPlus(), **options)

    def part(name, x):
        params = {"params": variables["params"][name]}
        return lrp.vjp(lambda x: nn.Dense(4).apply(params, x), x, composite=lrp.EpsilonPlus())

    return explain, part, x


def test_start_at_a_module(steps):
    explain, part, x = steps
    y, pullback = explain(start="first")
    expected_y, expected = part("first", x)
    assert_close(y, expected_y)
    relevance = np.random.default_rng(0).normal(size=y.shape).astype(np.float32)
    assert_close(pullback(relevance), expected(relevance))
    y, _ = explain(start="middle/inner")
    assert y.shape == (2, 3)
    with pytest.raises(ValueError, match=r"relevance of the outputs' shapes \(2, 3\), got \(2, 2\)"):
        explain(start="middle")[1](np.ones((2, 2)))


def test_watched_modules(steps):
    explain, part, x = steps
    y, pullback = explain(watch=["first", "middle", "last"])
    (relevance,), watched = pullback(y)
    assert set(watched) == {"first", "middle", "last"}
    assert [watched[name].shape for name in ("first", "middle", "last")] == [(2, 4), (2, 3), (2, 2)]
    assert_close(watched["last"], y)
    assert_close(relevance, part("first", x)[1](watched["first"])[0])
    assert_close(relevance, explain()[1](y)[0])


def test_masked_channels(steps):
    explain, part, x = steps
    y, pullback = explain(watch=["first"])
    (whole,), watched = pullback(y)
    parts = []
    for mask in np.eye(4, dtype=np.float32):
        y, pullback = explain(masks={"first": mask}, watch=["first"])
        (relevance,), seen = pullback(y)
        assert_close(seen["first"], watched["first"])  # what arrives, before the mask
        assert_close(relevance, part("first", x)[1](watched["first"] * mask)[0])
        parts.append(relevance)
    assert_close(sum(parts), whole)
    y, pullback = explain(start="middle", masks={"first": np.zeros(4)})
    np.testing.assert_array_equal(pullback(y)[0], 0)


@pytest.mark.parametrize(
    "option", [{"start": "nowhere"}, {"watch": ["nowhere"]}, {"masks": {"nowhere": 1.0}}]
)
def test_paths_of_no_module_are_refused(steps, option):
    with pytest.raises(ValueError, match=r"'nowhere' with no call: take one of .*first.*middle/inner"):
        steps[0](**option)


def test_a_module_called_twice_is_no_place():
    layer = nn.Dense(3)
    x = np.ones((1, 3), np.float32)
    variables = draw(layer, x)
    f = lambda x: layer.apply(variables, layer.apply(variables, x))  # noqa: E731
    with pytest.raises(ValueError, match=r"called once .* with 2 calls"):
        lrp.vjp(f, x, composite=lrp.EpsilonPlus(), start="")


# Other inputs than one array of floats.


def test_several_inputs_of_a_layer():
    random = np.random.default_rng(0)
    a, b, kernel = (random.normal(size=shape).astype(np.float32) for shape in ((2, 3), (2, 2), (5, 4)))
    y, (of_a, of_b) = formulas.explain(
        lambda a, b: jnp.concatenate([a, b], 1) @ kernel, a, b, composite=of_layers(lrp.Epsilon(0.1))
    )
    ratio = np.asarray(y) / (y + 0.1 * np.where(y < 0, -1, 1))
    assert_close(of_a, a * (ratio @ kernel[:3].T))
    assert_close(of_b, b * (ratio @ kernel[3:].T))


class Text(nn.Module):
    @nn.compact
    def __call__(self, tokens, scale):
        rows = nn.Embed(7, 5, name="table")(tokens) * scale
        return nn.Dense(3, name="last")(nn.relu(nn.Dense(4, name="hidden")(rows)).mean(1))


def test_relevance_of_tokens_is_that_of_their_rows():
    tokens, scale = np.array([[0, 3, 3], [6, 1, 0]]), np.float32(1.5)
    variables = jax.jit(Text().init)(jax.random.key(0), tokens, scale)

    def from_rows(rows):
        params = variables["params"]
        hidden = nn.relu(nn.Dense(4).apply({"params": params["hidden"]}, rows))
        return nn.Dense(3).apply({"params": params["last"]}, hidden.mean(1))

    @jax.jit
    def explain(tokens, scale):
        def by(f, *primals):
            y, pullback = lrp.vjp(f, *primals, composite=lrp.EpsilonPlus())
            return y, *pullback(y)

        rows = variables["params"]["table"]["embedding"][tokens] * scale
        return (
            by(lambda *args: Text().apply(variables, *args), tokens, scale),
            by(lambda tokens: Text().apply(variables, tokens, 1.5), tokens),
            by(from_rows, rows),
        )

    both, alone, (expected_y, of_rows) = explain(tokens, scale)
    assert (both[1].shape, both[1].dtype, both[2].shape) == (tokens.shape, np.float32, ())
    assert_close(alone, (expected_y, of_rows.sum(-1)))
    # A product shares evenly among its two factors.
    assert_close(both, (expected_y, of_rows.sum(-1) / 2, of_rows.sum() / 2))


def test_integers_in_no_embedding_are_refused():
    with pytest.raises(
        TypeError, match=r"looked up in a table, as nn.Embed does, got int32 of shape \(2, 3\)"
    ):
        lrp.vjp(lambda x: x @ np.ones((3, 2)), np.ones((2, 3), np.int32), composite=lrp.EpsilonPlus())


# What is refused.


@pytest.mark.parametrize("dtype", [np.float16, np.bool_, np.complex64])
def test_primals_without_relevance_are_refused(dtype):
    with pytest.raises(
        TypeError, match=f"float32, float64 or bfloat16, or integers .* got {np.dtype(dtype)}"
    ):
        lrp.vjp(lambda x: x, np.ones(2, dtype), composite=lrp.sun2020)


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones((2, 1)), 1.0, {"y": np.ones(2)}, (np.ones(2),)])
def test_relevance_of_another_shape_is_refused(wrong):
    _, pullback = lrp.vjp(lambda x: 2 * x, np.ones(2, np.float32), composite=lrp.sun2020)
    with pytest.raises(ValueError, match=r"relevance of the outputs' shapes \(2,\), got"):
        pullback(wrong)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (np.zeros(3, int), ValueError, r"`target` of shape \(N,\), got \(2, 4\) and \(3,\)"),
        (np.zeros((2, 1), int), ValueError, "one class index an image"),
        (np.zeros(2), TypeError, "`target` of integers, got float32"),
        (np.array([0, 4]), ValueError, r"`target` in \[0, 4\), got values from 0 to 4"),
        (np.array([-1, 0]), ValueError, "got values from -1 to 0"),
    ],
)
def test_wrong_targets_are_refused(target, error, message):
    with pytest.raises(error, match=message):
        lrp.relevance(lambda x: x, np.ones((2, 4), np.float32), target, composite=lrp.sun2020)


def test_scores_without_a_class_axis_are_refused():
    with pytest.raises(ValueError, match=r"scores \(N, K\)"):
        lrp.relevance(
            lambda x: x.sum(1), np.ones((2, 4), np.float32), np.zeros(2, int), composite=lrp.sun2020
        )


def test_trees_of_primals_and_outputs_and_auxiliary_values():
    def f(parts, scale):
        return {"sum": parts["a"] + scale * parts["b"], "a": parts["a"]}, "handed through"

    parts = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0, -4.0])}
    y, pullback, aux = lrp.vjp(f, parts, jnp.array(2.0), composite=lrp.EpsilonPlus(), has_aux=True)
    assert aux == "handed through"
    relevance, of_scale = pullback({"sum": y["sum"], "a": jnp.zeros(2)})
    # A sum hands each term its own value, a product each factor its half.
    np.testing.assert_allclose(relevance["a"], parts["a"], rtol=1e-5)
    np.testing.assert_allclose(relevance["b"], parts["b"], rtol=1e-5)
    np.testing.assert_allclose(of_scale, parts["b"].sum(), rtol=1e-5)
