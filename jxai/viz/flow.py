"""Where relevance goes, from `lrp.conservation`'s numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from jxai.checks import as_numpy, check_number, shown
from jxai.errors import InputError, InputTypeError
from jxai.viz.figure import new_figure, save

# What absorbs relevance, with Okabe and Ito's colors.
_CAUSES = {"bias": "#d55e00", "stabilizer": "#0072b2", "zeros": "#000000", "rule": "#cc79a7"}


def relevance_flow(
    conservation: Any,
    *,
    path: str | os.PathLike[str],
    smallest: float = 0.002,
    title: str = "",
    dpi: int = 130,
) -> Path:
    """Draw, from the output down to the input, what each operation absorbs and how much relevance is left.

    Args:
        conservation: what `lrp.conservation` gave; numbers are sums over its images, over what they start with.
        path: where the PNG goes; folders are made.
        smallest: share of the start that an operation has to absorb to have a row.
        title: printed on top.
        dpi: pixels an inch.

    Returns:
        The path.

    Raises:
        TypeError: if it is nothing of `lrp.conservation`'s.
        ValueError: if nothing was recorded, a number is not finite, or relevance starts at 0 in sum, so that there
            is no unit.
    """
    if not hasattr(conservation, "paths"):
        raise InputTypeError(f"expected what lrp.conservation gives, got {shown(conservation)}: call it")
    check_number("smallest", smallest, least=0)
    start = float(np.sum(as_numpy("relevance", conservation.start)))
    if not conservation.paths or start == 0:
        raise InputError(
            f"expected operations and relevance that does not start at 0, got {len(conservation.paths)} operations "
            f"and {start}: start at scores that are not 0"
        )
    shares = {name: as_numpy(name, getattr(conservation, name)).sum(axis=1)[::-1] / start for name in _CAUSES}
    absorbs = np.sum([np.abs(share) for share in shares.values()], axis=0) >= smallest
    kept = np.flatnonzero(absorbs)
    labels = [
        f"{path} {what}".strip()
        for path, what in zip(conservation.paths, conservation.operations, strict=True)
    ]
    labels = [labels[::-1][i] for i in kept]
    left = 1 - np.cumsum(np.sum(list(shares.values()), axis=0))[kept]
    figure = new_figure(7.5, 1.2 + 0.24 * max(len(kept), 4))
    axis = figure.subplots()
    rows = np.arange(len(kept))
    ends = {1: np.zeros(len(kept)), -1: np.zeros(len(kept))}
    for name, color in _CAUSES.items():
        share = shares[name][kept]
        for sign, end in ends.items():
            length = np.maximum(sign * share, 0) * sign
            label = name if sign > 0 and np.abs(share).max(initial=0) > 1e-4 else None
            axis.barh(rows, length, left=end, color=color, height=0.7, label=label)
            end += length
    axis.plot(left, rows, color="#009e73", marker="o", markersize=3, linewidth=1.2, label="left below it")
    axis.set_yticks(rows, labels, fontsize=7, parse_math=False)
    axis.set_ylim(len(kept) - 0.4, -0.6)
    axis.axvline(0, color="0.6", linewidth=0.8)
    axis.axvline(1, color="0.6", linewidth=0.8, linestyle=":")
    axis.set_xlabel("share of the relevance that the output starts with")
    if title:
        axis.set_title(title, fontsize=10, parse_math=False)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, loc="best")
    return save(figure, path, dpi=dpi)
