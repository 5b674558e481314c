"""Whether relevance falls on the object. Heatmaps (N, H, W) are signed; masks (N, H, W) are true on the object."""

import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import as_array, check_number, keep_nan, values
from jxai.errors import InputError, InputTypeError
from jxai.metrics.inputs import as_heatmap
from jxai.metrics.pixels import removal_ranks


def relevance_mass(heatmap: jax.Array, mask: jax.Array) -> jax.Array:
    """Share of the positive relevance that lies on the object. Higher is better.

    Args:
        heatmap: (N, H, W).
        mask: (N, H, W), bool, true on the object.

    Returns:
        (N,) in [0, 1], float32; 0 where no relevance is positive.

    Raises:
        TypeError: if `mask` is not bool.
        ValueError: if shapes do not fit, values are not finite or a mask is empty.

    Example:
        >>> relevance_mass(jnp.array([[[3.0, -1.0, 1.0]]]), jnp.array([[[True, True, False]]])).item()
        0.75

    References:
        CLEVR-XAI: A Benchmark Dataset for the Ground Truth Evaluation of Neural Network Explanations, Arras et al.,
        2022.
    """
    heatmap, mask = _checked(heatmap, mask)
    positive = jnp.maximum(heatmap, 0)
    # Over the maximum first: a sum of tiny or huge values would leave float32.
    largest = positive.max(axis=(1, 2), keepdims=True)
    positive = positive / jnp.where(largest > 0, largest, 1)
    total = positive.sum(axis=(1, 2))
    share = jnp.where(mask, positive, 0).sum(axis=(1, 2)) / jnp.where(total > 0, total, 1)
    return keep_nan(share, heatmap)


def relevance_rank(heatmap: jax.Array, mask: jax.Array) -> jax.Array:
    """Share of the K most relevant pixels that lie on the object of K pixels. Higher is better.

    Args:
        heatmap: (N, H, W); of equal values the first in reading order comes first.
        mask: (N, H, W), bool, true on the object.

    Returns:
        (N,) in [0, 1], float32.

    Raises:
        TypeError: if `mask` is not bool.
        ValueError: if shapes do not fit, values are not finite or a mask is empty.

    Example:
        >>> relevance_rank(jnp.array([[[3.0, -1.0, 1.0]]]), jnp.array([[[True, True, False]]])).item()
        0.5

    References:
        CLEVR-XAI: A Benchmark Dataset for the Ground Truth Evaluation of Neural Network Explanations, Arras et al.,
        2022.
    """
    heatmap, mask = _checked(heatmap, mask)
    size = mask.sum(axis=(1, 2))
    hits = mask & (removal_ranks(heatmap) < size[:, None, None])
    return keep_nan(hits.sum(axis=(1, 2), dtype=jnp.float32) / size.astype(jnp.float32), heatmap)


def pointing_game(heatmap: jax.Array, mask: jax.Array, *, tolerance: float = 0.0) -> jax.Array:
    """Whether the most relevant pixel lies on the object. Higher is better.

    Args:
        heatmap: (N, H, W); of equal maxima the first in reading order counts.
        mask: (N, H, W), bool, true on the object.
        tolerance: how far from the object, in pixels, still hits, at least 0; the paper's is 15.

    Returns:
        (N,), float32: 1 for a hit, 0 for a miss. Its mean is the paper's accuracy.

    Raises:
        TypeError: if `mask` is not bool.
        ValueError: if shapes do not fit, values are not finite, a mask is empty or `tolerance` is negative.

    Example:
        >>> pointing_game(jnp.array([[[3.0, -1.0, 1.0]]]), jnp.array([[[True, True, False]]])).item()
        1.0

    References:
        Top-down Neural Attention by Excitation Backprop, Zhang et al., 2016.
    """
    heatmap, mask = _checked(heatmap, mask)
    check_number("tolerance", tolerance, least=0)
    height, width = heatmap.shape[1:]
    peak = heatmap.reshape(len(heatmap), -1).argmax(axis=1)
    down = jnp.arange(height)[None] - (peak // width)[:, None]
    across = jnp.arange(width)[None] - (peak % width)[:, None]
    near = jnp.hypot(down[:, :, None], across[:, None, :]) <= tolerance
    return keep_nan((near & mask).any(axis=(1, 2)).astype(jnp.float32), heatmap)


def _checked(heatmap: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    heatmap, mask = as_heatmap(heatmap), as_array(mask)
    if mask.dtype != jnp.bool_:
        raise InputTypeError(f"expected `mask` of bool, got {mask.dtype}: compare it with a threshold")
    if mask.shape != heatmap.shape:
        raise InputError(f"expected `mask` of shape {heatmap.shape}, got {mask.shape}: one value a pixel")
    # In NumPy: a known mask that a jitted function closes over would be traced otherwise.
    known = values(mask)
    if known is not None and (empty := np.flatnonzero(~known.any(axis=(1, 2))).tolist()):
        raise InputError(
            f"expected an object in every mask, got empty ones at {empty}: leave these images out"
        )
    return heatmap, mask
