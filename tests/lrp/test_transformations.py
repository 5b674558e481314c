"""Whatever works for `jax.vjp` works for `lrp.vjp`: transformations and dtypes, over one network of every library."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.sharding import AxisType, PartitionSpec

from jxai import lrp
from zoo import LIBRARIES, LRP_0, START, X, close, of_hidden, of_input

EXPECTED = of_input(of_hidden(START))


@pytest.fixture(scope="module", params=LIBRARIES)
def network(request):
    return LIBRARIES[request.param]()


# Of modules bound at once, of modules that are pytrees, of plain functions.
@pytest.fixture(scope="module", params=["Linen", "Equinox", "named_scope"])
def one_of_a_kind(request):
    return LIBRARIES[request.param]()


def explain(f, x, start):
    """Relevance of a batch, for relevance of its outputs."""
    _, pullback = lrp.vjp(f, x, composite=LRP_0)
    return pullback(start)[0]


def each(f, x):
    """f of each image by itself."""
    return jax.vmap(lambda image: f(image[None])[0])(x)


# Around the explanation: of (function of (x, start) to relevance) to the relevance of X.


def alone(run, x, start):
    return run(x[None], start[None])[0]


def of_images(together):
    """By a transformation of what explains one image."""
    return lambda run: together(functools.partial(alone, run))(X, START)


def one_by_one(run):
    _, found = lax.scan(lambda carry, pair: (carry, alone(run, *pair)), 0, (X, START))
    return found


def twice(run):
    return lax.fori_loop(0, 2, lambda _, total: total + run(X, START) / 2, jnp.zeros_like(X))


def chosen(run):
    return jax.jit(lambda yes: lax.cond(yes, lambda: run(X, START), lambda: jnp.zeros_like(X)))(True)


def sharded(run):
    mesh = jax.make_mesh((2,), ("images",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    spec = PartitionSpec("images")
    return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))(X, START)


def exported(run):
    return export.export(jax.jit(run))(X, START).call(X, START)


def once_differentiated(run):
    # Relevance is linear in what it starts with: its derivative along the start is itself.
    _, back = jax.vjp(lambda start: run(X, start), jnp.asarray(START))
    along = jax.vmap(lambda row: back(row)[0])(jnp.eye(X.size).reshape(-1, *X.shape))
    return (along * START).sum((1, 2)).reshape(X.shape)


AROUND = {
    "nothing": lambda run: run(X, START),
    "jit": lambda run: jax.jit(run)(X, START),
    "vmap": of_images(jax.vmap),
    "jit of vmap": of_images(lambda g: jax.jit(jax.vmap(g))),
    "map": lambda run: lax.map(lambda pair: alone(run, *pair), (X, START)),
    "scan": one_by_one,
    "fori_loop": twice,
    "cond": chosen,
    "checkpoint": lambda run: jax.checkpoint(run)(X, START),
    "pmap": of_images(jax.pmap),
    "shard_map": sharded,
    "export": exported,
    "vjp": once_differentiated,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AROUND)
def test_explanations_under_every_transformation(one_of_a_kind, name):
    close(AROUND[name](functools.partial(explain, one_of_a_kind)), EXPECTED)


# Around the network: of f to a function that computes the same.

WITHIN = {
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "vmap": lambda f: functools.partial(each, f),
    "map": lambda f: lambda x: lax.map(lambda image: f(image[None])[0], x),
    "scan": lambda f: lambda x: lax.scan(lambda carry, image: (carry, f(image[None])[0]), 0, x)[1],
    "cond": lambda f: lambda x: lax.cond(x.sum() < np.inf, f, lambda x: 2 * f(x), x),
    "while": lambda f: lambda x: lax.fori_loop(0, 1, lambda _, y: f(x) + 0 * y, jnp.zeros_like(START)),
    "named_call": lambda f: jax.named_call(f, name="again"),
    "parts": lambda f: lambda x: jnp.concatenate([f(x[:1]), f(x[1:])]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHIN)
def test_networks_under_every_transformation(one_of_a_kind, name):
    f = WITHIN[name](lambda x: one_of_a_kind(x))
    close(jax.jit(functools.partial(explain, f))(X, START), EXPECTED)


@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float32, 1e-4), (jnp.bfloat16, 5e-2)])
def test_relevance_has_the_dtype_of_what_is_explained(network, dtype, bound):
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), network.variables)
    f = functools.partial(network.apply, variables)
    x = jnp.asarray(X, dtype)
    relevance = jax.jit(functools.partial(explain, f))(x, jnp.asarray(START, f(x).dtype))
    assert relevance.dtype == dtype
    error = np.abs(np.asarray(relevance, np.float32) - EXPECTED).max()
    assert error <= bound * np.abs(EXPECTED).max()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["Linen", "Haiku", "Equinox", "mark"])
def test_relevance_in_float64(name):
    network = LIBRARIES[name]()
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), network.variables)
    f = functools.partial(network.apply, variables)
    relevance = jax.jit(functools.partial(explain, f))(
        jnp.asarray(X, jnp.float64), jnp.asarray(START, jnp.float64)
    )
    assert relevance.dtype == jnp.float64
    close(relevance, EXPECTED)
