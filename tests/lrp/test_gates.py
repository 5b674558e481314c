"""What CP-LRP holds constant: the gates of gated products, and softmaxes that weigh other activations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from formulas import assert_close, by_gradient, explain, normal
from jxai import lrp

pytestmark = pytest.mark.usefixtures("x64")

X, Y = normal(2, 5, 4), normal(2, 5, 4, seed=1)
CP = lrp.CPLRP(epsilon=0.0)
ACTIVATIONS = {
    "silu": nn.silu,
    "gelu": nn.gelu,
    "exact gelu": lambda x: nn.gelu(x, approximate=False),
    "relu": nn.relu,
    "sigmoid": nn.sigmoid,
    "by hand": lambda x: x / (1 + jnp.exp(-x)),
    "squared relu": lambda x: nn.relu(x) ** 2,
    "mish": lambda x: x * jnp.tanh(nn.softplus(x)),
    "scaled": lambda x: 2.0 * nn.silu(x),
    "reshaped": lambda x: nn.silu(x.reshape(2, -1)).reshape(x.shape),
    "normalized": lambda x: nn.sigmoid(x) / nn.sigmoid(x).sum(-1, keepdims=True),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_a_gate_multiplies_gets_all(name):
    gate = ACTIVATIONS[name]
    relevance = normal(*X.shape, seed=2)
    for f in (lambda g, u: gate(g) * u, lambda g, u: u * gate(g)):
        _, (of_gate, of_value) = explain(f, X, Y, composite=CP, relevance=relevance)
        assert not np.asarray(of_gate).any()
        assert_close(of_value, np.where(np.asarray(gate(X)) == 0, 0, relevance))


@pytest.mark.parametrize(
    "f",
    [lambda x, y: x * y, lambda x, y: nn.tanh(x) * nn.sigmoid(y), lambda x, y: 3.0 * x * (y + 0.0)],
    ids=["no gate", "two gates", "scaled"],
)
def test_without_one_gate_each_factor_gets_half(f):
    relevance = normal(*X.shape, seed=2)
    assert_close(explain(f, X, Y, composite=CP, relevance=relevance)[1], [relevance / 2] * 2)


def test_gates_get_half_where_a_composite_says_so():
    halves = lrp.Composite(((lrp.Kind.PRODUCT, lrp.Split()),)) | CP
    relevance = normal(*X.shape, seed=2)
    _, ours = explain(lambda g, u: nn.silu(g) * u, X, Y, composite=halves, relevance=relevance)
    assert_close(ours, [relevance / 2] * 2)
    attn = lrp.Composite(((lrp.Kind.PRODUCT, lrp.HoldGate()),)) | lrp.AttnLRP(epsilon=0.0)
    _, ours = explain(lambda g, u: nn.silu(g) * u, X, Y, composite=attn, relevance=relevance)
    assert_close(ours, [0 * relevance, relevance])


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "normalized"])
def test_activations_that_are_held_hand_on_nothing(name):
    held = lrp.Composite(((lrp.Kind.ACTIVATION, lrp.Constant()),)) | lrp.AttnLRP(epsilon=0.0)
    relevance = normal(*X.shape, seed=2)

    def f(g, u):
        return ACTIVATIONS[name](g) * u + u

    _, (of_gate, of_value) = explain(f, X, Y, composite=held, relevance=relevance)
    assert not np.asarray(of_gate).any()
    assert_close(of_value, by_gradient(lambda u: f(X, u), Y, relevance))


def test_a_gate_is_none_of_what_is_explained_in_loops_too():
    kernels = normal(3, 2, 4, 4, seed=3)

    def block(x, w):
        return x + nn.silu(x @ w[0]) * (x @ w[1]), None

    held = lambda x: lax.scan(  # noqa: E731
        lambda x, w: (x + lax.stop_gradient(nn.silu(x @ w[0])) * (x @ w[1]), None), x, kernels
    )[0]
    for f in (
        lambda x: lax.scan(block, x, kernels)[0],
        lambda x: lax.scan(jax.checkpoint(block), x, kernels)[0],
    ):
        y, (ours,) = explain(f, X, composite=CP)
        assert_close(ours, by_gradient(held, X, np.asarray(y)))


WEIGHTS = {
    "softmax": lambda s: nn.softmax(s),
    "rematerialized": lambda s: jax.checkpoint(nn.softmax)(s),
    "dropped": lambda s: jnp.where(np.arange(25).reshape(5, 5) % 3 > 0, nn.softmax(s) / 0.7, 0.0),
    "heads mixed": lambda s: jnp.einsum("nij,nm->mij", nn.softmax(s), normal(2, 2, seed=5)),
    "sigmoids": nn.sigmoid,
    "squared relu": lambda s: nn.relu(s) ** 2,
    "top two": lambda s: lax.top_k(nn.softmax(s), 2)[0][..., [0, 1, 0, 1, 0]],
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_values_get_all_of_attention(name):
    weights = WEIGHTS[name]
    relevance = normal(2, 5, 4, seed=2)

    def f(x, v):
        return weights(x @ x.swapaxes(1, 2)) @ v

    _, (of_x, of_v) = explain(f, X, Y, composite=CP, relevance=relevance)
    assert not np.asarray(of_x).any()
    assert_close(of_v, by_gradient(lambda v: f(X, v), Y, relevance))


def test_weights_that_a_loop_carries_are_held():
    def f(x, v):
        def step(weights, x):
            return nn.softmax(x), weights @ v

        return lax.scan(step, jnp.full((5,), 0.2), x)[1]

    _, (of_x, of_v) = explain(f, normal(3, 5), normal(5, 4, seed=1), composite=CP)
    assert not np.asarray(of_x).any()
    assert np.asarray(of_v).any()


SCORES = {
    "softmax": nn.softmax,
    "log softmax": nn.log_softmax,
    "rematerialized": jax.checkpoint(nn.softmax),
    "then a layer": lambda x: nn.softmax(x) @ normal(4, 3, seed=4),
    "then an activation": lambda x: nn.relu(nn.softmax(x) - 0.2) * 2.0,
}


@pytest.mark.parametrize("name", SCORES)
def test_scores_softmax_is_no_attention(name):
    f = lambda x: SCORES[name](x @ normal(4, 4, seed=3))  # noqa: E731
    relevance = normal(*np.shape(f(X)), seed=2)
    expected = explain(f, X, composite=lrp.AttnLRP(epsilon=0.0), relevance=relevance)[1]
    assert_close(explain(f, X, composite=CP, relevance=relevance)[1], expected)
    assert np.asarray(expected[0]).any()
    (row,) = [
        row for row in lrp.coverage(f, X, composite=CP).rows if row.operation.kind is lrp.Kind.SOFTMAX
    ] or [None]
    assert row is None or not lrp.attention_weights(row.operation)
