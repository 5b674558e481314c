"""Means over pictures with intervals that hold for few of them."""

import numpy as np
from scipy import stats  # JAX brings it


def mean_and_interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and the half width of its 95 % interval, t·std/√n with Student's t; of differences, the paired interval.

    Args:
        values: one number a picture, (n,).

    Returns:
        (mean, half width); the half width is NaN for fewer than two values, and both are where a value is not finite.
    """
    if not np.isfinite(values).all():
        return float("nan"), float("nan")
    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1) * error)
