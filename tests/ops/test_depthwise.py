"""Depthwise convolution against XLA's grouped one: values, derivatives, transforms, what is left to it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jxai import lrp
from jxai.ops.convolution import convolution

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 7, 6, 3)).astype(np.float32)
KERNEL = RNG.normal(size=(3, 2, 1, 3)).astype(np.float32)
OPTIONS = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 3}
PADDINGS = {"same": ((1, 1), "SAME"), "strided": ((2, 2), "SAME"), "uneven": ((2, 1), ((2, 0), (0, 1)))}


def pair(strides, padding):
    """Ours, and the grouped convolution."""
    given = {"window_strides": strides, "padding": padding, **OPTIONS}
    return functools.partial(convolution, **given), functools.partial(lax.conv_general_dilated, **given)


def primitives(f, *arguments):
    return str(jax.make_jaxpr(f)(*arguments))


@pytest.mark.parametrize("name", PADDINGS)
def test_value_and_every_derivative(name):
    ours, plain = pair(*PADDINGS[name])
    tangents = (X[::-1].copy(), KERNEL[::-1].copy())

    def derivatives(f, x, kernel):
        y, tangent = jax.jvp(f, (x, kernel), tangents)
        (transposed,) = jax.linear_transpose(lambda x: f(x, kernel), x)(y)
        return y, tangent, transposed, jax.vjp(f, x, kernel)[1](y)

    got, want = (jax.jit(functools.partial(derivatives, f))(X, KERNEL) for f in (ours, plain))
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-4)


def test_eager_vmap_and_second_derivative():
    ours, plain = pair((1, 1), "VALID")
    np.testing.assert_allclose(ours(X, KERNEL), plain(X, KERNEL), rtol=1e-5, atol=1e-5)
    kernels = np.stack([KERNEL, -2 * KERNEL])
    got = jax.vmap(ours, (None, 0))(X, kernels)
    np.testing.assert_allclose(got[1], plain(X, kernels[1]), rtol=1e-5, atol=1e-5)
    both = jax.vmap(ours, (1, 0))(np.stack([X, 3 * X], axis=1), kernels)
    np.testing.assert_allclose(both[1], plain(3 * X, kernels[1]), rtol=1e-5, atol=1e-5)
    (images,) = {ours(x, KERNEL).shape for x in (X,)}
    assert jax.vmap(ours, (1, None))(np.stack([X, X], axis=1), KERNEL).shape == (2, *images)

    def second(f):
        def slope(kernel):
            return jax.grad(lambda x: (f(x, kernel) ** 2).sum())(X).sum()

        return jax.jit(jax.grad(slope))(KERNEL)

    np.testing.assert_allclose(second(ours), second(plain), rtol=1e-4, atol=1e-3)


def test_bfloat16_is_summed_in_float32():
    x, kernel = (jnp.asarray(a, jnp.bfloat16) for a in (X, KERNEL))
    ours, plain = pair((1, 1), "SAME")
    got = ours(x, kernel)
    assert got.dtype == jnp.bfloat16
    exact = plain(x.astype(jnp.float32), kernel.astype(jnp.float32))
    np.testing.assert_array_equal(got, exact.astype(jnp.bfloat16))
    assert ours(x, kernel, preferred_element_type=jnp.float32).dtype == jnp.float32


def test_each_device_gets_its_own():
    ours, _ = pair((1, 1), "SAME")
    program = jax.jit(ours).trace(X, KERNEL)
    assert "stablehlo.convolution" not in program.lower(lowering_platforms=("cpu",)).as_text()
    for platform in ("cuda", "tpu"):
        assert program.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.convolution") == 1


OTHERS = {
    "two outputs a channel": ((3, 2, 1, 6), {}),
    "one group": ((3, 2, 3, 3), {"feature_group_count": 1}),
    "dilated": ((3, 2, 1, 3), {"rhs_dilation": (2, 1)}),
    "larger than the map": ((9, 2, 1, 3), {}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_all_else_is_left_to_lax(name):
    shape, more = OTHERS[name]
    x, kernel, options = jnp.asarray(X), jnp.ones(shape), {**OPTIONS, **more}
    assert "depthwise" not in primitives(lambda x: convolution(x, kernel, (1, 1), "VALID", **options), x)
    got = convolution(x, kernel, (1, 1), "VALID", **options)
    want = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", **options)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("rule", [lrp.Epsilon(), lrp.AlphaBeta()], ids=lambda r: type(r).__name__)
def test_rules_see_a_convolution_and_evaluate_it_fast(rule):
    composite = lrp.Composite(((lrp.Kind.CONVOLUTION, rule),))
    scale = np.array([0.5, -1, 2], np.float32)
    ours, plain = pair((2, 2), "SAME")
    # The same map as a convolution of all channels with a kernel of mostly zeros.
    whole = functools.partial(plain, feature_group_count=1)
    kernels = {ours: KERNEL, plain: KERNEL, whole: KERNEL * np.eye(3, dtype=np.float32)}
    found = []
    for f, kernel in kernels.items():

        def network(x, f=f, kernel=kernel):
            return f(x, kernel) * scale + 0.25  # merged, as batch norm is

        (row,) = lrp.coverage(network, X, composite=composite).rows
        assert row.operation.kind is lrp.Kind.CONVOLUTION
        assert row.operation.primitives == ("conv_general_dilated", "mul", "add")

        def explain(x, network=network):
            y, pullback = lrp.vjp(network, x, composite=composite)
            return pullback(y)[0]

        lowered = jax.jit(explain).lower(X)
        assert ("convolution" in lowered.as_text()) == (f is whole)  # XLA's grouped one gives way as well
        found.append(lowered.compile()(X))
    chex.assert_trees_all_close(*found, rtol=1e-4, atol=1e-4)


def test_the_walk_takes_the_default_of_code_written_for_each_device():
    def network(x):
        return lax.platform_dependent(x, tpu=lambda x: x @ jnp.eye(3), default=lambda x: jnp.tanh(x) * 2)

    composite = lrp.Composite(((lrp.Kind.ACTIVATION, lrp.Pass()),))
    rows = lrp.coverage(network, X, composite=composite).rows
    assert [row.operation.primitives for row in rows] == [("tanh", "mul")]


def test_a_second_call_compiles_nothing(caplog):
    ours, _ = pair((1, 1), "SAME")
    ours(X, KERNEL)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        ours(2 * X, KERNEL)
        assert "Compiling" not in caplog.text
        ours(X[:1], KERNEL)
        assert "Compiling" in caplog.text
