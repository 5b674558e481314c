"""Products of activations, softmax, normalization and attention, against formulas in numpy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from formulas import KERNEL, LRP_0, X, Y, assert_close, by_gradient, draw, explain, normal, stabilized
from jxai import lrp

pytestmark = pytest.mark.usefixtures("x64")


# Products of activations.


def test_factors_share_a_product_evenly():
    relevance = normal(*X.shape)
    assert_close(explain(lambda x, y: x * y, X, Y, relevance=relevance)[1], [relevance / 2] * 2)


def test_factors_share_a_contraction_evenly():
    relevance = normal(2, 4, 4)
    y, ours = explain(lambda x, y: jnp.einsum("nic,njc->nij", x, y), X, Y, relevance=relevance)
    ratio = relevance / np.asarray(y) / 2
    assert_close(ours, [X * (ratio @ Y), Y * (ratio.swapaxes(1, 2) @ X)])


def test_an_activation_times_itself_has_its_relevance_once():
    y, (ours,) = explain(lambda x: jnp.einsum("nic,njc->nij", x, x), X)
    assert_close(ours.sum(), y.sum())


@pytest.mark.parametrize("how", ["rule", "stop_gradient"])
def test_gates_are_held_constant_on_demand(how):
    constant = lrp.Composite(((lax.logistic_p, lrp.Constant()),))
    stop = lax.stop_gradient if how == "stop_gradient" else lambda x: x
    composite = constant | LRP_0 if how == "rule" else LRP_0
    relevance = normal(*X.shape)
    _, (of_x, of_gate) = explain(
        lambda x, y: x * stop(nn.sigmoid(y @ KERNEL)), X, Y, composite=composite, relevance=relevance
    )
    assert_close(of_x, relevance)
    assert not np.asarray(of_gate).any()


def test_what_is_held_hands_on_nothing_even_at_the_end():
    composite = lrp.Composite(((lax.logistic_p, lrp.Constant()),)) | LRP_0
    with pytest.warns(UserWarning, match="expected relevance to reach the inputs, got none"):
        _, (ours,) = explain(nn.sigmoid, X, composite=composite)
    assert not np.asarray(ours).any()


def test_glu_gives_half_to_the_gate():
    relevance = normal(2, 4, 3)
    _, (ours,) = explain(nn.glu, X, relevance=relevance)
    assert_close(ours, np.concatenate([relevance / 2] * 2, -1))


def test_softmax_follows_attnlrp():
    relevance = normal(*X.shape)
    y, (ours,) = explain(nn.softmax, X, relevance=relevance)
    assert_close(ours, X * (relevance - np.asarray(y) * relevance.sum(-1, keepdims=True)))


def test_softmax_over_another_axis_in_a_product():
    # weights * x, summed: attention pooling.
    def f(x):
        return (nn.softmax(x @ KERNEL, axis=1) * x).sum(1) @ KERNEL

    y, (ours,) = explain(f, X)
    z = X @ KERNEL
    s = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    product = s * X * ((np.asarray(y) / np.asarray(y)) @ KERNEL.T)[:, None] / 2
    of_z = z * (product - s * product.sum(1, keepdims=True))
    assert_close(ours, product + X * ((of_z / z) @ KERNEL.T))


@pytest.mark.parametrize(
    "f", [nn.log_softmax, lambda x: jax.nn.logsumexp(x, -1)], ids=["log_softmax", "logsumexp"]
)
def test_shifts_by_the_maximum_stay_bounded(f):
    y, (ours,) = explain(f, X)
    assert np.abs(ours).max() < 1e3 * np.abs(y).max()


# Normalization takes its deviation as a constant; centering is linear (the program of Achtibat et al. 2024).


def normalized(axes, centerd, groups=None):
    """A function of x to (mean, variance), each of x's shape."""

    def statistics(x):
        parts = x if groups is None else x.reshape(*x.shape[:-1], groups, -1)
        mean = parts.mean(axes, keepdims=True) if centerd else 0
        variance = ((parts - mean) ** 2).mean(axes, keepdims=True)
        spread = lambda s: jnp.broadcast_to(s, parts.shape).reshape(x.shape)  # noqa: E731
        return spread(mean), spread(variance)

    return statistics


NORMS = {
    "LayerNorm": (nn.LayerNorm(), normalized(-1, True)),
    "LayerNorm, slow variance": (nn.LayerNorm(use_fast_variance=False), normalized(-1, True)),
    "LayerNorm over two axes": (
        nn.LayerNorm(reduction_axes=(-2, -1), feature_axes=(-2, -1)),
        normalized((-2, -1), True),
    ),
    "RMSNorm": (nn.RMSNorm(), normalized(-1, False)),
    "GroupNorm": (nn.GroupNorm(num_groups=3), normalized((1, 3), True, 3)),
    "InstanceNorm": (nn.InstanceNorm(), normalized(1, True)),
    "BatchNorm of the batch": (
        nn.BatchNorm(use_running_average=False, epsilon=1e-6),
        normalized((0, 1), True),
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_normalization_has_constant_statistics(name):
    module, statistics = NORMS[name]
    module = module.clone(param_dtype=float)
    variables = draw(module, X)

    def f(x):
        y = module.apply(variables, x, mutable=["batch_stats"])
        return y[0]

    relevance = normal(*X.shape)
    y, (ours,) = explain(f, X, relevance=relevance)
    variance = np.asarray(statistics(X)[1])

    def by_hand(x):
        z = (x - statistics(x)[0]) / np.sqrt(variance + 1e-6) * variables["params"]["scale"]
        return z + variables["params"].get("bias", 0)

    assert_close(y, by_hand(X))
    assert_close(ours, by_gradient(by_hand, X, relevance), 1e-8)


def test_normalization_by_hand_has_constant_statistics():
    def f(x):
        mean = x.mean(-1, keepdims=True)
        return (x - mean) / jnp.sqrt(jnp.var(x, -1, keepdims=True) + 1e-3)

    relevance = normal(*X.shape)
    _, (ours,) = explain(f, X, relevance=relevance)
    assert_close(ours, by_gradient(lambda x: x - x.mean(-1, keepdims=True), X, relevance))
    held = lrp.Composite(((lrp.Kind.CENTERING, lrp.Shift()),)) | LRP_0
    _, (ours,) = explain(f, X, composite=held, relevance=relevance)
    assert_close(ours, X / (X - X.mean(-1, keepdims=True)) * relevance)
    _, (ours,) = explain(lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), X, relevance=relevance)
    assert_close(ours, relevance)


def test_batch_statistics_pass_by_rule():
    module = nn.BatchNorm(use_running_average=False, param_dtype=float)
    variables, relevance = draw(module, X), normal(*X.shape)
    _, (ours,) = explain(
        lambda x: module.apply(variables, x, mutable=["batch_stats"])[0],
        X,
        composite=lrp.sun2020,
        relevance=relevance,
    )
    assert_close(ours, relevance)


class Spectral(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.SpectralNorm(nn.Dense(3, param_dtype=float))(x, update_stats=False)


@pytest.mark.parametrize(
    "module", [nn.WeightNorm(nn.Dense(3, param_dtype=float)), Spectral()], ids=["weight", "spectral"]
)
def test_normalized_weights_are_a_dense_layer(module):
    variables = draw(module, X)
    f = lambda x: module.apply(variables, x)  # noqa: E731
    relevance = normal(2, 4, 3)
    _, (ours,) = explain(f, X, composite=lrp.AttnLRP(epsilon=0.2), relevance=relevance)
    assert_close(ours, by_gradient(f, X, relevance, 0.2))


# Attention.


def attention(q, k, v, relevance, constant, mask=None):
    """Relevance of query, key and value, (N, T, H, D)."""
    q, k, v, relevance = (x.swapaxes(1, 2) for x in (q, k, v, relevance))
    logits = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1])
    logits = logits if mask is None else np.where(mask, logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    ratio = relevance / (weights @ v)
    of_v = v * (weights.swapaxes(2, 3) @ ratio)
    of_weights = weights * (ratio @ v.swapaxes(2, 3))
    if constant:
        return 0 * q.swapaxes(1, 2), 0 * k.swapaxes(1, 2), of_v.swapaxes(1, 2)
    of_v, of_weights = of_v / 2, of_weights / 2
    ratio = of_weights - weights * of_weights.sum(-1, keepdims=True)  # R / logit
    ratio = ratio / 2 / np.sqrt(q.shape[-1])
    found = q * (ratio @ k), k * (ratio.swapaxes(2, 3) @ q), of_v
    return tuple(x.swapaxes(1, 2) for x in found)


@pytest.mark.parametrize("constant", [False, True], ids=["AttnLRP", "CPLRP"])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_its_formula(constant, causal):
    q, k, v, relevance = normal(4, 2, 5, 2, 3)
    mask = np.tril(np.ones((5, 5), bool)) if causal else None
    composite = lrp.CPLRP() if constant else lrp.AttnLRP()
    _, ours = explain(
        lambda q, k, v: nn.dot_product_attention(q, k, v, mask=mask),
        q,
        k,
        v,
        composite=composite,
        relevance=relevance,
    )
    assert_close(ours, attention(q, k, v, relevance, constant, mask))
    if constant:
        assert not np.asarray(ours[0]).any() and not np.asarray(ours[1]).any()


@pytest.mark.parametrize("constant", [False, True], ids=["AttnLRP", "CPLRP"])
def test_multi_head_attention_equals_its_formula(constant):
    module = nn.MultiHeadDotProductAttention(2, param_dtype=float)
    params = draw(module, X)["params"]
    composite = (lrp.CPLRP if constant else lrp.AttnLRP)(epsilon=0.1)
    relevance = normal(*X.shape)
    _, (ours,) = explain(
        lambda x: module.apply({"params": params}, x), X, composite=composite, relevance=relevance
    )

    def dense(x, layer):
        axes = layer["kernel"].ndim - 1 if layer is not params["out"] else 2
        return np.tensordot(x, layer["kernel"], 1 if axes == 2 and x.ndim == 3 else 2) + layer["bias"]

    q, k, v = (dense(X, params[name]) for name in ("query", "key", "value"))
    heads = np.asarray(nn.dot_product_attention(q, k, v))
    out = params["out"]["kernel"]
    share = relevance / stabilized(dense(heads, params["out"]), 0.1)
    of_heads = heads * np.einsum("ntc,hdc->nthd", share, out)
    # The query's division by √d is merged into its dense layer, whose stabilizer sees what it gives then.
    sizes = {"query": 0.1 * np.sqrt(3), "key": 0.1, "value": 0.1}
    expected = 0
    for name, z, r in zip(
        ("query", "key", "value"), (q, k, v), attention(q, k, v, of_heads, constant), strict=True
    ):
        expected = expected + X * np.einsum(
            "nthd,chd->ntc", r / stabilized(z, sizes[name]), params[name]["kernel"]
        )
    assert_close(ours, expected, 1e-8)


def test_dropped_attention_is_explained_as_it_ran():
    module = nn.MultiHeadDotProductAttention(
        2, param_dtype=float, dropout_rate=0.3, deterministic=False, use_bias=False
    )
    variables = draw(module, X)
    y, (ours,) = explain(
        lambda x: module.apply(variables, x, rngs={"dropout": jax.random.key(1)}), X, composite=lrp.CPLRP()
    )
    assert_close(ours.sum(), y.sum(), 1e-4)
