"""Convolutions rewritten for loops on a CPU have the same values, in every layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jxai.ops.channels_last import with_plain_convolutions

RANDOM = np.random.default_rng(0)


def array(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


CASES = {
    "channels last": (array(2, 7, 6, 3), array(3, 2, 3, 5), ("NHWC", "HWIO", "NHWC"), {}),
    "channels first": (array(2, 3, 7, 6), array(5, 3, 3, 2), ("NCHW", "OIHW", "NCHW"), {}),
    "mixed": (array(7, 2, 3, 6), array(3, 5, 3, 2), ("HNCW", "IOHW", "CNHW"), {}),
    "groups": (array(2, 7, 6, 4), array(3, 2, 2, 6), ("NHWC", "HWIO", "NHWC"), {"feature_group_count": 2}),
    "dilated": (
        array(2, 3, 9),
        array(5, 3, 3),
        ("NCH", "OIH", "NCH"),
        {"rhs_dilation": (2,), "lhs_dilation": (2,)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    x, kernel, layout, options = CASES[name]

    @jax.jit
    def inner(x, kernel):
        strides = (1,) * (x.ndim - 2)
        return lax.conv_general_dilated(
            x, kernel, strides, [(1, 2)] * (x.ndim - 2), dimension_numbers=layout, **options
        )

    def both(x, kernel):
        y, pullback = jax.vjp(lambda x, k: jnp.tanh(inner(x, k)), x, kernel)
        return {"y": y, "gradients": pullback(y)}

    found, expected = jax.jit(with_plain_convolutions(both))(x, kernel), jax.jit(both)(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


def test_every_convolution_is_plain():
    x, kernel, layout, _ = CASES["channels first"]

    def gradient(x):
        def f(x):
            y = jax.jit(
                lambda x: lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=layout)
            )(x)
            return (y**2).sum()

        return jax.grad(f)(x)

    jaxpr = jax.make_jaxpr(with_plain_convolutions(gradient))(x)
    specs = [e.params["dimension_numbers"] for e in jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
    assert len(specs) >= 2
    for spec in specs:
        assert spec == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def test_derivatives_of_its_own_survive():
    """A custom derivative inside is used when the whole is differentiated again."""

    @jax.custom_jvp
    def strange(x):
        return 2 * x

    strange.defjvp(lambda x, dx: (2 * x[0], 7 * dx[0]))
    x = jnp.arange(3.0)
    assert jax.grad(lambda x: with_plain_convolutions(lambda x: strange(x).sum())(x))(x).tolist() == [7, 7, 7]


def test_a_loop_inside_is_left_alone():
    def scanned(x):
        return lax.scan(lambda carry, row: (carry + row, carry * row), jnp.zeros(3), x)

    x = array(4, 3)
    found, expected = with_plain_convolutions(scanned)(x), scanned(x)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
