"""What the metrics ask of their arguments: shapes and types always, values only where they are known."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike


def is_known(array: ArrayLike) -> bool:
    """Whether the values can be looked at: it is no tracer."""
    return not isinstance(array, Tracer)


def count_bad(array: jax.Array) -> int:
    """How many values are NaN or infinite; 0 where they are not known."""
    if not is_known(array):
        return 0
    # A known array that the caller's jitted function closes over would be traced otherwise.
    with jax.ensure_compile_time_eval():
        return int((~jnp.isfinite(array)).sum())


def as_heatmap(heatmap: ArrayLike, x: jax.Array | None = None) -> jax.Array:
    """Heatmaps as float32.

    Args:
        heatmap: (N, H, W).
        x: the images that they explain, (N, H, W, C).

    Returns:
        float32, (N, H, W).

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    array = jnp.asarray(heatmap)
    if array.ndim != 3 or not array.size:
        advice = "give attributions.sum(axis=-1)" if array.ndim == 4 else "add the axis of images"
        raise ValueError(f"expected `heatmap` of shape (N, H, W), got {array.shape}: {advice}")
    if x is not None and (x.ndim != 4 or x.shape[:3] != array.shape):
        raise ValueError(
            f"expected `x` of shape (N, H, W, C) with `heatmap` of (N, H, W), got {x.shape} and {array.shape}: "
            "one heatmap an image, of its size"
        )
    if bad := count_bad(array):
        raise ValueError(
            f"expected a finite `heatmap`, got {bad} of {array.size} NaN or infinite: look for them"
        )
    return array.astype(jnp.float32)


def check_images(x: jax.Array, target: jax.Array) -> None:
    """Refuse what is no batch of images of floats with one class each.

    Args:
        x: (N, ...), finite floats.
        target: (N,), integers.

    Raises:
        TypeError: `x` holds no floats or `target` no integers.
        ValueError: the shapes do not fit, or `x` is not finite.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"expected `x` of floats, got {x.dtype}: convert and normalise the images")
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError(f"expected `target` of integers, got {target.dtype}: give class indices")
    if x.ndim < 2 or target.shape != x.shape[:1]:
        raise ValueError(
            f"expected `x` of shape (N, ...) and `target` of (N,), got {x.shape} and {target.shape}: "
            "give one class index an image"
        )
    if bad := count_bad(x):
        raise ValueError(f"expected finite `x`, got {bad} of {x.size} NaN or infinite: look for them")


def check_count(name: str, value: int) -> None:
    """Refuse a count below 1."""
    if value < 1:
        raise ValueError(f"expected {name} of at least 1, got {value}: raise it")


def target_scores(
    f: Callable[[jax.Array], jax.Array], x: jax.Array, rows: jax.Array, target: jax.Array
) -> jax.Array:
    """The scores of the explained classes.

    Args:
        f: from a batch (c, ...) to scores (c, K).
        x: (c, ...).
        rows: which image each of them is made from, (c,).
        target: the images' classes, (N,).

    Returns:
        float32, (c,).

    Raises:
        ValueError: `f` gives something else, or a class is not in [0, K).
    """
    scores = f(x)
    shape = getattr(scores, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != x.shape[0]:
        got = type(scores).__name__ if shape is None else f"an array of shape {shape}"
        raise ValueError(
            f"expected `f` to give scores of shape ({x.shape[0]}, K), got {got}: choose one output"
        )
    # In NumPy, for this may run while the caller's loop is traced, where any jnp call gives a tracer.
    if is_known(target) and not 0 <= (known := np.asarray(target)).min() <= known.max() < shape[1]:
        raise ValueError(
            f"expected `target` in [0, {shape[1]}), got values from {known.min()} to {known.max()}: "
            "give indices of the scores"
        )
    return jnp.take_along_axis(scores, target[rows][:, None], axis=1)[:, 0].astype(jnp.float32)
