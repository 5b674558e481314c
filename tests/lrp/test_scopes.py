"""Name scopes of plain functions and in modules, and values named by `lrp.mark`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import lrp

_RANDOM = np.random.default_rng(0)
X, V = (_RANDOM.normal(size=shape).astype(np.float32) for shape in ((2, 4), (4, 5)))
LRP_0 = lrp.Composite(((lrp.Kind.DENSE, lrp.Epsilon(0.0)),), name="LRP-0")


def rows(f, composite):
    return lrp.coverage(f, X, composite=composite).rows


def test_only_the_users_scopes_are_places():
    def f(x):
        with jax.named_scope("outer"):
            x = jnp.einsum("ij,jk->ik", x, jnp.asarray(V))  # has a scope of its own
            x = jax.jit(jax.nn.softmax)(x)  # jitted inner functions
            x, _ = jax.lax.scan(lambda c, _: (jnp.tanh(c), None), x, length=2)
        return jax.vmap(jnp.sin)(x)

    assert {row.operation.path for row in rows(f, lrp.AttnLRP())} == {"outer", ""}


def test_scopes_within_modules_are_below_them():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4, name="first")(x)
            with jax.named_scope("gate"):
                x = nn.Dense(4, name="second")(jnp.tanh(x))
            return lrp.mark(x, "end")

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Net(name="net")(x) * 2.0

    variables = Outer().init(jax.random.key(0), X)
    f = lambda x: Outer().apply(variables, x)  # noqa: E731
    paths = [row.operation.path for row in rows(f, lrp.AttnLRP())]
    assert paths[:3] == ["net/first", "net/gate", "net/second"]
    y, pullback = lrp.vjp(f, X, composite=lrp.AttnLRP(), watch=["net/end", "net", "net/gate"])
    seen = pullback(y)[1]
    np.testing.assert_array_equal(seen["net/end"], seen["net"])


def test_a_scope_that_gives_several_arrays_is_no_start():
    def f(x):
        with jax.named_scope("both"):
            a, b = x @ jnp.asarray(V), x @ jnp.asarray(V + 1)
        return a * b

    with pytest.raises(ValueError, match=r"'both' with 2 arrays \(`lrp.mark` names one\)"):
        lrp.vjp(f, X, composite=lrp.AttnLRP(), start="both")


def test_marks_change_nothing_elsewhere():
    f = lambda x: lrp.mark(jnp.tanh(x), "a")  # noqa: E731
    assert [e.primitive.name for e in jax.make_jaxpr(f)(X).eqns] == ["tanh"]
    assert lrp.mark(np.float32(2.0), "a") == 2.0


def test_a_mark_in_a_function_that_was_jitted_before():
    f = jax.jit(lambda x: lrp.mark(jnp.tanh(x), "a").sum(1))
    f(X)
    y, pullback = lrp.vjp(f, X, composite=lrp.AttnLRP(), watch=["a"])
    np.testing.assert_allclose(pullback(y)[1]["a"], np.tanh(X), rtol=1e-5)
    np.testing.assert_allclose(f(X), y, rtol=1e-6)


def test_marks_of_bad_names():
    for name, error in ((3, TypeError), ("", ValueError), ("a#1", ValueError)):
        with pytest.raises(error, match="expected a name"):
            lrp.mark(X, name)
    with pytest.raises(TypeError):
        lrp.mark("text", "a")
    twice = lambda x: lrp.mark(lrp.mark(x, "a") * 2.0, "a")  # noqa: E731
    with pytest.raises(ValueError, match="one value with the mark 'a', got 2: give each a name of its own"):
        lrp.vjp(twice, X, composite=LRP_0)


def test_a_mark_in_a_module_that_is_called_twice_is_numbered():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return lrp.mark(nn.Dense(4)(x), "out")

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            net = Net(name="net")
            return net(nn.relu(net(x)))

    variables = Outer().init(jax.random.key(0), X)
    f = lambda x: Outer().apply(variables, x)  # noqa: E731
    y, pullback = lrp.vjp(f, X, composite=LRP_0, watch=["net/out#0", "net/out#1"])
    assert set(pullback(y)[1]) == {"net/out#0", "net/out#1"}
