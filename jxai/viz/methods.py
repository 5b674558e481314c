"""One picture of many pictures explained by several methods side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from jxai.viz.heatmap import overlay, shared_scale
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
        path: where the PNG goes, with 256 colours; folders are made.
        notes: label of a method -> a line under the label, one a picture.
        opacity: of the heat maps over the pictures, in [0, 1]; 1 is the heat map alone.

    Returns:
        The path.

    Raises:
        ValueError: if shapes or lengths do not fit, or as `overlay` does.
    """
    pictures = np.asarray(pictures)
    notes = notes or {}
    arrays = {label: np.asarray(array) for label, array in maps.items()}
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype.kind not in "ui" or not len(pictures):
        raise ValueError(
            f"expected pictures of shape (N, H, W, 3), integers in [0, 255], got {pictures.dtype} of shape "
            f"{pictures.shape}: give them as they were before normalisation"
        )
    for label, array in arrays.items():
        if array.ndim != 4 or array.shape[:3] != pictures.shape[:3]:
            raise ValueError(
                f"expected maps of shape {pictures.shape[:3]} + (C,), got {array.shape} by {label!r}: one a picture"
            )
    lengths = {"captions": len(captions)} | {
        f"notes of {label!r}": len(lines) for label, lines in notes.items()
    }
    for name, length in lengths.items():
        if length != len(pictures):
            raise ValueError(f"expected {len(pictures)} {name}, got {length}: one a picture")
    if unknown := sorted(set(notes) - set(arrays)):
        raise ValueError(
            f"expected notes of {', '.join(arrays)}, got {', '.join(unknown)}: use the maps' labels"
        )
    panels = []
    for index, picture in enumerate(pictures):
        panels.append(Panel(picture, *captions[index], photograph=True))
        for label, array in arrays.items():
            scale = shared_scale(array[index])
            shown = overlay(picture, array[index], scale=scale, opacity=opacity)
            note = notes[label][index] if label in notes else ""
            panels.append(Panel(shown, label, note, photograph=opacity < 1))
    return draw_panels(panels, path, columns=1 + len(arrays), legend=_LEGEND, strip=True)
