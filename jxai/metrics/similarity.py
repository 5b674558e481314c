"""How alike two heatmaps (N, H, W) are, signs aside: in the order of their pixels, and in their structure."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jxai.batches.blur import gaussian_blur
from jxai.checks import keep_nan
from jxai.errors import InputError
from jxai.metrics.correlation import spearman
from jxai.metrics.inputs import as_feature_map, as_heatmap

# Wang's constants, for values in [0, 1].
_SIGMA, _RADIUS, _C1, _C2 = 1.5, 5, 0.01**2, 0.03**2


def rank_correlation(heatmap: jax.Array, other: jax.Array) -> jax.Array:
    """Spearman's rank correlation of two absolute heatmaps; equal values share the mean of their ranks.

    Args:
        heatmap: (N, H, W), (N, T) or (N, D).
        other: of its shape.

    Returns:
        (N,) in [-1, 1], float32; 0 where a heatmap is constant and so has no order.

    Raises:
        ValueError: if shapes do not fit or values are not finite.

    Example:
        >>> found = rank_correlation(jnp.array([[[1.0, -2.0, 3.0]]]), jnp.array([[[1.0, 4.0, 9.0]]]))
        >>> round(found.item(), 6)
        1.0

    References:
        Sanity Checks for Saliency Maps, Adebayo et al., 2018.
    """
    return _spearman(*_pair(heatmap, other, as_feature_map))


def structural_similarity(heatmap: jax.Array, other: jax.Array) -> jax.Array:
    """SSIM of two absolute heatmaps, each stretched to [0, 1].

    Mean over all pixels of ((2 μ μ' + C₁)(2 σ_{μμ'} + C₂)) / ((μ² + μ'² + C₁)(σ² + σ'² + C₂)), the moments taken in
    Gaussian windows of 11 x 11 pixels with standard deviation 1.5, C₁ = 0.01² and C₂ = 0.03². Windows that reach over
    an edge see it repeated, so heatmaps of any size do.

    Args:
        heatmap: (N, H, W).
        other: (N, H, W).

    Returns:
        (N,) in [-1, 1], float32. A constant heatmap counts as zeros.

    Raises:
        ValueError: if shapes do not fit or values are not finite.

    References:
        Image Quality Assessment: From Error Visibility to Structural Similarity, Wang et al., 2004. Sanity Checks for
        Saliency Maps, Adebayo et al., 2018.
    """
    return _ssim(*_pair(heatmap, other))


def _pair(
    heatmap: jax.Array, other: jax.Array, checked: Callable[..., jax.Array] = as_heatmap
) -> tuple[jax.Array, jax.Array]:
    heatmap, other = checked(heatmap), checked(other)
    if heatmap.shape != other.shape:
        raise InputError(
            f"expected `other` of shape {heatmap.shape}, got {other.shape}: heatmaps of the same images"
        )
    return jnp.abs(heatmap), jnp.abs(other)


@jax.jit
def _spearman(heatmap: jax.Array, other: jax.Array) -> jax.Array:
    flat = (values.reshape(len(values), -1) for values in (heatmap, other))
    return keep_nan(spearman(*flat), heatmap, other)


@jax.jit
def _ssim(heatmap: jax.Array, other: jax.Array) -> jax.Array:
    a, b = _stretched(heatmap), _stretched(other)
    moments = jnp.stack([a, b, a * a, b * b, a * b], axis=-1)
    mean_a, mean_b, square_a, square_b, product = jnp.moveaxis(
        gaussian_blur(moments, sigma=_SIGMA, radius=_RADIUS), -1, 0
    )
    variance = square_a - mean_a**2 + square_b - mean_b**2
    covariance = product - mean_a * mean_b
    structure = (2 * covariance + _C2) / (variance + _C2)
    likeness = ((2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1) * structure).mean(axis=(1, 2))
    return keep_nan(likeness, heatmap, other)


def _stretched(heatmap: jax.Array) -> jax.Array:
    low, high = heatmap.min(axis=(1, 2), keepdims=True), heatmap.max(axis=(1, 2), keepdims=True)
    return (heatmap - low) / jnp.where(high > low, high - low, 1)
