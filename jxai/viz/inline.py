"""Heat maps in a notebook: an object that shows itself, and writes no file."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jxai.checks import as_numpy, check_count, check_number
from jxai.errors import InputError
from jxai.viz.figure import check_texts
from jxai.viz.heatmap import check_bytes, heatmap, shared_scale


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class InlineMaps:
    """What `inline` returns; as the last line of a notebook's cell it is shown.

    Attributes:
        maps: RGB, uint8, (N, H, W, 3).
        scale: the absolute pixel relevance that has the full color.
        pictures: what stands beside the maps, RGB, uint8, (N, H', W', 3), or None.
        captions: a line under each.
        width: of a map, in pixels of the screen.
    """

    maps: NDArray[np.uint8]
    scale: float
    pictures: NDArray[np.uint8] | None
    captions: tuple[str, ...]
    width: int

    def __repr__(self) -> str:
        return f"{len(self.maps)} heat maps of {self.maps.shape[1]} x {self.maps.shape[2]}, for notebooks"

    def _repr_html_(self) -> str:
        figures = []
        for i, drawn in enumerate(self.maps):
            beside = "" if self.pictures is None else _image(self.pictures[i], self.width, "picture")
            caption = html.escape(self.captions[i]) if self.captions else ""
            figures.append(
                f'<figure style="margin: 0 1em 1em 0">{beside}{_image(drawn, self.width, "relevance")}'
                f"<figcaption>{caption}</figcaption></figure>"
            )
        scale = f"red for, blue against, white 0; full color at ±{self.scale:.3g}"
        return f'<div style="display: flex; flex-wrap: wrap">{"".join(figures)}</div><small>{scale}</small>'


def inline(
    relevance: ArrayLike,
    *,
    pictures: ArrayLike | None = None,
    captions: Sequence[str] = (),
    scale: float | None = None,
    width: int = 160,
) -> InlineMaps:
    """Show heat maps in a notebook, each beside its picture where pictures are given.

    All maps have the same scale, so that they may be compared.

    Args:
        relevance: (N, H, W, C).
        pictures: integers in [0, 255], (N, H', W', 3), as they were before normalization; None for maps alone.
        captions: a line under each map; () for none.
        scale: the absolute signed sum that gets the full color; by default `shared_scale` of all that is shown.
        width: of a map, in pixels of the screen; each pixel of relevance is drawn as a square.

    Returns:
        What a notebook shows.

    Raises:
        TypeError: if arrays are of no real numbers, or captions no texts.
        ValueError: if shapes or lengths do not fit, pictures hold other values, or as `heatmap` does.
    """
    relevance = as_numpy("relevance", relevance)
    if relevance.ndim != 4 or not relevance.size:
        raise InputError(f"expected relevance of shape (N, H, W, C), got {relevance.shape}: give a batch")
    count = len(relevance)
    check_count("width", width)
    if not isinstance(captions, tuple) or captions:
        check_texts("captions", captions, count=count)
    if scale is not None:
        check_number("scale", scale, above=0)
    if pictures is not None:
        pictures = check_bytes("pictures", as_numpy("pictures", pictures))
        if pictures.ndim != 4 or pictures.shape[::3] != (count, 3) or pictures.dtype.kind not in "ui":
            raise InputError(
                f"expected {count} pictures of shape (N, H, W, 3), integers in [0, 255], got {pictures.dtype} of "
                f"shape {pictures.shape}: give them as they were before normalization"
            )
        pictures = pictures.astype(np.uint8)
    scale = shared_scale(relevance) if scale is None else float(scale)
    return InlineMaps(heatmap(relevance, scale=scale), scale, pictures, tuple(captions), width)


def _image(picture: NDArray[np.uint8], width: int, alt: str) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<img alt="{alt}" width="{width}" style="image-rendering: pixelated; border: 1px solid #c8c8c8" '
        f'src="data:image/png;base64,{data}">'
    )
