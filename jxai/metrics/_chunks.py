"""How many inputs are in flight at once."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")

# Elements of the inputs in flight: 16 images of 224x224x3 are what a CPU works on at once, an accelerator wants more.
_CPU_ELEMENTS, _OTHER_ELEMENTS = 2_400_000, 40_000_000


def default_chunk(row_elements: int) -> int:
    """How many inputs of so many elements each are in flight where the user does not say, at least 1."""
    budget = _CPU_ELEMENTS if jax.default_backend() == "cpu" else _OTHER_ELEMENTS
    return max(1, budget // max(1, row_elements))


def map_chunks(function: Callable[[jax.Array], Tree], num_rows: int, chunk_size: int) -> Tree:
    """Applies a function to the rows 0 .. num_rows - 1, a chunk of them at a time.

    Args:
        function: from row indices, (c,) int32, to a tree of arrays (c, ...). It is traced once.
        num_rows: at least 1.
        chunk_size: how many rows are in flight at most, at least 1. Chunks are of one size, the smallest that does
            not need more of them, and the last one repeats the last row where it has to.

    Returns:
        The tree of arrays (num_rows, ...).

    Raises:
        ValueError: if a count is below 1.
    """
    if num_rows < 1 or chunk_size < 1:
        raise ValueError(
            f"expected at least 1 row and a chunk_size of at least 1, got {num_rows} and {chunk_size}: "
            "leave chunk_size out for a default by size"
        )
    num_chunks = -(-num_rows // chunk_size)
    if num_chunks == 1:
        return function(jnp.arange(num_rows, dtype=jnp.int32))
    size = -(-num_rows // num_chunks)
    indices = jnp.minimum(jnp.arange(num_chunks * size, dtype=jnp.int32), num_rows - 1)
    chunks = jax.lax.map(function, indices.reshape(num_chunks, size))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_rows], chunks)
