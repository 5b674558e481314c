"""One picture of many pictures explained by several methods side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from numpy.typing import ArrayLike

from jxai.checks import as_numpy, check_number, shown
from jxai.errors import InputError, InputTypeError
from jxai.viz.figure import check_texts
from jxai.viz.heatmap import check_bytes, overlay, shared_scale
from jxai.viz.panels import Panel, draw_panels

_LEGEND = "relevance of a pixel for the class;\neach map has a scale of its own"


def method_sheet(
    pictures: ArrayLike,
    maps: Mapping[str, ArrayLike],
    *,
    captions: Sequence[tuple[str, str]],
    path: str | os.PathLike[str],
    notes: Mapping[str, Sequence[str]] | None = None,
    opacity: float = 1.0,
) -> Path:
    """Draw a row a picture: the picture, then its heat map by each method, each map with a scale of its own.

    Args:
        pictures: integers in [0, 255], (N, H, W, 3).
        maps: label of a method -> its attributions of all the pictures, (N, H, W, C).
        captions: two lines above each picture, such as its explained class and score.
        path: where the PNG goes, with 256 colors; folders are made.
        notes: label of a method -> a line under the label, one a picture.
        opacity: of the heat maps over the pictures, in [0, 1]; 1 is the heat map alone.

    Returns:
        The path.

    Raises:
        TypeError: if pictures or maps are no real numbers.
        ValueError: if shapes or lengths do not fit, or as `overlay` does.
    """
    pictures = check_bytes("pictures", as_numpy("pictures", pictures))
    check_number("opacity", opacity, least=0, most=1)
    notes = notes or {}
    if not isinstance(maps, Mapping) or not isinstance(notes, Mapping):
        raise InputTypeError(
            f"expected maps and notes by the label of their method, got {shown(maps)} and {shown(notes)}: name them"
        )
    arrays = {label: as_numpy("maps", array) for label, array in maps.items()}
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype.kind not in "ui" or not pictures.size:
        raise InputError(
            f"expected pictures of shape (N, H, W, 3), integers in [0, 255], got {pictures.dtype} of shape "
            f"{pictures.shape}: give them as they were before normalization"
        )
    for label, array in arrays.items():
        if array.ndim != 4 or array.shape[:3] != pictures.shape[:3]:
            raise InputError(
                f"expected maps of shape {pictures.shape[:3]} + (C,), got {array.shape} by {label!r}: one a picture"
            )
    if not isinstance(captions, Sequence):
        raise InputTypeError(f"expected captions as a sequence, got {shown(captions)}: two lines a picture")
    if len(captions) != len(pictures):
        raise InputError(f"expected {len(pictures)} captions, got {len(captions)}: one a picture")
    for caption in captions:
        check_texts("lines of a caption", caption, count=2)
    if unknown := sorted(set(notes) - set(arrays)):
        raise InputError(
            f"expected notes of {', '.join(arrays)}, got {', '.join(unknown)}: use the maps' labels"
        )
    for label, lines in notes.items():
        check_texts(f"notes of {label!r}", lines, count=len(pictures))
    panels = []
    for index, picture in enumerate(pictures):
        panels.append(Panel(picture, *captions[index], photograph=True))
        for label, array in arrays.items():
            scale = shared_scale(array[index])
            drawn = overlay(picture, array[index], scale=scale, opacity=opacity)
            note = notes[label][index] if label in notes else ""
            panels.append(Panel(drawn, label, note, photograph=opacity < 1))
    return draw_panels(panels, path, columns=1 + len(arrays), legend=_LEGEND, strip=True)
