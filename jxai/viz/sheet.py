"""One picture of one episode: what the classifier was shown, and what it looks at, in queries and in the support."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from jxai.checks import as_numpy
from jxai.errors import InputError
from jxai.viz.figure import check_texts, new_figure, printable, save
from jxai.viz.heatmap import check_bytes, diverging_colors, heatmap, shared_scale, signed_sum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CELL = 1.35  # inches a cell
_TRUE = "#1b7837"  # green, apart from the red and the blue of the maps for the color-blind too
_PALE = "#c8c8c8"


def episode_sheet(
    support: ArrayLike,
    query: ArrayLike,
    query_labels: ArrayLike,
    relevance: ArrayLike,
    scores: ArrayLike,
    *,
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    title: str = "",
    scale: float | None = None,
    dpi: int = 130,
) -> Path:
    """Draw an episode: a column for each class, its support on top; a row for each query, a heat map a class.

    All heat maps have the same scale, which the color bar shows. The true class has a green frame; the class
    with the highest score is marked by a triangle.

    Args:
        support: pictures, (way, shot, H, W, 3), integers in [0, 255].
        query: pictures, (Q, H, W, 3), integers in [0, 255].
        query_labels: true class of each query, (Q,), in [0, way).
        relevance: of each query's pixels for each class, (Q, way, H', W', C).
        scores: of each query for each class, (Q, way); printed with two decimals.
        class_names: one a class.
        path: where the PNG goes; folders are made.
        title: printed on top.
        scale: the pixel relevance that gets the full color; by default `shared_scale` of all that is drawn.
        dpi: pixels an inch.

    Returns:
        The path.

    Raises:
        TypeError: if an array is of no real numbers.
        ValueError: if shapes do not fit one another, or as `heatmap` does.
    """
    given = {
        "support": support,
        "query": query,
        "relevance": relevance,
        "scores": scores,
        "query_labels": query_labels,
    }
    support, query, relevance, scores, labels = (as_numpy(name, array) for name, array in given.items())
    check_texts("class names", class_names)
    way, queries = len(class_names), len(query) if query.ndim else 0
    _check_pictures(support, query, way)
    _check(relevance, scores, queries, way)
    _check_classes("query_labels", labels, queries, way)
    scale = shared_scale(relevance) if scale is None else scale
    maps = heatmap(relevance, scale=scale)

    figure = new_figure(_CELL * (way + 1) + 0.9, (_CELL + 0.25) * (queries + 1) + 0.5)
    if title:
        figure.suptitle(title, fontsize=12, parse_math=False)
    axes = figure.subplots(queries + 1, way + 1, squeeze=False)
    axes[0, 0].axis("off")
    axes[0, 0].text(0.95, 0.5, "support", ha="right", va="center", fontsize=10)
    names = [_short(printable(name)) for name in class_names]
    for column, name in enumerate(names):
        _picture(axes[0, column + 1], _montage(support[column]), name)
    for row in range(queries):
        truth = int(labels[row])
        _picture(axes[row + 1, 0], query[row], f"query: {names[truth]}")
        best = int(scores[row].argmax())
        for column in range(way):
            caption = f"{'▸ ' if column == best else ''}{names[column]}  {scores[row, column]:.2f}"
            axis = axes[row + 1, column + 1]
            _picture(axis, maps[row, column], caption, framed=column == truth)
    figure.supxlabel("green frame: the true class      ▸ the highest score", fontsize=9)
    _color_bar(figure, axes, scale)
    return save(figure, path, dpi=dpi)


def support_sheet(
    support: ArrayLike,
    query: ArrayLike,
    query_labels: ArrayLike,
    of_support: ArrayLike,
    of_query: ArrayLike,
    target: ArrayLike,
    *,
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    title: str = "",
    scale: float | None = None,
    dpi: int = 130,
) -> Path:
    """Draw queries explained down to their support: a row for each, its own heat map beside those of all supports.

    The support is on top. All heat maps have the same scale, which the color bar shows; above each stands its share
    of the row's absolute relevance. The true class has a green frame; the explained one is marked by a triangle.

    Args:
        support: pictures, (way, shot, H, W, 3), integers in [0, 255].
        query: pictures, (Q, H, W, 3), integers in [0, 255].
        query_labels: true class of each query, (Q,), in [0, way).
        of_support: relevance of the support's pixels for each query, (Q, way, shot, H', W', C).
        of_query: relevance of the query's own pixels, (Q, H', W', C).
        target: the class that is explained, (Q,), in [0, way).
        class_names: one a class.
        path: where the PNG goes; folders are made.
        title: printed on top.
        scale: the pixel relevance that gets the full color; by default `shared_scale` of all maps but empty ones.
        dpi: pixels an inch.

    Returns:
        The path.

    Raises:
        TypeError: if an array is of no real numbers.
        ValueError: if shapes do not fit one another, or as `heatmap` does.
    """
    given = {
        "support": support,
        "query": query,
        "of_support": of_support,
        "of_query": of_query,
        "query_labels": query_labels,
        "target": target,
    }
    support, query, of_support, of_query, labels, explained = (
        as_numpy(name, array) for name, array in given.items()
    )
    check_texts("class names", class_names)
    way, queries = len(class_names), len(query) if query.ndim else 0
    _check_pictures(support, query, way)
    _check_classes("query_labels", labels, queries, way)
    _check_classes("target", explained, queries, way)
    expected = (queries, *support.shape[:2], *of_query.shape[1:])
    if of_query.ndim != 4 or len(of_query) != queries or of_support.shape != expected:
        raise InputError(
            f"expected of_query of shape ({queries}, H, W, C) and of_support ({queries}, {way}, {support.shape[1]}, "
            f"H, W, C), got {of_query.shape} and {of_support.shape}: one map a picture"
        )
    everything = np.concatenate(
        [of_query[:, None], of_support.reshape(queries, -1, *of_query.shape[1:])], axis=1
    )
    weight = np.abs(signed_sum(everything)).sum(axis=(2, 3))
    if scale is None:
        scale = shared_scale(everything[weight > 0]) if weight.any() else 1.0
    maps = heatmap(everything, scale=scale)
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), np.finfo(weight.dtype).tiny)

    figure = new_figure(_CELL * (way + 2) + 0.9, (_CELL + 0.25) * (queries + 1) + 0.5)
    if title:
        figure.suptitle(title, fontsize=12, parse_math=False)
    axes = figure.subplots(queries + 1, way + 2, squeeze=False)
    for axis in axes[0, :2]:
        axis.axis("off")
    axes[0, 1].text(0.95, 0.5, "support", ha="right", va="center", fontsize=10)
    names = [_short(printable(name)) for name in class_names]
    for column, name in enumerate(names):
        _picture(axes[0, column + 2], _montage(support[column]), name)
    for row in range(queries):
        truth = int(labels[row])
        _picture(axes[row + 1, 0], query[row], f"query: {names[truth]}")
        _picture(axes[row + 1, 1], maps[row, 0], f"itself  {weight[row, 0]:.0%}")
        of_classes = maps[row, 1:].reshape(*support.shape[:2], *maps.shape[2:])
        shares = weight[row, 1:].reshape(way, -1).sum(axis=1)
        for column in range(way):
            caption = f"{'▸ ' if column == explained[row] else ''}{names[column]}  {shares[column]:.0%}"
            _picture(axes[row + 1, column + 2], _montage(of_classes[column]), caption, framed=column == truth)
    figure.supxlabel(
        "green frame: the true class      ▸ the explained class      %: share of |relevance|", fontsize=9
    )
    _color_bar(figure, axes, scale)
    return save(figure, path, dpi=dpi)


def _check(relevance: np.ndarray, scores: np.ndarray, queries: int, way: int) -> None:
    if relevance.ndim != 5 or relevance.shape[:2] != (queries, way):
        raise InputError(
            f"expected relevance of shape ({queries}, {way}, H, W, C), got {relevance.shape}: "
            "one a query and class"
        )
    if scores.shape != (queries, way):
        raise InputError(
            f"expected scores of shape {(queries, way)}, got {scores.shape}: one a query and class"
        )


def _check_pictures(support: np.ndarray, query: np.ndarray, way: int) -> None:
    if support.ndim != 5 or len(support) != way:
        raise InputError(
            f"expected support of shape ({way}, shot, H, W, 3), got {support.shape}: one group a class name"
        )
    if query.ndim != 4 or not len(query):
        raise InputError(f"expected query of shape (Q, H, W, 3), got {query.shape}: give at least one query")
    for name, pictures in (("support", support), ("query", query)):
        if check_bytes(name, pictures).dtype.kind not in "ui" or pictures.shape[-1] != 3 or not pictures.size:
            raise InputError(
                f"expected {name} as integers in [0, 255] with 3 channels, got {pictures.dtype} of shape "
                f"{pictures.shape}: give the pictures as they were before normalization"
            )


def _check_classes(name: str, classes: np.ndarray, queries: int, way: int) -> None:
    fits = classes.shape == (queries,) and classes.dtype.kind in "ui"
    if not fits or classes.min() < 0 or classes.max() >= way:
        raise InputError(
            f"expected {name} of shape ({queries},) in [0, {way}), got {classes.tolist()}: one a query"
        )


def _short(name: str) -> str:
    """What fits above a cell."""
    name = name.replace("_", " ")
    return name if len(name) <= 14 else f"{name[:13]}…"


def _montage(images: np.ndarray) -> np.ndarray:
    """(shot, H, W, 3) -> one picture, as square as it gets, with white gaps."""
    shot, height, width, _ = images.shape
    columns = math.ceil(math.sqrt(shot))
    rows = math.ceil(shot / columns)
    gap = max(1, height // 16)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def _picture(axis: Axes, picture: np.ndarray, caption: str, *, framed: bool = False) -> None:
    axis.imshow(picture, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(color=_TRUE if framed else _PALE, linewidth=2.5 if framed else 0.6)
    weight: dict[str, Any] = {"color": _TRUE, "fontweight": "bold"} if framed else {}
    axis.set_title(caption, fontsize=8.5, pad=3, parse_math=False, **weight)


def _color_bar(figure: Any, axes: np.ndarray, scale: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colors = ListedColormap(diverging_colors(np.linspace(-1, 1, 255)) / 255)
    mappable = ScalarMappable(Normalize(-scale, scale), colors)
    bar = figure.colorbar(
        mappable, ax=axes, fraction=0.03, aspect=35, extend="both", ticks=[-scale, 0, scale]
    )
    bar.ax.set_yticklabels([f"−{scale:.2g}", "0", f"{scale:.2g}"], fontsize=8)
    bar.set_label("relevance of a pixel: red for the class, blue against", fontsize=9)
