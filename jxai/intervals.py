"""Means with intervals that hold for few values too."""

from typing import Any

import numpy as np

from jxai.checks import as_numpy
from jxai.errors import InputError


def mean_and_interval(values: Any) -> tuple[float, float]:
    """Mean and the half width of its 95 % interval, t·std/√n with Student's t; of differences, the paired interval.

    Args:
        values: one number an episode, a picture or a seed, (n,).

    Returns:
        (mean, half width); the half width is NaN for a single value.

    Raises:
        TypeError: no real numbers.
        ValueError: no value, one that is not finite or whose square is not, or another rank.
    """
    values = as_numpy("values", values)
    if values.ndim != 1 or not len(values):
        raise InputError(f"expected values of shape (n,), n at least 1, got {values.shape}: one an episode")
    if len(values) == 1:
        return float(values[0]), float("nan")
    from scipy import stats  # JAX brings it; slow to import

    with np.errstate(over="ignore", invalid="ignore"):
        spread = np.std(values, ddof=1)
    if not np.isfinite(spread):
        raise InputError(
            f"expected values whose squares are finite, got up to {abs(values).max():g}: rescale them"
        )
    return float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1) * spread / np.sqrt(len(values)))
