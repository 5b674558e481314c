"""Sums over the roots of every image, some inputs at a time: the one loop that all estimators share.

A row is one root r of one image n, one input of the network. Rows are numbered n · num_roots + r and taken in chunks
by a scan whose carry is the running sum of each image, so memory is bounded by the chunk, and a chunk may end within
an image.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jxai.attribution.checks import check_count
from jxai.attribution.convolutions import with_plain_convolutions

# Numbers of the inputs in flight by default: 16 images of 224x224x3 on a CPU, whose convolutions gain nothing from
# more; 256 on an accelerator.
_CPU_ELEMENTS = 2_408_448
_ACCELERATOR_ELEMENTS = 38_535_168

Terms = Callable[[jax.Array, jax.Array], Any]


def default_chunk_size(row_elements: int) -> int:
    """How many inputs are in flight unless the caller says so.

    Args:
        row_elements: numbers in one input.

    Returns:
        At least 1.
    """
    budget = _CPU_ELEMENTS if jax.default_backend() == "cpu" else _ACCELERATOR_ELEMENTS
    return max(1, budget // row_elements)


def sum_over_roots(
    terms: Terms, x: jax.Array, *, num_roots: int, chunk_size: int | None, mesh: Mesh | None
) -> Any:
    """Sum terms over the roots of each image.

    Args:
        terms: of (images, roots), two integer arrays (c,), to a tree of arrays (c, ...): the terms of these rows. It
            must treat each row alone.
        x: the images, (N, ...); of them only the number and size matter here.
        num_roots: R.
        chunk_size: rows in flight; by default `default_chunk_size`. With a mesh it is rounded up to its devices.
        mesh: devices that the rows in flight are spread over.

    Returns:
        The tree of sums (N, ...), float32 at least.

    Raises:
        ValueError: num_roots or chunk_size is less than 1.
    """
    check_count("num_roots", num_roots)
    num_images = x.shape[0]
    chunk_size = default_chunk_size(x[0].size) if chunk_size is None else chunk_size
    check_count("chunk_size", chunk_size)
    total = num_images * num_roots
    num_chunks = -(-total // chunk_size)
    size = -(-total // num_chunks)  # the last chunk as full as the others
    if mesh is not None:
        size = -(-size // mesh.size) * mesh.size
        num_chunks = -(-total // size)
    span = min(num_images, (size - 2) // num_roots + 2)  # images that a chunk can touch
    terms = with_plain_convolutions(terms)

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
        member = (images - start == jnp.arange(span)[:, None]) & inside

        def sums(values: jax.Array) -> jax.Array:
            values = spread(values.astype(jnp.promote_types(values.dtype, jnp.float32)))
            # Not a product with zeros: an image without finite values must not spoil its neighbours.
            own = member.reshape(span, size, *[1] * (values.ndim - 1))
            return jnp.where(own, values, 0).sum(axis=1)

        return start, jax.tree.map(sums, terms(images, roots))

    if num_chunks == 1:
        return chunk(jnp.zeros((), jnp.int32))[1]

    def step(totals: Any, first: jax.Array) -> tuple[Any, None]:
        start, sums = chunk(first)

        def add(total: jax.Array, part: jax.Array) -> jax.Array:
            before = lax.dynamic_slice_in_dim(total, start, span)
            return lax.dynamic_update_slice_in_dim(total, before + part, start, axis=0)

        return jax.tree.map(add, totals, sums), None

    shapes = jax.eval_shape(lambda first: chunk(first)[1], jnp.zeros((), jnp.int32))
    zeros = jax.tree.map(lambda part: jnp.zeros((num_images, *part.shape[1:]), part.dtype), shapes)
    return lax.scan(step, zeros, jnp.arange(num_chunks) * size)[0]


def row_keys(key: jax.Array, images: jax.Array, roots: jax.Array) -> jax.Array:
    """A key for each row, which depends on (key, image, root) alone, however rows are chunked.

    Args:
        key: a random key.
        images: (c,), integers.
        roots: (c,), integers.

    Returns:
        Keys, (c,).
    """
    return jax.vmap(lambda n, r: jax.random.fold_in(jax.random.fold_in(key, n), r))(images, roots)
