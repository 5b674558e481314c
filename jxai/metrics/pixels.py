"""Pixels in the order of their relevance."""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.jit, static_argnames="most_relevant_first")
def removal_ranks(heatmap: jax.Array, *, most_relevant_first: bool = True) -> jax.Array:
    """Each pixel's place in the order of removal, from 0; of equal ones the first in reading order goes first.

    Args:
        heatmap: (N, ...).
        most_relevant_first: whether the largest signed value has place 0, or the smallest.

    Returns:
        Of its shape, int32.
    """
    flat = heatmap.reshape(len(heatmap), -1)
    order = jnp.argsort(-flat if most_relevant_first else flat, axis=1)
    places = jnp.arange(flat.shape[1], dtype=jnp.int32)
    ranks = jax.vmap(lambda line: jnp.zeros_like(places).at[line].set(places, unique_indices=True))(order)
    return ranks.reshape(heatmap.shape)
