"""Small pictures in rows with a line or two of text above each, and what the colors of heat maps mean."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jxai import extras
from jxai.errors import InputError
from jxai.sealing import write_whole
from jxai.viz.figure import new_figure, printable, save
from jxai.viz.heatmap import diverging_colors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 112  # a panel of two inches shows every pixel of 224
_PANEL, _GAP, _TEXT, _MARGIN = 2.0, 0.12, 0.44, 0.15  # inches
_LEGEND = 0.62  # inches of a strip below the panels
_LABEL_LENGTH, _BELOW_LENGTH = 23, 31  # characters that fit above a panel
_FRAME = {"color": "#c8c8c8", "linewidth": 0.6}
# The colors that every picture keeps.
_MAPS = diverging_colors(np.linspace(-1, 1, 91))
_LETTERS = np.repeat(np.linspace(0, 240, 16).astype(np.uint8)[:, None], 3, axis=1)


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        picture: RGB, uint8, (H, W, 3).
        label: the line above it.
        below: a smaller line under that one.
        photograph: whether it has colors of its own, besides those of heat maps.
    """

    picture: np.ndarray
    label: str = ""
    below: str = ""
    photograph: bool = False


def draw_panels(
    panels: Sequence[Panel],
    path: str | os.PathLike[str],
    *,
    columns: int,
    legend: str,
    strip: bool = False,
) -> Path:
    """Draw panels row by row, all of one size, and a legend of `diverging_colors`; 256 colors in all.

    Args:
        panels: what is drawn.
        path: where the PNG goes; folders are made.
        columns: panels a row.
        legend: what stands above the colors, a few short lines.
        strip: whether the legend is a strip below all panels, in the place of a panel after the last.

    Returns:
        The path.

    Raises:
        ValueError: if there is no panel, or the path does not end in ".png".
    """
    if not panels:
        raise InputError("expected panels to draw, got none: give at least one picture")
    cells = len(panels) + (not strip)
    columns = min(columns, cells)
    rows = -(-cells // columns)
    width = 2 * _MARGIN + columns * (_PANEL + _GAP) - _GAP
    height = 2 * _MARGIN + rows * (_PANEL + _TEXT + _GAP) - _GAP + (_LEGEND if strip else 0)
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # every panel has its place

    def place(index: int) -> tuple[float, float]:
        """Left and lower edge of a panel, inches."""
        row, column = divmod(index, columns)
        top = _MARGIN + row * (_PANEL + _TEXT + _GAP) + _TEXT
        return _MARGIN + column * (_PANEL + _GAP), height - top - _PANEL

    photographs, own = _few_colors([panel.picture for panel in panels if panel.photograph])
    reduced = iter(photographs)
    for index, panel in enumerate(panels):
        left, bottom = place(index)
        picture = next(reduced) if panel.photograph else panel.picture
        axis = figure.add_axes((left / width, bottom / height, _PANEL / width, _PANEL / height))
        axis.imshow(picture, interpolation="nearest", aspect="auto")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(**_FRAME)
        top = (bottom + _PANEL) / height
        label, below = _short(panel.label, _LABEL_LENGTH), _short(panel.below, _BELOW_LENGTH)
        figure.text(left / width, top + 0.23 / height, label, fontsize=11.5, parse_math=False)
        figure.text(left / width, top + 0.06 / height, below, fontsize=9, color="#606060", parse_math=False)
    left, bottom = (_MARGIN, _MARGIN) if strip else place(len(panels))
    _legend(figure, legend, left, bottom + (0.16 if strip else 1.09))
    return _shrink(save(figure, path, dpi=_DPI), np.concatenate([_MAPS, _LETTERS, own]))


def _legend(figure: Figure, text: str, left: float, bottom: float) -> None:
    """Which color means what: words, the colors, and the text above or, in a strip, beside them."""
    width, height = figure.get_size_inches()
    beside = bottom < 1
    place = (left + _PANEL + 3 * _GAP, bottom + 0.06) if beside else (left, bottom + 0.33)
    figure.text(place[0] / width, place[1] / height, text, fontsize=10, va="center" if beside else "bottom")
    axis = figure.add_axes((left / width, (bottom + 0.06) / height, _PANEL / width, 0.16 / height))
    axis.imshow(diverging_colors(np.linspace(-1, 1, 256))[None], aspect="auto")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(**_FRAME)
    for position, word, side in ((0.0, "against", "left"), (0.5, "0", "center"), (1.0, "for", "right")):
        x = (left + position * _PANEL) / width
        figure.text(x, bottom / height, word, fontsize=10, ha=side, va="top")


def _short(text: str, length: int) -> str:
    """What fits above a panel, in letters that the font has."""
    text = printable(text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _few_colors(pictures: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """The pictures, dithered, in as many colors as maps and letters leave, and those colors."""
    with extras.named():
        from PIL import Image

    if not pictures:
        return [], np.zeros((0, 3), np.uint8)
    count = 256 - len(_MAPS) - len(_LETTERS)
    together = Image.fromarray(np.concatenate([picture.reshape(-1, 1, 3) for picture in pictures]))
    few = together.quantize(count, method=Image.Quantize.MAXCOVERAGE, kmeans=4)
    drawn = [Image.fromarray(picture).quantize(palette=few).convert("RGB") for picture in pictures]
    return [np.asarray(one) for one in drawn], np.array(few.getpalette(), np.uint8).reshape(-1, 3)[:count]


def _shrink(path: Path, palette: np.ndarray) -> Path:
    """Keep the palette's colors alone: noise of three bytes a pixel does not compress."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as opened:
        picture = np.asarray(opened.convert("RGB"))
    packed = picture.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    colors, index = np.unique(packed, return_inverse=True)
    # Pillow's own search is approximate: white would not stay white. |a − b|² is least where |b|² − 2ab is.
    nearest = np.empty(len(colors), np.uint8)
    keys = palette.astype(np.float32)
    for start in range(0, len(colors), 2**14):  # all distances at once would take gigabytes
        some = colors[start : start + 2**14, None] >> np.array([16, 8, 0]) & 255
        distance = (keys**2).sum(axis=1) - 2 * some.astype(np.float32) @ keys.T
        nearest[start : start + 2**14] = distance.argmin(axis=1)
    indexed = Image.frombytes("P", picture.shape[1::-1], nearest[index.ravel()].tobytes())
    indexed.putpalette(palette.tobytes())
    write_whole(path, lambda file: indexed.save(file, "png", optimize=True))
    return path
