"""What holds of every function: inner values used twice, watched scans, meshes, jit, planning, refusals."""

import flax.linen as nn
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import sparse
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from formulas import LRP_0, assert_close, normal, of_layers
from jxai import lrp

pytestmark = pytest.mark.usefixtures("x64")

X, W, V = normal(4, 6, seed=1), normal(6, 6, seed=2), normal(6, 3, seed=3)
IMAGE, KERNEL = normal(2, 5, 5, 3, seed=4), normal(3, 3, 3, 4, seed=5)
SCALE, SHIFT, OF_IMAGE = normal(6, seed=6), normal(6, seed=7), normal(4, seed=8)


def start_of(y):
    return jnp.cos(1 + jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)


def conv(x, kernel=KERNEL):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


# A fusion whose inner value is used a second time: with factor zero, as an output, as a sum that cancels.

INNER = {  # name -> (what gives the inner value, what follows)
    "dense, shift": (lambda x: x @ W, lambda z: jnp.tanh((z + SHIFT) @ W)),
    "dense, scale": (lambda x: x @ W, lambda z: (z * SCALE) @ V),
    "dense, batch norm": (lambda x: x @ W, lambda z: jax.nn.relu((z - SHIFT) * SCALE + 1) @ V),
    "shift of an activation": (lambda x: x @ W, lambda z: jax.nn.sigmoid(z + 1) @ V),
    "GELU": (lambda x: x @ W, lambda z: jax.nn.gelu(z) @ V),
    "inside of GELU": (lambda x: lax.erf(x / np.sqrt(2)), lambda e: (1 + e) @ V),
    "softmax": (lambda x: x @ W, lambda z: jax.nn.softmax(z) @ V),
    "exponential of a softmax": (lambda x: jnp.exp(x @ W), lambda e: (e / e.sum(-1, keepdims=True)) @ V),
    "sum of a softmax": (
        lambda x: (lambda e: (e, e.sum(-1, keepdims=True)))(jnp.exp(x @ W)),
        lambda two: (two[0] / two[1]) @ V,
    ),
    "centerd": (
        lambda x: (lambda z: z - z.mean(-1, keepdims=True))(x @ W),
        lambda c: (c * lax.rsqrt((c * c).mean(-1, keepdims=True) + 1e-5)) @ V,
    ),
    "mean of a layer norm": (
        lambda x: (lambda z: (z, z.mean(-1, keepdims=True)))(x @ W),
        lambda two: ((two[0] - two[1]) * lax.rsqrt(two[0].var(-1, keepdims=True) + 1e-5)) @ V,
    ),
    "normalized": (
        lambda x: x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5),
        lambda z: (z * SCALE + SHIFT) @ V,
    ),
    "batch norm before a layer": (lambda x: x * SCALE + SHIFT, lambda z: z @ V),
    "residual": (lambda x: x @ W, lambda z: jax.nn.relu(z + jnp.tanh(z) @ W) @ V),
    "terms of a sum": (lambda x: x @ W + x, lambda z: (z + jnp.tanh(z)) @ V),
    "mean over entries": (lambda x: jnp.tanh(x @ W), lambda z: z.mean(0, keepdims=True) @ V),
    "maximum": (lambda x: x @ W, lambda z: z.max(-1, keepdims=True) @ V[:1]),
    "logsumexp": (lambda x: x @ W, lambda z: jax.nn.logsumexp(z, -1, keepdims=True) @ V[:1]),
}
RULES = {"LRP-0": LRP_0, "z+": of_layers(lrp.ZPlus()), "gamma": of_layers(lrp.Gamma(0.5))}


def zero(tree):
    return sum(0 * jnp.tanh(leaf).sum() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", INNER)
def test_an_inner_value_used_a_second_time_changes_nothing(name):
    inner, outer = INNER[name]

    def once(x):
        return outer(inner(x))

    def twice(x):
        z = inner(x)
        return outer(z) + zero(z)

    def returned(x):
        z = inner(x)
        return outer(z), z

    @jax.jit
    def explain(x):
        found = {}
        for rule, composite in RULES.items():
            y, pullback = lrp.vjp(once, x, composite=composite)
            both, pullback_of_both = lrp.vjp(returned, x, composite=composite)
            _, pullback_of_twice = lrp.vjp(twice, x, composite=composite)
            start = start_of(y)
            found[rule] = (
                pullback(start),
                pullback_of_twice(start),
                pullback_of_both((start, jax.tree.map(jnp.zeros_like, both[1]))),
            )
        return found

    for rule, (expected, ours, of_both) in explain(X).items():
        assert_close(ours, expected, rtol=1e-5, name=f"{rule}, with factor 0")
        assert_close(of_both, expected, rtol=1e-5, name=f"{rule}, returned")


# Batch norm with something between that changes no value.

NORM = {"scale": np.array([0.5, 1, -2, 1.0]), "bias": np.array([1.0, -1, 0.5, 2])}


def norm(x):
    variables = {"params": NORM, "batch_stats": {"mean": OF_IMAGE, "var": np.abs(OF_IMAGE) + 0.5}}
    return nn.BatchNorm(use_running_average=True).apply(variables, x)


FACTOR = NORM["scale"] / np.sqrt(np.abs(OF_IMAGE) + 0.5 + 1e-5)
OFFSET = NORM["bias"] - OF_IMAGE * FACTOR
BETWEEN = {
    "nothing": lambda x: x,
    "average pool of one": lambda x: nn.avg_pool(x, (1, 1)),
    "reshape": lambda x: x.reshape(2, 25, 1, 4),
    "squeeze": lambda x: x.reshape(2, 25, 4),
    "transpose": lambda x: x.transpose(0, 2, 1, 3),
    "expand_dims": lambda x: x[:, None],
    "times one": lambda x: x * 1.0,
    "identity of jit": jax.jit(lambda x: x + 0.0),
    "barrier": lambda x: lax.optimization_barrier(x),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_batch_norm_merges_over_what_changes_no_value(name):
    between = BETWEEN[name]

    @jax.jit
    def explain(x):
        found = []
        for f in (
            lambda x: norm(between(conv(x))),
            lambda x: between(conv(x, KERNEL * FACTOR) + OFFSET),
        ):
            y, pullback = lrp.vjp(f, x, composite=lrp.EpsilonPlus())
            found.append((y, pullback(start_of(y))))
        return found

    ours, expected = explain(IMAGE)
    assert_close(ours, expected, rtol=1e-6)


AFTER = normal(3, 3, 4, 2, seed=9)


@pytest.mark.parametrize(
    "between", [lambda x: x, lambda x: nn.avg_pool(x, (1, 1))], ids=["nothing", "pool of one"]
)
def test_batch_norm_behind_relu_merges_into_the_convolution_after_it(between):
    edges = conv(jnp.broadcast_to(OFFSET, (2, 5, 5, 4)), AFTER)

    def merged(x):
        z = jax.nn.relu(conv(x))
        return (conv(z, AFTER * FACTOR[:, None]) + edges).mean((1, 2))

    @jax.jit
    def explain(x):
        found = []
        for f in (lambda x: conv(norm(between(jax.nn.relu(conv(x)))), AFTER).mean((1, 2)), merged):
            y, pullback = lrp.vjp(f, x, composite=lrp.EpsilonPlus())
            found.append((y, pullback(start_of(y))))
        return found

    ours, expected = explain(IMAGE)
    assert_close(ours, expected, rtol=1e-5)


def test_a_convolution_of_constants_is_a_bias():
    def f(x):
        z = jax.nn.relu(conv(x))
        edges = conv(jnp.broadcast_to(OFFSET, z.shape), AFTER)
        return conv(z, AFTER * FACTOR[:, None]) + edges

    assert np.isfinite(lrp.vjp(f, IMAGE, composite=lrp.EpsilonPlus())[0]).all()


# Watched places inside of scans.

WEIGHTS = normal(3, 6, 6, seed=6)


def scanned_scope(x):
    def body(h, w):
        with jax.named_scope("block"):
            h = jnp.tanh(h @ w)
        return h, None

    return lax.scan(body, x, WEIGHTS)[0] @ V


def scanned_mark(x):
    return lax.scan(lambda h, w: (lrp.mark(jnp.tanh(h @ w), "block"), None), x, WEIGHTS)[0] @ V


class Cell(nn.Module):
    @nn.compact
    def __call__(self, h, _):
        return jnp.tanh(nn.Dense(6, use_bias=False, name="block")(h)), None


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        loop = nn.scan(Cell, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return loop(name="loop")(x, None)[0] @ V


def linen(x):
    return Linen().apply({"params": {"loop": {"block": {"kernel": WEIGHTS}}}}, x)


def marked(before):
    def f(x):
        for k, w in enumerate(WEIGHTS):
            z = x @ w
            x = jnp.tanh(lrp.mark(z, f"block{k}")) if before else lrp.mark(jnp.tanh(z), f"block{k}")
        return x @ V

    return f


@pytest.mark.parametrize(
    ("f", "path", "before"),
    [(scanned_scope, "block", False), (scanned_mark, "block", False), (linen, "loop/block", True)],
    ids=["named scope", "mark", "Linen"],
)
@pytest.mark.parametrize("composite", [lrp.AttnLRP(), lrp.EpsilonPlusFlat()], ids=["AttnLRP", "flat"])
def test_watched_places_in_scans_are_stacked(f, path, before, composite):
    @jax.jit
    def explain(x):
        y, pullback = lrp.vjp(f, x, composite=composite, watch=[path])
        names = [f"block{k}" for k in range(3)]
        _, plain = lrp.vjp(marked(before), x, composite=composite, watch=names)
        ours, expected = pullback(start_of(y)), plain(start_of(y))
        return (ours[0], ours[1][path]), (expected[0], jnp.stack([expected[1][name] for name in names]))

    ours, expected = explain(X)
    assert_close(ours, expected, rtol=1e-6)


# Planning.


def newton(n, x):
    h = x @ W
    y = h
    for _ in range(n):
        y = y - (y**3 - h) / (3 * y * y + 1)
    return y @ V


def sigmoids(n, x):
    h = x @ W
    for _ in range(n):
        h = h * jax.nn.sigmoid(h) + h
    return h @ V


def residual(n, x):
    for _ in range(n):
        x = x + jax.nn.relu(x @ W)
    return x @ V


def size(f, n, **options):
    """How many operations explaining has, those of loops and calls included."""

    def count(jaxpr):
        inner = [sub for eqn in jaxpr.eqns for sub in jax.extend.core.jaxprs_in_params(eqn.params)]
        return len(jaxpr.eqns) + sum(map(count, inner))

    def explain(x):
        y, pullback = lrp.vjp(lambda x: f(n, x), x, composite=lrp.AttnLRP())
        return pullback(y)

    return count(jax.make_jaxpr(explain)(X).jaxpr)


def calls(function):
    """How many calls of Python functions of the engine a call makes."""
    import sys

    counted = 0

    def profile(frame, event, _):
        nonlocal counted
        counted += event == "call" and "jxai/lrp" in frame.f_code.co_filename

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return counted


@pytest.mark.parametrize("f", [newton, sigmoids, residual])
def test_planning_is_linear_in_the_number_of_operations(f):
    def cost(n):
        return calls(lambda: lrp.coverage(lambda x: f(n, x), X, composite=lrp.AttnLRP()))

    cost(1)
    few, many, more = cost(3), cost(9), cost(27)
    assert many < 6 * few and more < 6 * many, (few, many, more)


@pytest.mark.parametrize("f", [newton, sigmoids, residual])
def test_what_is_explained_grows_as_the_function(f):
    few, many, more = (size(f, n) for n in (3, 9, 27))
    assert many - few <= 1.5 * (more - many) / 3 + 1 and more <= 12 * few, (few, many, more)


# Meshes, jit, precision.


def relevance(f, x, composite=LRP_0):
    y, pullback = lrp.vjp(f, x, composite=composite)
    return pullback(start_of(y))[0]


MODELS = {
    "layer, ReLU": lambda x: jax.nn.relu(x @ W),
    "softmax": lambda x: jax.nn.softmax(x @ W) @ V,
    "layer norm": lambda x: jax.nn.standardize(x @ W) @ V,
    "scan": scanned_scope,
}


@pytest.mark.parametrize(
    ("axis", "composite"),
    [
        pytest.param(AxisType.Auto, lrp.EpsilonPlus(), id="Auto-z+"),
        pytest.param(AxisType.Explicit, lrp.AttnLRP(), id="Explicit-AttnLRP"),
        pytest.param(AxisType.Auto, lrp.AttnLRP(), id="Auto-AttnLRP", marks=pytest.mark.slow),
        pytest.param(AxisType.Explicit, lrp.EpsilonPlus(), id="Explicit-z+", marks=pytest.mark.slow),
    ],
)
def test_relevance_on_a_mesh(axis, composite):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(axis,), devices=jax.devices()[:4])
    expected = {name: relevance(f, X, composite) for name, f in MODELS.items()}
    for name, f in MODELS.items():
        run = jax.jit(lambda x, f=f: relevance(f, x, composite))
        if axis is AxisType.Auto:  # each shard's start is its own
            run = jax.jit(
                jax.shard_map(
                    lambda x, f=f: lrp.vjp(f, x, composite=composite)[1](jnp.ones_like(f(x)))[0],
                    mesh=mesh,
                    in_specs=P("d"),
                    out_specs=P("d"),
                )
            )
            expected[name] = lrp.vjp(f, X, composite=composite)[1](np.ones_like(f(X)))[0]
        with jax.set_mesh(mesh):
            ours = run(jax.device_put(X, NamedSharding(mesh, P("d"))))
        assert_close(ours, expected[name], rtol=1e-6, name=name)


@pytest.mark.parametrize("name", MODELS)
def test_the_pullback_leaves_jit(name):
    f = MODELS[name]
    expected = relevance(f, X, lrp.AttnLRP())
    y, pullback = jax.jit(lambda x: lrp.vjp(f, x, composite=lrp.AttnLRP()))(X)
    assert_close(pullback(start_of(y))[0], expected, rtol=1e-8)
    assert_close(jax.jit(lambda p, r: p(r))(pullback, start_of(y))[0], expected, rtol=1e-8)
    y, pullback = jax.vmap(lambda x: lrp.vjp(f, x[None], composite=lrp.AttnLRP()))(X)
    assert len(jax.tree.leaves(pullback)) > 0


@pytest.mark.parametrize("composite", [lrp.AttnLRP(), lrp.CPLRP()], ids=["AttnLRP", "CPLRP"])
def test_attention_in_bfloat16_is_that_in_float32_to_its_precision(composite):
    x = normal(1, 5, 8).astype(np.float32)
    net = lambda dtype: nn.MultiHeadDotProductAttention(2, dtype=dtype)  # noqa: E731
    variables = jax.tree.map(
        lambda leaf: leaf.astype(np.float32), jax.jit(net(None).init)(jax.random.key(1), x)
    )

    @jax.jit
    def explain(x):
        def of(dtype):
            f = lambda x: net(dtype).apply(variables, x).astype(x.dtype)  # noqa: E731
            return lrp.vjp(f, x, composite=composite)[1](jnp.ones((1, 5, 8), x.dtype))[0]

        return of(None), of(jnp.bfloat16)

    expected, ours = explain(x)
    assert np.abs(ours - expected).max() < 0.1 * np.abs(expected).max()
    assert np.corrcoef(np.ravel(ours), np.ravel(expected))[0, 1] > 0.995


class Mask(nn.Module):
    @nn.compact
    def __call__(self, s):
        return jnp.where(jnp.arange(6) < 3, s, -jnp.inf)


def test_minus_infinity_in_a_mask_leaves_no_mark():
    f = lambda x: jax.nn.softmax(Mask(name="mask").apply({}, x @ W)) @ W  # noqa: E731
    y, pullback = lrp.vjp(f, X, composite=lrp.AttnLRP(), watch=[""])
    (ours,), inside = pullback(start_of(y))
    plain = lambda x: jax.nn.softmax((x @ W)[:, :3]) @ W[:3]  # noqa: E731
    expected = lrp.vjp(plain, X, composite=lrp.AttnLRP())[1](start_of(y))[0]
    assert_close(ours, expected, rtol=1e-8)
    assert np.isfinite(inside[""]).all() and not np.asarray(inside[""][:, 3:]).any()


def test_conservation_behind_a_mask_of_minus_infinity():
    f = lambda x: jax.nn.softmax(Mask(name="mask").apply({}, x @ W)) @ W  # noqa: E731
    found = jax.jit(lambda x: lrp.conservation(f, x, composite=lrp.AttnLRP()))(X)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    absorbed = sum(found.bias + found.stabilizer + found.zeros + found.rule)
    np.testing.assert_allclose(found.start, found.end + absorbed, rtol=1e-6)


def test_conservation_of_what_couples_rows():
    senders, receivers = np.array([0, 1, 2, 2]), np.array([1, 2, 0, 1])
    f = lambda n: jax.ops.segment_sum((n @ V)[senders], receivers, 3)  # noqa: E731
    nodes = X[:3]
    try:
        found = lrp.conservation(f, nodes, composite=lrp.AttnLRP())
    except ValueError as error:
        assert "row" in str(error) or "batch" in str(error)
    else:
        np.testing.assert_allclose(found.start.sum(), f(nodes).sum(), rtol=1e-6)


def test_an_integer_cast_on_the_only_path_is_refused_or_kept():
    f = lambda x: (3 * x @ W).astype(jnp.int32).astype(float)  # noqa: E731
    try:
        found = lrp.conservation(f, X, composite=lrp.AttnLRP())
    except ValueError:
        return
    absorbed = sum(found.bias + found.stabilizer + found.zeros + found.rule)
    np.testing.assert_allclose(found.start, found.end + absorbed, rtol=1e-5)
    assert np.asarray(lrp.vjp(f, X, composite=lrp.AttnLRP())[1](f(X))[0]).any()


# What is linear or chooses is explained by its own derivative; the rest is refused by name.

SEGMENTS = np.array([0, 1, 1, 0])
B = sparse.BCOO.fromdense(W)
UPPER = np.triu(W) + 3 * np.eye(6)
EXPLAINED = {
    "at[].multiply": lambda h: h.at[:, 0].multiply(2.0),
    "at[].max": lambda h: h.at[:, 0].max(h[:, 1]),
    "segment_max": lambda h: jax.ops.segment_max(h, SEGMENTS, 2),
    "ragged_dot": lambda h: lax.ragged_dot(h, jnp.asarray(normal(2, 6, 3)), jnp.array([2, 2])),
    "BCOO": lambda h: h @ B,
    "triangular_solve": lambda h: jax.scipy.linalg.solve_triangular(UPPER, h.T),
    "fft": lambda h: jnp.fft.fft(h).real,
    "complex state": lambda h: (h * (1 + 1j)).real,
    "approx_max_k": lambda h: lax.approx_max_k(h, 2)[0],
}
REFUSED = {
    "prod": (lambda h: h.prod(-1), "reduce_prod"),
    "cumprod": (lambda h: jnp.cumprod(h, -1), "cumprod"),
    "while_loop": (lambda h: lax.while_loop(lambda c: c.sum() < 0, jnp.tanh, h), "while"),
    "a ** b": (lambda h: jnp.exp(h) ** (h @ W), "pow"),
    "a / b": (lambda h: h / (1 + jax.nn.relu(h @ W)), "div"),
    "arctan2": (lambda h: jnp.arctan2(h, h @ W), "atan2"),
    "exp of another log-sum": (lambda h: jnp.exp(h - jax.nn.logsumexp(h @ W, -1, keepdims=True)), "exp"),
    "quotient of exponentials": (lambda h: jnp.exp(h) / jnp.exp(h @ W).sum(-1, keepdims=True), "div"),
    "quotient of two sums": (lambda h: h.sum(-1) / (h @ W).sum(-1), "div"),
    "eigenvalues": (lambda h: jnp.linalg.eigh(h.T @ h)[0], "eigh"),
    "callback": (
        lambda h: jax.pure_callback(np.sin, jax.ShapeDtypeStruct(h.shape, h.dtype), h),
        "pure_callback",
    ),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_what_is_linear_or_chooses_is_explained_by_its_derivative(name):
    f = EXPLAINED[name]

    @jax.jit
    def explain(x):
        y, pullback = lrp.vjp(lambda x: f(jnp.tanh(x @ W)), x, composite=LRP_0)
        twin = lambda x: f((x @ W) * lax.stop_gradient(jnp.tanh(x @ W) / (x @ W)))  # noqa: E731
        return pullback(y * start_of(y))[0], x * jax.vjp(twin, x)[1](start_of(y))[0]

    ours, expected = explain(X)
    assert_close(ours, expected, rtol=1e-8)


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_has_no_rule_is_refused_by_its_name(name):
    f, primitive = REFUSED[name]
    with pytest.raises(ValueError, match=primitive):
        lrp.coverage(lambda x: f(x @ W), X, composite=lrp.AttnLRP())
