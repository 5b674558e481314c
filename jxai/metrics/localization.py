"""Whether relevance falls on the object. Heatmaps (N, H, W) are signed; masks (N, H, W) are true on the object.

An empty mask is refused. Under `jit`, where values are not seen, nothing lies in it: a share of the relevance or of
the pixels is 0, and what divides by the mask's size (`relevance_rank`, `localization_auc`) is NaN.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import as_array, check_choice, check_count, check_number, keep_nan, values
from jxai.errors import InputError, InputTypeError
from jxai.metrics.correlation import centered_ranks
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
    return positive_share(*as_masked(heatmap, mask))


def attribution_localization(heatmap: jax.Array, mask: jax.Array, *, weighted: bool = False) -> jax.Array:
    """Share of the positive relevance that lies on the object, by its size on request. Higher is better.

    μ = R_in / R_tot, which is `relevance_mass`, or μ_w = μ · S_tot / S_in: S_in pixels of S_tot are the object's.
    Quantus takes absolute values: give it `jnp.abs(heatmap)`.

    Args:
        heatmap: (N, H, W).
        mask: (N, H, W), bool, true on the object.
        weighted: whether to divide by the object's share of the area: 1 is then what chance gives.

    Returns:
        (N,), float32, in [0, 1] without weights; 0 where no relevance is positive.

    Raises:
        TypeError: if `mask` is not bool.
        ValueError: if shapes do not fit, values are not finite or a mask is empty.

    Example:
        >>> heatmap, mask = jnp.array([[[3.0, -1.0, 1.0, 0.0]]]), jnp.array([[[True, True, False, False]]])
        >>> attribution_localization(heatmap, mask, weighted=True).item()
        1.5

    References:
        Towards Best Practice in Explaining Neural Network Decisions with LRP, Kohlbrenner et al., 2020.
    """
    heatmap, mask = as_masked(heatmap, mask)
    share = positive_share(heatmap, mask)
    return share / _area(mask) if _as_flag("weighted", weighted) else share


def top_k_intersection(
    heatmap: jax.Array, mask: jax.Array, *, num_pixels: int = 1000, weighted: bool = False
) -> jax.Array:
    """Share of the k most relevant pixels that lie on the object. Higher is better.

    |top_k ∩ object| / k, at most |object| / k.

    Args:
        heatmap: (N, H, W); of equal values the first in reading order comes first.
        mask: (N, H, W), bool, true on the object.
        num_pixels: k, from 1 to H·W.
        weighted: whether to divide by the object's share of the area: 1 is then what chance gives (Quantus'
            `concept_influence`).

    Returns:
        (N,), float32, in [0, 1] without weights.

    Raises:
        TypeError: if `mask` is not bool.
        ValueError: if shapes do not fit, values are not finite, a mask is empty or there are fewer pixels than asked.

    Example:
        >>> heatmap, mask = jnp.array([[[3.0, -1.0, 1.0]]]), jnp.array([[[True, True, False]]])
        >>> top_k_intersection(heatmap, mask, num_pixels=2).item()
        0.5

    References:
        Interpretable Semantic Photo Geolocation, Theiner et al., 2021.
    """
    heatmap, mask = as_masked(heatmap, mask)
    if check_count("num_pixels", num_pixels) > heatmap[0].size:
        raise InputError(
            f"expected num_pixels of at most {heatmap[0].size}, got {num_pixels}: a heatmap has no more"
        )
    hits = (mask & (removal_ranks(heatmap) < num_pixels)).sum(axis=(1, 2), dtype=jnp.float32)
    share = keep_nan(hits / num_pixels, heatmap)
    return share / _area(mask) if _as_flag("weighted", weighted) else share


def localization_auc(heatmap: jax.Array, mask: jax.Array) -> jax.Array:
    """Area under the ROC curve of the heatmap as a detector of the object's pixels. Higher is better.

    P(h_in > h_out) + P(h_in = h_out) / 2 over all pairs of a pixel on the object and one beside it.

    Args:
        heatmap: (N, H, W).
        mask: (N, H, W), bool, true on the object.

    Returns:
        (N,) in [0, 1], float32; 1/2 for a constant heatmap. Under `jit`, NaN where a mask is full.

    Raises:
        TypeError: if `mask` is not bool.
        ValueError: if shapes do not fit, values are not finite, or a mask is empty or full.

    Example:
        >>> localization_auc(jnp.array([[[3.0, -1.0, 1.0]]]), jnp.array([[[True, True, False]]])).item()
        0.5

    References:
        An Introduction to ROC Analysis, Fawcett, 2006.
    """
    heatmap, mask = as_masked(heatmap, mask)
    known = values(mask)
    if known is not None and (full := np.flatnonzero(known.all(axis=(1, 2))).tolist()):
        raise InputError(
            f"expected pixels beside the object in every mask, got full ones at {full}: leave these images out"
        )
    inside = mask.reshape(len(mask), -1)
    # Mann and Whitney's statistic, from ranks less their mean: float32 then holds the sums.
    ranks = centered_ranks(heatmap.reshape(inside.shape))
    total = jnp.where(inside, ranks, 0).sum(axis=1)
    size = inside.sum(axis=1).astype(jnp.float32)
    num_pixels = inside.shape[1]
    area = 0.5 + total * (num_pixels / (size * (num_pixels - size)))
    return keep_nan(jnp.clip(jnp.where(size < num_pixels, area, jnp.nan), 0, 1), heatmap)


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
    heatmap, mask = as_masked(heatmap, mask)
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
    heatmap, mask = as_masked(heatmap, mask)
    check_number("tolerance", tolerance, least=0)
    height, width = heatmap.shape[1:]
    peak = heatmap.reshape(len(heatmap), -1).argmax(axis=1)
    down = jnp.arange(height)[None] - (peak // width)[:, None]
    across = jnp.arange(width)[None] - (peak % width)[:, None]
    near = jnp.hypot(down[:, :, None], across[:, None, :]) <= tolerance
    return keep_nan((near & mask).any(axis=(1, 2)).astype(jnp.float32), heatmap)


def as_masked(heatmap: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Heatmaps as float32, and masks of their shape with an object in each, checked.

    Args:
        heatmap: (N, H, W).
        mask: (N, H, W), bool.

    Returns:
        Both as arrays of JAX.

    Raises:
        TypeError: `mask` is not bool.
        ValueError: shapes do not fit, values are not finite, or a mask is known to be empty.
    """
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


def positive_share(heatmap: jax.Array, mask: jax.Array) -> jax.Array:
    """Share of the positive relevance within the masks, (N,); 0 where there is none."""
    positive = jnp.maximum(heatmap, 0)
    # Over the maximum first: a sum of tiny or huge values would leave float32.
    largest = positive.max(axis=(1, 2), keepdims=True)
    positive = positive / jnp.where(largest > 0, largest, 1)
    total = positive.sum(axis=(1, 2))
    share = jnp.where(mask, positive, 0).sum(axis=(1, 2)) / jnp.where(total > 0, total, 1)
    return keep_nan(share, heatmap)


def _area(mask: jax.Array) -> jax.Array:
    """The object's share of the area, (N,)."""
    return mask.mean(axis=(1, 2), dtype=jnp.float32)


def _as_flag(name: str, value: bool) -> bool:
    check_choice(name, value, (False, True))
    return value
