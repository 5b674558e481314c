"""Simpson's rule on points one apart."""

import jax
import numpy as np
from jax.typing import ArrayLike

from jxai.checks import as_array, finite
from jxai.errors import InputError


def simpson(values: ArrayLike) -> jax.Array:
    """Integral along the last axis by Simpson's rule, with unit steps.

    An odd number of points has the weights 1, 4, 2, 4, ..., 4, 1 over 3. Of an even number the last interval is
    (5 y_n + 8 y_{n-1} − y_{n-2}) / 12, as in SciPy since 1.11. Two points are the trapezoid and one has no area.

    Args:
        values: (..., P), P at least 1.

    Returns:
        (...), float32.

    Raises:
        ValueError: there is no point, or one that is not finite.

    Example:
        >>> simpson([0.0, 1.0, 4.0, 9.0]).item()  # the integral of t² over [0, 3]
        9.0

    References:
        Cartwright, "Simpson's Rule Cumulative Integration with MS Excel and Irregularly-spaced Data", 2017.
    """
    points = finite("values", as_array(values, np.float32))
    if points.ndim < 1 or not points.shape[-1]:
        raise InputError(
            f"expected values of shape (..., P) with P at least 1, got {points.shape}: add points"
        )
    return finite("areas", (points * np.broadcast_to(_weights(points.shape[-1]), points.shape)).sum(axis=-1))


def _weights(count: int) -> np.ndarray:
    weights = np.zeros(count)
    if count == 2:
        weights[:] = 0.5
    elif count > 2:
        odd = count - 1 + count % 2
        weights[:odd] = np.resize([2.0, 4.0], odd)
        weights[[0, odd - 1]] = 1
        weights /= 3
        if odd < count:
            weights[-3:] += np.array([-1.0, 8.0, 5.0]) / 12
    return weights.astype(np.float32)
