"""The Gaussian pyramid of a heatmap, as scikit-image's `pyramid_gaussian` builds it."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jxai.checks import check_count, check_known, check_number, keep_nan
from jxai.errors import InputError
from jxai.metrics.inputs import as_heatmap

# Blurs of a larger one are as wide as memory.
_LARGEST_FACTOR = 100


def gaussian_pyramid(heatmap: ArrayLike, *, factor: float = 1.5, smallest: int = 30) -> list[jax.Array]:
    """Ever smaller versions of a heatmap: each is the one before it, blurred and resized.

    The blur is Gaussian, σ = 2·factor / 6, cut off at 4σ, with the picture mirrored at its edge (the pixel at the
    edge is repeated). The resize to ⌈n / factor⌉ pixels is bilinear; the corners of the outermost pixels are aligned.

    Args:
        heatmap: signed sums of attributions over channels, (N, H, W).
        factor: how many times smaller each level is, above 1 and at most 100; 1.5 as published.
        smallest: a level is kept while both sides have so many pixels, at least 1; 30 as published.

    Returns:
        The levels, float32 (N, h, w), the heatmap itself first. They end where the size no longer changes.

    Raises:
        TypeError: factor is traced.
        ValueError: `heatmap` is not a finite array (N, H, W) with sides of at least `smallest`, factor is out
            of range, or smallest is less than 1.

    References:
        Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code", 1983.
    """
    level = as_heatmap(heatmap)
    level = keep_nan(level, level)
    sizes = _sizes((level.shape[1], level.shape[2]), factor, smallest)
    levels = [level]
    for (height, width), (small_height, small_width) in itertools.pairwise(sizes):
        rows, columns = (
            _reduction(*sides, float(factor)) for sides in ((height, small_height), (width, small_width))
        )
        level = jnp.einsum("hi,nij,wj->nhw", rows, level, columns, precision=jax.lax.Precision.HIGHEST)
        levels.append(level)
    return levels


def _sizes(size: tuple[int, int], factor: float, smallest: int) -> list[tuple[int, int]]:
    """Sizes of the levels."""
    check_known("factor", factor)
    check_number("factor", factor, above=1, most=_LARGEST_FACTOR)
    check_count("smallest", smallest)
    if min(size) < smallest:
        raise InputError(
            f"expected `heatmap` with sides of at least {smallest}, got {size[0]} x {size[1]}: lower `smallest`"
        )
    sizes = [size]
    while True:
        size = (math.ceil(size[0] / factor), math.ceil(size[1] / factor))
        if min(size) < smallest or size == sizes[-1]:
            return sizes
        sizes.append(size)


@functools.lru_cache(maxsize=256)
def _reduction(size: int, small: int, factor: float) -> np.ndarray:
    """Blur and resize along one axis as one matrix, (small, size)."""
    sigma = 2 * factor / 6
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    # Mirrored with the edge pixel repeated: 1 0 | 0 1 2 | 2 1, of period 2·size.
    seen = (np.arange(size)[:, None] + offsets) % (2 * size)
    seen = np.where(seen < size, seen, 2 * size - 1 - seen)
    blur = np.zeros((size, size))
    np.add.at(blur, (np.arange(size)[:, None], seen), np.broadcast_to(kernel, seen.shape))

    # Never outside of [0, size - 1], because the picture gets smaller: no edge to think of.
    center = (np.arange(small) + 0.5) * (size / small) - 0.5
    left = np.minimum(np.floor(center).astype(int), max(size - 2, 0))
    share = center - left
    resize = np.zeros((small, size))
    resize[np.arange(small), left] = 1 - share
    resize[np.arange(small), np.minimum(left + 1, size - 1)] += share
    return (resize @ blur).astype(np.float32)
