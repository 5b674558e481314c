"""The picture of `jxai judge`: methods' perturbation curves."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jxai.cli.explaining.line_labels import label_ends, line_styles
from jxai.viz.figure import new_figure, save

_HEIGHT = 5.0  # of the picture, in inches


def draw_curves(curves: Mapping[str, np.ndarray], *, title: str, path: Path) -> Path:
    """Draw each method's mean perturbation curve, its name at the end.

    Args:
        curves: label to (N, points).
        title: printed on top.
        path: where the PNG goes.

    Returns:
        The path.
    """
    figure = new_figure(7.6, _HEIGHT)
    axis = figure.subplots()
    styles, means = line_styles(len(curves)), [curve.mean(axis=0) for curve in curves.values()]
    for mean, style in zip(means, styles, strict=True):
        axis.plot(np.arange(len(mean)), mean, linewidth=1.6, **style)
    axis.set_xlim(0, max(len(mean) for mean in means) - 1)
    axis.set_ylim(*axis.get_ylim())  # the names' lines are not to move it
    axis.set_xlabel("windows replaced by noise, the most relevant first")
    axis.set_ylabel("score of the explained class, initially 1")
    axis.set_title(title, fontsize=10, parse_math=False)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    label_ends(axis, [mean[-1] for mean in means], list(curves), styles, height=0.82 * _HEIGHT)
    return save(figure, path, dpi=130)
