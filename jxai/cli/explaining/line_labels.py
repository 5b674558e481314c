"""Names of lines written beside their ends, so that a picture needs no legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colors, told apart with any color vision; with the dashes no line looks like another.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)))
_SIZE = 8.0  # of the letters, in points
_GAP = 10.5  # from one name to the next, in points


def line_styles(count: int) -> list[dict[str, Any]]:
    """Colors and dashes of lines.

    Args:
        count: how many, at most 21 that differ.

    Returns:
        Of each what `Axes.plot` takes.
    """
    numbers = len(_COLORS)
    return [
        {"color": _COLORS[i % numbers], "linestyle": _DASHES[i // numbers % len(_DASHES)]}
        for i in range(count)
    ]


def label_ends(
    axis: Axes,
    ends: Sequence[float],
    names: Sequence[str],
    styles: Sequence[dict[str, Any]],
    *,
    height: float,
) -> None:
    """Write names to the right of the axis, each joined to its line's end; call it when the limits are set.

    Args:
        axis: where the lines are, which end at its right side.
        ends: where, in the data's units.
        names: of the lines.
        styles: of the lines.
        height: the axis', in inches, about.
    """
    shares = axis.transAxes.inverted().transform(axis.transData.transform([(0.0, y) for y in ends]))[:, 1]
    places = spread(shares, _GAP / 72 / height)
    for share, place, name, style in zip(shares, places, names, styles, strict=True):
        axis.plot(
            (1.0, 1.03, 1.07),
            (share, place, place),
            transform=axis.transAxes,
            clip_on=False,
            linewidth=1.2,
            **style,
        )
        axis.annotate(
            name, (1.08, place), xycoords="axes fraction", va="center", fontsize=_SIZE, parse_math=False
        )


def spread(places: np.ndarray | Sequence[float], gap: float) -> np.ndarray:
    """Places on a line, moved as little as lets each be `gap` from the next, in their order.

    Args:
        places: (n,).
        gap: above 0.

    Returns:
        (n,): the least squares of the moves.
    """
    places = np.asarray(places, np.float64)
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    # Without its share of the gaps the line must only not fall: neighbors that do take their common mean.
    blocks: list[list[float]] = []
    for value in places[order] - steps:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    moved = np.empty_like(places)
    moved[order] = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks]) + steps
    return moved
