"""Primitives, kernels and fixed arrays of the user: `lrp.declare`, `lrp.fixed`, `lrp.linear_operation`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, mlir

from formulas import LRP_0, assert_close, normal, of_layers
from jxai import lrp

pytestmark = pytest.mark.usefixtures("x64")

X, W = normal(4, 6, seed=1), normal(6, 3, seed=2)
_NUMBER = itertools.count()


def primitive(function, differentiable=True):
    """A new primitive that computes a function, known to nobody."""
    p = Primitive(f"of_a_test_{next(_NUMBER)}")
    p.def_impl(function)
    p.def_abstract_eval(
        lambda *avals, **params: jax.core.ShapedArray(
            (out := jax.eval_shape(lambda *xs: function(*xs, **params), *avals)).shape, out.dtype
        )
    )
    mlir.register_lowering(p, mlir.lower_fun(function, multiple_results=False))
    if differentiable:

        def jvp(primals, tangents, **params):
            tangents = [ad.instantiate_zeros(t) for t in tangents]
            return jax.jvp(lambda *xs: function(*xs, **params), tuple(primals), tuple(tangents))

        ad.primitive_jvps[p] = jvp
    return p


def explained(f, x=X, composite=LRP_0):
    y, pullback = lrp.vjp(f, x, composite=composite)
    return y, pullback(jnp.cos(1.0 + jnp.arange(y.size)).reshape(y.shape))[0]


def softmax(x):
    e = jnp.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gelu(x, scale=1.0):
    return scale * x * (1 + lax.erf(x / np.sqrt(2))) / 2


MEANT = {
    "softmax": softmax,
    "RMS norm": lambda x: x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5),
    "GELU": gelu,
    "layer": lambda x: x @ jnp.asarray(normal(6, 6, seed=3)),
    "attention": lambda x: softmax(x @ x.T) @ x,
    "reversed": lambda x: x[:, ::-1],
}


@pytest.mark.parametrize("name", MEANT)
def test_what_a_primitive_means_is_what_is_explained(name):
    function = MEANT[name]
    p = primitive(function, differentiable=False)
    lrp.declare(p, means=function)
    ours = explained(lambda x: jnp.tanh(p.bind(x)) @ W)
    assert_close(ours, explained(lambda x: jnp.tanh(function(x)) @ W), rtol=1e-8)
    ours = jax.jit(lambda x: explained(lambda x: p.bind(jnp.sin(x)) @ W, x))(X)
    assert_close(ours, explained(lambda x: function(jnp.sin(x)) @ W), rtol=1e-8)


def test_parameters_of_a_primitive_are_keywords_of_what_it_means():
    p = primitive(gelu, differentiable=False)
    lrp.declare(p, means=gelu)
    ours = explained(lambda x: p.bind(x, scale=3.0) @ W)
    assert_close(ours, explained(lambda x: gelu(x, scale=3.0) @ W), rtol=1e-8)


LIKE = {
    "tanh": (lax.tanh_p, jnp.tanh),
    "mul": (lax.mul_p, lambda x: x * x[:, ::-1]),
    "neg": (lax.neg_p, lambda x: -x),
}


@pytest.mark.parametrize("name", LIKE)
def test_a_primitive_like_another_is_explained_as_that(name):
    other, plain = LIKE[name]
    p = primitive(jnp.multiply if name == "mul" else plain)
    lrp.declare(p, like=other)
    arguments = (lambda x: (x, x[:, ::-1])) if name == "mul" else (lambda x: (x,))
    ours = explained(lambda x: p.bind(*arguments(jnp.sin(x @ W))) @ W.T)
    assert_close(ours, explained(lambda x: plain(jnp.sin(x @ W)) @ W.T), rtol=1e-8)


FIELDS = {
    "entrywise": (dict(entrywise=True), jnp.tanh, jnp.tanh),
    "moves": (dict(moves=True, linear="jointly"), lambda x: x[:, ::-1], lambda x: x[:, ::-1]),
    "sums": (dict(sums=True, linear="jointly"), lambda x: x.cumsum(0), lambda x: x.cumsum(0)),
    "linear": (dict(linear="jointly", moves=True), lambda x: jnp.roll(x, 1, 1), lambda x: jnp.roll(x, 1, 1)),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_primitive_by_fields(name):
    fields, function, plain = FIELDS[name]
    p = primitive(function)
    lrp.declare(p, **fields)
    ours = explained(lambda x: p.bind(x @ W) @ W.T)
    assert_close(ours, explained(lambda x: plain(x @ W) @ W.T), rtol=1e-8)


@pytest.mark.parametrize("rule", [lrp.ZPlus(), lrp.Gamma(0.5), lrp.Flat()], ids=["z+", "gamma", "flat"])
def test_a_layer_by_fields_has_the_layers_rule(rule):
    p = primitive(jnp.matmul, differentiable=False)
    ad.defbilinear(p, lambda ct, x, w: ct @ w.T, lambda ct, x, w: x.T @ ct)
    lrp.declare(p, contracts=True, linear="each", kernel=1)
    composite = of_layers(rule)
    ours = explained(lambda x: jax.nn.relu(p.bind(x, W)) @ W.T, composite=composite)
    assert_close(ours, explained(lambda x: jax.nn.relu(x @ W) @ W.T, composite=composite), rtol=1e-8)


def test_an_unknown_primitive_is_refused_by_name():
    p = primitive(jnp.tanh)
    with pytest.raises(ValueError, match=p.name):
        lrp.vjp(p.bind, X, composite=LRP_0)


def test_a_jitted_function_by_its_name():
    def inscrutable_test_kernel(x):
        return jnp.linalg.eigh(x.T @ x)[0] * 0 + softmax(x)

    jitted = jax.jit(inscrutable_test_kernel)
    with pytest.raises(ValueError, match="eigh"):
        lrp.vjp(jitted, X, composite=LRP_0)
    lrp.declare("jit", name="inscrutable_test_kernel", means=softmax)
    assert_close(explained(lambda x: jitted(x) @ W), explained(lambda x: softmax(x) @ W), rtol=1e-8)


def test_a_kernel_of_pallas_by_its_name():
    pallas = pytest.importorskip("jax.experimental.pallas")

    def kernel(x_ref, out_ref):
        e = jnp.exp(x_ref[...])
        out_ref[...] = e / e.sum(-1, keepdims=True)

    call = pallas.pallas_call(
        kernel, out_shape=jax.ShapeDtypeStruct(X.shape, X.dtype), interpret=True, name="softmax_of_a_test"
    )
    lrp.declare("pallas_call", name="softmax_of_a_test", means=softmax)
    for composite in (LRP_0, lrp.CPLRP()):
        ours = jax.jit(lambda x, c=composite: explained(lambda x: call(x @ W @ W.T) @ W, x, c))(X)
        assert_close(ours, explained(lambda x: softmax(x @ W @ W.T) @ W, X, composite), rtol=1e-8)
    with pytest.raises(
        ValueError, match="'pallas_call named 'softmax_of_a_test'', which has one: declare it once"
    ):
        lrp.declare("pallas_call", name="softmax_of_a_test", means=softmax)


def test_what_cannot_be_declared():
    p = primitive(jnp.tanh)
    with pytest.raises(TypeError, match="JAX's primitive or its name, got"):
        lrp.declare(3, means=jnp.tanh)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="a function for means="):
        lrp.declare(p, means=3)  # pyright: ignore[reportArgumentType]
    for options in ({}, {"means": jnp.tanh, "like": lax.tanh_p}, {"means": jnp.tanh, "entrywise": True}):
        with pytest.raises(ValueError, match="one of like=, means= and fields"):
            lrp.declare(p, **options)
    with pytest.raises(ValueError, match="like= to be a primitive with a row"):
        lrp.declare(p, like=primitive(jnp.tanh))
    for fields in ({"unheard": True}, {"linear": "sometimes"}, {"sign": "negative"}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            lrp.declare(p, **fields)
    with pytest.raises(ValueError, match=p.name):  # nothing of that was kept
        lrp.vjp(p.bind, X, composite=LRP_0)
    lrp.declare(p, like=lax.tanh_p)
    for known in (p, lax.tanh_p, "tanh"):
        with pytest.raises(ValueError, match="declare it once"):
            lrp.declare(known, means=jnp.tanh)


def test_what_means_something_of_another_shape_is_refused():
    p = primitive(lambda x: x[:, :2], differentiable=False)
    lrp.declare(p, means=lambda x: x[:, :3])
    with pytest.raises(ValueError, match=p.name):
        lrp.vjp(lambda x: p.bind(x), X, composite=LRP_0)


def test_linear_operations_have_the_layers_rule_with_what_follows():
    @lrp.linear_operation
    def by_fourier(x, kernel):
        return (jnp.fft.fft(x) @ jnp.conj(jnp.fft.fft(kernel, axis=0))).real / x.shape[-1]

    for rule in (lrp.ZPlus(), lrp.Gamma(0.5), lrp.Epsilon(0.1), lrp.WSquare(), lrp.AlphaBeta(2.0, 1.0)):
        composite = of_layers(rule)
        ours, expected = (
            explained(lambda x, f=f: jnp.tanh(2 * f(x) + 0.5) @ W.T, composite=composite)
            for f in (lambda x: by_fourier(x, W), lambda x: x @ W)
        )
        assert_close(ours, expected, rtol=1e-8)


def test_fixed_changes_nothing_but_the_kind():
    g = lambda w: (jnp.tanh(X @ lrp.fixed(w)) ** 2).sum()  # noqa: E731
    plain = lambda w: (jnp.tanh(X @ w) ** 2).sum()  # noqa: E731
    assert_close(jax.jit(jax.value_and_grad(g))(W), jax.value_and_grad(plain)(W))
    assert_close(jax.vmap(lrp.fixed)(W), W)
    assert_close(jax.jvp(lrp.fixed, (W,), (W,)), (W, W))
    rows = lrp.coverage(lambda x: x @ lrp.fixed(W), X, composite=lrp.EpsilonPlus()).rows
    assert [row.operation.kind for row in rows] == [lrp.Kind.FIXED]
    ours = explained(lambda x: x @ lrp.fixed(W), composite=lrp.EpsilonPlus())[1]
    assert_close(ours, explained(lambda x: x @ W)[1])
