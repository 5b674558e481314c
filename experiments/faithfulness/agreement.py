"""How far two metrics agree on the order of methods: Spearman's correlation, with intervals by the bootstrap."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Agreement(NamedTuple):
    """Of two metrics.

    Attributes:
        correlation: of the methods' means over pictures, in [-1, 1]; NaN where all methods are equal by one of them.
        low: the 2.5 % quantile over resampled pictures and seeds.
        high: the 97.5 % quantile.
    """

    correlation: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.correlation:.2f} [{self.low:.2f}, {self.high:.2f}]".replace("-", "−")


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of rows, (..., methods) both: (...,)."""
    from scipy.stats import rankdata  # JAX brings it; slow to import

    centered = [
        ranks - ranks.mean(axis=-1, keepdims=True) for ranks in (rankdata(a, axis=-1), rankdata(b, axis=-1))
    ]
    with np.errstate(invalid="ignore"):
        lengths = np.sqrt((centered[0] ** 2).sum(axis=-1) * (centered[1] ** 2).sum(axis=-1))
        return (centered[0] * centered[1]).sum(axis=-1) / lengths


def resampled(scores: np.ndarray, *, num_draws: int, seed: int = 0) -> np.ndarray:
    """Means over pictures of resampled seeds and, within them, pictures.

    Args:
        scores: (methods, seeds, pictures).
        num_draws: resamples.
        seed: of the draws: with the same one the metrics of the same pictures are resampled together.

    Returns:
        (num_draws, methods).
    """
    rng = np.random.default_rng(seed)
    _, num_seeds, num_pictures = scores.shape
    seeds = rng.integers(0, num_seeds, (num_draws, num_seeds, 1))
    pictures = rng.integers(0, num_pictures, (num_draws, num_seeds, num_pictures))
    return np.stack([one[seeds, pictures].mean(axis=(1, 2)) for one in scores], axis=1)


def agreements(
    scores: Mapping[str, np.ndarray],
    directions: Mapping[str, str],
    references: Sequence[str],
    *,
    num_draws: int = 1000,
) -> dict[str, dict[str, Agreement]]:
    """Every metric's order of methods against those of some.

    Args:
        scores: by metric, (methods, seeds, pictures); the same pictures for all.
        directions: "higher" or "lower" by metric: 1 is agreement on what is better.
        references: the metrics that the others are held against.
        num_draws: of the bootstrap.

    Returns:
        By reference and metric, itself left out.
    """
    signed = {name: of * (1 if directions[name] == "higher" else -1) for name, of in scores.items()}
    means = {name: of.mean(axis=(1, 2)) for name, of in signed.items()}
    drawn = {name: resampled(of, num_draws=num_draws) for name, of in signed.items()}
    found: dict[str, dict[str, Agreement]] = {}
    for reference in references:
        found[reference] = {}
        for name in scores:
            if name != reference:
                spread = spearman(drawn[reference], drawn[name])
                low, high = (
                    np.nanquantile(spread, (0.025, 0.975)) if np.isfinite(spread).any() else (np.nan,) * 2
                )
                whole = spearman(means[reference], means[name])
                found[reference][name] = Agreement(float(whole), float(low), float(high))
    return found


def table(found: Mapping[str, Mapping[str, Agreement]]) -> str:
    """Metrics by references, as Markdown, the first reference's order.

    Args:
        found: of `agreements`.

    Returns:
        The table.
    """
    first = next(iter(found.values()))
    names = sorted(first, key=lambda name: -np.nan_to_num(first[name].correlation, nan=-2))
    names += [name for of in found.values() for name in of if name not in names]
    lines = ["| metric | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]
    for name in dict.fromkeys(names):
        cells = [str(of[name]) if name in of else "" for of in found.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
