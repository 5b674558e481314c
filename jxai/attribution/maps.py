"""Maps of a convolutional layer: where their channels are, and the picture's size again."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jxai.checks import check_choice, check_count, check_functions, finite, keep_nan, shown
from jxai.errors import InputError

Features = Callable[[jax.Array], jax.Array]


# How many rows and columns of tokens there are, or None where maps are none.
Grid = tuple[int, int] | None


def checked_maps(features: Features, channel_axis: int | None, grid: Grid) -> Features:
    """Features that refuse to give anything but maps of images (N, H, W, C), or with a grid their tokens (N, T, E).

    Args:
        features: from images to maps or tokens.
        channel_axis: where maps hold their channels: -1, 1, or None for -1 and an error where they seem not to.
        grid: (h, w) of a transformer's patches.

    Returns:
        A function of images to the maps as they are.

    Raises:
        TypeError: features is no function.
        ValueError: the axis is another, or the grid none; later, where images or maps have another shape.
    """
    check_functions(features=features)
    check_choice("channel_axis", channel_axis, (None, -1, 1))
    if grid is not None:
        if not isinstance(grid, tuple | list) or len(grid) != 2:
            raise InputError(f"expected grid as (h, w), got {shown(grid)}: give rows and columns of patches")
        for side in grid:
            check_count("grid", side)
        if channel_axis is not None:
            raise InputError(
                "expected channel_axis or grid, got both: tokens (N, T, E) hold their channels last"
            )

    def maps_of(x: jax.Array) -> jax.Array:
        maps = features(x)
        shape = getattr(maps, "shape", None)
        got = type(maps).__name__ if shape is None else shape
        if grid is not None:
            if shape is None or len(shape) != 3 or x.ndim != 4 or shape[1] < grid[0] * grid[1]:
                raise InputError(
                    f"expected images (N, H, W, C) and tokens (N, T, E) of at least {grid[0]} x {grid[1]} patches, "
                    f"got {x.shape} and {got}: give the grid of the model's patches"
                )
            return maps
        if shape is None or len(shape) != 4 or x.ndim != 4:
            raise InputError(
                f"expected images (N, H, W, C) and features of shape (N, h, w, K), got {x.shape} and {got}: split "
                "the model before its pooling, or give grid=(h, w) for a transformer's tokens"
            )
        if channel_axis is None and _seem_channels_first(shape, x.shape):
            raise InputError(
                f"expected maps (N, h, w, K) of the proportions of images (N, H, W, C) {x.shape}, got {shape}: "
                "give channel_axis=1 for maps (N, K, h, w), or -1 for these; images stay (N, H, W, C)"
            )
        if channel_axis == 1 and x.shape[1] < min(x.shape[2:]) and not _fit(shape[2:], x.shape[1:3]):
            raise InputError(
                f"expected images (N, H, W, C) of the proportions of maps (N, K, h, w) {shape}, got {x.shape}: give "
                "jnp.moveaxis(x, 1, -1), and features that move the channels back"
            )
        return maps

    return maps_of


def channels_last(maps: jax.Array, channel_axis: int | None, grid: Grid) -> jax.Array:
    """Maps (N, h, w, K); of tokens the last h·w, row by row: class tokens and registers stand before them."""
    if grid is not None:
        return maps[:, maps.shape[1] - grid[0] * grid[1] :].reshape(len(maps), *grid, maps.shape[-1])
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

    of_last = _fit(maps[2:], images[1:3]) or _fit(maps[2:], images[2:])
    return of_last and not _fit(maps[1:3], images[1:3])


def _fit(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    """Whether one stride for both axes leads from one to the other, sides rounded up or down."""
    return abs(small[0] * large[1] - small[1] * large[0]) < max(large)
