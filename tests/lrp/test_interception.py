"""How modules meet their rules: by name, by any way of calling them, and never silently without one."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import lrp


class Doubled(nn.Module):
    """A user's module without a rule: it is looked into."""

    @nn.compact
    def __call__(self, x):
        return 2 * nn.Dense(3, name="inner")(x)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm(name="norm")(Doubled(name="body")(x))


class Special(nn.Dense):
    """A user's subclass of a module of Flax's own."""


X = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
EPSILON = lrp.Composite(((nn.Dense, lrp.Epsilon(0.5)),), name="epsilon alone")


def explained(model, variables, composite=EPSILON, **options):
    y, pullback = lrp.vjp(lambda x: model.apply(variables, x, **options), X, composite=composite)
    return pullback(y)[0]


def by_hand(kernel, factor):
    """Relevance of factor·z with z = x W, started at the scores themselves."""
    z = X @ np.asarray(kernel)
    return X * ((factor * z / (z + 0.5 * np.where(z < 0, -1, 1))) @ np.asarray(kernel).T)


def test_modules_of_a_user_are_looked_into():
    variables = Doubled().init(jax.random.key(0), X)
    np.testing.assert_allclose(
        explained(Doubled(), variables), by_hand(variables["params"]["inner"]["kernel"], 2), rtol=1e-5
    )


def test_a_module_of_flax_without_a_rule_is_refused_with_its_path():
    variables = Normed().init(jax.random.key(0), X)
    message = (
        r"got none for LayerNorm at 'norm' in epsilon alone \(which has Epsilon\).*nn.LayerNorm, lrp.Pass"
    )
    with pytest.raises(ValueError, match=message):
        explained(Normed(), variables)
    explained(Normed(), variables, lrp.Composite(((nn.LayerNorm, lrp.Pass()),)) | EPSILON)  # what it advises


def test_the_advice_names_nested_modules():
    model = nn.Sequential([Normed()])
    with pytest.raises(ValueError, match="LayerNorm at 'layers_0/norm'"):
        explained(model, model.init(jax.random.key(0), X))


def test_sequential_and_dropout_need_no_rule():
    model = nn.Sequential([nn.Dense(3, use_bias=False), nn.Dropout(0.5, deterministic=True)])
    variables = model.init(jax.random.key(0), X)
    expected = by_hand(variables["params"]["layers_0"]["kernel"], 1)
    np.testing.assert_allclose(explained(model, variables), expected, rtol=1e-5)


def test_subclasses_have_the_rule_of_their_class():
    model = Special(3)
    variables = model.init(jax.random.key(0), X)
    np.testing.assert_allclose(
        explained(model, variables), by_hand(variables["params"]["kernel"], 1), rtol=1e-5
    )


def test_input_by_keyword_meets_the_rule_too():
    model = nn.Dense(3)
    variables = model.init(jax.random.key(0), X)
    y, pullback = lrp.vjp(lambda x: model.apply(variables, inputs=x), X, composite=EPSILON)
    np.testing.assert_allclose(pullback(y)[0], by_hand(variables["params"]["kernel"], 1), rtol=1e-5)


def test_the_input_keeps_its_place_among_keywords():
    model = nn.BatchNorm()
    variables = model.init(jax.random.key(0), X, use_running_average=True)
    composite = lrp.Composite(((nn.BatchNorm, lrp.Pass()),))
    y, pullback = lrp.vjp(
        lambda x: model.apply(variables, use_running_average=True, x=x), X, composite=composite
    )
    np.testing.assert_allclose(pullback(y)[0], y, rtol=1e-5)


def test_outside_of_vjp_nothing_is_intercepted():
    variables = Normed().init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="LayerNorm"):
        explained(Normed(), variables)
    gradient = jax.grad(lambda x: Doubled().apply({"params": variables["params"]["body"]}, x).sum())(X)
    kernel = np.asarray(variables["params"]["body"]["inner"]["kernel"])
    np.testing.assert_allclose(gradient, np.broadcast_to(2 * kernel.sum(1), X.shape), rtol=1e-5)


def test_jitted_functions_meet_the_rules_and_keep_no_trace_of_them():
    model = nn.Dense(3)
    x = jnp.array([[1.0, -2.0], [0.5, 3.0]])
    variables = model.init(jax.random.key(0), x)

    def relevance(f):
        y, pullback = lrp.vjp(f, x, composite=lrp.sun2020)
        return pullback(y)[0]

    def plain(x):
        return model.apply(variables, x)

    expected, gradient = relevance(plain), jax.grad(lambda x: plain(x).sum())(x)
    before = jax.jit(plain)
    before(x)
    chex.assert_trees_all_close(relevance(before), expected, rtol=1e-6)
    after = jax.jit(plain)
    chex.assert_trees_all_close(relevance(after), expected, rtol=1e-6)
    chex.assert_trees_all_close(jax.grad(lambda x: after(x).sum())(x), gradient, rtol=1e-6)
    chex.assert_trees_all_close(jax.jit(relevance, static_argnums=0)(after), expected, rtol=1e-6)
