"""Explanations that should be alike: a student's and its teacher's, a picture's and its moved copy's."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jxai.checks import as_array, check_functions, keep_nan
from jxai.errors import InputError
from jxai.guidance.maps import as_explanations, scaled, total


def disagreement(relevance: jax.Array, reference: jax.Array) -> jax.Array:
    """1 − cos(R, R'): 0 for a multiple, 1 for nothing in common, 2 for the opposite.

    For a teacher's maps stop their gradient: `jax.lax.stop_gradient`. Attention transfer's distance of maps of length
    1 is the root of twice this.

    Example:
        >>> disagreement(jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([[2.0, 0.0], [1.0, -1.0]]))
        Array([0., 1.], dtype=float32)

    Args:
        relevance: R, (N, ...), floats.
        reference: R', of its shape.

    Returns:
        (N,), float32 at least, in [0, 2]; 1 where one of them is 0 all over.

    Raises:
        TypeError: no arrays of numbers.
        ValueError: two shapes, or values that are not finite (not seen under jit).

    References:
        Parchami-Araghi et al., *Good Teachers Explain, Explanation-Enhanced Knowledge Distillation*, 2024; Zagoruyko
        and Komodakis, *Paying More Attention to Attention*, 2017, equation 2.
    """
    relevance, reference = as_explanations("relevance", relevance), as_explanations("reference", reference)
    if relevance.shape != reference.shape:
        raise InputError(
            f"expected two explanations of one shape, got {relevance.shape} and {reference.shape}: resize one, or "
            "sum its channels"
        )
    return keep_nan(1 - total(_unit(relevance) * _unit(reference)), relevance, reference)


def inconsistency(
    explain: Callable[[jax.Array], jax.Array], transform: Callable[[jax.Array], jax.Array], x: jax.Array
) -> jax.Array:
    """1 − cos(R(T x), T R(x)): how far the explanation of a transformed picture is from the transformed one's.

    Args:
        explain: from inputs (N, ...) to explanations of their shape, or that of heat maps that `transform` takes.
        transform: T, of inputs and of explanations alike: flips, shifts, crops.
        x: inputs, (N, ...), floats.

    Returns:
        (N,), as `disagreement`.

    Raises:
        TypeError: no functions, or no array of numbers.
        ValueError: as `disagreement`, of what the functions give.

    References:
        Guo et al., *Visual Attention Consistency under Image Transforms for Multi-Label Image Classification*, 2019,
        equation 4 (a squared difference there).
    """
    check_functions(explain=explain, transform=transform)
    as_explanations("x", x)
    x = as_array(x)
    return keep_nan(
        disagreement(as_array(explain(transform(x))), as_array(transform(as_array(explain(x))))), x
    )


def _unit(values: jax.Array) -> jax.Array:
    """Each example at length 1, or 0 all over."""
    values = scaled(values)
    squares = total(values**2).reshape(-1, *[1] * (values.ndim - 1))
    return values / jnp.sqrt(jnp.where(squares > 0, squares, 1))
