"""Relevance of weights against formulas, and against what layers hand on."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from formulas import assert_close, draw, normal
from jxai import lrp

pytestmark = pytest.mark.usefixtures("x64")

X = normal(5, 4)
W, B, V = normal(4, 6, seed=1), normal(6, seed=2), normal(6, 3, seed=3)
PARAMS = {"up": {"kernel": W, "bias": B}, "down": {"kernel": V}}
ZERO = lrp.AttnLRP(epsilon=0.0)


def mlp(params, x):
    hidden = jax.nn.gelu(x @ params["up"]["kernel"] + params["up"]["bias"])
    return hidden @ params["down"]["kernel"]


def test_dense_layers_equal_their_formula():
    epsilon = 0.1
    found = lrp.weight_relevance(mlp, PARAMS, X, composite=lrp.AttnLRP(epsilon=epsilon))
    stabilized = lambda z: z + np.where(z < 0, -epsilon, epsilon)  # noqa: E731
    z = X @ W + B
    hidden = np.asarray(jax.nn.gelu(z))
    y = hidden @ V
    share = y / stabilized(y)
    assert_close(found["down"]["kernel"], V * (hidden.T @ share))
    share = hidden * (share @ V.T) / stabilized(z)
    assert_close(found["up"]["kernel"], W * (X.T @ share))
    assert_close(found["up"]["bias"], B * share.sum(0))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(3, (2, 2), param_dtype=float, name="conv")(x))
        x = nn.LayerNorm(param_dtype=float, name="norm")(x)
        x = nn.avg_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1)
        return nn.Dense(3, param_dtype=float, name="dense")(x)


RULES = {
    "ε": lrp.Epsilon(0.1),
    "ε without bias": lrp.Epsilon(0.1, bias=False),
    "γ": lrp.Gamma(0.25),
    "γ without bias": lrp.Gamma(0.25, bias=False),
    "αβ": lrp.AlphaBeta(2.0, 1.0),
    "z⁺": lrp.ZPlus(),
    "w²": lrp.WSquare(),
    "flat": lrp.Flat(),
}


QUICK = ("ε", "γ", "αβ")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in RULES]
)
def test_weights_share_what_a_layer_hands_on(name):
    rule, model, x = RULES[name], Net(), normal(2, 4, 4, 2, seed=4)
    variables = draw(model, x)
    composite = lrp.Composite(((lrp.Kind.CONVOLUTION, rule), (lrp.Kind.DENSE, rule)))

    @jax.jit
    def both(variables, x):
        found = lrp.weight_relevance(lambda v, x: model.apply(v, x), variables, x, composite=composite)
        f = lambda x: model.apply(variables, x)  # noqa: E731
        y, pullback = lrp.vjp(f, x, composite=composite)
        return found["params"], pullback(y)[0], lrp.conservation(f, x, composite=composite)

    params, of_x, meters = both(variables, x)
    assert_close(params["conv"]["kernel"].sum(), of_x.sum())
    of_dense = meters.operations.index("dense")
    assert_close(params["dense"]["kernel"].sum(), np.asarray(meters.outgoing)[of_dense].sum())
    for layer, operation in (("dense", "dense"), ("conv", "convolution"), ("norm", "normalization add")):
        bias = np.asarray(meters.bias)[meters.operations.index(operation)].sum()
        np.testing.assert_allclose(params[layer]["bias"].sum(), bias, rtol=1e-8, atol=1e-12)


def test_layers_in_a_loop_have_theirs_stacked():
    kernels = normal(3, 4, 4, seed=5)

    def scanned(kernels, x):
        return jax.lax.scan(lambda x, w: (x + jax.nn.silu(x @ w), None), x, kernels)[0]

    def unrolled(kernels, x):
        for w in kernels:
            x = x + jax.nn.silu(x @ w)
        return x

    for gamma in (0.0, 0.25):
        composite = lrp.AttnLRP(gamma, epsilon=0.0)
        ours = lrp.weight_relevance(scanned, kernels, X, composite=composite)
        assert_close(ours, lrp.weight_relevance(unrolled, kernels, X, composite=composite), 1e-8)


def test_shared_weights_have_the_sum_and_data_adds_up():
    twice = lambda w, x: jax.nn.relu(x @ w) @ w  # noqa: E731
    apart = lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"]  # noqa: E731
    w = normal(4, 4, seed=6)
    ours = functools.partial(lrp.weight_relevance, composite=ZERO)
    parts = ours(apart, {"a": w, "b": w}, X)
    assert_close(ours(twice, w, X), parts["a"] + parts["b"])
    assert_close(ours(twice, w, X), ours(twice, w, X[:2]) + ours(twice, w, X[2:]))
    each = jax.vmap(lambda x: ours(twice, w, x[None]))(X)
    assert_close(ours(twice, w, X), each.sum(0))


def test_a_start_of_ones_own():
    relevance = normal(5, 3, seed=7)
    found = lrp.weight_relevance(mlp, PARAMS, X, composite=ZERO, start=lambda y: relevance)
    _, pullback = lrp.vjp(lambda x: mlp(PARAMS, x), X, composite=ZERO)
    assert_close(found["up"]["kernel"].sum(), pullback(relevance)[0].sum())
    with pytest.raises(ValueError, match="expected `start` to give relevance of the outputs' shapes"):
        lrp.weight_relevance(mlp, PARAMS, X, composite=ZERO, start=lambda y: y[0])


def test_tokens_trees_and_leaves_of_integers():
    table, ids = normal(7, 4, seed=8), np.array([[1, 2], [3, 3]])
    params = {"table": table, "kernel": W, "count": np.arange(3)}
    f = lambda p, ids: (jnp.asarray(p["table"])[ids] @ p["kernel"]) * 1.0  # noqa: E731
    found = lrp.weight_relevance(f, params, jnp.asarray(ids), composite=ZERO)
    assert not np.any(found["count"]) and not np.any(found["table"])
    assert_close(found["kernel"], W * (table[ids].reshape(-1, 4).T @ np.ones((4, 6))))


def test_what_is_held_hands_on_nothing():
    f = lambda p, x: jax.nn.silu(x @ p["gate"]) * (x @ p["up"])  # noqa: E731
    params = {"gate": W, "up": W[::-1]}
    found = lrp.weight_relevance(f, params, X, composite=lrp.CPLRP(epsilon=0.0))
    assert not np.any(found["gate"])
    assert_close(found["up"].sum(), np.asarray(f(params, X)).sum())


def test_pruning_what_has_no_relevance_changes_nothing():
    # A hidden unit that nothing reads has none, and the weights of the others stay as they are.
    dead = {"up": PARAMS["up"], "down": {"kernel": V * (np.arange(6) != 2)[:, None]}}
    found = lrp.weight_relevance(mlp, dead, X, composite=ZERO)
    of_units = np.abs(found["up"]["kernel"]).sum(0) + np.abs(found["down"]["kernel"]).sum(1)
    assert of_units.argmin() == 2 and of_units[2] < 1e-18 < np.delete(of_units, 2).min()
