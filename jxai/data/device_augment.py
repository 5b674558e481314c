"""The augmentations of the few-shot releases, on the accelerator: `jxai.data.augmentation` in JAX."""

import functools
import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import as_array, check_choice, check_count, check_key, count_not_finite
from jxai.data import augmentation as host
from jxai.data.preprocess import MEAN, STD
from jxai.errors import InputError, InputTypeError

# Luma of RGB, as Pillow weighs it for contrast and color.
_LUMA = (0.299, 0.587, 0.114)


def augment_on_device(
    key: jax.Array,
    images: jax.Array | np.ndarray,
    indices: jax.Array | np.ndarray,
    *,
    kind: host.Augmentation,
    size: int | None = None,
) -> jax.Array:
    """Augments a batch of pictures inside a compiled function, as `augmentation.augment` does on the host.

    Picture i depends on (key, indices[i], images[i]) alone, whatever batch it stands in. Drawn values differ from the
    host's, for JAX has other generators; their distribution is the same. Pixels differ a little: colors stay
    fractional where Pillow rounds them to bytes after each change, a crop is resampled with the pixels around it
    rather than cut out first, and black and ImageNet's mean are exact.

    Args:
        key: of the data set, such as `jax.random.key(seed)`.
        images: uint8, or float as `normalize` makes them, (n, H, W, 3); give them larger than `size`, since what lies
            outside them is lost for the crops.
        indices: number of each picture in the whole run, (n,) integers: step · batch size + place.
        kind: "resized-crop" or "crop-erase".
        size: side of the result in pixels; by default H.

    Returns:
        float32 (n, size, size, 3), normalized.

    Raises:
        TypeError: no random key, or arrays of other types.
        ValueError: unknown kind, shapes that do not fit, or images that are not finite.

    Example:
        >>> images = np.zeros((2, 12, 12, 3), np.uint8)
        >>> augment_on_device(jax.random.key(0), images, np.arange(2), kind="crop-erase", size=8).shape
        (2, 8, 8, 3)
    """
    check_choice("kind", kind, get_args(host.Augmentation))
    check_key(key)
    images, indices = as_array(images), as_array(indices)
    floats = jnp.issubdtype(images.dtype, jnp.floating)
    if not (floats or images.dtype == jnp.uint8) or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise InputTypeError(
            f"expected images of uint8 or floats and indices of integers, got {images.dtype} and {indices.dtype}: "
            "convert them"
        )
    if images.ndim != 4 or images.shape[3] != 3 or not images.size or indices.shape != images.shape[:1]:
        raise InputError(
            f"expected images (n, H, W, 3) and indices (n,), got {images.shape} and {indices.shape}: "
            "merge leading axes, and number every picture"
        )
    size = images.shape[1] if size is None else check_count("size", size)
    if bad := count_not_finite(images):
        raise InputError(f"expected finite images, got {bad} values that are not: look for them")
    one, count = _KINDS[kind]
    mean, std = jnp.asarray(MEAN, jnp.float32), jnp.asarray(STD, jnp.float32)
    floats = images.astype(jnp.float32)
    colors = floats / 255 if images.dtype == jnp.uint8 else floats * std + mean
    # One draw a picture, of all its numbers at once: many small ones take longer to compile and to run.
    draw = jax.vmap(lambda index: jax.random.uniform(jax.random.fold_in(key, index), (count,)))
    augmented = jax.vmap(functools.partial(one, size=size))(draw(indices), colors)
    return (augmented - mean) / std


def _resized_crop(u: jax.Array, image: jax.Array, size: int) -> jax.Array:
    crop, factors, flip = jnp.split(u, (2 * host.CROP_ATTEMPTS + 2, 2 * host.CROP_ATTEMPTS + 5))
    top, left, height, width = _crop_box(crop, *image.shape[:2])
    cropped = _resample(image, size, jnp.stack([top, left]), jnp.stack([height, width]))
    return _flip(flip, _jitter(cropped, _between(factors, (1 - host.JITTER, 1 + host.JITTER))))


def _crop_erase(u: jax.Array, image: jax.Array, size: int) -> jax.Array:
    move, flip, whether, erase = jnp.split(u, (2, 3, 4))
    whole = _resample(image, size, jnp.zeros(2), jnp.asarray(image.shape[:2], jnp.float32))
    padded = jnp.pad(whole, ((host.PADDING, host.PADDING), (host.PADDING, host.PADDING), (0, 0)))
    top, left = _place(move, 2.0 * host.PADDING).astype(jnp.int32)
    cropped = _flip(flip, jax.lax.dynamic_slice(padded, (top, left, 0), (size, size, 3)))
    erased = _erased(erase, size) & (whether < host.ERASE_PROBABILITY)
    return jnp.where(erased[..., None], jnp.asarray(MEAN, jnp.float32), cropped)


# What an augmentation makes of uniform numbers in [0, 1) and a picture, and how many numbers it takes.
_KINDS = {
    "resized-crop": (_resized_crop, 2 * host.CROP_ATTEMPTS + 6),
    "crop-erase": (_crop_erase, 2 * host.ERASE_ATTEMPTS + 6),
}


def _resample(image: jax.Array, size: int, start: jax.Array, extent: jax.Array) -> jax.Array:
    """A part of the picture at another size: a triangle filter, wider where it shrinks, as Pillow's bilinear."""
    scale = size / extent.astype(jnp.float32)
    return jax.image.scale_and_translate(
        image, (size, size, 3), (0, 1), scale, -start * scale, method="linear", antialias=True
    )


def _jitter(image: jax.Array, factors: jax.Array) -> jax.Array:
    """Brightness, contrast and color, each a blend that stays within [0, 1]."""
    luma = jnp.asarray(_LUMA, jnp.float32)
    image = jnp.clip(factors[0] * image, 0, 1)
    gray = jnp.mean(image @ luma)
    image = jnp.clip(gray + factors[1] * (image - gray), 0, 1)
    gray = (image @ luma)[..., None]
    return jnp.clip(gray + factors[2] * (image - gray), 0, 1)


def _flip(u: jax.Array, image: jax.Array) -> jax.Array:
    return jnp.where(u < 0.5, image[:, ::-1], image)


def _crop_box(u: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Top, left, height and width of a random crop, or of the largest center crop that is allowed."""
    areas, ratios, place = jnp.split(u, (host.CROP_ATTEMPTS, 2 * host.CROP_ATTEMPTS))
    low, high = host.CROP_RATIO
    area = height * width * _between(areas, host.CROP_AREA)
    ratio = jnp.exp(_between(ratios, (math.log(low), math.log(high))))
    widths, heights = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first, found = jnp.argmax(fits), jnp.any(fits)
    crop_height = jnp.where(found, heights[first], min(height, max(1, round(width / low))))
    crop_width = jnp.where(found, widths[first], min(width, max(1, round(height * high))))
    free = jnp.stack([height - crop_height, width - crop_width])
    top, left = jnp.where(found, _place(place, free), free // 2)
    return top, left, crop_height, crop_width


def _erased(u: jax.Array, size: int) -> jax.Array:
    """True in the rectangle to erase, (size, size)."""
    areas, ratios, place = jnp.split(u, (host.ERASE_ATTEMPTS, 2 * host.ERASE_ATTEMPTS))
    area, ratio = size * size * _between(areas, host.ERASE_AREA), _between(ratios, host.ERASE_RATIO)
    heights, widths = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
    fits = (heights < size) & (widths < size)
    first = jnp.argmax(fits)
    extent = jnp.stack([heights[first], widths[first]])
    start = _place(place, size - extent)
    within = (jnp.arange(size) >= start[:, None]) & (jnp.arange(size) < (start + extent)[:, None])
    return within[0, :, None] & within[1] & jnp.any(fits)


def _place(u: jax.Array, free: jax.Array | float) -> jax.Array:
    """Whole numbers from 0 to `free`, each as likely."""
    return jnp.floor(u * (free + 1))


def _between(u: jax.Array, bounds: tuple[float, float]) -> jax.Array:
    return bounds[0] + (bounds[1] - bounds[0]) * u
