"""Gradients with respect to a composite's own numbers, and the tree that holds them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jxai import lrp
from jxai.errors import InputError, InputTypeError

RNG = np.random.default_rng(0)
KINDS = (lrp.Kind.CONVOLUTION, lrp.Kind.DENSE)


def everywhere(rule):
    return lrp.Composite(tuple((kind, rule) for kind in KINDS))


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(3, (2, 2), name="conv")(x))
        x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        dense = nn.Dense(4, name="dense")
        x = nn.tanh(dense(x.reshape(len(x), -1)[:, :8]) + x.reshape(len(x), -1)[:, -4:])
        return nn.Dense(3, name="output")(nn.Dense(4, name="again")(x))


X = jnp.asarray(RNG.normal(size=(2, 3, 3, 2)), jnp.float32)
TARGET = jnp.array([2, 0])
VARIABLES = jax.tree.map(
    lambda leaf: (
        jnp.abs(leaf) + 0.2 * jnp.asarray(RNG.normal(size=leaf.shape), jnp.float32) ** 2
        if leaf.ndim == 1
        else leaf
    ),
    Network().init(jax.random.key(0), X),
)


def network(x):
    return Network().apply(jax.tree.map(lambda leaf: leaf.astype(x.dtype), VARIABLES), x)


COMPOSITES = {
    "γ": everywhere(lrp.Gamma(0.3, epsilon=0.05)),
    "αβ": everywhere(lrp.AlphaBeta(1.5, 0.5, epsilon=0.05)),
    "EpsilonGammaBox": lrp.EpsilonGammaBox(low=-4.0, high=4.0, epsilon=0.1),
    "αβ, z⁺": lrp.Composite((("conv", lrp.AlphaBeta(2.0, 1.0)),)) | everywhere(lrp.ZPlus(epsilon=0.1)),
}


def sums(values, composed, x):
    """A number that all relevance counts in."""
    relevance = lrp.relevance(network, x, TARGET, composite=composed(values))
    return (relevance * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)).sum()


@pytest.mark.parametrize("name", COMPOSITES)
def test_a_preset_s_own_numbers_give_its_relevance(name):
    values, composed = lrp.rule_parameters(network, X, composite=COMPOSITES[name])
    np.testing.assert_array_equal(
        lrp.relevance(network, X, TARGET, composite=composed(values)),
        lrp.relevance(network, X, TARGET, composite=COMPOSITES[name]),
    )


@pytest.mark.parametrize("name", ["γ", "αβ", "EpsilonGammaBox"])
def test_gradients_are_those_of_finite_differences(name, x64):
    x = X.astype(jnp.float64)
    values, composed = lrp.rule_parameters(network, x, composite=COMPOSITES[name])
    number = jax.jit(lambda values: sums(values, composed, x))
    gradient = jax.jit(jax.grad(number))(values)
    for place, of in values.items():
        for field in of:
            step = 1e-5
            moved = [number(values | {place: of | {field: of[field] + way}}) for way in (step, -step)]
            slope = (moved[0] - moved[1]) / (2 * step)
            np.testing.assert_allclose(gradient[place][field], slope, rtol=1e-5, atol=1e-8)


def test_a_gradient_is_the_same_compiled_or_not():
    values, composed = lrp.rule_parameters(plain, ONES, composite=everywhere(lrp.Gamma(0.3, epsilon=0.05)))

    def number(values):
        return (lrp.relevance(plain, ONES, jnp.array([0]), composite=composed(values)) ** 2).sum()

    alone, compiled = jax.grad(number)(values), jax.jit(jax.grad(number))(values)
    np.testing.assert_allclose(jax.tree.leaves(alone), jax.tree.leaves(compiled), rtol=1e-5)


def test_one_layer_s_derivatives_are_those_of_its_formula(x64):
    x, w, b = RNG.normal(size=(1, 5)), RNG.normal(size=(5, 4)), RNG.normal(size=4)
    z, target = x @ w + b, jnp.array([int(np.argmax((x @ w + b)[0]))])
    column, bias, top = w[:, target[0]], b[target[0]], z[0, target[0]]
    assert top > 0
    contributions = x[0] * column
    positive, negative = np.maximum(contributions, 0), np.minimum(contributions, 0)
    up, down = positive.sum() + max(bias, 0), negative.sum() + min(bias, 0)
    gamma, epsilon = 0.4, 0.1
    # R = top · c / D with c = x w + γ (x w)⁺ and D = z + γ up + ε.
    c, d = contributions + gamma * positive, top + gamma * up + epsilon
    rights = {
        "epsilon": (lrp.Epsilon(epsilon), -top * contributions / (top + epsilon) ** 2),
        "gamma": (lrp.Gamma(gamma, epsilon=epsilon), top * (positive / d - c * up / d**2)),
        "beta": (
            lrp.AlphaBeta(1.5, 0.5, epsilon=epsilon),
            top * (positive / (up + epsilon) - negative / (down - epsilon)),
        ),
    }

    def f(x):
        return x @ jnp.asarray(w) + jnp.asarray(b)

    for field, (rule, right) in rights.items():
        values, composed = lrp.rule_parameters(f, x, composite=everywhere(rule))
        slope = jax.jit(
            jax.jacobian(lambda values, c=composed: lrp.relevance(f, x, target, composite=c(values)))
        )
        np.testing.assert_allclose(slope(values)[""][field][0], right, rtol=1e-9)


def test_many_composites_at_once():
    values, composed = lrp.rule_parameters(network, X, composite=COMPOSITES["γ"])
    several = jax.tree.map(lambda value: value * jnp.array([0.0, 1.0, 7.0]), values)
    found = jax.jit(jax.vmap(lambda values: sums(values, composed, X)))(several)
    number = jax.jit(lambda values: sums(values, composed, X))
    right = [number(jax.tree.map(lambda value, i=i: value[i], several)) for i in range(3)]
    np.testing.assert_allclose(found, right, rtol=2e-5)


def test_numbers_that_are_traced_do_not_widen_relevance(x64):
    values, composed = lrp.rule_parameters(network, X, composite=COMPOSITES["γ"])
    assert values["conv"]["gamma"].dtype == jnp.float64 and X.dtype == jnp.float32
    assert jax.jit(lambda values: sums(values, composed, X))(values).dtype == jnp.float32


def test_what_is_zero_stays_zero_as_an_exponential():
    values, composed = lrp.rule_parameters(network, X, composite=everywhere(lrp.Gamma(0.0, epsilon=0.0)))
    logs = jax.tree.map(jnp.log, values)
    gradient = jax.jit(jax.grad(lambda logs: sums(jax.tree.map(jnp.exp, logs), composed, X)))(logs)
    assert all(leaf == 0 for leaf in jax.tree.leaves(gradient))


def test_in_a_loop_layers_have_one_place(x64):
    kernels = jnp.asarray(RNG.normal(size=(3, 4, 4)))
    x = jnp.asarray(RNG.normal(size=(2, 4)))

    def f(x):
        def body(x, kernel):
            with jax.named_scope("layer"):
                return jax.nn.relu(x @ kernel + 0.1), None

        return lax.scan(body, x, kernels)[0]

    values, composed = lrp.rule_parameters(f, x, composite=everywhere(lrp.Gamma(0.3, epsilon=0.05)))
    assert list(values) == ["layer"]

    @jax.jit
    def number(values):
        return (lrp.relevance(f, x, jnp.array([0, 1]), composite=composed(values)) ** 2).sum()

    gradient = jax.jit(jax.grad(number))(values)["layer"]
    for field, value in values["layer"].items():
        moved = [number({"layer": values["layer"] | {field: value + way}}) for way in (1e-5, -1e-5)]
        np.testing.assert_allclose(gradient[field], (moved[0] - moved[1]) / 2e-5, rtol=1e-6)


def test_places_are_those_of_calls():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            dense = nn.Dense(2, name="dense")
            return dense(dense(x))

    x = jnp.ones((1, 2))
    variables = Twice().init(jax.random.key(0), x)
    values, composed = lrp.rule_parameters(
        lambda x: Twice().apply(variables, x), x, composite=everywhere(lrp.Gamma())
    )
    assert list(values) == ["dense#0", "dense#1"]
    told = composed(values | {"dense#1": {"gamma": 2.0, "epsilon": 1e-6}})
    rows = lrp.coverage(lambda x: Twice().apply(variables, x), x, composite=told).rows
    assert [float(row.rule.gamma) for row in rows] == [0.25, 2.0]


ONES, BELOW, ABOVE = jnp.ones((1, 2)), jnp.full((2, 3), 0.5), jnp.full((3, 2), 0.3)


def plain(x):
    return jnp.tanh(x @ BELOW) @ ABOVE


@pytest.mark.parametrize(
    ("composite", "says"),
    [
        (lrp.GuidedBackprop(), "expected a composite of relevance, got GuidedBackprop"),
        (
            lrp.Composite(((lrp.first, lrp.Gamma()),)) | lrp.EpsilonPlus(),
            "expected one rule a place, got Gamma",
        ),
        (lrp.Composite(((lrp.first, lrp.Epsilon()),)), "expected a rule for every linear layer"),
    ],
)
def test_a_composite_that_has_no_tree_is_refused(composite, says):
    with pytest.raises(InputError, match=says):
        lrp.rule_parameters(plain, ONES, composite=composite)


def test_a_function_without_layers_is_refused():
    with pytest.raises(InputError, match="expected layers whose rules have numbers to tune, got none"):
        lrp.rule_parameters(jnp.tanh, ONES, composite=lrp.EpsilonPlus())


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda values: {}, InputTypeError, "expected numbers by place and field for ''"),
        (lambda values: None, InputTypeError, "expected numbers by place and field"),
        (lambda values: {"": {"gamma": 1.0}}, InputTypeError, "expected numbers by place and field"),
        (lambda values: {"": values[""] | {"gamma": -1.0}}, InputError, "expected gamma of '' of at least 0"),
        (lambda values: {"": values[""] | {"epsilon": np.nan}}, InputError, "expected epsilon of ''"),
        (
            lambda values: {"": values[""] | {"gamma": np.ones(2)}},
            InputTypeError,
            "expected one float as gamma",
        ),
    ],
)
def test_another_tree_is_refused(spoil, error, says):
    values, composed = lrp.rule_parameters(plain, ONES, composite=everywhere(lrp.Gamma()))
    with pytest.raises(error, match=says):
        composed(spoil(values))
