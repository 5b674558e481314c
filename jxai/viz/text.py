"""Relevance of texts: HTML for a page or a notebook, colors for a terminal, a picture; a matrix of tokens.

Red speaks for, blue against; a scale is symmetric around zero. Texts are foreign: what they hold is shown, never run.
"""

from __future__ import annotations

import dataclasses
import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from jxai.checks import as_numpy, check_count, check_number
from jxai.checks import printable as one_line
from jxai.errors import InputError
from jxai.viz.figure import check_texts, new_figure, printable, save
from jxai.viz.heatmap import diverging_colors, signed_sum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DARK = 0.45  # from this share of the scale on, letters are white
_LINE = 90  # characters of a line of the picture
_SHORTEST = 48  # characters that a picture is wide at least
_COLUMN = 0.078  # inches a character
_LABEL = 24  # of a label beside a matrix


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TextMaps:
    """What `text_maps` returns; as the last line of a notebook's cell it is shown.

    Attributes:
        html: the maps, as part of a page.
    """

    html: str

    def __repr__(self) -> str:
        return "heat maps of a text, for notebooks; .page() is a file"

    def _repr_html_(self) -> str:
        return self.html

    def page(self, *, title: str = "Relevance of a text") -> str:
        """A whole HTML document that needs nothing else.

        Args:
            title: of the page.

        Returns:
            The document.
        """
        return (
            '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(title)}</title>"
            '<body style="font: 1rem/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; '
            f'margin: 2rem auto; padding: 0 1rem"><h1 style="font-size: 1.3rem">{html.escape(title)}</h1>\n'
            f"{self.html}\n</body></html>\n"
        )


def text_maps(
    relevance: ArrayLike,
    *,
    tokens: Sequence[str],
    names: Sequence[str] = (),
    captions: Sequence[str] = (),
    scale: ArrayLike | None = None,
) -> TextMaps:
    """Texts colored by relevance, one below the other: the same text by several methods, or for several targets.

    A number is shown where the mouse rests on a token.

    Args:
        relevance: of tokens or words, (M, T); (T,) for one map.
        tokens: their texts; a space or line's end in them is kept.
        names: of the maps, such as methods; () for none.
        captions: a line below each; () for none.
        scale: the magnitude with the full color: a number for all maps, or one a map, (M,); by default the largest of
            all of them, so that they may be compared. Methods of other units need one each.

    Returns:
        What a notebook shows; `.page()` gives a file's content.

    Raises:
        TypeError: relevance is no array of real numbers, or texts are none.
        ValueError: shapes or lengths do not fit, values are not finite, or a scale is not above 0.

    Example:
        >>> "title='+1'" in text_maps([1.0, -2.0], tokens=["good", " grief"]).html.replace('"', "'")
        True
    """
    relevance, scales = _checked(relevance, tokens, scale)
    names, captions = (
        _one_each(what, texts, len(relevance)) for what, texts in (("names", names), ("captions", captions))
    )
    parts = []
    for row, most, name, caption in zip(relevance, scales, names, captions, strict=True):
        head = f'<div style="font-weight: 600">{html.escape(name)}</div>' if name else ""
        spans = "".join(map(_span, tokens, row, row / most))
        foot = " · ".join(filter(None, (caption, f"sum {row.sum():.3g}", f"full color at ±{most:.3g}")))
        parts.append(
            f'<figure style="margin: 0 0 1.2em">{head}<div style="white-space: pre-wrap; overflow-wrap: anywhere; '
            f'line-height: 1.9">{spans}</div><figcaption style="font-size: 0.8em; color: #555">'
            f"{html.escape(foot.replace('-', '−'))}</figcaption></figure>"
        )
    return TextMaps("<div>" + "\n".join(parts) + "<small>red for, blue against, white 0</small></div>")


def _span(token: str, value: float, share: float) -> str:
    red, green, blue = diverging_colors(np.clip(share, -1, 1)).tolist()
    letters = "#fff" if abs(share) > _DARK else "#111"
    return (
        f'<span title="{value:+.4g}" style="background: rgb({red} {green} {blue}); color: {letters}; '
        f'border-radius: 2px">{html.escape(_seen(token))}</span>'
    )


def _seen(token: str) -> str:
    """A token as it is shown in HTML: nothing of it hides or turns the direction of writing."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else one_line(c) for c in token)
    return shown or "∅"


def text_ansi(
    relevance: ArrayLike, *, tokens: Sequence[str], scale: float | None = None, colors: bool = True
) -> str:
    """A text colored by relevance, for a terminal with 24 bit colors.

    Args:
        relevance: of tokens or words, (T,).
        tokens: their texts; what would move the cursor or change colors becomes an escape.
        scale: the magnitude with the full color; by default the largest.
        colors: whether there are colors; otherwise each token has its number behind it.

    Returns:
        One line.

    Raises:
        TypeError: relevance is no array of real numbers, or texts are none.
        ValueError: shapes or lengths do not fit, values are not finite, or the scale is not above 0.

    Example:
        >>> text_ansi([1.0, -0.5], tokens=["good", " grief"], colors=False)
        'good[+1] grief[-0.5]'
    """
    relevance, scales = _checked(relevance, tokens, scale)
    if len(relevance) != 1:
        raise InputError(f"expected relevance of shape (T,), got {relevance.shape}: call it once a map")
    shown = [one_line(token) for token in tokens]
    if not colors:
        return "".join(f"{token}[{value:+.3g}]" for token, value in zip(shown, relevance[0], strict=True))
    shares = relevance[0] / scales[0]
    backgrounds = diverging_colors(np.clip(shares, -1, 1)).tolist()
    return "".join(
        f"\x1b[48;2;{r};{g};{b};38;2;{';'.join(['255' if abs(share) > _DARK else '17'] * 3)}m{token}\x1b[0m"
        for token, (r, g, b), share in zip(shown, backgrounds, shares, strict=True)
    )


def text_sheet(
    relevance: ArrayLike,
    *,
    tokens: Sequence[str],
    path: str | os.PathLike[str],
    names: Sequence[str] = (),
    title: str = "",
    scale: ArrayLike | None = None,
    dpi: int = 130,
) -> Path:
    """Draw texts colored by relevance, one below the other.

    Args:
        relevance: of tokens or words, (M, T); (T,) for one map.
        tokens: their texts.
        path: where the PNG goes; folders are made.
        names: of the maps; () for none.
        title: printed on top.
        scale: as in `text_maps`.
        dpi: pixels an inch.

    Returns:
        The path.

    Raises:
        TypeError: relevance is no array of real numbers, or texts are none.
        ValueError: shapes or lengths do not fit, values are not finite, or a scale is not above 0.
    """
    relevance, scales = _checked(relevance, tokens, scale)
    names = _one_each("names", names, len(relevance))
    shown = [printable(one_line(token)) or "∅" for token in tokens]
    lines = _lines(shown)
    # A title and a label need some room too.
    columns = max(
        _SHORTEST, min(_LINE, len(title)), *(sum(len(shown[number]) for number in line) for line in lines)
    )
    figure = new_figure(_COLUMN * columns + 0.2, 0.24 * (len(lines) + 1.2) * len(relevance) + 0.5)
    if title:
        figure.suptitle(title, fontsize=11, parse_math=False)
    axes = figure.subplots(len(relevance), 1, squeeze=False)[:, 0]
    for axis, row, most, name in zip(axes, relevance, scales, names, strict=True):
        axis.set(xlim=(0, columns), ylim=(len(lines), 0))
        axis.axis("off")
        label = f"{name}   full color at ±{most:.2g}" if name else f"full color at ±{most:.2g}"
        axis.set_title(label, fontsize=8.5, loc="left", pad=2, parse_math=False)
        for at, line in enumerate(lines):
            place = 0
            for number in line:
                _cell(axis, place, at, shown[number], row[number] / most)
                place += len(shown[number])
    return save(figure, path, dpi=dpi)


def _cell(axis: Axes, x: float, y: float, token: str, share: float) -> None:
    from matplotlib.patches import Rectangle

    color = diverging_colors(np.clip(share, -1, 1)) / 255
    axis.add_patch(Rectangle((x, y + 0.08), len(token), 0.84, facecolor=color, edgecolor="none"))
    letters: dict[str, Any] = {"family": "DejaVu Sans Mono", "fontsize": 8.5, "parse_math": False}
    for place, letter in enumerate(token):  # one each: a letter's width is a column's
        axis.text(
            x + place + 0.5,
            y + 0.5,
            letter,
            ha="center",
            va="center",
            color="white" if abs(share) > _DARK else "#111",
            **letters,
        )


def _lines(tokens: Sequence[str]) -> list[list[int]]:
    """Numbers of the tokens of each line."""
    lines, width = [[]], 0
    for number, token in enumerate(tokens):
        if lines[-1] and width + len(token) > _LINE:
            lines.append([])
            width = 0
        lines[-1].append(number)
        width += len(token)
    return lines


def token_matrix(
    relevance: ArrayLike,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    path: str | os.PathLike[str],
    title: str = "",
    scale: float | None = None,
    dpi: int = 130,
) -> Path:
    """Draw a matrix of relevance: tokens by tokens, layers by positions.

    Such as `text.explain` of a span, `text.token_pairs` and `text.layers` give.

    Args:
        relevance: (R, C).
        rows: texts of the rows, from top to bottom: tokens that are explained, or layers.
        columns: texts of the columns.
        path: where the PNG goes; folders are made.
        title: printed on top.
        scale: the magnitude with the full color; by default the largest.
        dpi: pixels an inch.

    Returns:
        The path.

    Raises:
        TypeError: relevance is no array of real numbers, or texts are none.
        ValueError: shapes or lengths do not fit, values are not finite, or the scale is not above 0.
    """
    relevance = as_numpy("relevance", relevance).astype(np.float64)
    if relevance.ndim != 2 or not relevance.size:
        raise InputError(f"expected relevance of shape (R, C), got {relevance.shape}")
    check_texts("rows", rows, count=len(relevance))
    check_texts("columns", columns, count=relevance.shape[1])
    most = _scales(relevance[None], scale)[0]
    # Colors that a thousand tokens still have: what is written gets no smaller than can be read.
    height, width = (min(30.0, max(2.0, 0.26 * count)) for count in relevance.shape)
    figure = new_figure(width + 2.2, height + 1.6)
    axis = figure.subplots()
    if title:
        axis.set_title(title, fontsize=10, parse_math=False)
    axis.imshow(diverging_colors(np.clip(relevance / most, -1, 1)), interpolation="nearest", aspect="auto")
    for texts, which, side in ((rows, axis.yaxis, height), (columns, axis.xaxis, width)):
        step = -(-len(texts) // max(1, int(side / 0.15)))
        shown = [_short(printable(one_line(text))) for text in texts[::step]]
        which.set_ticks(range(0, len(texts), step), labels=shown, fontsize=8, parse_math=False)
    axis.tick_params(axis="x", rotation=90)
    axis.set_xlabel(f"red for, blue against; full color at ±{most:.2g}", fontsize=8)
    return save(figure, path, dpi=dpi)


def _short(label: str) -> str:
    return (label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…") or "∅"


def patch_means(relevance: ArrayLike, *, patch: int) -> np.ndarray:
    """Relevance of pixels at the resolution of a vision transformer's patches, of the same size for `overlay`.

    Args:
        relevance: (..., H, W, C).
        patch: side of the square patches, in pixels; H and W are multiples of it.

    Returns:
        (..., H, W, 1), float32: each pixel has its patch's mean, so that sums stay.

    Raises:
        TypeError: relevance is no array of real numbers.
        ValueError: there are fewer than three axes, values are not finite, or patches do not fit in.

    Example:
        >>> patch_means(np.arange(4.0).reshape(2, 2, 1), patch=2).ravel().tolist()
        [1.5, 1.5, 1.5, 1.5]
    """
    sums = signed_sum(relevance)
    check_count("patch", patch)
    height, width = sums.shape[-2:]
    if height % patch or width % patch:
        raise InputError(
            f"expected sides that are multiples of {patch}, got {height} x {width}: see the model's patch"
        )
    tiles = sums.reshape(*sums.shape[:-2], height // patch, patch, width // patch, patch)
    means = np.broadcast_to(tiles.mean(axis=(-3, -1), keepdims=True), tiles.shape)
    return means.reshape(*sums.shape, 1)


def _checked(
    relevance: ArrayLike, tokens: Sequence[str], scale: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """Relevance (M, T) and scales (M,)."""
    relevance = as_numpy("relevance", relevance).astype(np.float64)
    if relevance.ndim not in (1, 2) or not relevance.size:
        raise InputError(
            f"expected relevance of shape (M, T) or (T,), got {relevance.shape}: sum over channels, and give a token"
        )
    relevance = np.atleast_2d(relevance)
    check_texts("tokens", tokens)
    if len(tokens) != relevance.shape[1]:
        raise InputError(f"expected {relevance.shape[1]} tokens, got {len(tokens)}: one a value of relevance")
    return relevance, _scales(relevance, scale)


def _scales(relevance: np.ndarray, scale: ArrayLike | None) -> np.ndarray:
    if scale is None:
        return np.full(len(relevance), abs(relevance).max() or 1.0)
    scales = as_numpy("scale", scale)
    if scales.shape not in ((), (len(relevance),)):
        raise InputError(
            f"expected a scale, or {len(relevance)} of them, got shape {scales.shape}: one a map"
        )
    for one in scales.ravel():
        check_number("scale", one, above=0)
    return np.broadcast_to(scales.astype(np.float64), len(relevance))


def _one_each(what: str, texts: Sequence[str], count: int) -> Sequence[str]:
    if isinstance(texts, tuple) and not texts:
        return ("",) * count
    check_texts(what, texts, count=count)
    return texts
