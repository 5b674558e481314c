"""What the metrics share: heatmaps, batches and scores, checked."""

from collections.abc import Callable
from types import EllipsisType

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai.batches.checks import as_finite, check_batch, check_inputs
from jxai.checks import as_array
from jxai.errors import InputError, InputTypeError

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
    if array.ndim != 3:
        advice = "give attributions.sum(axis=-1)" if array.ndim == 4 else "add the axis of images"
        raise InputError(f"expected `heatmap` of shape (N, H, W), got {array.shape}: {advice}")
    if x is not None and (x.ndim != 4 or x.shape[:3] != array.shape):
        raise InputError(
            f"expected `x` of shape (N, H, W, C) with `heatmap` of (N, H, W), got {x.shape} and {array.shape}: "
            "one heatmap an image, of its size"
        )
    return as_finite("heatmap", array).astype(jnp.float32)


def as_feature_map(heatmap: ArrayLike, x: jax.Array | None = None) -> jax.Array:
    """Heatmaps of any features as float32: what they are of is told by their shape.

    Args:
        heatmap: of images (N, H, W), of tokens (N, T), of tables (N, D); with `x` of its shape without channels, or
            of x's shape where that is no batch of images.
        x: the inputs that they explain, (N, ..., C) or (N, D).

    Returns:
        float32, of its shape.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    array = as_array(heatmap)
    known = x is not None and array.ndim > 1 and array.shape in (x.shape[: x.ndim - 1], x.shape)
    if array.ndim not in (2, 3) and not (x is not None and known and array.shape != x.shape):
        advice = "give attributions.sum(axis=-1)" if array.ndim > 3 else "add the axis of images"
        raise InputError(
            f"expected `heatmap` of shape (N, H, W), (N, T) or (N, D), got {array.shape}: {advice}"
        )
    if x is not None and not known:
        raise InputError(
            f"expected `x` of shape (N, ..., C) or (N, D) with `heatmap` of (N, ...) or (N, D), got {x.shape} and "
            f"{array.shape}: one heatmap an image, of its size"
        )
    return as_finite("heatmap", array).astype(jnp.float32)


def places_of(x: jax.Array) -> tuple[int, ...]:
    """The shape of heat maps: that of inputs without channels, (N, H, W) or (N, T); of a table (N, D) its own."""
    return x.shape if x.ndim == 2 else x.shape[:-1]


def as_batch(
    x: ArrayLike, target: ArrayLike, *, f: Scores | EllipsisType = ...
) -> tuple[jax.Array, jax.Array]:
    """Inputs (N, ...) and their classes (N,), checked, also against the scores of an `f`, as arrays of JAX."""
    if callable(target) or (isinstance(target, tuple) and any(map(callable, target))):
        raise InputTypeError(
            "expected `target` of class indices, got a function: metrics look at scores; give an f that has its "
            "value among its scores, and that score's index"
        )
    inputs, classes = as_array(x), as_array(target)
    if f is ...:
        check_batch(inputs, classes)
    else:
        check_inputs(f, inputs, classes)
    return inputs, classes


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
    """The softmax of scores, in float32; an error of a lone score, whose probability would be 1 whatever it is."""

    def softmax(x: jax.Array) -> jax.Array:
        scores = jnp.asarray(f(x), jnp.float32)
        if scores.shape[-1] == 1:
            raise InputError(
                f"expected scores of at least two classes, got {scores.shape}: of a lone logit z give f [0, z] and "
                "class 1; where scores are no logits, take a metric of scores such as metrics.pixel_flipping"
            )
        return jax.nn.softmax(scores, axis=-1)

    return softmax
