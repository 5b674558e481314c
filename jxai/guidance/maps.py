"""What the losses take: explanations of a batch and where in them something is, checked.

Explanations come from `jxai.lrp.relevance` or any estimator of `jxai.attribution`, called with the parameters inside
of the function that is differentiated. They are (N, ...), floats of any unit: every loss but those of squares is the
same for a multiple of them. A loss is one number an example, (N,), as Optax's are, float32 at least: add its mean,
times a weight, to the loss that is trained. Where an explanation is 0 all over, and what is divided by would be 0
with it, a loss has a documented value and its gradient is 0, not NaN: a training begins there when a network's last
layer is 0.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jxai.checks import as_array, finite, values
from jxai.errors import InputError


def as_explanations(name: str, value: Any) -> jax.Array:
    """Explanations of a batch, at least one number each.

    Args:
        name: of the argument.
        value: (N, ...), floats.

    Returns:
        The array, float32 at least.

    Raises:
        TypeError: no array of numbers.
        ValueError: no floats, a rank below two, nothing in it, or values that are not finite (not seen under jit).
    """
    array = finite(name, as_array(value))
    if array.ndim < 2 or not array.size or not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f"expected {name} (N, ...) of floats, got {array.dtype} {array.shape}: give one explanation an example"
        )
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def as_region(name: str, value: Any, explanations: jax.Array) -> jax.Array:
    """Where in the explanations something is.

    Args:
        name: of the argument.
        value: of the explanations' shape, or without their channels; booleans, or shares in [0, 1].
        explanations: (N, ...).

    Returns:
        Of the explanations' rank, so that it broadcasts, and dtype.

    Raises:
        TypeError: no array of numbers.
        ValueError: another shape, or values outside of [0, 1] (not seen under jit).
    """
    array = as_array(value)
    if array.shape == explanations.shape[:-1]:
        array = array[..., None]
    if array.shape not in (explanations.shape, (*explanations.shape[:-1], 1)):
        raise InputError(
            f"expected {name} {explanations.shape} or {explanations.shape[:-1]}, got {jnp.shape(value)}: say for "
            "every entry, or every pixel, whether it is inside"
        )
    if array.dtype != bool and not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(f"expected {name} of booleans or shares, got {array.dtype}: compare it with 0")
    array = finite(name, array.astype(explanations.dtype))
    if (known := values(array)) is not None and ((known < 0) | (known > 1)).any():
        raise InputError(
            f"expected {name} in [0, 1], got {known.min():g} to {known.max():g}: compare it with 0"
        )
    return array


def scaled(values: jax.Array) -> jax.Array:
    """Each example over its largest |value|, which is held: for what is the same for a multiple, its gradient too.

    Shares and lengths of tiny or huge explanations would leave float32, their gradients before them.
    """
    largest = jax.lax.stop_gradient(jnp.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True))
    return values / jnp.where(largest > 0, largest, 1)


def total(values: jax.Array) -> jax.Array:
    """The sum of each example, (N,)."""
    return values.sum(axis=tuple(range(1, values.ndim)))


def share(part: jax.Array, whole: jax.Array, *, nothing: float) -> jax.Array:
    """part / whole, and a constant, with a gradient of 0, where the whole is 0."""
    there = whole > 0
    return jnp.where(there, part / jnp.where(there, whole, 1), nothing)
