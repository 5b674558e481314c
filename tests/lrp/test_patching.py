"""Relevance patching against true patching, and LRP's coefficients, which it is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from formulas import assert_close, normal
from jxai import lrp

pytestmark = pytest.mark.usefixtures("x64")

CLEAN, PATCHED = normal(3, 4), normal(3, 4, seed=1)
W, V, U = normal(4, 6, seed=2), normal(6, 6, seed=3), normal(6, seed=4)
ZERO = lrp.AttnLRP(epsilon=0.0)


def network(activation, put=None):
    """A function with activations "first" and "second"; `put` gives what stands in their place."""
    put = put or {}

    def f(x):
        first = put.get("first", lrp.mark(activation(x @ W), "first"))
        second = put.get("second", lrp.mark(first + activation(first @ V), "second"))
        return second @ U

    return f


def activations(activation, x):
    first = activation(x @ W)
    return {"first": first, "second": first + activation(first @ V)}


@pytest.mark.parametrize(
    "composite", [ZERO, None, lrp.CPLRP(epsilon=0.0)], ids=["AttnLRP", "gradients", "CPLRP"]
)
@pytest.mark.parametrize("jitted", [False, True])
def test_linear_functions_are_patched_exactly(composite, jitted):
    f = network(lambda z: z)

    def estimate(clean, patched):
        return lrp.relevance_patching(f, clean, patched, taps=["first", "second"], composite=composite)

    found = (jax.jit(estimate) if jitted else estimate)(CLEAN, PATCHED)
    for path, values in activations(lambda z: z, PATCHED).items():
        truth = network(lambda z: z, {path: values})(CLEAN) - f(CLEAN)
        assert found[path].shape == values.shape
        assert_close(found[path].sum(-1), truth)


def test_it_is_the_difference_times_the_coefficient():
    f = network(jax.nn.gelu)
    found = lrp.relevance_patching(f, CLEAN, PATCHED, taps=["first", "second"], composite=ZERO)
    y, pullback = lrp.vjp(f, CLEAN, composite=ZERO, watch=["first", "second"])
    _, coefficients = pullback(y, ratios=True)
    before, after = (activations(jax.nn.gelu, x) for x in (CLEAN, PATCHED))
    for path in found:
        assert_close(found[path], (after[path] - before[path]) * coefficients[path])


def test_attribution_patching_has_gradients():
    f = network(jnp.tanh)
    found = lrp.relevance_patching(f, CLEAN, PATCHED, taps=["first"], composite=None)["first"]
    before, after = (activations(jnp.tanh, x)["first"] for x in (CLEAN, PATCHED))
    gradient = jax.grad(lambda first: network(jnp.tanh, {"first": first})(CLEAN).sum())(before)
    assert_close(found, (after - before) * gradient)


@pytest.mark.parametrize("composite", [ZERO, None], ids=["AttnLRP", "gradients"])
def test_layers_in_a_loop_are_stacked(composite):
    kernels = normal(3, 4, 4, seed=5)

    def layer(x, w):
        with jax.named_scope("layer"):
            return jnp.tanh(x @ w) + x, None

    def scanned(x):
        return jax.lax.scan(layer, x, kernels)[0].sum(-1)

    def unrolled(x):
        for i, w in enumerate(kernels):
            x = lrp.mark(jnp.tanh(x @ w) + x, f"layer{i}")
        return x.sum(-1)

    ours = lrp.relevance_patching(scanned, CLEAN, PATCHED, taps=["layer"], composite=composite)["layer"]
    each = lrp.relevance_patching(
        unrolled, CLEAN, PATCHED, taps=[f"layer{i}" for i in range(3)], composite=composite
    )
    assert_close(ours, np.stack([each[f"layer{i}"] for i in range(3)]))


def test_trees_of_inputs_and_vmap():
    f = lambda x: network(jnp.tanh)(x["a"] + x["b"])  # noqa: E731
    clean, patched = ({"a": x, "b": 2.0 * x} for x in (CLEAN, PATCHED))
    found = lrp.relevance_patching(f, clean, patched, taps=["second"], composite=ZERO)["second"]
    plain = lambda a, b: lrp.relevance_patching(  # noqa: E731
        network(jnp.tanh), a, b, taps=["second"], composite=ZERO
    )["second"]
    assert_close(found, plain(3.0 * CLEAN, 3.0 * PATCHED))
    assert_close(jax.vmap(plain)(3.0 * CLEAN, 3.0 * PATCHED), found)


# Coefficients.


def test_coefficients_are_relevance_over_values_and_known_at_zeros():
    x = np.array([[0.0, 1.0, -2.0, 0.0]])
    f = lambda x: lrp.mark(x @ W, "hidden") @ V  # noqa: E731
    y, pullback = lrp.vjp(f, x, composite=ZERO, watch=["hidden"])
    ((relevance,), watched), ((coefficient,), inside) = pullback(y), pullback(y, ratios=True)
    assert_close(coefficient, np.ones((1, 6)) @ (W @ V).T)
    assert_close(relevance, x * coefficient)
    assert_close(inside["hidden"], np.ones((1, 6)) @ V.T)
    assert_close(watched["hidden"], (x @ W) * inside["hidden"])
    assert_close(jax.jit(lambda y: pullback(y, ratios=True))(y)[0][0], coefficient)
    assert_close(jax.vmap(lambda y: pullback(y, ratios=True)[0][0])(y[None]), coefficient[None])
    with pytest.raises(ValueError, match="expected ratios among True, False"):
        pullback(y, ratios="all")


def test_coefficients_under_gradients_are_gradients():
    y, pullback = lrp.vjp(lambda x: jax.nn.relu(x @ W), CLEAN, composite=lrp.GuidedBackprop())
    assert_close(pullback(y, ratios=True)[0], pullback(y)[0])
