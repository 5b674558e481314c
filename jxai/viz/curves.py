"""Learning curves from the metrics that training writes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jxai.viz.figure import new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Run = Sequence[Mapping[str, float]]

# Okabe and Ito's colours, told apart with any colour vision.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def learning_curves(
    runs: Mapping[str, Sequence[_Run]],
    *,
    path: str | os.PathLike[str],
    metrics: Sequence[str] = ("loss", "accuracy"),
    x: str = "step",
    smoothing: float = 0.0,
    title: str = "",
    dpi: int = 130,
) -> Path:
    """Draw one panel a metric and one colour a group of runs: a thin line a run, a thick one for their mean.

    Args:
        runs: name of a group (plain, guided) -> its runs (seeds), each a list of metrics as the lines of its
            JSON file. A line without a metric is left out of that metric's panel.
        path: where the PNG goes; folders are made.
        metrics: the panels, from left to right.
        x: the metric on the horizontal axis.
        smoothing: every value becomes the mean of those at most this far from it, in units of `x`; so a noisy
            loss is smoothed and an accuracy evaluated less often than that stays as it is.
        title: printed on top.
        dpi: pixels an inch.

    Returns:
        The path.

    Raises:
        ValueError: if there are no metrics or runs, no run has a metric asked for, or smoothing is negative.
    """
    if smoothing < 0:
        raise ValueError(f"expected smoothing of at least 0, got {smoothing}: 0 draws the values as they are")
    if not metrics or not any(runs.values()):
        raise ValueError(
            f"expected metrics and runs to draw, got {list(metrics)} and {list(runs)}: give one of each"
        )
    figure = new_figure(4.6 * len(metrics), 3.4)
    if title:
        figure.suptitle(title, fontsize=12, parse_math=False)
    for axis, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        groups = {name: [_curve(run, x, metric, smoothing) for run in group] for name, group in runs.items()}
        if not any(len(curve) for curves in groups.values() for curve in curves):
            known = sorted({key for group in runs.values() for run in group for line in run for key in line})
            raise ValueError(f"expected metrics among {', '.join(known)}, got {metric!r}: no run has it")
        for colour, (name, curves) in zip(cycle(_COLOURS), groups.items(), strict=False):
            _draw_group(axis, name, [curve for curve in curves if len(curve)], colour)
        axis.set_xlabel(x)
        axis.set_title(metric, fontsize=10, parse_math=False)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False)
    return save(figure, path, dpi=dpi)


def _draw_group(axis: Axes, name: str, curves: Sequence[np.ndarray], colour: str) -> None:
    if len(curves) == 1:
        axis.plot(*curves[0].T, color=colour, linewidth=1.6, label=name)
    elif curves:
        for curve in curves:
            axis.plot(*curve.T, color=colour, linewidth=0.7, alpha=0.45)
        axis.plot(*_mean(curves).T, color=colour, linewidth=2, label=f"{name} (mean of {len(curves)})")


def _curve(run: _Run, x: str, metric: str, smoothing: float) -> np.ndarray:
    """(points, 2): x, sorted, and the smoothed metric."""
    points = np.array(
        [(line[x], line[metric]) for line in run if x in line and metric in line], dtype=np.float64
    )
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
