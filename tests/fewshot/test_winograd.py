"""The rearranged 3x3 convolution against lax's, forward and both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from jxai.fewshot.heads import winograd

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Every side from 1 to 16, half of them as heights; a square; those whose gradients are compared too come first.
SIZES = [(7, 7), (4, 13), (1, 16), (2, 15), (3, 14), (12, 5), (11, 6), (10, 7), (9, 8)]


def direct(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=DIMENSIONS)


def operands(size):
    random = np.random.default_rng(0)
    return (
        random.normal(size=(2, *size, 2)),
        random.normal(size=(3, 3, 2, 3)),
        random.normal(size=(2, *size, 3)),
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_winograd_equals_lax(size):
    with jax.enable_x64(True):
        x, kernel, _ = operands(size)
        np.testing.assert_allclose(
            jax.jit(winograd.winograd)(x, kernel), direct(x, kernel), rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize("size", SIZES[:3], ids=str)
def test_gradients_of_winograd_equal_those_of_lax(size):
    with jax.enable_x64(True):
        x, kernel, cotangent = operands(size)

        @jax.jit
        def gradients(x, kernel, cotangent):
            return [jax.vjp(f, x, kernel)[1](cotangent) for f in (winograd.winograd, direct)]

        for ours, expected in zip(*gradients(x, kernel, cotangent), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10)


def test_winograd_in_float32_is_accurate():
    random = np.random.default_rng(0)
    x, kernel = random.normal(size=(2, 7, 7, 64)), random.normal(size=(3, 3, 64, 8))
    with jax.enable_x64(True):
        exact = np.asarray(direct(x, kernel))
    ours = jax.jit(winograd.winograd)(*(jnp.asarray(a, jnp.float32) for a in (x, kernel)))
    assert ours.dtype == jnp.float32
    assert np.abs(ours - exact).max() <= 1e-5 * np.abs(exact).max()


def test_multiplications_are_fewer_than_direct():
    # F(2, 3) takes 4 multiplications for 2 outputs, F(4, 3) 6 for 4; 7 outputs are two tiles of 4.
    assert [winograd.multiplications(side) for side in (2, 4, 7)] == [4**2, 6**2, 12**2]
    for side in range(4, 17):
        assert winograd.multiplications(side) <= 9 * side**2 / 2


def took_winograd(monkeypatch, shape, kernel_shape, strides=(1, 1), padding=((1, 1), (1, 1)), **options):
    """Whether the call was rearranged, its result checked against lax."""
    random = np.random.default_rng(0)
    x, kernel = (jnp.asarray(random.normal(size=s), jnp.float32) for s in (shape, kernel_shape))
    calls = []
    real = winograd.winograd
    monkeypatch.setattr(winograd, "winograd", lambda *args: (calls.append(args), real(*args))[1])
    monkeypatch.setattr(winograd, "_FEWEST_CHANNELS", 1)
    options.setdefault("dimension_numbers", DIMENSIONS[: 3 if x.ndim == 4 else 0] or ("NHC", "HIO", "NHC"))
    ours = winograd.small_map_convolution(x, kernel, strides, padding, **options)
    expected = lax.conv_general_dilated(x, kernel, strides, padding, **options)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
    return bool(calls)


def test_what_is_rearranged(monkeypatch):
    assert took_winograd(monkeypatch, (2, 5, 7, 2), (3, 3, 2, 3))
    ones = dict(feature_group_count=1, lhs_dilation=(1, 1), rhs_dilation=(1, 1))
    assert took_winograd(monkeypatch, (2, 5, 7, 2), (3, 3, 2, 3), **ones)


@pytest.mark.parametrize(
    "call",
    [
        dict(shape=(1, 3, 7, 2)),  # below the sides where it pays
        dict(shape=(1, 17, 8, 2)),
        dict(kernel_shape=(1, 1, 2, 3)),
        dict(kernel_shape=(3, 5, 2, 3)),
        dict(strides=(2, 1)),
        dict(padding="SAME"),
        dict(padding=((0, 0), (0, 0))),
        dict(padding=((1, 1), (1, 0))),
        dict(kernel_shape=(3, 3, 1, 4), feature_group_count=2),
        dict(lhs_dilation=(2, 2)),
        dict(rhs_dilation=(1, 2)),
        dict(shape=(1, 6, 2), kernel_shape=(3, 2, 3), strides=(1,), padding=((1, 1),)),
    ],
    ids=str,
)
def test_all_else_is_left_to_lax(monkeypatch, call):
    assert not took_winograd(monkeypatch, **({"shape": (1, 6, 6, 2), "kernel_shape": (3, 3, 2, 3)} | call))


def test_few_channels_and_other_dtypes_are_left_to_lax(monkeypatch):
    monkeypatch.setattr(winograd, "winograd", None)
    conv = nn.Conv(4, (3, 3), padding=1, conv_general_dilated=winograd.small_map_convolution)
    x = np.ones((1, 6, 6, 2), np.float32)
    conv.init(jax.random.key(0), x)
    monkeypatch.setattr(winograd, "_FEWEST_CHANNELS", 1)
    conv.clone(dtype=jnp.bfloat16).init(jax.random.key(0), x)


def test_flax_conv_computes_the_same_by_it(monkeypatch):
    monkeypatch.setattr(winograd, "_FEWEST_CHANNELS", 1)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype(np.float32)
    plain = nn.Conv(4, (3, 3), padding=1)
    variables = plain.init(jax.random.key(0), x)
    ours = plain.clone(conv_general_dilated=winograd.small_map_convolution)
    np.testing.assert_allclose(ours.apply(variables, x), plain.apply(variables, x), rtol=1e-4, atol=1e-5)
