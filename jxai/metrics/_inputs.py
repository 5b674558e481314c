"""What the metrics share: heatmaps, batches and scores, checked."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai.batches.checks import as_array, check_batch, check_inputs, count_not_finite

Scores = Callable[[jax.Array], jax.Array]


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
    array = as_array(heatmap)
    if array.ndim != 3 or not array.size:
        advice = "give attributions.sum(axis=-1)" if array.ndim == 4 else "add the axis of images"
        raise ValueError(f"expected `heatmap` of shape (N, H, W), got {array.shape}: {advice}")
    if x is not None and (x.ndim != 4 or x.shape[:3] != array.shape):
        raise ValueError(
            f"expected `x` of shape (N, H, W, C) with `heatmap` of (N, H, W), got {x.shape} and {array.shape}: "
            "one heatmap an image, of its size"
        )
    if bad := count_not_finite(array):
        raise ValueError(
            f"expected a finite `heatmap`, got {bad} of {array.size} NaN or infinite: look for them"
        )
    return array.astype(jnp.float32)


def as_batch(x: ArrayLike, target: ArrayLike, *, f: Scores | None = None) -> tuple[jax.Array, jax.Array]:
    """Inputs (N, ...) and their classes (N,), checked, also against the scores of `f`, as arrays of JAX."""
    inputs, classes = as_array(x), as_array(target)
    if f is None:
        check_batch(inputs, classes)
    else:
        check_inputs(f, inputs, classes)
    return inputs, classes


def as_finite(name: str, array: ArrayLike) -> jax.Array:
    """The array as float32; an error where it is no batch or not finite."""
    values = as_array(array)
    if values.ndim < 2 or not values.size:
        raise ValueError(f"expected `{name}` of shape (N, ...), got {values.shape}: add the axis of images")
    if bad := count_not_finite(values):
        raise ValueError(
            f"expected finite `{name}`, got {bad} of {values.size} NaN or infinite: look for them"
        )
    return values.astype(jnp.float32)


def target_scores(f: Scores, x: jax.Array, rows: jax.Array, target: jax.Array) -> jax.Array:
    """The scores of the explained classes.

    Args:
        f: from a batch (c, ...) to scores (c, K).
        x: (c, ...).
        rows: which image each of them is made from, (c,).
        target: the images' classes, (N,).

    Returns:
        float32, (c,).
    """
    return jnp.take_along_axis(f(x), target[rows][:, None], axis=1)[:, 0].astype(jnp.float32)


def probabilities(f: Scores) -> Scores:
    """The softmax of scores, in float32."""
    return lambda x: jax.nn.softmax(jnp.asarray(f(x), jnp.float32), axis=-1)
