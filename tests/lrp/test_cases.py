"""Small functions that were once explained wrongly, or refused, with their right values, and others of the kind."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from formulas import LRP_0, assert_close, normal, of_layers
from jxai import lrp

pytestmark = pytest.mark.usefixtures("x64")

X, W, V = normal(4, 6, seed=1), normal(6, 6, seed=2), normal(6, 3, seed=3)
NHWC = ("NHWC", "HWIO", "NHWC")
IMAGE, KERNEL = np.random.default_rng(4).random((2, 6, 6, 3)), normal(3, 3, 3, 4, seed=5)


def conv(x, kernel, padding="VALID", strides=(1, 1)):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NHWC)


def start_of(y):
    return jnp.cos(1 + jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)


def relevance(f, *xs, composite=LRP_0, start=start_of):
    """(y, relevance of each x), whose start tells positions apart."""
    y, pullback = lrp.vjp(f, *xs, composite=composite)
    return y, pullback(start(y))


def assert_same(forms, *xs, composite=LRP_0, rtol=1e-8, start=start_of):
    """That the first and every other function of a dictionary give the same values and relevance."""

    @jax.jit
    def explain(*xs):
        return {name: relevance(f, *xs, composite=composite, start=start) for name, f in forms.items()}

    first, *others = explain(*xs).items()
    assert np.isfinite(jax.tree.leaves(first[1])[-1]).all()
    for name, found in others:
        assert_close(found, first[1], rtol=rtol, name=name)


# Zeros of the input under rules that are not proportional to it.

FREE = {"flat": lrp.Flat(), "w-square": lrp.WSquare(), "box": lrp.Box(-1.0, 1.0)}
CENTERD = {
    "x - 0.5": lambda x: x - 0.5,
    "-0.5 + x": lambda x: -0.5 + x,
    "x + (-0.5)": lambda x: x + (-0.5),
    "2 x - 1": lambda x: 2 * x - 1,
    "(x - 0.5) / 0.25": lambda x: (x - 0.5) / 0.25,
    "(x - mean) / deviation": lambda x: (x - np.array([0.5, 0.4, 0.3])) / np.array([0.2, 0.3, 0.25]),
    "1 - 2 x": lambda x: 1 - 2 * x,
    "255 x, less 127.5": lambda x: (255 * x - 127.5) / 255,
    "x, reshaped, - 0.5": lambda x: (x.reshape(2, -1) - 0.5).reshape(x.shape),
    "x padded - 0.5": lambda x: jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, :6, :6] - 0.5,
    "abs": lambda x: jnp.abs(x - 0.5),
}


SHIFTS = ("x - 0.5", "-0.5 + x", "x + (-0.5)", "x, reshaped, - 0.5", "x padded - 0.5", "abs")


@pytest.mark.parametrize("rule", FREE)
def test_shifts_and_scales_before_a_layer_hand_on_what_it_gives(rule):
    """Zennit's Flat on the layer, and x - m inside of the net: what its input gets passes unchanged."""
    composite = of_layers(FREE[rule])
    image = IMAGE.copy()
    image[:, 1:3, 1:3] = 0.5  # exactly the mean
    image[:, 4] = 0

    @jax.jit
    def explain(image):
        found = {}
        for name, f in CENTERD.items():
            if rule != "flat" and name not in SHIFTS:
                continue  # merged into the layer, whose kernel is another one then
            found[name] = relevance(lambda x, f=f: conv(f(x), KERNEL), image, composite=composite)[1][0]
            of_layer = relevance(lambda x: conv(x, KERNEL), f(image), composite=composite)[1][0]
            found[name] = found[name], of_layer
        return found

    for name, (ours, expected) in explain(image).items():
        assert_close(ours, expected, rtol=1e-8, name=name)


@pytest.mark.parametrize("rule", FREE)
def test_a_scale_and_a_shift_before_a_layer_in_any_order(rule):
    scale, shift = np.array([2.0, 3.0, 0.5]), np.array([0.5, 0.4, 0.3])
    rule = lrp.Box(-3.0, 3.0) if rule == "box" else FREE[rule]
    assert_same(
        {
            "(x - m) s": lambda x: conv((x - shift) * scale, KERNEL),
            "(x - m) / (1 / s)": lambda x: conv((x - shift) / (1 / scale), KERNEL),
            "x s - m s": lambda x: conv(x * scale - shift * scale, KERNEL),
        },
        IMAGE,
        composite=of_layers(rule),
    )


def test_flat_gives_every_input_its_share():
    # Flat by hand: each output's relevance in equal parts to what it sees, whatever the values.
    image = IMAGE.copy()
    image[:, 2:4, 2:4] = 0.5
    y, (ours,) = jax.jit(
        lambda x: relevance(lambda x: conv(x - 0.5, KERNEL), x, composite=of_layers(lrp.Flat()))
    )(image)
    spread = jax.vjp(lambda x: conv(x, np.ones((3, 3, 3, 1))), image)[1]
    assert_close(ours, spread(start_of(y).sum(-1, keepdims=True) / 27)[0], rtol=1e-5)


# What is no weight is no layer.


def resized(method):
    return lambda x: jax.image.resize(x, (2, 12, 12, 3), method)


_DCT = np.cos(np.pi / 6 * (np.arange(6)[:, None] + 0.5) * np.arange(6))
FIXED = {
    "bilinear": resized("bilinear"),
    "cubic": resized("cubic"),
    "lanczos": resized("lanczos3"),
    "smaller": lambda x: jax.image.resize(x, (2, 4, 4, 3), "linear"),
    "a Fourier basis": lambda x: jnp.einsum(
        "nhwc,hk->nkwc", x, jnp.cos(jnp.outer(jnp.arange(6), jnp.arange(6)))
    ),
    "a declared basis": lambda x: jnp.einsum("nhwc,hk->nkwc", x, lrp.fixed(_DCT)),
    "a mask as a matrix": lambda x: jnp.einsum("nhwc,hk->nkwc", x, jnp.tril(jnp.ones((6, 6)))),
    "a blur": lambda x: (
        conv(x.transpose(3, 1, 2, 0)[..., None].reshape(-1, 6, 6, 1), jnp.ones((3, 3, 1, 1)) / 9)
        .reshape(3, 2, 4, 4)
        .transpose(1, 2, 3, 0)
    ),
    "one-hot": lambda x: x @ jax.nn.one_hot(jnp.array([2, 0, 1]), 3, dtype=x.dtype),
}


@pytest.mark.parametrize(
    "composite",
    [
        pytest.param(lrp.EpsilonPlusFlat(), id="flat"),
        pytest.param(lrp.EpsilonGammaBox(-5.0, 5.0), id="box", marks=pytest.mark.slow),
    ],
)
def test_fixed_maps_are_plain_and_the_layer_behind_them_is_first(composite):
    """As Zennit has it: rules are the convolution's, and what is linear hands on by its values."""

    @jax.jit
    def explain(image):
        found = {}
        for name, f in FIXED.items():
            ours = relevance(lambda x, f=f: conv(f(x), KERNEL), image, composite=composite)[1][0]
            z = f(image)
            of_layer = relevance(lambda x: conv(x, KERNEL), z, composite=composite)[1][0]
            found[name] = ours.sum(), of_layer.sum()
        return found

    for name, (ours, expected) in explain(IMAGE).items():
        np.testing.assert_allclose(ours, expected, rtol=1e-4, err_msg=name)
    for name, f in FIXED.items():
        rows = lrp.coverage(lambda x, f=f: conv(f(x), KERNEL), IMAGE, composite=composite).rows
        layers = [row.operation for row in rows if row.operation.kind is lrp.Kind.CONVOLUTION]
        assert [one.first for one in layers] == [True], name
        assert not any(row.operation.kind is lrp.Kind.DENSE for row in rows), name


def test_relevance_passes_resizing_at_its_place():
    start = lambda y: start_of(y) * (np.arange(y.shape[1]) < 5)[:, None, None]  # noqa: E731
    f = lambda x: conv(jax.image.resize(x, (2, 12, 12, 3), "bilinear"), KERNEL)  # noqa: E731
    _, (ours,) = relevance(f, IMAGE, composite=lrp.EpsilonPlusFlat(), start=start)
    # Five rows of outputs see seven of twelve: pixels of rows 0 to 3 of six.
    assert not np.asarray(ours[:, 4:]).any() and (np.abs(np.asarray(ours[:, :4])).sum((0, 2, 3)) > 0).all()


def test_a_matrix_of_the_model_is_a_layer_and_a_constant_one_may_be_declared_so():
    kind = lambda f: lrp.coverage(f, X, composite=lrp.EpsilonPlus()).rows[0].operation.kind  # noqa: E731
    assert kind(lambda x: x @ W) is lrp.Kind.DENSE
    assert kind(lambda x: x @ (2 * jnp.asarray(W))) is lrp.Kind.DENSE
    assert kind(lambda x: x @ lrp.fixed(W)) is lrp.Kind.FIXED
    assert kind(lambda x: x @ jnp.eye(6)) is lrp.Kind.FIXED
    assert jax.jit(lambda w: kind(lambda x: x @ w))  # traced
    seen = []
    jax.jit(lambda w: seen.append(kind(lambda x: x @ w)))(W)
    assert seen == [lrp.Kind.DENSE]


def test_fixed_maps_may_have_a_rule():
    f, g = lambda x: x @ lrp.fixed(W) @ V, lambda x: x @ W @ V
    composite = lrp.Composite(((lrp.Kind.FIXED, lrp.ZPlus()), (lrp.Kind.DENSE, lrp.ZPlus())))
    try:
        ours = relevance(f, X, composite=composite)
    except (TypeError, ValueError) as error:  # refused, saying why
        assert "fixed" in str(error)
    else:
        assert_close(ours, relevance(g, X, composite=composite), rtol=1e-8)


# Convolutions without shared kernels, and written as patches @ kernel.


def patches(x):
    return lax.conv_general_dilated_patches(x, (3, 3), (1, 1), "VALID", dimension_numbers=NHWC)


def by_slices(x):
    """The same patches, channel first."""
    parts = [x[:, i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    return jnp.stack(parts, -1).reshape(2, 4, 4, 27)


FLAT_KERNEL = KERNEL.transpose(2, 0, 1, 3).reshape(27, 4)
LAYERS = {
    "z+": lrp.ZPlus(),
    "gamma": lrp.Gamma(0.5),
    "epsilon": lrp.Epsilon(0.1),
    "flat": lrp.Flat(),
    "alpha 2 beta 1": lrp.AlphaBeta(2.0, 1.0),
}
SIGNED = normal(2, 6, 6, 3, seed=8)


@pytest.mark.parametrize("rule", LAYERS)
def test_convolutions_as_patches_times_kernel(rule):
    assert_same(
        {
            "convolution": lambda x: conv(x, KERNEL),
            "patches": lambda x: patches(x) @ FLAT_KERNEL,
            "slices": lambda x: by_slices(x) @ FLAT_KERNEL,
            "einsum": lambda x: jnp.einsum("nhwp,po->nhwo", patches(x), FLAT_KERNEL),
        },
        SIGNED,
        composite=of_layers(LAYERS[rule]),
    )


def test_conv_local_has_its_rule_at_the_patches():
    module = nn.ConvLocal(4, (3, 3), padding="VALID", use_bias=False, param_dtype=float)
    kernel = normal(4, 4, 27, 4, seed=9)
    f = lambda x: module.apply({"params": {"kernel": kernel}}, x)  # noqa: E731
    up, down = np.maximum(kernel, 0), np.minimum(kernel, 0)

    @jax.jit
    def explain(x):
        y, (ours,) = relevance(f, x, composite=of_layers(lrp.ZPlus(epsilon=1e-6)))
        p, undo = jax.vjp(patches, x)
        positive, negative = jnp.maximum(p, 0), jnp.minimum(p, 0)
        layer = lambda a, k: jnp.einsum("nhwp,hwpo->nhwo", a, k)  # noqa: E731
        s = start_of(y) / (layer(positive, up) + layer(negative, down) + 1e-6)
        back = lambda k: jnp.einsum("nhwo,hwpo->nhwp", s, k)  # noqa: E731
        return ours, undo(positive * back(up) + negative * back(down))[0]

    ours, expected = explain(SIGNED)
    assert_close(ours, expected, rtol=1e-8)


def test_patch_extraction_moves_values():
    x, kernel = normal(2, 8, 8, 1), normal(16, 3, seed=1)
    by_conv = lambda x: lax.conv_general_dilated_patches(x, (4, 4), (4, 4), "VALID", dimension_numbers=NHWC)  # noqa: E731
    by_reshape = lambda x: x.reshape(2, 2, 4, 2, 4).transpose(0, 1, 3, 2, 4).reshape(2, 2, 2, 16)  # noqa: E731
    by_eye = lambda x: conv(x, jnp.eye(16).reshape(4, 4, 1, 16), strides=(4, 4))  # noqa: E731
    for composite in (lrp.EpsilonPlus(), lrp.EpsilonAlpha2Beta1Flat()):
        assert_same(
            {
                str(i): lambda x, f=f: f(x).mean((1, 2)) @ kernel
                for i, f in enumerate((by_reshape, by_conv, by_eye))
            },
            x,
            composite=composite,
        )


# Scans and the first layer.


WEIGHTS, END = normal(3, 6, 6, seed=6), normal(6, 2, seed=7)


def step(h, w):
    return jax.nn.relu(h @ w)


def unrolled(x, weights=WEIGHTS, layer=step):
    for w in weights:
        x = layer(x, w)
    return x @ END


def scanned(x, weights=WEIGHTS, layer=step, **options):
    return lax.scan(lambda h, w: (layer(h, w), None), x, weights, **options)[0] @ END


def twice(x):
    """A scan of a scan."""
    both = lax.scan(
        lambda h, ws: (lax.scan(lambda h, w: (step(h, w), None), h, ws)[0], None),
        x,
        WEIGHTS[:2].reshape(1, 2, 6, 6),
    )[0]
    return step(both, WEIGHTS[2]) @ END


SCANS = {
    "scan": (unrolled, scanned),
    "reverse": (lambda x: unrolled(x, WEIGHTS[::-1]), lambda x: scanned(x, reverse=True)),
    "unroll=2": (unrolled, lambda x: scanned(x, unroll=2)),
    "of a scan": (unrolled, twice),
    "after a layer": (lambda x: unrolled(x @ W), lambda x: scanned(x @ W)),
    "checkpoint inside": (
        unrolled,
        lambda x: lax.scan(jax.checkpoint(lambda h, w: (step(h, w), None)), x, WEIGHTS)[0] @ END,
    ),
    "fori_loop": (
        unrolled,
        lambda x: lax.fori_loop(0, 3, lambda i, h: step(h, jnp.asarray(WEIGHTS)[i]), x) @ END,
    ),
    "jit inside": (unrolled, lambda x: scanned(x, layer=jax.jit(step))),
    "x enters every iteration": (
        lambda x: unrolled(jnp.ones_like(x), layer=lambda h, w: step(h + x, w)),
        lambda x: scanned(jnp.ones_like(x), layer=lambda h, w: step(h + x, w)),
    ),
    "x is scanned": (
        lambda x: sum(jax.nn.relu(x[:, i : i + 2] @ W[:2]) for i in (0, 2, 4)) @ END,
        lambda x: (
            lax.scan(
                lambda c, p: (c + jax.nn.relu(p @ W[:2]), None),
                jnp.zeros((4, 6)),
                x.reshape(4, 3, 2).swapaxes(0, 1),
            )[0]
            @ END
        ),
    ),
}
FIRST_RULES = {
    "flat": lrp.EpsilonPlusFlat(),
    "box": lrp.Composite(((lrp.first, lrp.Box(-9.0, 9.0)), (lrp.Kind.DENSE, lrp.ZPlus()))),
    "w-square": lrp.Composite(((lrp.first, lrp.WSquare()), (lrp.Kind.DENSE, lrp.Epsilon(0.1)))),
}


@pytest.mark.parametrize("name", list(SCANS))
def test_the_first_layer_in_a_scan_is_that_of_the_unrolled_model(name):
    plain, scan = SCANS[name]

    @jax.jit
    def explain(x):
        return {
            rule: [relevance(f, x, composite=composite) for f in (plain, scan)]
            for rule, composite in FIRST_RULES.items()
        }

    for rule, (expected, ours) in explain(X).items():
        assert_close(ours, expected, rtol=1e-8, name=rule)


# Tokens.


TABLE, OTHER = normal(11, 5, seed=1), normal(11, 5, seed=2)
IDS = np.array([[1, 2, 3, 9], [4, 2, 0, 10]])
LOOKUPS = {
    "E[ids]": lambda i: jnp.asarray(TABLE)[i],
    "vmap": jax.vmap(lambda s: jnp.asarray(TABLE)[s]),
    "vmap of vmap": jax.vmap(jax.vmap(lambda t: jnp.asarray(TABLE)[t])),
    "take": lambda i: jnp.take(TABLE, i, axis=0),
    "take, clipped": lambda i: jnp.take(TABLE, i, axis=0, mode="clip"),
    "CLS in front": lambda i: jnp.asarray(TABLE)[jnp.concatenate([jnp.zeros((2, 1), int), i], 1)],
    "slice": lambda i: jnp.asarray(TABLE)[i[:, :-1]],
    "one_hot @ E": lambda i: jax.nn.one_hot(i, 11, dtype=float) @ TABLE,
    "comparison @ E": lambda i: (i[..., None] == jnp.arange(11)).astype(float) @ TABLE,
    "reshape": lambda i: jnp.asarray(TABLE)[i.reshape(-1)].reshape(*i.shape, 5),
    "transpose": lambda i: jnp.asarray(TABLE)[i.T].swapaxes(0, 1),
    "scan": lambda i: lax.scan(lambda h, t: (h, jnp.asarray(TABLE)[t]), 0.0, i.T)[1].swapaxes(0, 1),
    "nn.Embed": lambda i: nn.Embed(11, 5).apply({"params": {"embedding": jnp.asarray(TABLE)}}, i),
    "offset": lambda i: jnp.concatenate([jnp.zeros((2, 5)), jnp.asarray(TABLE)])[i + 2],
    "masked": lambda i: jnp.asarray(TABLE)[i] * (i > 0)[..., None],
    "where": lambda i: jnp.asarray(TABLE)[jnp.where(i > 10, 0, i)],
    "flipped": lambda i: jnp.asarray(TABLE)[i[:, ::-1]],
    "jit": jax.jit(lambda i: jnp.asarray(TABLE)[i]),
    "scaled, with positions": lambda i: jnp.asarray(TABLE)[i] * np.sqrt(5) + OTHER[:4],
    "cast": lambda i: jnp.asarray(TABLE)[i.astype(jnp.int16)],
}


def rows_of(name):
    """How much of relevance each token gets when the rows' own is `r`, (N, T, 5)."""
    if name == "CLS in front":
        return lambda r: r[:, 1:]
    if name == "slice":
        return lambda r: jnp.pad(r, ((0, 0), (0, 1), (0, 0)))
    return (lambda r: r[:, ::-1]) if name == "flipped" else lambda r: r


@pytest.mark.parametrize("name", list(LOOKUPS))
def test_tokens_have_their_relevance_however_they_are_looked_up(name):
    lookup = LOOKUPS[name]
    net = lambda rows: jnp.tanh(rows.sum(1) @ END[:5])  # noqa: E731
    _, (ours,) = jax.jit(lambda i: relevance(lambda i: net(lookup(i)), i))(IDS)
    rows = np.asarray(lookup(IDS))
    _, (of_rows,) = relevance(net, rows)
    if name == "scaled, with positions":
        of_rows = of_rows * (TABLE[IDS] * np.sqrt(5) / rows)
    assert_close(ours, rows_of(name)(of_rows).sum(-1), rtol=1e-8)


SECOND = {
    "rolled": lambda i: jnp.roll(i, 1, 1),
    "shifted, start in front": lambda i: jnp.concatenate([jnp.zeros_like(i[:, :1]), i[:, :-1]], 1),
    "the same": lambda i: i,
    "reversed": lambda i: i[:, ::-1],
    "at[].set": lambda i: jnp.zeros_like(i).at[:, 1:].set(i[:, :-1]).at[:, 0].set(2),
    "modulo a table of hashes": lambda i: (i * 7 + 3) % 11,
}


@pytest.mark.parametrize("name", list(SECOND))
def test_every_lookup_of_the_same_tokens_counts(name):
    move = SECOND[name]

    def net(i, j):
        return (jnp.asarray(TABLE)[i] + jnp.asarray(OTHER)[j]).mean(1) @ END[:5]

    @jax.jit
    def explain(i):
        _, (ours,) = relevance(lambda i: net(i, move(i)), i, composite=lrp.AttnLRP())
        _, (a, b) = relevance(net, i, move(i), composite=lrp.AttnLRP())
        if name == "modulo a table of hashes":
            return ours, a + b
        moved = jax.vjp(lambda t: move(t.astype(float)), jnp.zeros(i.shape))[1](b)[0]
        return ours, a + moved

    ours, expected = explain(IDS)
    assert_close(ours, expected, rtol=1e-6)
