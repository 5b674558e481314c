"""Programs compiled once: shared by what traces to the same operations, by nothing else, and holding no arrays."""

import concurrent.futures
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jxai import compiled
from jxai.compiled import run_compiled

X = jnp.arange(6.0).reshape(2, 3) / 6


@pytest.fixture(autouse=True)
def _no_programs():
    compiled._programs.clear()


def loop(w, *, inner=lambda f: f, scale=0.5):
    """A new closure over w, in a loop, a branch and a while loop."""

    @inner
    def f(x):
        return jax.nn.relu(x @ w) * scale

    def body(x, _):
        return lax.cond(x.sum() > 0, lambda: f(x), lambda: x - 1), f(x).sum()

    def function(x):
        x, sums = lax.scan(body, x, None, length=3)
        count, x = lax.while_loop(
            lambda carry: (carry[0] < 2) & (f(carry[1]).sum() > -1),
            lambda carry: (carry[0] + 1, f(carry[1])),
            (0, x),
        )
        return {"x": x, "sums": sums, "mapped": lax.map(f, x[:, None]), "count": count}

    return function


def weights(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(3, 3)), jnp.float32)


def close(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


INNER = {
    "plain": lambda f: f,
    "jitted": jax.jit,
    "checkpointed": jax.checkpoint,
    "both": lambda f: jax.checkpoint(jax.jit(f)),
}


@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
@pytest.mark.parametrize("as_numpy", [False, True])
def test_new_closures_share_a_program_and_their_own_weights_count(inner, as_numpy, compilations):
    expected = [loop(weights(seed), inner=inner)(X) for seed in range(3)]
    give = np.asarray if as_numpy else jnp.asarray
    run_compiled(loop(give(weights(9)), inner=inner), X)
    compilations.clear()
    for seed, right in enumerate(expected):
        close(run_compiled(loop(give(weights(seed)), inner=inner), X), right)
    assert not compilations
    assert len(compiled._programs) == 1


def test_what_one_function_closes_over_is_seen_anew():
    state = {"w": weights(0), "n": np.ones(3, np.float32)}

    def function(x):
        return lax.map(lambda row: row @ state["w"] + state["n"], x)

    for seed in range(3):
        state["w"] = weights(seed)
        state["n"][:] = seed  # in place
        close(run_compiled(function, X), X @ weights(seed) + seed)
    assert len(compiled._programs) == 1


NUMBERS = [0.5, 2.0, 0.0, -0.0, float("inf"), float("nan"), 1, True, np.float32(0.5), jnp.float32(3.0)]


@pytest.mark.parametrize("repeat", range(2))
def test_numbers_in_the_code_are_part_of_the_program(repeat):
    for number in NUMBERS:
        found = run_compiled(lambda x, n=number: lax.map(lambda row: jnp.copysign(row, -1) * n, x), X)
        assert np.asarray(found).tobytes() == np.asarray(jnp.copysign(X, -1) * number).tobytes(), number


DIFFERENT = {
    "axis": (lambda x: x.sum(axis=0), lambda x: x.sum(axis=1)[:, None] * jnp.ones(3)),
    "order": (lambda x: x - x[::-1], lambda x: x[::-1] - x),
    "result": (lambda x: (x, x + 1), lambda x: (x + 1, x)),
    "tree": (lambda x: {"a": x}, lambda x: [x]),
    "argument twice": (lambda x: x + x, lambda x: x + x[0]),
    "branches": (
        lambda x: lax.cond(x[0, 0] > 1, lambda: x, lambda: -x),
        lambda x: lax.cond(x[0, 0] > 1, lambda: -x, lambda: x),
    ),
    "reversed": (lambda x: lax.cumsum(x), lambda x: lax.cumsum(x, reverse=True)),
    "dtype": (lambda x: x.astype(jnp.bfloat16), lambda x: x.astype(jnp.float16)),
    "precision": (
        lambda x: jnp.dot(x, x.T, precision="highest"),
        lambda x: jnp.dot(x, x.T, precision="default", preferred_element_type=jnp.float32),
    ),
    "callback": (
        lambda x: jax.pure_callback(lambda a: a + 1, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
        lambda x: jax.pure_callback(lambda a: a + 2, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_other_operations_are_another_program(name):
    for function in (*DIFFERENT[name], *DIFFERENT[name]):
        close(run_compiled(function, X), function(X))


def test_shapes_and_dtypes_are_part_of_the_program():
    for x in (X, X[:1], X.astype(jnp.bfloat16), jnp.ones((2, 3), int), 2.0):
        close(run_compiled(lambda x: x * 2, x), jnp.asarray(x) * 2)
    for key in (jax.random.key(0), jax.random.key(0, impl="rbg")):
        close(run_compiled(lambda key: jax.random.normal(key, (3,)), key), jax.random.normal(key, (3,)))


def test_a_configuration_changed_between_calls_counts():
    for precise in (False, True, False):
        with jax.enable_x64(precise):
            found = run_compiled(lambda x: lax.map(lambda row: row * 2, x), np.full((2, 3), 0.1))
            assert found.dtype == (jnp.float64 if precise else jnp.float32)


def test_own_derivatives_within():
    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (double(x), None), lambda _, g: (5 * g,))

    def function(x):
        return double(x), jax.grad(lambda x: double(x).sum())(x), jax.nn.relu(x)

    close(run_compiled(function, X), (2 * X, jnp.full_like(X, 5), X))


def test_transformations_from_outside_pass(compilations):
    def function(x):
        return run_compiled(loop(weights(0)), x)["x"]

    right = loop(weights(0))(X)["x"]
    close(jax.jit(function)(X), right)
    close(jax.vmap(function)(X[None])[0], right)
    tangent = jnp.ones_like(X)
    close(
        jax.jvp(lambda x: run_compiled(loop(weights(0)), x)["sums"], (X,), (tangent,))[1],
        jax.jvp(lambda x: loop(weights(0))(x)["sums"], (X,), (tangent,))[1],
    )
    close(run_compiled(lambda x: function(x) * 2, X), 2 * right)
    with jax.disable_jit():
        close(run_compiled(lambda x: np.asarray(x) + 1, X), X + 1)
    assert len(compiled._programs) == 1


def test_a_mistake_within_is_the_functions_own_error():
    with pytest.raises(ValueError, match="Incompatible shapes"):
        run_compiled(lambda x: x + jnp.ones(7), X)


def test_nothing_keeps_what_was_closed_over():
    class Owner:
        pass

    def call():
        owner, w = Owner(), weights(0) + 1
        run_compiled(loop(w, inner=jax.jit), X)
        owner.function = lambda x: x @ w
        run_compiled(lambda x: lax.map(owner.function, x), X)
        return weakref.ref(owner), weakref.ref(w)

    kept = call()
    call()  # JAX remembers the last call
    gc.collect()
    assert [ref() for ref in kept] == [None, None]


def test_few_programs_stay():
    for n in range(compiled._MOST + 5):
        run_compiled(lambda x, n=n: x + (n + 0.5), X)
    assert len(compiled._programs) == compiled._MOST


@pytest.mark.slow
def test_a_thousand_closures_take_no_memory(memory, compilations):
    for n in range(50):
        run_compiled(loop(weights(n)), X)
    before = memory()
    compilations.clear()
    for n in range(1000):
        found = run_compiled(loop(weights(n % 7)), X)
    close(found, loop(weights(999 % 7))(X))
    assert not [name for name in compilations if "run" in name]
    assert memory() - before < 10


def test_threads_share_a_program():
    expected = [run_compiled(loop(weights(seed)), X) for seed in range(3)]
    compiled._programs.clear()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: run_compiled(loop(weights(seed % 3)), X), range(12)))
    for seed, one in enumerate(found):
        close(one, expected[seed % 3])
    assert len(compiled._programs) == 1


def test_who_calls_is_known():
    """Transformations, whatever the arguments are; nobody otherwise, nor on a thread of its own."""

    def seen(x):
        known.append(compiled.is_traced())
        return x.sum()

    transformations = (jax.jit, jax.vmap, jax.grad, lambda f: lambda x: jax.eval_shape(f, x))
    for transformed in transformations:
        known = []
        transformed(lambda x: seen(x))(X)  # a function of its own: JAX keeps traces
        assert known == [True]
    known = []
    seen(X)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(seen, X).result()
    assert known == [False, False]
