"""What heat maps should be like whatever they show: smooth, or of few pixels."""

import jax
import jax.numpy as jnp

from jxai.checks import keep_nan
from jxai.errors import InputError
from jxai.guidance.maps import as_explanations, share, total
from jxai.metrics import sparseness


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
    varied = sum(total(jnp.abs(jnp.diff(heatmap, axis=axis))) for axis in (1, 2))
    return keep_nan(share(jnp.asarray(varied), total(jnp.abs(heatmap)), nothing=0.0), heatmap)


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
    return 1 - sparseness(_as_heatmap(heatmap))


def _as_heatmap(value: jax.Array) -> jax.Array:
    heatmap = as_explanations("heatmap", value)
    if heatmap.ndim != 3:
        advice = "give attributions.sum(axis=-1)" if heatmap.ndim == 4 else "add the axis of images"
        raise InputError(f"expected heatmap (N, H, W), got {heatmap.shape}: {advice}")
    return heatmap
