"""Total variation: how noisy a heatmap looks, at one scale and over a Gaussian pyramid.

Heatmaps are signed sums of attributions over channels, (N, H, W). Of magnitudes alone, scaled to [0, 1]: neither sign
nor scale of the attributions matters.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai.checks import as_array, check_number, keep_nan
from jxai.errors import InputError
from jxai.metrics.inputs import as_heatmap
from jxai.metrics.pyramid import gaussian_pyramid
from jxai.metrics.simpson import simpson

_PERCENTILE = 0.99


def normalized(heatmap: ArrayLike) -> jax.Array:
    """Magnitudes from 0 at the smallest to 1 at the 99th percentile (linear between pixels); what is above it is 1.

    Where the 99th percentile is the smallest magnitude, pixels above it are 1 and the others 0: a constant heatmap
    becomes zeros.

    Args:
        heatmap: (N, H, W).

    Returns:
        (N, H, W) in [0, 1], float32.

    Raises:
        ValueError: `heatmap` is not a finite array (N, H, W).
    """
    magnitude = jnp.abs(as_heatmap(heatmap))
    low, high = magnitude.min(axis=(1, 2), keepdims=True), _high(magnitude)
    span = high - low
    scaled = (magnitude - low) / jnp.where(span > 0, span, 1)
    scaled = jnp.where(span > 0, jnp.clip(scaled, 0, 1), (magnitude > low).astype(jnp.float32))
    return keep_nan(scaled, magnitude)


def average_total_variation(heatmap: ArrayLike, *, order: float = 1) -> jax.Array:
    """Average total variation: differences between neighbors of the `normalized` heatmap. Lower is better.

        ((Σ |∂_row m|ᵖ)^(1/p) + (Σ |∂_column m|ᵖ)^(1/p)) / (H·W)

    Args:
        heatmap: (N, H, W).
        order: p, at least 1; 1 as published.

    Returns:
        (N,), float32; 0 for a constant heatmap.

    Raises:
        ValueError: `heatmap` is not a finite array (N, H, W), or order is less than 1 or infinite.

    Example:
        >>> average_total_variation(jnp.array([[[0.0, 1.0], [0.0, 1.0]]])).item()  # two differences of 1, 4 pixels
        0.5

    References:
        Goh, Lapuschkin, Weber, Samek and Binder, "Understanding Integrated Gradients with SmoothTaylor for Deep
        Neural Network Attribution", 2020.
    """
    check_number("order", order, least=1)
    magnitude = normalized(heatmap)
    down, across = (_norm(jnp.diff(magnitude, axis=axis), order) for axis in (1, 2))
    return (down + across) / (magnitude.shape[1] * magnitude.shape[2])


def multiscale_total_variation(
    heatmap: ArrayLike, *, factor: float = 1.5, smallest: int = 30, order: float = 1
) -> jax.Array:
    """Average total variation of each level of the signed heatmap's Gaussian pyramid. Lower is better.

    Args:
        heatmap: (N, H, W).
        factor: as in `gaussian_pyramid`.
        smallest: as in `gaussian_pyramid`.
        order: as in `average_total_variation`.

    Returns:
        (N, levels), float32, from the heatmap itself to the smallest level; each is `normalized` anew.

    Raises:
        ValueError: as `gaussian_pyramid` and `average_total_variation` do.

    References:
        Goh, Lapuschkin, Weber, Samek and Binder, "Understanding Integrated Gradients with SmoothTaylor for Deep
        Neural Network Attribution", 2020.
    """
    levels = gaussian_pyramid(heatmap, factor=factor, smallest=smallest)
    return jnp.stack([average_total_variation(level, order=order) for level in levels], axis=1)


def autvc(curve: ArrayLike) -> jax.Array:
    """Area under the total variation curve: Simpson's integral with unit steps. Lower is better.

    Areas compare only where the number of levels is the same.

    Args:
        curve: of `multiscale_total_variation`, (N, levels), at least two.

    Returns:
        (N,), float32.

    Raises:
        ValueError: there is a single level, which has no area, or none.

    References:
        Goh, Lapuschkin, Weber, Samek and Binder, "Understanding Integrated Gradients with SmoothTaylor for Deep
        Neural Network Attribution", 2020.
    """
    curve = as_array(curve)
    if (levels := curve.shape[-1] if curve.ndim else 0) < 2:
        raise InputError(
            f"expected at least two levels, got {levels}: lower `smallest`, or compare `average_total_variation`"
        )
    return simpson(curve)


def _high(magnitude: jax.Array) -> jax.Array:
    """The 99th percentile of each heatmap, (N, 1, 1)."""
    flat = magnitude.reshape(magnitude.shape[0], -1)
    # The place is computed here and not in float32, where among 224 x 224 pixels it is off by thousandths. Only
    # the pixels from there on are sorted.
    place = _PERCENTILE * (flat.shape[1] - 1)
    below = math.floor(place)
    largest = jax.lax.top_k(flat, flat.shape[1] - below)[0]
    lower, upper = largest[:, -1], largest[:, max(largest.shape[1] - 2, 0)]
    return (lower + (upper - lower) * (place - below))[:, None, None]


def _norm(differences: jax.Array, order: float) -> jax.Array:
    """(Σ |d|ᵖ)^(1/p) of each image."""
    magnitude = jnp.abs(differences)
    if order == 1:
        return magnitude.sum(axis=(1, 2))
    total = (magnitude**order).sum(axis=(1, 2))
    # A root's slope at 0 is infinite: a constant heatmap would have no gradient.
    return jnp.where(total > 0, jnp.where(total > 0, total, 1) ** (1 / order), total)
