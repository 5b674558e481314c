"""What every estimator asks of its arguments, once, at the public boundary.

Shapes and types are checked always, values only where they are known: not of tracers under `jit`, `vmap` or `grad`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpy.typing import ArrayLike


def values(array: jax.Array) -> np.ndarray | None:
    """The values on the host, or None where they cannot be looked at: of a tracer."""
    return None if isinstance(array, Tracer) else np.asarray(array)


def check_inputs(f: Callable, x: jax.Array, target: jax.Array) -> None:
    """Refuse what is no batch of finite inputs with one class each.

    Args:
        f: from a batch (N, ...) to scores (N, K).
        x: (N, ...), floats.
        target: (N,), integers in [0, K).

    Raises:
        TypeError: `x` holds no floats or `target` no integers.
        ValueError: shapes do not fit, `x` is not finite, a target is out of range, or `f` gives no scores (N, K).
    """
    check_finite("x", x)
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError(f"expected `target` of integers, got {target.dtype}: give class indices")
    if target.shape != x.shape[:1]:
        raise ValueError(
            f"expected `target` of shape {x.shape[:1]}, got {target.shape}: give one class index an image"
        )
    scores = jax.eval_shape(f, jax.ShapeDtypeStruct(x.shape, x.dtype))
    shape = getattr(scores, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != x.shape[0]:
        got = type(scores).__name__ if shape is None else f"an array of shape {shape}"
        raise ValueError(
            f"expected `f` to give scores of shape ({x.shape[0]}, K), got {got}: choose one output"
        )
    if (
        (known := values(target)) is not None
        and known.size
        and not 0 <= known.min() <= known.max() < shape[1]
    ):
        raise ValueError(
            f"expected `target` in [0, {shape[1]}), got values from {known.min()} to {known.max()}: "
            "give indices of the scores"
        )


def check_finite(name: str, x: jax.Array) -> None:
    """Refuse an array that is no batch, of no floats, or not finite."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"expected `{name}` of floats, got {x.dtype}: convert and normalise the images")
    if x.ndim < 2 or not x.size:
        raise ValueError(f"expected `{name}` of shape (N, ...), got {x.shape}: add the axis of images")
    if bad := count_not_finite(x):
        raise ValueError(
            f"expected finite `{name}`, got {bad} of {x.size} values that are NaN or infinite: look for them"
        )


def count_not_finite(x: jax.Array) -> int:
    """How many values are NaN or infinite, on x's device; 0 where they are not known."""
    if isinstance(x, Tracer):
        return 0
    with jax.ensure_compile_time_eval():
        return int((~jnp.isfinite(x)).sum())


def check_count(name: str, value: int) -> None:
    """Refuse a count below 1."""
    if value < 1:
        raise ValueError(f"expected {name} of at least 1, got {value}: raise it")


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
    value = jnp.asarray(value, jnp.promote_types(x.dtype, jnp.float32))
    if value.shape not in ((), x.shape[:1]):
        raise ValueError(
            f"expected {name} as a number or of shape {x.shape[:1]}, got {value.shape}: one an image"
        )
    known = values(value)
    if known is not None and not ((known > 0) & np.isfinite(known)).all():
        raise ValueError(f"expected {name} above 0, got {known.min():g}: for no noise take the gradient")
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
    baseline = jnp.asarray(baseline, x.dtype)
    try:
        whole = jnp.broadcast_to(baseline, x.shape)
    except ValueError as error:
        raise ValueError(
            f"expected a baseline that broadcasts to {x.shape}, got {baseline.shape}: give a number, one a channel, "
            "or an image"
        ) from error
    if count_not_finite(baseline):
        raise ValueError("expected a finite baseline, got NaN or infinite values: look for them")
    return whole
