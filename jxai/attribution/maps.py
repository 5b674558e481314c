"""Maps of a convolutional layer: where their channels are, and the picture's size again."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jxai.checks import check_choice, finite, keep_nan
from jxai.errors import InputError

Features = Callable[[jax.Array], jax.Array]


def checked_maps(features: Features, channel_axis: int | None) -> Features:
    """Features that refuse to give anything but maps of images (N, H, W, C).

    Args:
        features: from images to maps.
        channel_axis: where maps hold their channels: -1, 1, or None for -1 and an error where they seem not to.

    Returns:
        A function of images to the maps as they are.

    Raises:
        ValueError: the axis is another; later, where images or maps have another shape.
    """
    check_choice("channel_axis", channel_axis, (None, -1, 1))

    def maps_of(x: jax.Array) -> jax.Array:
        maps = features(x)
        if getattr(maps, "ndim", None) != 4 or x.ndim != 4:
            raise InputError(
                f"expected images (N, H, W, C) and features of shape (N, h, w, K), got {x.shape} and "
                f"{getattr(maps, 'shape', type(maps).__name__)}: split the model before its pooling"
            )
        if channel_axis is None and _seem_channels_first(maps.shape, x.shape):
            raise InputError(
                f"expected maps (N, h, w, K) of the proportions of images (N, H, W, C) {x.shape}, got {maps.shape}: "
                "give channel_axis=1 for maps (N, K, h, w), or -1 for these; images stay (N, H, W, C)"
            )
        return maps

    return maps_of


def channels_last(maps: jax.Array, channel_axis: int | None) -> jax.Array:
    """Maps (N, h, w, K)."""
    return jnp.moveaxis(maps, 1, -1) if channel_axis == 1 else maps


def check_shown(relu: bool, enlarge: bool) -> None:
    """Refuse what `shown_map` does not know."""
    check_choice("relu", relu, (True, False))
    check_choice("enlarge", enlarge, (True, False))


def shown_map(coarse: jax.Array, x: jax.Array, *given: jax.Array, relu: bool, enlarge: bool) -> jax.Array:
    """A map as it is returned.

    Args:
        coarse: (N, h, w), the weighted sum of maps.
        x: images, (N, H, W, C).
        *given: arrays (N, ...) whose NaN is the map's too.
        relu: whether what is negative is cut off.
        enlarge: whether it is enlarged bilinearly to the images' size.

    Returns:
        (N, H, W, 1) or (N, h, w, 1), x's dtype.
    """
    found = (jax.nn.relu(coarse) if relu else coarse)[..., None]
    if enlarge:
        found = jax.image.resize(found, (*x.shape[:3], 1), "bilinear")
    return finite("attributions", keep_nan(found.astype(x.dtype), x, *given))


def _seem_channels_first(maps: tuple[int, ...], images: tuple[int, ...]) -> bool:
    """Whether the last two axes of maps are a smaller picture, and the two before them are none."""

    def fit(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
        # One stride for both axes, sides rounded up or down.
        return abs(small[0] * large[1] - small[1] * large[0]) < max(large)

    return not fit(maps[1:3], images[1:3]) and (fit(maps[2:], images[1:3]) or fit(maps[2:], images[2:]))
