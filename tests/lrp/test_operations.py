"""What lies between modules: each operation against a formula written a second time in numpy, in float64."""

import re
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jxai import lrp

LRP_0 = lrp.AttnLRP(epsilon=0.0)
RANDOM = np.random.default_rng(0)
X, Y, Z = RANDOM.normal(size=(3, 2, 4, 6))
MAPS = RANDOM.normal(size=(2, 5, 4, 3))
KERNEL = RANDOM.normal(size=(6, 6))


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


# Compiled once and run once: XLA's own passes would cost more than they save.
compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def explain(f, *xs, composite=LRP_0, relevance=None):
    """(y, relevance of each x)."""

    @compiled
    def both(*xs):
        y, pullback = lrp.vjp(f, *xs, composite=composite)
        return y, pullback(y if relevance is None else relevance)

    return both(*xs)


def by_gradient(f, x, relevance, epsilon=0.0):
    """x ⊙ Jᵀ(R / S(y)): the ε rule of what is linear."""

    @compiled
    def transposed(x):
        y, pullback = jax.vjp(f, x)
        return pullback(relevance / stabilised(y, epsilon))[0]

    return x * np.asarray(transposed(x))


def assert_close(ours, expected, rtol=1e-10):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(np.abs(b).max(), 1e-30))


def draw(module, *args, **options):
    """Variables of a module in float64."""
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **options))
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape), shapes)


def stabilised(z, epsilon):
    return z + epsilon * (1 - 2 * (z < 0))


# Activations pass.

ACTIVATIONS = {
    "relu6": nn.relu6,
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "selu": nn.selu,
    "celu": nn.celu,
    "gelu": nn.gelu,
    "gelu exact": lambda x: nn.gelu(x, approximate=False),
    "gelu quick": lambda x: x * nn.sigmoid(1.702 * x),
    "silu": nn.silu,
    "mish": lambda x: x * jnp.tanh(nn.softplus(x)),
    "tanh": jnp.tanh,
    "sigmoid": nn.sigmoid,
    "log_sigmoid": nn.log_sigmoid,
    "softplus": nn.softplus,
    "soft_sign": nn.soft_sign,
    "hard_swish": nn.hard_swish,
    "hard_tanh": nn.hard_tanh,
    "by hand": lambda x: jnp.where(x > 1, x, 0.3 * jnp.sin(x) + x**3),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_pass_also_at_zero(name):
    x = np.where(X > 0.5, 0, X)
    relevance = RANDOM.normal(size=x.shape)
    y, (ours,) = explain(ACTIVATIONS[name], x, relevance=relevance)
    assert_close(y, ACTIVATIONS[name](x))
    assert_close(ours, relevance)


def test_relu_passes():
    x = X.copy()
    x[0, 0] = 0
    relevance = np.where(x > 0, RANDOM.normal(size=x.shape), 0)
    assert_close(explain(nn.relu, x, relevance=relevance)[1][0], relevance)


def test_what_passes_to_zeros_of_relu_is_not_lost():
    # As in DenseNet: ReLU, max pooling, then batch norm, which gives the zeros a value again.
    relevance = RANDOM.normal(size=(2, 4, 6))
    y, (ours,) = explain(lambda x: nn.sigmoid(jnp.roll(nn.relu(x), 1, 1)) @ KERNEL, X, relevance=relevance)
    hidden = 1 / (1 + np.exp(-np.maximum(np.roll(X, 1, 1), 0)))
    assert_close(ours, np.roll(hidden * ((relevance / np.asarray(y)) @ KERNEL.T), -1, 1))


def test_activations_pass_inside_of_modules_between_layers():
    model = nn.Sequential([nn.Dense(5, param_dtype=float), nn.gelu, nn.Dense(2, param_dtype=float)])
    variables = draw(model, X)
    first, last = (variables["params"][name] for name in ("layers_0", "layers_2"))
    z = X @ first["kernel"] + first["bias"]
    hidden = np.asarray(jax.nn.gelu(z))
    y, (ours,) = explain(lambda x: model.apply(variables, x), X, composite=lrp.EpsilonPlus(epsilon=0.1))
    expected = hidden * ((np.asarray(y) / stabilised(y, 0.1)) @ last["kernel"].T)
    assert_close(ours, X * ((expected / stabilised(z, 0.1)) @ first["kernel"].T))


# What is linear in what carries relevance, or chooses among it: LRP-0 is input times gradient.

MOVES = {
    "sum with a shortcut": lambda x: x + x @ KERNEL,
    "difference": lambda x: x - x @ KERNEL,
    "sum of three": lambda x: x + x @ KERNEL + jnp.roll(x, 1, 1),
    "itself twice": lambda x: x + x,
    "concatenation": lambda x: jnp.concatenate([x[..., :2], 2 * x, x[..., ::2]], -1) @ np.ones((11, 6)),
    "stack": lambda x: jnp.stack([x, -x[:, ::-1]], 1),
    "slices": lambda x: x[:, 1:3, ::2] * 3,
    "dynamic slice": lambda x: lax.dynamic_slice_in_dim(x, 1, 2, 1),
    "gather": lambda x: x[:, np.array([0, 2, 2])],
    "set": lambda x: jnp.zeros((2, 6, 6)).at[:, np.array([0, 3, 1, 5])].set(x),
    "segment sum": lambda x: jax.ops.segment_sum(x.swapaxes(0, 1), np.array([0, 1, 0, 1]), num_segments=2),
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0))),
    "reshape and transpose": lambda x: x.reshape(2, 2, 2, 6).transpose(3, 0, 2, 1),
    "repeat": lambda x: jnp.repeat(x, 2, 1),
    "mean": lambda x: x.mean(1),
    "masked mean": lambda x: jnp.mean(x, 1, where=np.array([True, False, True, True])[:, None]),
    "cumsum": lambda x: jnp.cumsum(x, 1),
    "resize": lambda x: jax.image.resize(x, (2, 8, 6), "bilinear"),
    "max": lambda x: x.max(1),
    "maximum of halves": lambda x: jnp.maximum(x[:, :2], x[:, 2:]),
    "sort": lambda x: jnp.sort(x, 1),
    "top_k": lambda x: lax.top_k(x, 2)[0],
    "argmax": lambda x: jnp.take_along_axis(x, jnp.argmax(x, 1, keepdims=True), 1),
    "integer mask": lambda x: x * np.array([1, 0, 1, 1])[:, None],
    "where by a mask": lambda x: jnp.where(np.arange(6) > 2, x, 0),
    "where by the input": lambda x: jnp.where(x[:, ::-1] > 0, x, x @ KERNEL),
    "mask from the input": lambda x: x * (x[:, :1] > 0),
    "cast": lambda x: x.astype(jnp.float32).astype(float),
    "dropout": lambda x: nn.Dropout(0.4, deterministic=False).apply(
        {}, x, rngs={"dropout": jax.random.key(0)}
    ),
    "dropout off": lambda x: nn.Dropout(0.4, deterministic=True).apply({}, x),
    "optimization barrier": lambda x: lax.optimization_barrier(x) * 2,
    "scale": lambda x: -x * np.arange(1, 7) / 3,
    "vmap": lambda x: jax.vmap(lambda x: x[0] + x[1:] @ KERNEL)(x),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves_are_input_times_gradient(name):
    # A dense layer without stabiliser on top: relevance of the operation is in proportion to its values.
    def f(x):
        z = MOVES[name](x)
        return z.reshape(2, -1) @ np.random.default_rng(2).normal(size=(z.size // 2, 3))

    relevance = RANDOM.normal(size=(2, 3))
    _, (ours,) = explain(f, X, relevance=relevance)
    rtol = 1e-4 if name == "cast" else 1e-10
    assert_close(ours, by_gradient(f, X, relevance), rtol)
    assert_close(np.sum(ours), relevance.sum(), 10 * rtol)


POOLS = {
    "2x2": dict(window_shape=(2, 2), strides=(2, 2)),
    "3x2 SAME": dict(window_shape=(3, 2), strides=(2, 1), padding="SAME"),
    "padded": dict(window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (0, 1))),
}


def windows(shape, window_shape, strides, padding="VALID"):
    """For each output position of pooling, the input's positions in its window."""
    sizes = shape[1:3]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(sizes, window_shape, strides, padding)
    spans = [
        [
            range(max(0, i - low), min(size, i - low + window))
            for i in range(0, size + low + high - window + 1, step)
        ]
        for size, window, step, (low, high) in zip(sizes, window_shape, strides, padding, strict=True)
    ]
    return [(i, j, rows, columns) for i, rows in enumerate(spans[0]) for j, columns in enumerate(spans[1])]


@pytest.mark.parametrize("epsilon", [None, 0.5])
@pytest.mark.parametrize("name", POOLS)
def test_average_pooling_is_in_proportion(name, epsilon):
    options = POOLS[name]
    composite = lrp.Composite() if epsilon is None else lrp.Composite(((lrp.Kind.MEAN, lrp.Norm(epsilon)),))
    y = np.asarray(nn.avg_pool(MAPS, **options))
    relevance = RANDOM.normal(size=y.shape)
    expected = np.zeros_like(MAPS)
    share = relevance / stabilised(y, epsilon or 0) / np.prod(options["window_shape"])
    for i, j, rows, columns in windows(MAPS.shape, **options):
        at = np.ix_(range(2), rows, columns)
        expected[at] += MAPS[at] * share[:, i, j][:, None, None]
    _, (ours,) = explain(lambda x: nn.avg_pool(x, **options), MAPS, composite=composite, relevance=relevance)
    # Without a rule, a mean at the end is stabilised by 1e-6.
    assert_close(ours, expected, 1e-10 if epsilon else 1e-3)


@pytest.mark.parametrize("name", POOLS)
def test_max_pooling_goes_to_the_winner(name):
    options = POOLS[name]
    expected = np.zeros_like(MAPS)
    y = np.asarray(nn.max_pool(MAPS, **options))
    relevance = RANDOM.normal(size=y.shape)
    for i, j, rows, columns in windows(MAPS.shape, **options):
        at = np.ix_(range(2), rows, columns)
        expected[at] += (MAPS[at] == y[:, i, j][:, None, None]) * relevance[:, i, j][:, None, None]
    _, (ours,) = explain(lambda x: nn.max_pool(x, **options), MAPS, relevance=relevance)
    assert_close(ours, expected)


SUMS = {
    "two": (lambda a, b, c: a + b, (1, 1, 0)),
    "difference": (lambda a, b, c: a - b, (1, -1, 0)),
    "three": (lambda a, b, c: a + b + c, (1, 1, 1)),
    "three, right to left": (lambda a, b, c: a + (b + c), (1, 1, 1)),
    "three and signs": (lambda a, b, c: -(a - b) + c, (-1, 1, 1)),
    "python's sum": (lambda a, b, c: sum([a, b, c]), (1, 1, 1)),
    "broadcast": (lambda a, b, c: a + b.mean(1, keepdims=True) * 4, None),
}


@pytest.mark.parametrize("epsilon", [None, 0.0, 0.3])
@pytest.mark.parametrize("name", SUMS)
def test_sums_are_in_proportion(name, epsilon):
    # The stabiliser sees the whole sum, no partial one.
    f, signs = SUMS[name]
    composite = LRP_0 if epsilon is None else lrp.Composite(((lrp.Kind.SUM, lrp.Norm(epsilon)),)) | LRP_0
    y, ours = explain(lambda *xs: f(*xs) @ KERNEL, X, Y, Z, composite=composite)
    z = np.asarray(f(X, Y, Z))
    share = (np.asarray(y) / np.asarray(y)) @ KERNEL.T * z / stabilised(z, epsilon or 0)
    if signs is None:
        expected = (X * share, Y * share.sum(1, keepdims=True), 0 * Z)
    else:
        expected = [sign * x * share for sign, x in zip(signs, (X, Y, Z), strict=True)]
    if name == "three and signs" and epsilon:
        # A sign in between ends the sum: stabilised on its own.
        inner = X - Y
        share = share * inner / stabilised(inner, epsilon)
        expected = [-X * share, Y * share, expected[2]]
    assert_close(ours, expected)


def test_terms_of_a_sum_of_zero_share_evenly_in_sun2020():
    relevance = RANDOM.normal(size=(2, 2))
    x, y = np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([[3.0, -2.0], [0.0, -1.0]])
    _, ours = explain(lambda x, y: x + y, x, y, composite=lrp.sun2020, relevance=relevance)
    z = stabilised(x + y, 0.01)
    for term, r in zip((x, y), ours, strict=True):
        assert_close(r, np.where(x + y == 0, relevance / 2, term * relevance / z))


# Contractions with what does not depend on the input are dense layers, however written.

CONTRACTIONS = {
    "@": lambda x: x @ KERNEL,
    "@ from the left": lambda x: KERNEL[:, :4] @ x,
    "with a bias": lambda x: x @ KERNEL + np.arange(6.0),
    "with a bias before a reshape": lambda x: (x @ KERNEL).reshape(2, 2, 12) + np.ones(12),
    "einsum, transposed": lambda x: jnp.einsum("abc,cd->dab", x, KERNEL),
    "einsum over two axes": lambda x: jnp.einsum("abc,bcd->ad", x, np.sin(np.arange(96.0)).reshape(4, 6, 4)),
    "einsum in a batch": lambda x: jnp.einsum("abc,bcd->abd", x, np.cos(np.arange(48.0)).reshape(4, 6, 2)),
    "tensordot": lambda x: jnp.tensordot(x, KERNEL, ((2,), (1,))),
    "dot_general": lambda x: lax.dot_general(KERNEL, x, (((0,), (2,)), ((), ()))),
    "vmap": lambda x: jax.vmap(lambda x: x @ KERNEL)(x),
    "convolution": lambda x: lax.conv_general_dilated(
        x, KERNEL.reshape(2, 6, 3), (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC")
    ),
    "jitted": jax.jit(lambda x: x @ KERNEL),
}


@pytest.mark.parametrize("name", CONTRACTIONS)
def test_contractions_equal_their_formula(name):
    f = CONTRACTIONS[name]
    relevance = RANDOM.normal(size=jax.eval_shape(f, X).shape)
    composite = lrp.Composite(((lrp.Kind.DENSE, lrp.Epsilon(0.2)), (lrp.Kind.CONVOLUTION, lrp.Epsilon(0.2))))
    _, (ours,) = explain(f, X, composite=composite, relevance=relevance)
    assert_close(ours, by_gradient(f, X, relevance, 0.2))


# Products of activations.


def test_factors_share_a_product_evenly():
    relevance = RANDOM.normal(size=X.shape)
    assert_close(explain(lambda x, y: x * y, X, Y, relevance=relevance)[1], [relevance / 2] * 2)


def test_factors_share_a_contraction_evenly():
    relevance = RANDOM.normal(size=(2, 4, 4))
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
    relevance = RANDOM.normal(size=X.shape)
    _, (of_x, of_gate) = explain(
        lambda x, y: x * stop(nn.sigmoid(y @ KERNEL)), X, Y, composite=composite, relevance=relevance
    )
    assert_close(of_x, relevance)
    assert not np.asarray(of_gate).any()


def test_what_is_held_hands_on_nothing_even_at_the_end():
    composite = lrp.Composite(((lax.logistic_p, lrp.Constant()),)) | LRP_0
    _, (ours,) = explain(nn.sigmoid, X, composite=composite)
    assert not np.asarray(ours).any()


def test_glu_gives_half_to_the_gate():
    relevance = RANDOM.normal(size=(2, 4, 3))
    _, (ours,) = explain(nn.glu, X, relevance=relevance)
    assert_close(ours, np.concatenate([relevance / 2] * 2, -1))


def test_softmax_follows_attnlrp():
    relevance = RANDOM.normal(size=X.shape)
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


# Normalisation takes its statistics as constants.


def normalised(axes, centred, groups=None):
    """A function of (x, scale, bias) to (y, dy/dx with the statistics constant)."""

    def statistics(x):
        parts = x if groups is None else x.reshape(*x.shape[:-1], groups, -1)
        mean = parts.mean(axes, keepdims=True) if centred else 0
        variance = ((parts - mean) ** 2).mean(axes, keepdims=True)
        spread = lambda s: np.broadcast_to(s, parts.shape).reshape(x.shape)  # noqa: E731
        return spread(mean), spread(variance)

    return statistics


NORMS = {
    "LayerNorm": (nn.LayerNorm(), normalised(-1, True)),
    "LayerNorm, slow variance": (nn.LayerNorm(use_fast_variance=False), normalised(-1, True)),
    "LayerNorm over two axes": (
        nn.LayerNorm(reduction_axes=(-2, -1), feature_axes=(-2, -1)),
        normalised((-2, -1), True),
    ),
    "RMSNorm": (nn.RMSNorm(), normalised(-1, False)),
    "GroupNorm": (nn.GroupNorm(num_groups=3), normalised((1, 3), True, 3)),
    "InstanceNorm": (nn.InstanceNorm(), normalised(1, True)),
    "BatchNorm of the batch": (
        nn.BatchNorm(use_running_average=False, epsilon=1e-6),
        normalised((0, 1), True),
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_normalisation_has_constant_statistics(name):
    module, statistics = NORMS[name]
    module = module.clone(param_dtype=float)
    variables = draw(module, X)

    def f(x):
        y = module.apply(variables, x, mutable=["batch_stats"])
        return y[0]

    relevance = RANDOM.normal(size=X.shape)
    y, (ours,) = explain(f, X, relevance=relevance)
    mean, variance = statistics(X)

    def by_hand(x):
        z = (x - mean) / np.sqrt(variance + 1e-6) * variables["params"]["scale"]
        return z + variables["params"].get("bias", 0)

    assert_close(y, by_hand(X))
    assert_close(ours, by_gradient(by_hand, X, relevance), 1e-8)


def test_normalisation_by_hand_has_constant_statistics():
    def f(x):
        mean = x.mean(-1, keepdims=True)
        return (x - mean) / jnp.sqrt(jnp.var(x, -1, keepdims=True) + 1e-3)

    relevance = RANDOM.normal(size=X.shape)
    _, (ours,) = explain(f, X, relevance=relevance)
    assert_close(ours, X / (X - X.mean(-1, keepdims=True)) * relevance)
    _, (ours,) = explain(lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), X, relevance=relevance)
    assert_close(ours, relevance)


def test_batch_statistics_pass_by_rule():
    module = nn.BatchNorm(use_running_average=False, param_dtype=float)
    variables, relevance = draw(module, X), RANDOM.normal(size=X.shape)
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
def test_normalised_weights_are_a_dense_layer(module):
    variables = draw(module, X)
    f = lambda x: module.apply(variables, x)  # noqa: E731
    relevance = RANDOM.normal(size=(2, 4, 3))
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
    q, k, v, relevance = RANDOM.normal(size=(4, 2, 5, 2, 3))
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
    relevance = RANDOM.normal(size=X.shape)
    _, (ours,) = explain(
        lambda x: module.apply({"params": params}, x), X, composite=composite, relevance=relevance
    )

    def dense(x, layer):
        axes = layer["kernel"].ndim - 1 if layer is not params["out"] else 2
        return np.tensordot(x, layer["kernel"], 1 if axes == 2 and x.ndim == 3 else 2) + layer["bias"]

    q, k, v = (dense(X, params[name]) for name in ("query", "key", "value"))
    heads = np.asarray(nn.dot_product_attention(q, k, v))
    out = params["out"]["kernel"]
    share = relevance / stabilised(dense(heads, params["out"]), 0.1)
    of_heads = heads * np.einsum("ntc,hdc->nthd", share, out)
    # The query's division by √d is merged into its dense layer, whose stabiliser sees what it gives then.
    sizes = {"query": 0.1 * np.sqrt(3), "key": 0.1, "value": 0.1}
    expected = 0
    for name, z, r in zip(
        ("query", "key", "value"), (q, k, v), attention(q, k, v, of_heads, constant), strict=True
    ):
        expected = expected + X * np.einsum(
            "nthd,chd->ntc", r / stabilised(z, sizes[name]), params[name]["kernel"]
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


# Loops and branches.


class Cell(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm(param_dtype=float)(x)
        return x + nn.gelu(nn.Dense(6, param_dtype=float)(y))


class ScanCell(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return Cell(name="cell")(x), x.mean()


class Loop(nn.Module):
    cell: type = ScanCell

    @nn.compact
    def __call__(self, x):
        loop = nn.scan(self.cell, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return nn.Dense(2, param_dtype=float)(loop(name="loop")(x, None)[0])


class Unrolled(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i in range(3):
            x = Cell(name=f"cell{i}")(x)
        return nn.Dense(2, param_dtype=float)(x)


def unrolled(params):
    cells = {f"cell{i}": jax.tree.map(lambda leaf, i=i: leaf[i], params["loop"]["cell"]) for i in range(3)}
    return {**cells, "Dense_0": params["Dense_0"]}


@pytest.mark.parametrize(
    ("composite", "cell"),
    [
        (lrp.AttnLRP(), ScanCell),
        (lrp.AttnLRP(gamma=0.25), nn.remat(ScanCell)),
        (lrp.ExcitationBackprop(), ScanCell),
        (lrp.GuidedBackprop(), nn.remat(ScanCell)),
        (lrp.Deconvnet(), ScanCell),
    ],
)
def test_linen_scan_equals_the_unrolled_model(composite, cell):
    params = draw(Loop(), X)["params"]
    ours = explain(lambda x: Loop(cell).apply({"params": params}, x), X, composite=composite)
    plain = explain(lambda x: Unrolled().apply({"params": unrolled(params)}, x), X, composite=composite)
    assert_close(ours, plain, 1e-4)


WRAPPED = {"remat": nn.remat(Cell), "jit": nn.jit(Cell), "remat of jit": nn.remat(nn.jit(Cell))}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_modules_equal_the_plain_one(name):
    params = draw(Cell(), X)
    ours = explain(lambda x: WRAPPED[name]().apply(params, x), X)
    assert_close(ours, explain(lambda x: Cell().apply(params, x), X), 1e-6)


class Mapped(nn.Module):
    @nn.compact
    def __call__(self, x):
        dense = nn.vmap(
            nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=1, out_axes=1
        )
        return nn.gelu(dense(3, param_dtype=float, name="dense")(x))


def test_linen_vmap_equals_a_loop():
    params = draw(Mapped(), X)["params"]

    def loop(x):
        layers = [jax.tree.map(lambda leaf, i=i: leaf[i], params["dense"]) for i in range(4)]
        return jnp.stack([nn.gelu(x[:, i] @ p["kernel"] + p["bias"]) for i, p in enumerate(layers)], 1)

    composite = lrp.AttnLRP(gamma=0.25)
    ours = explain(lambda x: Mapped().apply({"params": params}, x), X, composite=composite)
    assert_close(ours, explain(loop, X, composite=composite), 1e-6)


WEIGHTS = RANDOM.normal(size=(3, 6, 6))


def step(x, w):
    return nn.relu(x @ w + 0.1) + x


def repeated(x):
    for w in WEIGHTS:
        x = step(x, w)
    return x @ KERNEL


def carried(x):
    carry, found = jnp.zeros((2, 6)), []
    for i in (3, 2, 1, 0):
        found.append(carry)
        carry = step(carry, KERNEL) + x[:, i]
    return jnp.stack(found[::-1], 1)


@cache
def repeated_relevance(composite):
    return explain(repeated, X, composite=composite)


# name -> (with the transformation, without)
TRANSFORMED = {
    "checkpoint": (jax.checkpoint(repeated), repeated),
    "checkpoint with a policy": (
        jax.checkpoint(repeated, policy=jax.checkpoint_policies.dots_saveable),
        repeated,
    ),
    "jit": (jax.jit(repeated), repeated),
    "vmap": (jax.vmap(repeated), repeated),
    "map": (lambda x: lax.map(repeated, x), repeated),
    "scan over weights": (
        lambda x: lax.scan(lambda x, w: (step(x, w), None), x, WEIGHTS)[0] @ KERNEL,
        repeated,
    ),
    "scan, unrolled twice": (
        lambda x: lax.scan(lambda x, w: (step(x, w), None), x, WEIGHTS, unroll=2)[0] @ KERNEL,
        repeated,
    ),
    "scan of checkpoint": (
        lambda x: lax.scan(lambda x, w: (jax.checkpoint(step)(x, w), None), x, WEIGHTS)[0] @ KERNEL,
        repeated,
    ),
    "scan over the input, in reverse": (
        lambda x: lax.scan(
            lambda c, x: (step(c, KERNEL) + x, c * 2), jnp.zeros((2, 6)), x.swapaxes(0, 1), reverse=True
        )[1].swapaxes(0, 1),
        lambda x: 2 * carried(x),
    ),
    "fori_loop": (
        lambda x: lax.fori_loop(0, 3, lambda i, x: step(x, jnp.asarray(WEIGHTS)[i]), x) @ KERNEL,
        repeated,
    ),
    "cond": (lambda x: lax.cond(X.sum() > -1e9, repeated, lambda x: x, x), repeated),
    "cond by the input": (lambda x: lax.cond(x.sum() < 1e9, repeated, jnp.zeros_like, x), repeated),
    "switch": (
        lambda x: lax.switch(jnp.asarray(1), [jnp.zeros_like, repeated, lambda x: -x], x),
        repeated,
    ),
    "cond in scan": (
        lambda x: (
            lax.scan(lambda x, w: (lax.cond(w[0, 0] < 1e9, step, lambda x, w: x, x, w), None), x, WEIGHTS)[0]
            @ KERNEL
        ),
        repeated,
    ),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformed_functions_equal_the_plain_one(name):
    transformed, plain = TRANSFORMED[name]
    loops = {"scan of checkpoint", "fori_loop", "cond by the input", "cond in scan"}
    for composite in (lrp.AttnLRP(gamma=0.25), lrp.GuidedBackprop())[: 2 if name in loops else 1]:
        expected = (
            repeated_relevance(composite) if plain is repeated else explain(plain, X, composite=composite)
        )
        assert_close(explain(transformed, X, composite=composite), expected, 1e-4)


# What has no rule is refused, and says where it is and what to do.


class Divided(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, param_dtype=float)(x) / x.sum()


REFUSED = {
    "division by an activation": (lambda x: x / (x @ KERNEL), "div"),
    "inverse": (lambda x: jnp.linalg.inv(x[:, :, :4]), "custom_linear_solve"),
    "product over an axis": (lambda x: x.prod(1), "reduce_prod"),
    "Fourier transform": (lambda x: jnp.abs(jnp.fft.fft(x)), "fft"),
    "complex numbers": (lambda x: (x + 1j * x[:, ::-1]).real, "real"),
    "eigenvalues": (lambda x: jnp.linalg.eigh(x @ x.swapaxes(1, 2))[0], "eigh"),
    "while_loop": (
        lambda x: lax.while_loop(lambda x: x.sum() < 100, lambda x: 2 * x + 1, x),
        "while",
    ),
    "fori_loop of unknown length": (
        lambda x: lax.fori_loop(0, jnp.asarray(3), lambda i, x: 2 * x, x),
        "while",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_operations_without_a_rule_are_refused(name):
    f, primitive = REFUSED[name]
    message = rf"expected a rule for every operation, got none for other \({primitive}\) in no module in AttnLRP: put"
    with pytest.raises(ValueError, match=message):
        lrp.vjp(f, X, composite=LRP_0)


@pytest.mark.parametrize("name", ["division by an activation", "inverse", "product over an axis"])
def test_the_advice_for_them_works(name):
    composite = lrp.Composite(((lrp.Kind.OTHER, lrp.Gradient()),)) | LRP_0
    _, (ours,) = explain(REFUSED[name][0], X, composite=composite)
    assert np.isfinite(ours).all()


def test_the_advice_for_while_loops_works():
    f = lambda x: x + REFUSED["while_loop"][0](x)  # noqa: E731
    with pytest.raises(ValueError, match=r"\(\(lrp.Kind.OTHER, lrp.Constant\(\)\),\)"):
        explain(f, X, composite=LRP_0)
    composite = lrp.Composite(((lrp.Kind.OTHER, lrp.Constant()),)) | LRP_0
    _, (ours,) = explain(f, X, composite=composite)
    assert np.isfinite(ours).all()


def test_refusals_name_the_module_and_how_to_get_by():
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Divided(name="inner")(x)

    variables = draw(Outer(), X)
    f = lambda x: Outer().apply(variables, x)  # noqa: E731
    with pytest.raises(ValueError, match=r"other \(div\) in Divided at 'inner' in AttnLRP.*\(\('inner', lrp"):
        lrp.vjp(f, X, composite=LRP_0)
    _, (ours,) = explain(f, X, composite=lrp.Composite((("inner", lrp.Gradient()),)) | LRP_0)
    assert np.isfinite(ours).all()


def test_refusals_inside_of_loops_name_the_module():
    class DividedCell(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return x / (1 + x.sum()), None

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.scan(DividedCell, length=2)(name="loop")(x, None)[0]

    with pytest.raises(ValueError, match=re.escape("other (div) in DividedCell at 'loop' in AttnLRP")):
        lrp.vjp(lambda x: Outer().apply({}, x), X, composite=LRP_0)
