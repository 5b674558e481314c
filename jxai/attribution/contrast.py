"""One class against another, as a target of every estimator."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from jxai.checks import as_array, shown, values
from jxai.errors import InputError, InputTypeError


def contrast(target: ArrayLike, other: ArrayLike) -> tuple[Callable[..., jax.Array], jax.Array, jax.Array]:
    """A target: each image's score of one class less that of another.

    What every estimator takes in the place of classes is a tuple like this one: a function of f's outputs to one
    number an image, and the arrays of the images that it takes beside them.

    Example:
        >>> from jxai import attribution
        >>> f = lambda x: x @ jnp.array([[1.0, 0.0], [2.0, -1.0]])
        >>> attribution.gradient(f, jnp.ones((1, 2)), attribution.contrast([0], [1]))
        Array([[1., 3.]], dtype=float32)

    Args:
        target: (N,), integers in [0, K): for which there is evidence.
        other: (N,), integers in [0, K): against which there is.

    Returns:
        (function, target, other), for the argument `target` of an estimator whose f gives scores (N, K).

    Raises:
        TypeError: classes are no integers.
        ValueError: shapes differ, or an index is negative, or later not below K (values are not seen under jit).
    """
    target, other = as_array(target), as_array(other)
    for name, classes in (("target", target), ("other", other)):
        if not jnp.issubdtype(classes.dtype, jnp.integer):
            raise InputTypeError(f"expected `{name}` of integers, got {classes.dtype}: give class indices")
        if classes.ndim != 1 or classes.shape != target.shape:
            raise InputError(
                f"expected `target` and `other` of one shape (N,), got {target.shape} and {other.shape}: give one "
                "class index an image"
            )
    known = [one for one in (values(target), values(other)) if one is not None and one.size]
    least, most = (min(one.min() for one in known), max(one.max() for one in known)) if known else (0, 0)
    if least < 0:
        raise InputError(f"expected `target` and `other` of at least 0, got {least}: give class indices")

    def difference(scores: jax.Array, target: jax.Array, other: jax.Array) -> jax.Array:
        shape = getattr(scores, "shape", ())
        if len(shape) != 2 or most >= shape[1]:
            raise InputError(
                f"expected `f` to give scores (N, K) with K above {most}, got {shown(scores)}: choose one output,"
                " and classes among its scores"
            )
        of_class, of_other = (
            jnp.take_along_axis(scores, one[:, None], axis=1)[:, 0] for one in (target, other)
        )
        return of_class - of_other

    return difference, target, other
