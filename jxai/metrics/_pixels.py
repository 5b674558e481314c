"""Pixels in the order of their relevance, and Gaussian blur."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(jax.jit, static_argnames="most_relevant_first")
def removal_ranks(heatmap: jax.Array, *, most_relevant_first: bool = True) -> jax.Array:
    """Each pixel's place in the order of removal, from 0; of equal ones the first in reading order goes first.

    Args:
        heatmap: (N, H, W).
        most_relevant_first: whether the largest signed value has place 0, or the smallest.

    Returns:
        (N, H, W), int32.
    """
    flat = heatmap.reshape(len(heatmap), -1)
    order = jnp.argsort(-flat if most_relevant_first else flat, axis=1)
    places = jnp.arange(flat.shape[1], dtype=jnp.int32)
    ranks = jax.vmap(lambda line: jnp.zeros_like(places).at[line].set(places, unique_indices=True))(order)
    return ranks.reshape(heatmap.shape)


def _gaussian(size: int, sigma: float, radius: int) -> np.ndarray:
    """The blur of a line with its ends repeated, as a matrix (size, size)."""
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        np.add.at(matrix, (rows, np.clip(rows + offset, 0, size - 1)), weight)
    return matrix.astype(np.float32)


@functools.partial(jax.jit, static_argnames=("sigma", "radius"))
def blur(images: jax.Array, *, sigma: float, radius: int) -> jax.Array:
    """Gaussian blur over axes 1 and 2, edges repeated.

    Args:
        images: (N, H, W, ...).
        sigma: standard deviation in pixels.
        radius: where the kernel is cut off, in pixels.

    Returns:
        The same shape, float32.
    """
    rows, columns = (_gaussian(size, sigma, radius) for size in images.shape[1:3])
    images = jnp.tensordot(rows, images.astype(jnp.float32), axes=(1, 1), precision=jax.lax.Precision.HIGHEST)
    images = jnp.tensordot(columns, images, axes=(1, 2), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(images, (0, 1), (2, 1))  # (W, H, N, ...) -> (N, H, W, ...)
