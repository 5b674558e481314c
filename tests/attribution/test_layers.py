"""Layers inside of a model: definitions by hand, sums, and the other estimators at `features` and `head`."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jxai import attribution, models

RANDOM = np.random.default_rng(9)
X, BASELINE = (jnp.asarray(RANDOM.normal(size=(2, 6)), jnp.float32) for _ in range(2))
TARGET = jnp.array([1, 0])
W, V = (jnp.asarray(RANDOM.normal(size=shape), jnp.float32) for shape in ((6, 5), (5, 2)))
PATH = {"baseline": BASELINE, "num_steps": 40, "method": "gauss-legendre"}


def features(x):
    return jnp.tanh(x @ W)


def head(a):
    return (a**2) @ V


def change():
    return (head(features(X)) - head(features(BASELINE)))[jnp.arange(2), TARGET]


def test_conductance_is_complete_and_a_unit_s_own_change():
    """Of f = Σ v_j a_j²: a unit's conductance is v_j (a_j² − a₀_j²), whatever the path."""
    found = jax.jit(lambda x: attribution.conductance(features, head, x, TARGET, **PATH))(X)
    squares = features(X) ** 2 - features(BASELINE) ** 2
    np.testing.assert_allclose(found, squares * V.T[TARGET], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), change(), rtol=1e-3, atol=1e-4)


def test_neuron_conductance_sums_to_its_unit_s_and_over_units_to_integrated_gradients():
    layer = jax.jit(lambda x: attribution.conductance(features, head, x, TARGET, **PATH))(X)
    run = jax.jit(
        lambda neurons: attribution.neuron_conductance(features, head, X, TARGET, neurons=neurons, **PATH)
    )
    units = [run(jnp.arange(5) == unit) for unit in range(5)]
    sums = jnp.stack([unit.sum(axis=1) for unit in units], axis=1)
    np.testing.assert_allclose(sums, layer, rtol=1e-3, atol=1e-4)
    whole = attribution.integrated_gradients(lambda x: head(features(x)), X, TARGET, **PATH)
    np.testing.assert_allclose(sum(units), whole, rtol=1e-3, atol=1e-4)


def test_internal_influence_is_the_mean_gradient_along_the_path():
    found = attribution.internal_influence(features, head, X, TARGET, baseline=BASELINE, num_steps=7)
    expected = 0
    for alpha in np.arange(1, 8) / 7:
        at = features(BASELINE + alpha * (X - BASELINE))
        expected = expected + 2 * at * V.T[TARGET] / 7
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_of_a_linear_head_influence_is_its_weights():
    found = attribution.internal_influence(features, lambda a: a @ V, X, TARGET, num_steps=3)
    np.testing.assert_allclose(found, V.T[TARGET], rtol=1e-5)


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        x = nn.relu(nn.Dense(5, name="hidden")(x.reshape(len(x), -1)))
        return nn.Dense(3, name="scores")(x)


def test_a_start_by_path_of_a_linen_module():
    model, images = Model(), jnp.asarray(RANDOM.normal(size=(2, 4, 4, 2)), jnp.float32)
    variables = model.init(jax.random.key(0), images)
    below, above = models.split(model, "hidden", variables=variables, image_shape=(4, 4, 2))

    def hidden(x):
        return below(variables, x)

    def scores(a):
        return above(variables, a)

    found = jax.jit(
        lambda x: attribution.conductance(hidden, scores, x, TARGET, num_steps=300, method="midpoint")
    )(images)
    black = jnp.zeros_like(images)
    difference = (model.apply(variables, images) - model.apply(variables, black))[jnp.arange(2), TARGET]
    assert found.shape == (2, 5)
    np.testing.assert_allclose(found.sum(axis=1), difference, rtol=0.02, atol=0.02)
    # The others at the two functions: layer Integrated Gradients, layer DeepLIFT, a neuron's gradient.
    a, a0 = hidden(images), hidden(black)
    layer = attribution.integrated_gradients(scores, a, TARGET, baseline=a0, num_steps=300, method="midpoint")
    np.testing.assert_allclose(layer.sum(axis=1), difference, rtol=0.02, atol=0.02)
    lifted = attribution.deep_lift(scores, a, TARGET, baseline=a0)
    np.testing.assert_allclose(lifted.sum(axis=1), difference, rtol=1e-3, atol=1e-4)
    neuron = attribution.gradient(hidden, images, lambda a: a[:, 3])
    expected = jax.grad(lambda x: hidden(x)[:, 3].sum())(images)
    np.testing.assert_allclose(neuron, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            lambda: attribution.conductance(lambda x: x.sum(), head, X, TARGET),
            r"`features` to give activations \(2, ...\) of floats, got .*\(\)",
        ),
        (
            lambda: attribution.internal_influence(lambda x: (x, x), head, X, TARGET),
            "give activations",
        ),
        (
            lambda: attribution.neuron_conductance(features, head, X, TARGET, neurons=jnp.ones(4)),
            r"neurons that broadcast to the activations \(2, 5\), got \(4,\)",
        ),
        (
            lambda: attribution.neuron_conductance(features, head, X, TARGET, neurons=jnp.nan),
            "finite neurons",
        ),
        (lambda: attribution.conductance(features, head, X, TARGET, num_steps=0), "num_steps of at least 1"),
        (lambda: attribution.conductance(features, head, X, TARGET, method="left"), "method among right"),
    ],
)
def test_wrong_options_are_named(run, message):
    with pytest.raises(ValueError, match=message):
        run()


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(5, use_bias=False, name="below")(x))
        return nn.Dense(2, use_bias=False, name="above")(x**2)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.below = nnx.Linear(6, 5, use_bias=False, rngs=rngs)
        self.above = nnx.Linear(5, 2, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.above(nnx.tanh(self.below(x)) ** 2)


@functools.cache
def parts(library):
    """A model's parts around its layer "below", of one network whichever the library."""
    if library == "Linen":
        model, variables = Linen(), {"params": {"below": {"kernel": W}, "above": {"kernel": V}}}
    else:
        model = Nnx(nnx.Rngs(0))
        model.below.kernel.set_value(W)
        model.above.kernel.set_value(V)
        variables = nnx.state(model)
    features, head = models.split(model, "below", image_shape=(6,))
    return functools.partial(features, variables), functools.partial(head, variables)


@pytest.mark.parametrize("library", ["Linen", "NNX"])
@pytest.mark.parametrize(
    "method",
    [
        pytest.param(
            lambda below, above: attribution.conductance(below, above, X, TARGET, **PATH), id="conductance"
        ),
        pytest.param(
            lambda below, above: attribution.internal_influence(below, above, X, TARGET, **PATH),
            id="influence",
        ),
        pytest.param(
            lambda below, above: attribution.neuron_conductance(
                below, above, X, TARGET, neurons=[1.0, 0.0, 1.0, 0.0, 0.0], **PATH
            ),
            id="neurons",
        ),
        pytest.param(
            lambda below, above: attribution.integrated_gradients(
                above, below(X), TARGET, baseline=below(BASELINE), num_steps=40
            ),
            id="layer IG",
        ),
        pytest.param(
            lambda below, above: attribution.deep_lift(above, below(X), TARGET, baseline=below(BASELINE)),
            id="layer DeepLIFT",
        ),
    ],
)
def test_layers_of_a_library_s_modules(library, method):
    """As of functions written out."""
    found = method(*parts(library))
    expected = method(lambda x: x @ W, lambda a: jnp.tanh(a) ** 2 @ V)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
