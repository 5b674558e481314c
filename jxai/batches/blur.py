"""Gaussian blur, edges repeated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def _gaussian(size: int, sigma: float, radius: int) -> np.ndarray:
    """The blur of a line with its ends repeated, as a matrix (size, size)."""
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        np.add.at(matrix, (rows, np.clip(rows + offset, 0, size - 1)), weight)
    return matrix


@functools.partial(jax.jit, static_argnames=("sigma", "radius"))
def gaussian_blur(images: jax.Array, *, sigma: float, radius: int) -> jax.Array:
    """Gaussian blur over axes 1 and 2, edges repeated.

    Args:
        images: (N, H, W, ...).
        sigma: standard deviation in pixels.
        radius: where the kernel is cut off, in pixels.

    Returns:
        The same shape, float32 at least.
    """
    images = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    rows, columns = (jnp.asarray(_gaussian(size, sigma, radius), images.dtype) for size in images.shape[1:3])
    images = jnp.tensordot(rows, images, axes=(1, 1), precision=jax.lax.Precision.HIGHEST)
    images = jnp.tensordot(columns, images, axes=(1, 2), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(images, (0, 1), (2, 1))  # (W, H, N, ...) -> (N, H, W, ...)
