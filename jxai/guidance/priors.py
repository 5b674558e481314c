"""What heat maps should be like whatever they show: smooth, or of few pixels."""

import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import keep_nan
from jxai.errors import InputError
from jxai.guidance.maps import as_explanations, scaled, share, total


def roughness(heatmap: jax.Array) -> jax.Array:
    """Σ |differences of neighbors| / Σ |R|: total variation for its size.

    Args:
        heatmap: R, (N, H, W), floats; of attributions with channels their sum.

    Returns:
        (N,), float32 at least: 0 where all values are equal (all zeros too), at most 4, of a checkerboard.

    Raises:
        TypeError: no array of numbers.
        ValueError: another rank, or values that are not finite (not seen under jit).

    References:
        Erion et al., *Improving Performance of Deep Learning Models with Axiomatic Attribution Priors and Expected
        Gradients*, 2021 (the pixel attribution prior; not divided there).
    """
    heatmap = _as_heatmap(heatmap)
    values = scaled(heatmap)
    varied = jnp.stack([total(jnp.abs(jnp.diff(values, axis=axis))) for axis in (1, 2)]).sum(axis=0)
    return keep_nan(share(varied, total(jnp.abs(values)), nothing=0.0), heatmap)


def density(heatmap: jax.Array) -> jax.Array:
    """1 − the Gini index of |R|: the further from 0, the more pixels share the relevance.

    Args:
        heatmap: R, (N, H, W), floats; of attributions with channels their sum.

    Returns:
        (N,), float32 at least: 1 where all values are equal (all zeros too), 1/n where one of n pixels holds
        everything.

    Raises:
        TypeError: no array of numbers.
        ValueError: another rank, or values that are not finite (not seen under jit).

    References:
        Erion et al., *Improving Performance of Deep Learning Models with Axiomatic Attribution Priors and Expected
        Gradients*, 2021 (the sparsity prior, of features over a data set there); `jxai.metrics.sparseness`.
    """
    heatmap = _as_heatmap(heatmap)
    ordered = jnp.sort(jnp.abs(scaled(heatmap)).reshape(len(heatmap), -1), axis=1)
    number = ordered.shape[1]
    # One less the Gini index: the k-th smallest counts (2(n − k) + 1) / n.
    weights = jnp.asarray((2 * np.arange(number)[::-1] + 1) / number, ordered.dtype)
    return keep_nan(share((weights * ordered).sum(axis=1), ordered.sum(axis=1), nothing=1.0), heatmap)


def _as_heatmap(value: jax.Array) -> jax.Array:
    heatmap = as_explanations("heatmap", value)
    if heatmap.ndim != 3:
        advice = "give attributions.sum(axis=-1)" if heatmap.ndim == 4 else "add the axis of images"
        raise InputError(f"expected heatmap (N, H, W), got {heatmap.shape}: {advice}")
    return heatmap
