"""How few pixels hold the relevance. Signs do not count: both metrics look at |heatmap|, (N, H, W)."""

import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import keep_nan
from jxai.metrics.inputs import as_heatmap


def sparseness(heatmap: jax.Array) -> jax.Array:
    """Gini index of the absolute heatmap. Higher is better.

    Σ_k (2k − n − 1) h_(k) / (n Σ h), h_(k) the k-th smallest of the n values |h|.

    Args:
        heatmap: (N, H, W).

    Returns:
        (N,), float32: 0 where all values are equal (all zeros too), 1 − 1/n where a single pixel holds everything.

    Raises:
        ValueError: if it has another rank or values that are not finite.

    Example:
        >>> sparseness(jnp.array([[[0.0, 0.0], [0.0, 3.0]]])).item()
        0.75

    References:
        Concise Explanations of Neural Networks using Adversarial Training, Chalasani et al., 2020.
    """
    share = jnp.sort(_shares(heatmap), axis=1)
    num_pixels = share.shape[1]
    weight = jnp.asarray((2 * np.arange(num_pixels) - (num_pixels - 1)) / num_pixels, jnp.float32)
    return (weight[None] * share).sum(axis=1)


def complexity(heatmap: jax.Array) -> jax.Array:
    """Entropy of the pixels' shares in the absolute heatmap, in nats. Lower is better.

    −Σ p ln p, p = |h| / Σ |h|.

    Args:
        heatmap: (N, H, W).

    Returns:
        (N,), float32: 0 where a single pixel holds everything, ln(H·W) where all values are equal (all zeros too).

    Raises:
        ValueError: if it has another rank or values that are not finite.

    Example:
        >>> complexity(jnp.array([[[0.0, 0.0], [0.0, 3.0]]])).item()
        0.0

    References:
        Evaluating and Aggregating Feature-based Model Explanations, Bhatt et al., 2020.
    """
    return jax.scipy.special.entr(_shares(heatmap)).sum(axis=1)


def _shares(heatmap: jax.Array) -> jax.Array:
    """Each pixel's share of the absolute heatmap, (N, H·W); equal shares where there is nothing."""
    heatmap = as_heatmap(heatmap)
    magnitude = jnp.abs(heatmap).reshape(len(heatmap), -1)
    # Over the maximum first: a sum of tiny or huge values would leave float32.
    largest = magnitude.max(axis=1, keepdims=True)
    magnitude = jnp.where(largest > 0, magnitude / jnp.where(largest > 0, largest, 1), 1)
    return keep_nan(magnitude / magnitude.sum(axis=1, keepdims=True), heatmap)
