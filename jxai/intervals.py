"""Means with intervals that hold for few values too."""

from typing import Any

import numpy as np

from jxai.checks import as_numpy, check_count
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


def hierarchical_interval(values: Any, *, num_draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % interval over seeds and episodes, by a bootstrap of both; of differences, the paired interval.

    Each draw takes n seeds with replacement, of each m of its own episodes, and the mean of all. Few seeds drawn from
    themselves spread by too little, (n − 1)/n of the variance, and have a normal distribution's tails: so the 2.5 and
    97.5 % quantiles are moved away from the mean by the factor √(n/(n − 1))·t/1.96, Student's t with n − 1 degrees of
    freedom. The seeds' means have the noise of their episodes already, and the draws of episodes add it again: where
    seeds do not differ, the interval is √2 times too wide; with many episodes that is little.

    A mixed model (a random effect a seed, normal residuals) gives for as many episodes of each seed
    `mean_and_interval(values.mean(axis=1))`. The bootstrap is taken because accuracies of episodes are neither normal
    nor equally spread, near 100 % least of all, and because it may be skewed as they are. Episodes of one seed
    shall be others than those of another: draw them by the seed, the same for the systems that are compared.

    Args:
        values: of each seed's episodes, (n, m).
        num_draws: of the bootstrap.
        seed: of its random numbers.

    Returns:
        (mean, low, high); low and high are NaN for a single seed, which says nothing about others.

    Raises:
        TypeError: no real numbers.
        ValueError: no value, one that is not finite or whose square is not, another rank, or a count below 1.

    References:
        Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, section 3.8 (hierarchical data).
    """
    values = as_numpy("values", values)
    if values.ndim != 2 or not values.size:
        raise InputError(f"expected values of shape (n, m), got {values.shape}: a row a seed, its episodes")
    num_draws = check_count("num_draws", num_draws)
    random = np.random.default_rng(check_count("seed", seed, least=0))
    seeds, episodes = values.shape
    means = values.astype(np.float64).mean(axis=1)
    mean, half = mean_and_interval(means)
    if seeds == 1:
        return mean, half, half
    from scipy import stats  # JAX brings it; slow to import

    drawn, block = [], max(1, 2**20 // values.size)
    for start in range(0, num_draws, block):
        count = min(block, num_draws - start)
        rows = random.integers(seeds, size=(count, seeds, 1))
        columns = random.integers(episodes, size=(count, seeds, episodes))
        drawn.append(values[rows, columns].mean(axis=(1, 2), dtype=np.float64))
    few = np.sqrt(seeds / (seeds - 1)) * stats.t.ppf(0.975, seeds - 1) / stats.norm.ppf(0.975)
    low, high = mean + few * (np.quantile(np.concatenate(drawn), [0.025, 0.975]) - mean)
    return mean, float(low), float(high)
