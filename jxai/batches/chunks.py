"""Many inputs of a function, some at a time: the two loops that all estimators and metrics share.

A row is one input of the network. `map_chunks` keeps what each row gives; `sum_over_roots` sums it over the roots r
of each image n, rows n · num_roots + r, by a scan whose carry is the running sum of each image: memory is bounded by
the chunk, and a chunk may end within an image.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jxai.checks import check_count
from jxai.compiled import run_compiled
from jxai.ops.convolution import with_fast_convolutions

# Numbers of the inputs in flight by default: 16 images of 224x224x3 on a CPU, whose convolutions gain nothing from
# more; 256 on an accelerator.
_CPU_ELEMENTS = 2_408_448
_ACCELERATOR_ELEMENTS = 38_535_168

Terms = Callable[[jax.Array, jax.Array], Any]
Tree = TypeVar("Tree")


def rows_in_flight(x: jax.Array, chunk_size: int | None) -> int:
    """How many inputs are in flight at once: the caller's number, or one by the size of an input.

    Args:
        x: the images, (N, ...).
        chunk_size: the caller's, or None.

    Returns:
        At least 1.

    Raises:
        ValueError: chunk_size is less than 1.
    """
    if chunk_size is not None:
        check_count("chunk_size", chunk_size)
        return chunk_size
    budget = _CPU_ELEMENTS if jax.default_backend() == "cpu" else _ACCELERATOR_ELEMENTS
    return max(1, budget // x[0].size)


def _even_size(num_rows: int, chunk_size: int) -> int:
    """The size of chunks, from half of `chunk_size` to all of it, that repeats the fewest rows; else the largest."""
    largest = min(chunk_size, num_rows)
    return min(range(largest, (largest - 1) // 2, -1), key=lambda size: -(-num_rows // size) * size)


def map_chunks(function: Callable[[jax.Array], Tree], num_rows: int, chunk_size: int) -> Tree:
    """Apply a function to the rows 0 .. num_rows - 1, a chunk of them at a time.

    Args:
        function: from row indices, (c,) int32, to a tree of arrays (c, ...). It is traced once.
        num_rows: at least 1.
        chunk_size: how many rows are in flight at most, at least 1. Chunks are of one size; the last one repeats the
            last row where it has to.

    Returns:
        The tree of arrays (num_rows, ...).

    Raises:
        ValueError: a count is less than 1.
    """
    check_count("num_rows", num_rows)
    check_count("chunk_size", chunk_size)
    size = _even_size(num_rows, chunk_size)
    num_chunks = -(-num_rows // size)
    function = with_fast_convolutions(function)

    def chunked() -> Tree:
        if num_chunks == 1:
            return function(jnp.arange(num_rows, dtype=jnp.int32))
        indices = jnp.minimum(jnp.arange(num_chunks * size, dtype=jnp.int32), num_rows - 1)
        chunks = lax.map(function, indices.reshape(num_chunks, size))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_rows], chunks)

    return run_compiled(chunked)


def sum_over_roots(
    terms: Terms, x: jax.Array, *, num_roots: int, chunk_size: int | None, mesh: Mesh | None
) -> Any:
    """Sum terms over the roots of each image.

    Args:
        terms: of (images, roots), two integer arrays (c,), to a tree of arrays (c, ...): the terms of these rows. It
            must treat each row alone.
        x: the images, (N, ...); of them only the number and size matter here.
        num_roots: R.
        chunk_size: rows in flight; by default `rows_in_flight`. With a mesh it is rounded up to its devices.
        mesh: devices that the rows in flight are spread over.

    Returns:
        The tree of sums (N, ...), float32 at least.

    Raises:
        ValueError: num_roots or chunk_size is less than 1.
    """
    check_count("num_roots", num_roots)
    num_images = x.shape[0]
    chunk_size = rows_in_flight(x, chunk_size)
    total = num_images * num_roots
    size = _even_size(total, chunk_size)
    if mesh is not None:
        size = -(-size // mesh.size) * mesh.size
    num_chunks = -(-total // size)
    span = min(num_images, (size - 2) // num_roots + 2)  # images that a chunk can touch
    terms = with_fast_convolutions(terms)

    def spread(array: jax.Array) -> jax.Array:
        if mesh is None:
            return array
        return lax.with_sharding_constraint(array, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))

    def chunk(first: jax.Array) -> tuple[jax.Array, Any]:
        """(the first image, the sums of it and those after it) of the rows from `first` on."""
        rows = first + jnp.arange(size)
        inside, rows = rows < total, jnp.minimum(rows, total - 1)
        images, roots = spread(rows // num_roots), spread(rows % num_roots)
        start = jnp.minimum(images[0], num_images - span)
        member = ((images - start)[None] == jnp.arange(span)[:, None]) & inside[None]

        def sums(values: jax.Array) -> jax.Array:
            values = spread(values.astype(jnp.promote_types(values.dtype, jnp.float32)))
            # Not a product with zeros: an image without finite values must not spoil its neighbors.
            own = member.reshape(span, size, *[1] * (values.ndim - 1))
            return jnp.where(own, values, 0).sum(axis=1)

        return start, jax.tree.map(sums, terms(images, roots))

    def step(totals: Any, first: jax.Array) -> tuple[Any, None]:
        start, sums = chunk(first)

        def add(total: jax.Array, part: jax.Array) -> jax.Array:
            before = lax.dynamic_slice_in_dim(total, start, span)
            return lax.dynamic_update_slice_in_dim(total, before + part, start, axis=0)

        return jax.tree.map(add, totals, sums), None

    def summed() -> Any:
        if num_chunks == 1:
            return chunk(jnp.zeros((), jnp.int32))[1]
        shapes = jax.eval_shape(lambda first: chunk(first)[1], jnp.zeros((), jnp.int32))
        zeros = jax.tree.map(lambda part: jnp.zeros((num_images, *part.shape[1:]), part.dtype), shapes)
        return lax.scan(step, zeros, jnp.arange(num_chunks) * size)[0]

    return run_compiled(summed)
