"""What estimators and metrics ask of their batches, once, at the public boundary; see `jxai.checks`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jxai.checks import as_array, check_functions, count_not_finite, values
from jxai.errors import InputError, InputTypeError


def check_batch(x: jax.Array, target: jax.Array) -> None:
    """Refuse what is no batch of finite inputs with one class each.

    Args:
        x: (N, ...), floats.
        target: (N,), integers.

    Raises:
        TypeError: `x` holds no floats or `target` no integers.
        ValueError: shapes do not fit, or `x` is not finite.
    """
    check_finite("x", x)
    check_classes(target, len(x))


def check_classes(target: jax.Array, number: int) -> None:
    """Refuse what is not one class index an image, of so many images."""
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise InputTypeError(f"expected `target` of integers, got {target.dtype}: give class indices")
    if target.shape != (number,):
        raise InputError(
            f"expected `target` of shape {(number,)}, got {target.shape}: give one class index an image"
        )


def check_inputs(f: Callable, x: jax.Array, target: jax.Array) -> None:
    """Refuse what `check_batch` does, and what does not fit the function's scores.

    Args:
        f: from a batch (N, ...) to scores (N, K).
        x: (N, ...), floats.
        target: (N,), integers in [0, K).

    Raises:
        TypeError: as `check_batch`; or `f` is no function.
        ValueError: as `check_batch`; a target is out of range, or `f` gives no scores (N, K).
    """
    check_functions(f=f)
    check_batch(x, target)
    check_scores(jax.eval_shape(f, jax.ShapeDtypeStruct(x.shape, x.dtype)), target)


def check_scores(scores: Any, target: jax.Array) -> None:
    """Refuse what are no scores (N, K), or have no such classes (N,)."""
    number, shape = len(target), getattr(scores, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != number:
        got = type(scores).__name__ if shape is None else f"an array of shape {shape}"
        advice = "choose one output, or reduce them to scores in a function around `f`"
        if shape == (number,):
            advice = (
                "give `lambda x: f(x)[:, None]` with class 0, of a lone logit z the scores [0, z] and class 1"
            )
        raise InputError(
            f"expected `f` to give scores of shape ({number}, K), got {got}: {advice}; estimators take a function of "
            "the outputs as `target` too, and one number an image as it is"
        )
    if (
        (known := values(target)) is not None
        and known.size
        and not 0 <= known.min() <= known.max() < shape[1]
    ):
        raise InputError(
            f"expected `target` in [0, {shape[1]}), got values from {known.min()} to {known.max()}: "
            "give indices of the scores"
        )


def check_finite(name: str, x: jax.Array) -> None:
    """Refuse an array that is no batch, of no floats, or not finite."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputTypeError(f"expected `{name}` of floats, got {x.dtype}: normalize images, embed tokens")
    as_finite(name, x)


def check_references(references: jax.Array, x: jax.Array) -> None:
    """Refuse what is no set of finite inputs of x's sizes."""
    check_finite("references", references)
    if references.shape[1:] != x.shape[1:]:
        raise InputError(
            f"expected references of shape (B, *{x.shape[1:]}), got {references.shape}: resize them"
        )


def as_finite(name: str, value: ArrayLike) -> jax.Array:
    """The value as an array; an error where it is no batch of real numbers, or not finite."""
    x = as_array(value)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise InputTypeError(
            f"expected `{name}` of real numbers, got {x.dtype}: take their magnitudes or real parts"
        )
    if x.ndim < 2 or not x.size:
        raise InputError(f"expected `{name}` of shape (N, ...), got {x.shape}: add the axis of images")
    if bad := count_not_finite(x):
        raise InputError(
            f"expected finite `{name}`, got {bad} of {x.size} values that are NaN or infinite: look for them"
        )
    return x


def per_image(name: str, value: ArrayLike, x: jax.Array) -> jax.Array:
    """A positive number, or one an image, as an array that broadcasts to `x`.

    Args:
        name: of the argument, for errors.
        value: a number, or (N,).
        x: (N, ...).

    Returns:
        float32, (N, 1, ...).

    Raises:
        ValueError: another shape, or a value that is not positive and finite.
    """
    value = as_array(value, jnp.promote_types(x.dtype, jnp.float32))
    if value.shape not in ((), x.shape[:1]):
        raise InputError(
            f"expected {name} as a number or of shape {x.shape[:1]}, got {value.shape}: one an image"
        )
    known = values(value)
    if known is not None and (bad := ~((known > 0) & np.isfinite(known))).any():
        raise InputError(
            f"expected {name} above 0 and finite, got {known[bad].ravel()[0]:g}: choose another one"
        )
    return jnp.broadcast_to(value, x.shape[:1]).reshape(-1, *[1] * (x.ndim - 1))


def as_baseline(baseline: ArrayLike, x: jax.Array) -> jax.Array:
    """What a feature is compared with, for every image.

    Args:
        baseline: a number or an array that broadcasts to `x`.
        x: (N, ...).

    Returns:
        Of x's shape and dtype.

    Raises:
        ValueError: it does not broadcast to `x`, or is not finite.
    """
    given = as_array(baseline, x.dtype)
    try:
        whole = jnp.broadcast_to(given, x.shape)
    except ValueError as error:
        raise InputError(
            f"expected a baseline that broadcasts to {x.shape}, got {given.shape}: give a number, one a channel, "
            "or an image"
        ) from error
    if count_not_finite(given):
        raise InputError("expected a finite baseline, got NaN or infinite values: look for them")
    return whole


def as_baselines(baseline: ArrayLike, x: jax.Array) -> jax.Array:
    """One or several baselines for every image.

    Args:
        baseline: as in `as_baseline`, or (B, *x.shape).
        x: (N, ...).

    Returns:
        (B, *x.shape), x's dtype; B is 1 for one.

    Raises:
        ValueError: as `as_baseline`; or several are of another shape.
    """
    given = as_array(baseline, x.dtype)
    if given.ndim <= x.ndim:
        return as_baseline(given, x)[None]
    if given.shape[1:] != x.shape:
        raise InputError(
            f"expected baselines of shape (B, *{x.shape}), got {given.shape}: give each image B of them"
        )
    check_finite("baseline", given)
    return given


def as_grays(low: ArrayLike, high: ArrayLike, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What black and white are in the function's inputs.

    Args:
        low: black, a number or one a channel, (C,).
        high: white, likewise; not below `low`.
        x: (N, ..., C).

    Returns:
        Both in x's dtype and of its rank.

    Raises:
        ValueError: another shape, a value that is not finite, or black above white.
    """
    found = []
    for name, value in (("low", low), ("high", high)):
        gray = as_array(value, x.dtype)
        if gray.shape not in ((), x.shape[-1:]):
            raise InputError(
                f"expected {name} as a number or of shape {x.shape[-1:]}, got {gray.shape}: one a channel"
            )
        found.append(gray)
    black, white = (values(gray) for gray in found)
    if black is not None and white is not None and not (np.isfinite(white - black) & (black <= white)).all():
        raise InputError(f"expected low <= high, got {low} and {high}: black first, then white, without NaN")
    darkest, brightest = (gray.reshape(*[1] * (x.ndim - 1), -1) for gray in found)
    return darkest, brightest


def is_tree(x: Any) -> bool:
    """Whether inputs are a tree of arrays: a dictionary, a tuple of arrays, or another container that JAX knows."""
    if x is None or isinstance(x, list) or hasattr(x, "shape"):
        return False
    if jax.tree_util.all_leaves([x]):
        return False
    # Rows of numbers as tuples are an array.
    return not (isinstance(x, tuple) and x and all(np.ndim(plain(leaf)) == 0 for leaf in jax.tree.leaves(x)))


def plain(value: Any) -> Any:
    """A value that NumPy knows the rank of; of a container one of rank 1."""
    return value if hasattr(value, "ndim") or jax.tree_util.all_leaves([value]) else [value]
