"""Where relevance falls: on what is drawn in a picture, or on its empty background.

For pictures on a plain background: letters, pictograms. They are (N, H, W, 3) in [0, 255], as they were
before normalization. The background's color is the median of the outermost ring of pixels; what differs from
it is ink.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jxai.checks import as_numpy, check_count, check_number
from jxai.errors import InputError
from jxai.viz.heatmap import check_bytes, signed_sum

_AROUND = [(row, column) for row in range(3) for column in range(3)]


def ink_mask(images: ArrayLike, *, threshold: float = 32.0, margin: int = 0) -> NDArray[np.bool_]:
    """Which pixels are ink.

    Args:
        images: pictures, (N, H, W, C) in [0, 255].
        threshold: a pixel is ink where a channel differs from the background by more than this.
        margin: pixels around ink that count too, at least 0: an edge has two sides.

    Returns:
        (N, H, W), true on ink. Its mean is what `ink_share` gives relevance spread evenly.

    Raises:
        TypeError: if `images` are no real numbers.
        ValueError: if `images` has another rank, no entries or values outside [0, 255], or `margin` is negative.
    """
    check_count("margin", margin, least=0)
    check_number("threshold", threshold)
    images = check_bytes("images", as_numpy("images", images)).astype(np.float32)
    if images.ndim != 4 or not images.size:
        raise InputError(
            f"expected images of shape (N, H, W, C), got {images.shape}: add or merge leading axes"
        )
    ring = np.ones(images.shape[1:3], dtype=bool)
    ring[1:-1, 1:-1] = False
    background = np.median(images[:, ring], axis=1)
    ink = np.any(np.abs(images - background[:, None, None]) > threshold, axis=-1)
    for _ in range(margin):
        padded = np.pad(ink, ((0, 0), (1, 1), (1, 1)))
        shifts = [
            padded[:, row : row + ink.shape[1], column : column + ink.shape[2]] for row, column in _AROUND
        ]
        ink = np.logical_or.reduce(shifts)
    return ink


def ink_share(
    relevance: ArrayLike, images: ArrayLike, *, threshold: float = 32.0, margin: int = 0
) -> NDArray[np.float64]:
    """Share of absolute relevance that falls on ink; a pixel's relevance is the signed sum over its channels.

    Args:
        relevance: (N, H, W, C).
        images: the pictures explained, (N, H, W, C') in [0, 255].
        threshold: as in `ink_mask`.
        margin: as in `ink_mask`.

    Returns:
        (N,) in [0, 1]; nan where an image has no relevance at all.

    Raises:
        TypeError: as `ink_mask` and `signed_sum` do.
        ValueError: if the shapes do not fit, or as they do.

    Example:
        >>> picture = np.zeros((1, 4, 4, 3))
        >>> picture[0, 1, 1] = 255
        >>> ink_share(np.ones((1, 4, 4, 1)), picture).item()  # 1 pixel of 16
        0.0625
    """
    mask, magnitude = ink_mask(images, threshold=threshold, margin=margin), np.abs(signed_sum(relevance))
    if mask.shape != magnitude.shape:
        raise InputError(
            f"expected relevance of shape {mask.shape} + (C,), got {np.shape(relevance)}: one an image"
        )
    total = magnitude.sum(axis=(1, 2), dtype=np.float64)
    on_ink = (magnitude * mask).sum(axis=(1, 2), dtype=np.float64)
    return np.divide(on_ink, total, out=np.full_like(total, np.nan), where=total > 0)
