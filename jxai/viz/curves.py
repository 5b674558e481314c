"""Learning curves from the metrics that training writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jxai.checks import check_number, shown
from jxai.errors import InputError, InputTypeError
from jxai.viz.figure import check_texts, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Run = Sequence[Mapping[str, float]]

# Okabe and Ito's colors, told apart with any color vision.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def learning_curves(
    runs: Mapping[str, Sequence[_Run]],
    *,
    path: str | os.PathLike[str],
    metrics: Sequence[str] = ("loss", "accuracy"),
    x: str = "step",
    pairs: Mapping[str, str] | None = None,
    smoothing: float = 0.0,
    title: str = "",
    dpi: int = 130,
) -> Path:
    """Draw one panel a metric and one color a group of runs: a thin line a run, a thick one for their mean.

    Args:
        runs: name of a group (plain, guided) -> its runs (seeds), each a list of metrics as the lines of its
            JSON file. A line without a metric is left out of that metric's panel.
        path: where the PNG goes; folders are made.
        metrics: the panels, from left to right.
        x: the metric on the horizontal axis.
        pairs: {name of a group: that of the one it is compared to}; it is drawn dashed, in that one's color.
        smoothing: every value becomes the mean of those at most this far from it, in units of `x`; so a noisy
            loss is smoothed and an accuracy evaluated less often than that stays as it is.
        title: printed on top.
        dpi: pixels an inch.

    Returns:
        The path.

    Raises:
        TypeError: if `runs` is no mapping, or a metric no number.
        ValueError: if there are no metrics or runs, no run has a metric asked for, a pair names no group, or
            smoothing is negative.
    """
    check_texts("metrics", metrics)
    check_number("smoothing", smoothing, least=0)
    _check_lines(runs)
    if not metrics or not any(runs.values()):
        raise InputError(
            f"expected metrics and runs to draw, got {metrics} and {list(runs)}: give one of each"
        )
    styles = _styles(runs, pairs or {})
    figure = new_figure(4.6 * len(metrics) + 1.6, 3.4)
    if title:
        figure.suptitle(title, fontsize=12, parse_math=False)
    axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        groups = {name: [_curve(run, x, metric, smoothing) for run in group] for name, group in runs.items()}
        if not any(len(curve) for curves in groups.values() for curve in curves):
            known = sorted({key for group in runs.values() for run in group for line in run for key in line})
            raise InputError(f"expected metrics among {', '.join(known)}, got {metric!r}: no run has it")
        for name, curves in groups.items():
            _draw_group(axis, name, [curve for curve in curves if len(curve)], **styles[name])
        axis.set_xlabel(x)
        axis.set_title(metric, fontsize=10, parse_math=False)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    # One for all panels, beside them: a table's curves leave no room within.
    entries = {
        label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(entries.values()), list(entries), loc="outside right upper", fontsize=8, frameon=False)
    return save(figure, path, dpi=dpi)


def _check_lines(runs: Any) -> None:
    try:
        right = all(isinstance(line, Mapping) for group in runs.values() for run in group for line in run)
    except (AttributeError, TypeError):
        right = False
    if not right:
        raise InputTypeError(
            f"expected runs as lists of lines by the name of a group, got {shown(runs)}: name them"
        )


def _styles(names: Iterable[str], pairs: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """How each group is drawn: a color of its own, or dashes in the color of the one it is compared to."""
    names = list(names)
    if unknown := [name for pair in pairs.items() for name in pair if name not in names]:
        raise InputError(
            f"expected pairs among the groups {', '.join(names)}, got {', '.join(map(repr, unknown))}: name groups"
        )
    own = dict(zip((name for name in names if name not in pairs), cycle(_COLORS), strict=False))
    return {
        name: {"color": own[name], "linestyle": "-"}
        if name in own
        else {"color": own.get(pairs[name], _COLORS[-1]), "linestyle": "--"}
        for name in names
    }


def _draw_group(axis: Axes, name: str, curves: Sequence[np.ndarray], **style: Any) -> None:
    if len(curves) == 1:
        axis.plot(*curves[0].T, linewidth=1.6, label=name, **style)
    elif curves:
        for curve in curves:
            axis.plot(*curve.T, linewidth=0.7, alpha=0.45, **style)
        axis.plot(*_mean(curves).T, linewidth=2, label=f"{name} (mean of {len(curves)})", **style)


def _curve(run: _Run, x: str, metric: str, smoothing: float) -> np.ndarray:
    """(points, 2): x, sorted, and the smoothed metric."""
    lines = [(line[x], line[metric]) for line in run if x in line and metric in line]
    try:
        points = np.array(lines, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputTypeError(
            f"expected numbers of {x} and {metric}, got others ({error}): remove them"
        ) from error
    if not len(points):
        return points
    places, values = points[np.argsort(points[:, 0], kind="stable")].T
    start = np.searchsorted(places, places - smoothing, side="left")
    stop = np.searchsorted(places, places + smoothing, side="right")
    means = [values[i:j].mean() for i, j in zip(start, stop, strict=True)]
    return np.stack([places, means], axis=-1)


def _mean(curves: Sequence[np.ndarray]) -> np.ndarray:
    """(points, 2): mean over runs at every x of any of them, within the range that all of them cover."""
    start, stop = max(curve[0, 0] for curve in curves), min(curve[-1, 0] for curve in curves)
    places = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
    places = places[(places >= start) & (places <= stop)]
    return np.stack([places, np.mean([np.interp(places, *curve.T) for curve in curves], axis=0)], axis=-1)
