"""What lies between modules: each operation against a formula written a second time in numpy, in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from formulas import KERNEL, LRP_0, X, Y, Z, assert_close, by_gradient, draw, explain, normal, stabilized
from jxai import lrp

pytestmark = pytest.mark.usefixtures("x64")
MAPS = normal(2, 5, 4, 3, seed=4)


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
    relevance = normal(*x.shape)
    y, (ours,) = explain(ACTIVATIONS[name], x, relevance=relevance)
    assert_close(y, ACTIVATIONS[name](x))
    assert_close(ours, relevance)


def test_relu_passes():
    x = X.copy()
    x[0, 0] = 0
    relevance = np.where(x > 0, normal(*x.shape), 0)
    assert_close(explain(nn.relu, x, relevance=relevance)[1][0], relevance)


def test_what_passes_to_zeros_of_relu_is_not_lost():
    # As in DenseNet: ReLU, max pooling, then batch norm, which gives the zeros a value again.
    relevance = normal(2, 4, 6)
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
    expected = hidden * ((np.asarray(y) / stabilized(y, 0.1)) @ last["kernel"].T)
    assert_close(ours, X * ((expected / stabilized(z, 0.1)) @ first["kernel"].T))


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
    "real part of complex numbers": lambda x: ((x + 1j * x[:, ::-1]) * (2 - 1j)).real,
    "real part of a Fourier transform": lambda x: jnp.fft.fft(x).real,
}


@pytest.mark.parametrize("name", MOVES)
def test_moves_are_input_times_gradient(name):
    # A dense layer without stabilizer on top: relevance of the operation is in proportion to its values.
    def f(x):
        z = MOVES[name](x)
        return z.reshape(2, -1) @ np.random.default_rng(2).normal(size=(z.size // 2, 3))

    relevance = normal(2, 3)
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
    relevance = normal(*y.shape)
    expected = np.zeros_like(MAPS)
    share = relevance / stabilized(y, epsilon or 0) / np.prod(options["window_shape"])
    for i, j, rows, columns in windows(MAPS.shape, **options):
        at = np.ix_(range(2), rows, columns)
        expected[at] += MAPS[at] * share[:, i, j][:, None, None]
    _, (ours,) = explain(lambda x: nn.avg_pool(x, **options), MAPS, composite=composite, relevance=relevance)
    # Without a rule, a mean at the end is stabilized by 1e-6.
    assert_close(ours, expected, 1e-10 if epsilon else 1e-3)


@pytest.mark.parametrize("name", POOLS)
def test_max_pooling_goes_to_the_winner(name):
    options = POOLS[name]
    expected = np.zeros_like(MAPS)
    y = np.asarray(nn.max_pool(MAPS, **options))
    relevance = normal(*y.shape)
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
    # The stabilizer sees the whole sum, no partial one.
    f, signs = SUMS[name]
    composite = LRP_0 if epsilon is None else lrp.Composite(((lrp.Kind.SUM, lrp.Norm(epsilon)),)) | LRP_0
    y, ours = explain(lambda *xs: f(*xs) @ KERNEL, X, Y, Z, composite=composite)
    z = np.asarray(f(X, Y, Z))
    share = (np.asarray(y) / np.asarray(y)) @ KERNEL.T * z / stabilized(z, epsilon or 0)
    if signs is None:
        expected = (X * share, Y * share.sum(1, keepdims=True), 0 * Z)
    else:
        expected = [sign * x * share for sign, x in zip(signs, (X, Y, Z), strict=True)]
    if name == "three and signs" and epsilon:
        # A sign in between ends the sum: stabilized on its own.
        inner = X - Y
        share = share * inner / stabilized(inner, epsilon)
        expected = [-X * share, Y * share, expected[2]]
    assert_close(ours, expected)


def test_terms_of_a_sum_of_zero_share_evenly_in_sun2020():
    relevance = normal(2, 2)
    x, y = np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([[3.0, -2.0], [0.0, -1.0]])
    _, ours = explain(lambda x, y: x + y, x, y, composite=lrp.sun2020, relevance=relevance)
    z = stabilized(x + y, 0.01)
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
    relevance = normal(*jax.eval_shape(f, X).shape)
    composite = lrp.Composite(((lrp.Kind.DENSE, lrp.Epsilon(0.2)), (lrp.Kind.CONVOLUTION, lrp.Epsilon(0.2))))
    _, (ours,) = explain(f, X, composite=composite, relevance=relevance)
    assert_close(ours, by_gradient(f, X, relevance, 0.2))


# What has no rule is refused, and says where it is and what to do.


class Divided(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, param_dtype=float)(x) / x.sum()


REFUSED = {
    "division by an activation": (lambda x: x / (x @ KERNEL), "div"),
    "inverse": (lambda x: jnp.linalg.inv(x[:, :, :4]), "custom_linear_solve"),
    "product over an axis": (lambda x: x.prod(1), "reduce_prod"),
    "amplitudes of a Fourier transform": (lambda x: jnp.abs(jnp.fft.fft(x)), "abs"),
    "division by a sum of either sign": (lambda x: x / x.sum(-1, keepdims=True), "div"),
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
    message = (
        rf"expected a rule for every operation, got none for other \({primitive}\) in no module in LRP-0: put"
    )
    with pytest.raises(ValueError, match=message):
        lrp.vjp(f, X, composite=LRP_0)


@pytest.mark.parametrize("name", ["division by an activation", "inverse", "product over an axis"])
def test_the_advice_for_them_works(name):
    composite = lrp.Composite(((lrp.Kind.OTHER, lrp.Gradient()),)) | LRP_0
    _, (ours,) = explain(REFUSED[name][0], X, composite=composite)
    assert np.isfinite(ours).all()


def test_the_advice_for_while_loops_works():
    f = lambda x: x + REFUSED["while_loop"][0](x)  # noqa: E731
    with pytest.raises(ValueError, match=r"\(\(jax.lax.while_p, lrp.Constant\(\)\),\)"):
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
    with pytest.raises(
        ValueError, match=r"other \(div\) in Divided at 'inner' in LRP-0.*\(\(\('inner', jax.lax.div_p\), lrp"
    ):
        lrp.vjp(f, X, composite=LRP_0)
    _, (ours,) = explain(f, X, composite=lrp.Composite((("inner", lrp.Gradient()),)) | LRP_0)
    assert np.isfinite(ours).all()
