"""Focus: whether relevance falls on the images of the explained class, in mosaics of two classes' images and more."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import as_array, check_count, check_key, values
from jxai.errors import InputError
from jxai.metrics.inputs import as_batch
from jxai.metrics.localization import as_masked, positive_share


class Mosaics(NamedTuple):
    """Pictures of 2 x 2 images, two of the target's class.

    Attributes:
        x: the mosaics, (M, 2H, 2W, C).
        target: the class to explain, (M,) int32.
        mask: true on the two images of that class, (M, 2H, 2W) bool.
    """

    x: jax.Array
    target: jax.Array
    mask: jax.Array


def focus(heatmap: jax.Array, mask: jax.Array) -> jax.Array:
    """Share of a mosaic's positive relevance that lies on the images of the target's class. Higher is better.

    R_{c1} + R_{c2} over R_{c1} + R_{c2} + R_{o1} + R_{o2}, positive relevance of the four images. Half is what chance
    gives.

    Args:
        heatmap: of `mosaics(...).x` for `mosaics(...).target`, (M, 2H, 2W).
        mask: `mosaics(...).mask`, (M, 2H, 2W), bool.

    Returns:
        (M,) in [0, 1], float32; 0 where no relevance is positive.

    Raises:
        TypeError: if `mask` is not bool.
        ValueError: if shapes do not fit, values are not finite or a mask is empty.

    References:
        Focus! Rating XAI Methods and Finding Biases, Arias-Duart et al., 2022.
    """
    return positive_share(*as_masked(heatmap, mask))


def mosaics(key: jax.Array, x: jax.Array, label: jax.Array, *, num_mosaics: int | None = None) -> Mosaics:
    """Mosaics for `focus`: two images of one class and two of others, in random places.

    Mosaic m is about the class of image m % N: that image, a random other one of its class, and two random ones of
    other classes. Where there is one alone, it is there twice.

    Args:
        key: a random key; what a mosaic is made of depends on (key, m) and the labels.
        x: images, (N, H, W, C).
        label: their classes, (N,) integers, at least two different ones.
        num_mosaics: M, at least 1; by default N.

    Returns:
        The mosaics, what to explain in them, and where it is. Under `jit`, images are NaN where there is one class
        alone.

    Raises:
        TypeError: if `label` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, all labels are equal or a count is below 1.

    References:
        Focus! Rating XAI Methods and Finding Biases, Arias-Duart et al., 2022.
    """
    check_key(key)
    x, label = as_batch(x, label)
    if x.ndim != 4:
        raise InputError(f"expected `x` of shape (N, H, W, C), got {x.shape}: mosaics are of images")
    known = values(label)
    if known is not None and len(np.unique(known)) < 2:
        raise InputError(f"expected labels of two classes at least, got {known[0]} alone: add other images")
    number = len(x) if num_mosaics is None else check_count("num_mosaics", num_mosaics)

    def members(m: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The four images, which of them are of the class, and whether there are others."""
        own = m % len(x)
        keys = jax.random.split(jax.random.fold_in(key, m), 3)
        same, place = label == label[own], jnp.arange(len(x))

        def by_chance(key: jax.Array, allowed: jax.Array, late: jax.Array) -> jax.Array:
            """All places in random order: first the allowed ones, of these first those that are not late."""
            return jnp.argsort(jax.random.uniform(key, place.shape) + late + 2 * ~allowed)

        mates = by_chance(keys[0], same, place == own)
        others = by_chance(keys[1], ~same, jnp.zeros_like(same))
        second = jnp.where((~same).sum() > 1, others[1], others[0])
        images = jnp.stack([own, mates[0], others[0], second])
        order = jax.random.permutation(keys[2], 4)
        return images[order], order < 2, (~same).any()

    images, inside, mixed = jax.vmap(members)(jnp.arange(number))
    height, width, channels = x.shape[1:]
    pictures = x[images].reshape(number, 2, 2, height, width, channels)
    pictures = jnp.moveaxis(pictures, 3, 2).reshape(number, 2 * height, 2 * width, channels)
    mask = jnp.repeat(jnp.repeat(inside.reshape(number, 2, 2), height, axis=1), width, axis=2)
    target = as_array(label)[jnp.arange(number) % len(x)].astype(jnp.int32)
    return Mosaics(jnp.where(mixed[:, None, None, None], pictures, jnp.nan), target, mask)
