"""From relevance to colors: red for, blue against, white for nothing.

NumPy on the host; relevance is channels-last, with any number of leading axes.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jxai.checks import as_numpy, check_number
from jxai.errors import InputError

# ColorBrewer's RdBu from its blue to its red end, with pure white in the middle so that zero is the paper.
_STOPS = np.array(
    [
        (5, 48, 97),
        (33, 102, 172),
        (67, 147, 195),
        (146, 197, 222),
        (209, 229, 240),
        (255, 255, 255),
        (253, 219, 199),
        (244, 165, 130),
        (214, 96, 77),
        (178, 24, 43),
        (103, 0, 31),
    ],
    dtype=np.float64,
)


def diverging_colors(values: ArrayLike) -> NDArray[np.uint8]:
    """Colors of signed values.

    Args:
        values: numbers of any shape (...); what lies outside [-1, 1] takes the color of the nearer end.

    Returns:
        RGB of shape (..., 3): blue at -1, white at 0, red at 1.

    Raises:
        TypeError: if `values` are no real numbers.
        ValueError: if they are not finite.
    """
    positions = np.linspace(-1, 1, len(_STOPS))
    values = as_numpy("values", values).astype(np.float64)
    channels = [np.interp(values, positions, _STOPS[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def signed_sum(relevance: ArrayLike) -> NDArray[np.float32]:
    """Relevance of each pixel: the signed sum over its channels.

    Args:
        relevance: (..., H, W, C).

    Returns:
        (..., H, W), float32.

    Raises:
        TypeError: if relevance is no array of real numbers.
        ValueError: if there are fewer than three axes or no entries, or values or sums that are not finite.
    """
    relevance = as_numpy("relevance", relevance)
    if relevance.ndim < 3 or not relevance.size:
        raise InputError(
            f"expected relevance of shape (..., H, W, C), got {relevance.shape}: keep the channels"
        )
    with np.errstate(over="ignore"):  # told below
        return as_numpy("sums of relevance", relevance.sum(axis=-1, dtype=np.float64).astype(np.float32))


def shared_scale(relevance: ArrayLike, *, quantile: float = 0.995, maps: float = 0.8) -> float:
    """The absolute pixel relevance that gets the full color when several heat maps share one scale.

    Args:
        relevance: all that is drawn together, (..., H, W, C).
        quantile: over the pixels of a map, in (0, 1]; below 1, a few extreme pixels do not make all others pale.
        maps: over the maps, in (0, 1]; below 1, neither do a few extreme maps.

    Returns:
        The quantile over the maps of each map's quantile of absolute signed sums; where that is 0 their maximum, and
        where that is 0 as well, 1.

    Raises:
        TypeError: as `signed_sum` does.
        ValueError: if a quantile is outside (0, 1], or as `signed_sum` does.
    """
    check_number("quantile", quantile, above=0, most=1)
    check_number("maps", maps, above=0, most=1)
    magnitude = np.abs(signed_sum(relevance))
    of_maps = np.quantile(magnitude, quantile, axis=(-2, -1))
    return float(np.quantile(of_maps, maps)) or float(magnitude.max()) or 1.0


def heatmap(relevance: ArrayLike, *, scale: float) -> NDArray[np.uint8]:
    """Draw relevance as colors around zero.

    Args:
        relevance: (..., H, W, C).
        scale: the absolute signed sum that gets the full color, as `shared_scale` finds it; positive.

    Returns:
        RGB pictures, (..., H, W, 3): red is relevance for, blue against, white none.

    Raises:
        TypeError: as `signed_sum` does.
        ValueError: if the scale is not positive, or as `signed_sum` does.
    """
    check_number("scale", scale, above=0)
    # What is beyond the scale has the color of its end, however far.
    return diverging_colors(np.clip(signed_sum(relevance), -scale, scale) / scale)


def overlay(
    picture: ArrayLike, relevance: ArrayLike, *, scale: float, opacity: float = 0.6
) -> NDArray[np.uint8]:
    """Lay a heat map over its picture: (1 − opacity) · picture + opacity · heatmap.

    Args:
        picture: RGB in [0, 255], (..., H, W, 3).
        relevance: (..., H, W, C).
        scale: as in `heatmap`.
        opacity: of the heat map, in [0, 1]; where relevance is 0 it is white, so that the picture grows pale.

    Returns:
        RGB pictures, (..., H, W, 3).

    Raises:
        TypeError: if picture or relevance is no array of real numbers.
        ValueError: if the shapes do not fit, the picture has other values, the opacity is outside [0, 1], or as
            `heatmap` does.

    Example:
        >>> overlay(np.zeros((1, 1, 3)), np.zeros((1, 1, 1)), scale=1.0, opacity=0.2).tolist()
        [[[51, 51, 51]]]
    """
    check_number("opacity", opacity, least=0, most=1)
    picture, relevance = (
        check_bytes("picture", as_numpy("picture", picture)),
        as_numpy("relevance", relevance),
    )
    if picture.shape[-1:] != (3,) or picture.shape[:-1] != relevance.shape[:-1]:
        raise InputError(
            f"expected a picture of shape (..., H, W, 3) and relevance of shape (..., H, W, C), got {picture.shape} "
            f"and {relevance.shape}: resize one of them"
        )
    mixed = (1 - opacity) * picture + opacity * heatmap(relevance, scale=scale)
    return np.rint(mixed).astype(np.uint8)


def check_bytes(name: str, pictures: np.ndarray) -> np.ndarray:
    """Refuse pictures with a value outside of [0, 255].

    Args:
        name: what an error calls them.
        pictures: real numbers, of any shape.

    Returns:
        The pictures.

    Raises:
        ValueError: if there are such values.
    """
    low, high = pictures.min(initial=0), pictures.max(initial=0)
    if low < 0 or high > 255:
        raise InputError(
            f"expected {name} in [0, 255], got [{low:g}, {high:g}]: give them before normalization"
        )
    return pictures
