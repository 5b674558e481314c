"""Pictures in the place of their numbers, on the device that holds them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import shown
from jxai.errors import InputError, InputTypeError
from jxai.fewshot.episode import Episode


def look_up(batch: Any, pictures: jax.Array | np.ndarray) -> Any:
    """Puts pictures in the place of their numbers, within a compiled function.

    So that a domain lies on the device once, and a batch is a few numbers: `np.concatenate([source.array(size) for
    source in sources])` are the pictures of a data set of `sources` with `numbers=True`.

    Args:
        batch: of such a data set: an Episode, a pair of them, or a dict with "image"; leading axes are kept.
        pictures: normalized, (n, H, W, 3). A number outside of them would be another picture.

    Returns:
        The batch with pictures (..., H, W, 3), bit for bit those that the data set without `numbers` has.

    Raises:
        TypeError: no such batch, or arrays of other types.
        ValueError: `pictures` of another rank.

    Example:
        >>> batch = {"image": np.array([1, 0]), "label": np.array([3, 4])}
        >>> look_up(batch, np.zeros((2, 8, 8, 3), np.float32))["image"].shape
        (2, 8, 8, 3)
    """
    if isinstance(batch, tuple):
        return tuple(look_up(one, pictures) for one in batch)
    if isinstance(batch, Episode):
        return dataclasses.replace(
            batch, support=_rows(batch.support, pictures), query=_rows(batch.query, pictures)
        )
    if isinstance(batch, dict) and "image" in batch:
        return {**batch, "image": _rows(batch["image"], pictures)}
    raise InputTypeError(
        f"expected a batch of numbers, got {shown(batch)}: see episode_dataset(numbers=True)"
    )


def _rows(numbers: Any, pictures: Any) -> jax.Array:
    for what, array, kind in (("numbers", numbers, jnp.integer), ("pictures", pictures, jnp.floating)):
        if not isinstance(array, jax.Array | np.ndarray) or not jnp.issubdtype(array.dtype, kind):
            raise InputTypeError(
                f"expected {what} as an array of {kind.__name__}, got {shown(array)}: convert it"
            )
    if pictures.ndim != 4 or not len(pictures):
        raise InputError(f"expected pictures (n, H, W, 3), got {pictures.shape}: see Source.array")
    return jnp.asarray(pictures)[jnp.asarray(numbers)]
