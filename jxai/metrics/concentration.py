"""How few features hold the relevance. Signs do not count: these metrics look at |heatmap|.

Heatmaps are (N, H, W) of images, (N, T) of tokens, (N, D) of tables.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import check_number, keep_nan
from jxai.metrics.inputs import as_feature_map


def sparseness(heatmap: jax.Array) -> jax.Array:
    """Gini index of the absolute heatmap. Higher is better.

    Σ_k (2k − n − 1) h_(k) / (n Σ h), h_(k) the k-th smallest of the n values |h|. Quantus adds 1e-7 to each value,
    which is felt where their mean is small: its numbers are those of `jnp.abs(heatmap) + 1e-7`.

    Args:
        heatmap: (N, H, W), (N, T) or (N, D).

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
        heatmap: (N, H, W), (N, T) or (N, D).

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


def effective_pixels(heatmap: jax.Array, *, threshold: float = 1e-5) -> jax.Array:
    """Number of pixels whose absolute relevance exceeds a threshold. Lower is better.

    Σ [|h| > threshold]: what Quantus calls `EffectiveComplexity`. The metric of that name in the paper asks the
    network: `effective_complexity`.

    Args:
        heatmap: (N, H, W), (N, T) or (N, D).
        threshold: in units of the heatmap, at least 0.

    Returns:
        (N,), float32, from 0 (all zeros) to H·W.

    Raises:
        ValueError: if it has another rank, values that are not finite or `threshold` is negative.

    Example:
        >>> effective_pixels(jnp.array([[[0.0, -0.2], [0.1, 3.0]]]), threshold=0.1).item()
        2.0

    References:
        Quantus: An Explainable AI Toolkit for Responsible Evaluation of Neural Network Explanations and Beyond,
        Hedström et al., 2023.
    """
    heatmap = as_feature_map(heatmap)
    check_number("threshold", threshold, least=0)
    above = (jnp.abs(heatmap) > threshold).reshape(len(heatmap), -1)
    return keep_nan(above.sum(axis=1, dtype=jnp.float32), heatmap)


def _shares(heatmap: jax.Array) -> jax.Array:
    """Each pixel's share of the absolute heatmap, (N, H·W); equal shares where there is nothing."""
    heatmap = as_feature_map(heatmap)
    magnitude = jnp.abs(heatmap).reshape(len(heatmap), -1)
    # Over the maximum first: a sum of tiny or huge values would leave float32.
    largest = magnitude.max(axis=1, keepdims=True)
    magnitude = jnp.where(largest > 0, magnitude / jnp.where(largest > 0, largest, 1), 1)
    return keep_nan(magnitude / magnitude.sum(axis=1, keepdims=True), heatmap)
