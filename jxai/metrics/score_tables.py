"""Scores of methods by metrics as Markdown and JSON; `Scores` are by method and metric, one number an image."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jxai import intervals
from jxai.metrics.directions import DIRECTIONS

# Scores of each picture, (N,), by method and metric; a metric that means nothing for a method is not there.
Scores = Mapping[str, Mapping[str, np.ndarray]]

_LARGE = 1e6  # from here on a mean is written with an exponent

ARROWS = {"lower": "↓", "higher": "↑"}


def score_table(
    scores: Scores,
    *,
    methods: Mapping[str, str],
    columns: Mapping[str, str],
    control: str | None,
    directions: Mapping[str, str] = DIRECTIONS,
) -> str:
    """Methods by metrics: mean ± 95 % interval over the pictures, the best of a column in bold.

    Args:
        scores: by method and metric.
        methods: name to label, in the order of the rows.
        columns: names of metrics to their labels.
        control: the method that is never the best, or None.
        directions: what is better, by metric.

    Returns:
        Markdown.
    """
    header = ["method", *(f"{label} {ARROWS[directions[name]]}" for name, label in columns.items())]
    cells: dict[str, list[str]] = {method: [label] for method, label in methods.items()}
    for name in columns:
        there = {method: scores[method][name] for method in methods if name in scores[method]}
        digits, best = _digits(list(there.values())), _best(there, directions[name], control)
        for method, row in cells.items():
            text = _cell(there[method], digits) if method in there else "–"
            row.append(f"**{text}**" if method in best else text)
    return _markdown(header, cells.values())


def difference_table(
    scores: Scores,
    *,
    methods: Mapping[str, str],
    columns: Mapping[str, str],
    reference: str,
    directions: Mapping[str, str] = DIRECTIONS,
) -> str:
    """Each method's score less the reference's on the same picture: mean ± 95 % interval of the differences.

    Args:
        scores: by method and metric.
        methods: name to label, in the order of the rows.
        columns: names of metrics to their labels.
        reference: the method that is subtracted.
        directions: what is better, by metric.

    Returns:
        Markdown; bold where the interval leaves 0 out and the method is better than the reference. "–" where a metric
        means nothing for one of the two.
    """
    arrows = {name: ARROWS[directions[name]] for name in columns}
    header = [
        "method",
        *(f"{label} − {methods[reference]}'s {arrows[name]}" for name, label in columns.items()),
    ]
    rows = {method: [label] for method, label in methods.items() if method != reference}
    for name in columns:
        both = [method for method in rows if name in scores[method] and name in scores[reference]]
        found = {method: differences(scores, method, name, reference) for method in both}
        digits = _digits(list(found.values()))
        for method, row in rows.items():
            if method not in found:
                row.append("–")
                continue
            mean, half = mean_and_interval(found[method])
            text = _cell(found[method], digits, sign=True)
            better = half < (-mean if directions[name] == "lower" else mean)
            row.append(f"**{text}**" if better else text)
    return _markdown(header, rows.values())


def differences(scores: Scores, method: str, metric: str, reference: str) -> np.ndarray:
    """A method's scores less the reference's, picture by picture, (N,)."""
    return scores[method][metric] - scores[reference][metric]


def as_json(
    scores: Scores,
    curves: Mapping[str, np.ndarray],
    *,
    settings: Mapping[str, Any],
    reference: str,
    compared: Sequence[str],
) -> dict[str, Any]:
    """Everything that the tables and the picture show, and each picture's scores.

    Args:
        scores: by method and metric.
        curves: by method, (N, points).
        settings: what the scores were made with.
        reference: the method that differences are to.
        compared: the metrics of the differences.

    Returns:
        Of JSON's types; what is not finite is null.
    """

    return {
        "settings": dict(settings),
        "directions": {name: DIRECTIONS[name] for of in scores.values() for name in of},
        "scores": summaries(scores),
        f"differences to {reference}": {
            method: {name: _summary(differences(scores, method, name, reference)) for name in compared}
            for method in scores
            if compared and method != reference
        },
        "mean perturbation curves": {
            method: _numbers(curve.mean(axis=0).tolist()) for method, curve in curves.items()
        },
    }


def summaries(scores: Scores) -> dict[str, dict[str, Any]]:
    """Mean, half width of the 95 % interval and each image's score, by method and metric, of JSON's types."""
    return {method: {name: _summary(values) for name, values in of.items()} for method, of in scores.items()}


def _summary(values: np.ndarray) -> dict[str, Any]:
    mean, half = _numbers(mean_and_interval(values))
    return {"mean": mean, "interval": half, "values": _numbers(values.tolist())}


def _numbers(values: Iterable[float]) -> list[float | None]:
    # Nine digits tell any two numbers of float32 apart.
    return [float(f"{value:.9g}") if math.isfinite(value) else None for value in values]


def _best(there: Mapping[str, np.ndarray], direction: str, control: str | None) -> set[str]:
    """The methods with the best mean; one that is not finite is none."""
    means = {method: values.mean() for method, values in there.items() if method != control}
    finite = {method: mean for method, mean in means.items() if math.isfinite(mean)}
    if not finite:
        return set()
    best = (min if direction == "lower" else max)(finite.values())
    return {method for method, mean in finite.items() if mean == best}


def mean_and_interval(values: np.ndarray) -> tuple[float, float]:
    """As `jxai.intervals` has it; NaN where a score is not finite, which the table says.

    Args:
        values: one number a picture, (n,).

    Returns:
        (mean, half width).
    """
    if not np.isfinite(values).all():
        return math.nan, math.nan
    # Ratios of relative changes reach 1e20, whose squares float32 does not hold.
    return intervals.mean_and_interval(values.astype(np.float64))


def _digits(columns: Sequence[np.ndarray]) -> int:
    """Decimals of a column: two digits of its middle interval."""
    halves = [half for half in (mean_and_interval(values)[1] for values in columns) if half > 0]
    finite = [half for half in halves if math.isfinite(half)]
    return int(np.clip(1 - math.floor(math.log10(np.median(finite))), 0, 4)) if finite else 2


def _cell(values: np.ndarray, digits: int, *, sign: bool = False) -> str:
    mean, half = mean_and_interval(values)
    if not math.isfinite(mean):
        return "not finite"
    # Where a relative change divides by next to nothing, digits would fill the line.
    form = ".1e" if abs(mean) >= _LARGE else f".{digits}f"
    return f"{mean:{'+' if sign else ''}{form}} ± {half:{form}}".replace("-", "−")


def _markdown(header: Sequence[str], rows: Any) -> str:
    ruler = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ruler, *rows])
