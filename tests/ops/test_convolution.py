"""Convolutions in a CPU's form against `lax`'s: values, derivatives of every order, transforms, programs."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jxai import lrp
from jxai.ops.convolution import convolution, with_fast_convolutions

RANDOM = np.random.default_rng(0)
LAST = ("NHWC", "HWIO", "NHWC")


def case(x, kernel, layout=LAST, strides=1, padding=(1, 2), **options):
    """Of shapes; strides, padding and dilations the same along each axis unless they are given for each."""
    rank = len(x) - 2
    options = {k: (v,) * rank if isinstance(v, int) and "dilation" in k else v for k, v in options.items()}
    return (
        x,
        kernel,
        {
            "window_strides": (strides,) * rank if isinstance(strides, int) else strides,
            "padding": (padding,) * rank if isinstance(padding[0], int) else padding,
            "dimension_numbers": layout,
            **options,
        },
    )


CASES = {
    "channels last": case((2, 7, 6, 3), (3, 2, 3, 5)),
    "channels first": case((2, 3, 7, 6), (5, 3, 3, 2), ("NCHW", "OIHW", "NCHW")),
    "mixed": case((7, 2, 3, 6), (3, 5, 3, 2), ("HNCW", "IOHW", "CNHW")),
    "groups": case((2, 7, 6, 4), (3, 2, 2, 6), feature_group_count=2),
    "strided": case((2, 7, 6, 3), (3, 2, 3, 5), strides=(3, 2)),
    "dilated": case((2, 3, 9), (5, 3, 3), ("NCH", "OIH", "NCH"), rhs_dilation=2, lhs_dilation=2),
    "three axes": case((1, 3, 4, 2, 2), (2, 3, 3, 2, 2), ("NDHWC", "DHWIO", "NDHWC"), strides=2),
    "maps smaller than the kernel": case((2, 2, 2, 3), (3, 3, 3, 4), padding=(1, 1)),
    "maps of one entry": case((2, 1, 1, 3), (3, 5, 3, 4), padding=((1, 1), (2, 2))),
    "too small to be padded": case((2, 2, 1, 3), (4, 3, 3, 4), padding=((2, 1), (1, 1)), lhs_dilation=3),
    "entries that no window reads": case((2, 7, 6, 3), (2, 1, 3, 4), strides=3, padding=(-1, 0)),
    # XLA's compiler fails on `lax`'s gradient by the maps without the rows that no window reads (jaxlib 0.10.2).
    "taken for groups": case(
        (6, 2, 3, 2),
        (3, 2, 2, 3),
        ("HCWN", "WHIO", "HWNC"),
        strides=(3, 2),
        padding=((3, 3), (1, 1)),
        lhs_dilation=(2, 1),
    ),
}


def arrays(name):
    x, kernel, options = CASES[name]
    return RANDOM.normal(size=x), RANDOM.normal(size=kernel), options


@pytest.mark.parametrize("name", CASES)
def test_values_derivatives_and_batches(name):
    x, kernel, options = arrays(name)

    def everything(convolve, x, kernel):
        f = functools.partial(convolve, **options)

        def slopes(x, kernel):
            y, pullback = jax.vjp(f, x, kernel)
            return jax.tree.map(lambda one: jnp.tanh(one).sum(), pullback(y))

        return (
            f(x, kernel),
            jax.jvp(f, (x, kernel), (x + 1, kernel**2)),
            jax.vjp(f, x, kernel)[1](f(x, kernel)),
            jax.jacrev(slopes, (0, 1))(x, kernel),
            jax.vmap(f, (0, None))(jnp.stack([x, x**2]), kernel),
            jax.vmap(f, (None, 1))(x, jnp.stack([kernel, kernel**2], 1)),
            jax.vmap(f, (0, 0))(jnp.stack([x, x**2]), jnp.stack([kernel, kernel**2])),
        )

    with jax.enable_x64(True):
        found, expected = (
            jax.jit(functools.partial(everything, convolve))(x, kernel)
            for convolve in (convolution, lax.conv_general_dilated)
        )
        chex.assert_trees_all_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_in_a_loop(name):
    x, kernel, options = (one if isinstance(one, dict) else jnp.asarray(one) for one in arrays(name))

    @jax.jit
    def inner(x, kernel):
        return lax.conv_general_dilated(x, kernel, **options)

    def both(x):
        y, pullback = jax.vjp(lambda x, k: jnp.tanh(inner(x, k)), x, kernel)
        return {"y": y, "gradients": pullback(y)}

    found = jax.jit(lambda x: lax.map(with_fast_convolutions(both), x[None]))(x)
    expected = jax.tree.map(lambda one: one[None], jax.jit(both)(x))
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_and_more_precision():
    x, kernel, options = arrays("strided")
    x, kernel = jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16)
    for more in ({}, {"preferred_element_type": jnp.float32}, {"precision": ("highest", "default")}):
        found, expected = (f(x, kernel, **options, **more) for f in (convolution, lax.conv_general_dilated))
        chex.assert_trees_all_equal_shapes_and_dtypes(found, expected)
        np.testing.assert_allclose(*(np.asarray(y, np.float32) for y in (found, expected)), rtol=1e-2)
    integers = [np.ones(shape, np.int32) for shape in CASES["strided"][:2]]
    assert convolution(*integers, **options).dtype == np.int32


def mixed_derivative(convolve, options):
    """What guidance adds: the derivative by the kernel of the one by the maps."""

    def by_maps(x, kernel):
        y, pullback = jax.vjp(lambda x: convolve(x, kernel, **options), x)
        return pullback(y)[0]

    return lambda x, kernel: jax.vjp(functools.partial(by_maps, x), kernel)[1](x)


TYPES = re.compile(r"stablehlo\.convolution.*: \(tensor<([\dx]+)xf32>, tensor<([\dx]+)xf32>\)")


@pytest.mark.parametrize("name", [name for name in CASES if name != "groups"])
def test_a_cpu_reads_channels_last_and_never_a_kernel_larger_than_the_maps(name):
    x, kernel, options = arrays(name)
    operands = [jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)]
    program = jax.jit(mixed_derivative(convolution, options)).trace(*operands)
    text = program.lower(lowering_platforms=("cpu",)).as_text()
    found = TYPES.findall(text)
    assert len(found) >= 3
    assert len(found) == text.count("stablehlo.convolution")
    axes = ", ".join(map(str, range(x.ndim - 2)))
    assert text.count(f"[b, {axes}, f]x[{axes}, i, o]->[b, {axes}, f]") == len(found)
    for maps, window in found:
        maps, window = (list(map(int, one.split("x"))) for one in (maps, window))
        assert np.prod(maps[1:-1]) >= np.prod(window[:-2])
    assert not re.search(r"pad = [^}]*-", text)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_devices_get_the_program_of_lax(platform):
    x, kernel, options = arrays("channels first")
    ours, plain = (
        jax.jit(mixed_derivative(convolve, options))
        .trace(jnp.asarray(x), jnp.asarray(kernel))
        .lower(lowering_platforms=(platform,))
        .as_text()
        for convolve in (convolution, lax.conv_general_dilated)
    )
    convolutions = [re.findall(r"stablehlo\.convolution.*", text) for text in (ours, plain)]
    strip = functools.partial(re.sub, r"%\w+", "%")
    assert [*map(strip, convolutions[0])] == [*map(strip, convolutions[1])] != []


THROUGH = {
    "strided": case((2, 5, 5, 2), (3, 3, 2, 2), strides=2, padding=(1, 1)),
    "dilated": case((2, 5, 5, 2), (2, 2, 2, 2), padding=(1, 1), rhs_dilation=2),
    "groups": case((2, 5, 5, 4), (3, 3, 2, 4), strides=2, padding=(1, 1), feature_group_count=2),
    "small": case((2, 2, 2, 2), (3, 3, 2, 2), padding=(1, 1)),
}


@pytest.mark.parametrize("rule", [lrp.AlphaBeta(), lrp.Epsilon(0.1)], ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("name", THROUGH)
def test_a_loss_on_relevance_by_finite_differences(name, rule):
    """Through a rule's pass back, the transposed convolution; by reverse and by forward mode."""
    *shapes, options = THROUGH[name]
    with jax.enable_x64(True):
        x, kernel = (jnp.asarray(RANDOM.normal(size=shape)) for shape in shapes)
        direction = jnp.asarray(RANDOM.normal(size=shapes[1]))

        @jax.jit
        def loss(kernel):
            f = lambda x: lax.conv_general_dilated(x, kernel, **options)  # noqa: E731
            y, pullback = lrp.vjp(f, x, composite=lrp.Composite(((lrp.Kind.CONVOLUTION, rule),)))
            return (pullback(y)[0] ** 2).sum()

        step = 1e-5 * direction
        expected = (loss(kernel + step) - loss(kernel - step)) / 2e-5
        backward = (jax.jit(jax.grad(loss))(kernel) * direction).sum()
        forward = jax.jit(lambda k: jax.jvp(loss, (k,), (direction,))[1])(kernel)
        np.testing.assert_allclose([backward, forward], [expected] * 2, rtol=1e-5)


def test_derivatives_of_its_own_survive():
    """A custom derivative inside is used when the whole is differentiated again."""

    @jax.custom_jvp
    def strange(x):
        return 2 * x

    strange.defjvp(lambda x, dx: (2 * x[0], 7 * dx[0]))
    x = jnp.arange(3.0)
    assert jax.grad(lambda x: with_fast_convolutions(lambda x: strange(x).sum())(x))(x).tolist() == [7, 7, 7]


def test_a_loop_inside_is_left_alone():
    def scanned(x):
        return lax.scan(lambda carry, row: (carry + row, carry * row), jnp.zeros(3), x)

    x = jnp.asarray(RANDOM.normal(size=(4, 3)), jnp.float32)
    found, expected = with_fast_convolutions(scanned)(x), scanned(x)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("groups", [1, 4])
def test_without_jit(groups):
    """Alone it is a program all the same: calling that must not call it again."""
    x, kernel = (
        jnp.asarray(RANDOM.normal(size=s), jnp.float32) for s in ((2, 5, 5, 4), (3, 3, 4 // groups, 4))
    )
    options = {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": groups}
    with jax.disable_jit():
        found, slope = jax.value_and_grad(
            lambda k: (convolution(x, k, dimension_numbers=LAST, **options) ** 2).sum()
        )(kernel)
    expected = jax.grad(
        lambda k: (lax.conv_general_dilated(x, k, dimension_numbers=LAST, **options) ** 2).sum()
    )(kernel)
    assert np.isfinite(found)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-4)
