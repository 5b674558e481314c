"""What the tests of LRP share: random arrays, composites, formulas, comparison, parameters."""

import itertools

import jax
import numpy as np
import pytest

from jxai import lrp
from jxai.lrp import Kind


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def of_layers(rule, *front, **options):
    """The rule at every linear layer, behind other pairs."""
    return lrp.Composite((*front, (Kind.CONVOLUTION, rule), (Kind.DENSE, rule)), **options)


LRP_0 = of_layers(lrp.Epsilon(0.0), name="LRP-0", complete=False)
X, Y, Z = normal(3, 2, 4, 6, seed=1)
KERNEL = normal(6, 6, seed=2)


def shared_out(names, rules, each=2):
    """Parameters (name, some of the rules): each rule in its turn, and every rule in the slow tests."""
    turns = itertools.cycle(rules)
    some = [pytest.param(name, tuple(itertools.islice(turns, each)), id=name) for name in names]
    every = [pytest.param(n, tuple(rules), id=f"{n}, every rule", marks=pytest.mark.slow) for n in names]
    return some + every


def draw(module, *args, **options):
    """Variables of a module in float64."""
    random = np.random.default_rng(3)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **options))
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape), shapes)


def explain(f, *xs, composite=LRP_0, relevance=None):
    """(y, relevance of each x), started at y itself where nothing is said."""

    @jax.jit
    def both(*xs):
        y, pullback = lrp.vjp(f, *xs, composite=composite)
        return y, pullback(y if relevance is None else relevance)

    return both(*xs)


def by_gradient(f, x, relevance, epsilon=0.0):
    """x ⊙ Jᵀ(R / S(y)): the ε rule of what is linear."""

    @jax.jit
    def transposed(x):
        y, pullback = jax.vjp(f, x)
        return pullback(relevance / stabilized(y, epsilon))[0]

    return x * np.asarray(transposed(x))


def stabilized(z, epsilon):
    """S(z), with sgn(0) = +1."""
    return z + epsilon * (1 - 2 * (z < 0))


def assert_close(ours, expected, rtol=1e-10, atol=None, name=""):
    """Leaf by leaf, to `rtol` of each entry and `atol` (`rtol`) of the largest."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        scale = max(np.abs(b).max(initial=0), 1e-30)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=(atol or rtol) * scale, err_msg=name)
