"""One HTML file to look through explained pictures: page.html with everything embedded, opened without a server."""

import base64
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jxai import sealing, viz

_TEMPLATE = Path(__file__).with_name("page.html")
_LEVELS = 63  # colors of a heat map: more do not compress
_JPEG_QUALITY = 85
_TOP = 5
_OVERLAY = 0.8  # at first, of the heat maps over the pictures


def write_page(
    path: Path,
    *,
    title: str,
    about: str,
    names: Sequence[str],
    pictures: np.ndarray,
    scores: np.ndarray,
    targets: np.ndarray,
    truths: Sequence[str | None],
    class_names: Sequence[str],
    labels: Mapping[str, str],
    maps: Mapping[str, np.ndarray],
    notes: Mapping[str, Sequence[str]],
) -> Path:
    """Write the page; about 20 kB a picture and 25 kB a heat map of 224 x 224.

    Args:
        path: the HTML file; folders are made.
        title: of the page.
        about: a sentence below it.
        names: of the pictures.
        pictures: uint8, (N, H, W, 3).
        scores: (N, K).
        targets: the classes explained, (N,).
        truths: names of the true classes, None where unknown.
        class_names: K names.
        labels: names of the methods to what people read.
        maps: names of the methods to attributions (N, H, W, C).
        notes: names of the methods to a note a picture, such as a sum.

    Returns:
        The path.
    """
    entries = [
        {
            "name": names[index],
            "source": _picture(picture),
            "truth": truths[index],
            "classes": _classes(scores[index], int(targets[index]), class_names),
            "maps": [
                {"source": _heatmap(maps[name][index]), "note": notes[name][index] if name in notes else ""}
                for name in labels
            ],
        }
        for index, picture in enumerate(pictures)
    ]
    methods = [{"name": name, "label": label} for name, label in labels.items()]
    # Inside a script element only "<" could end it; the rest is ASCII, whatever the files are called.
    data = json.dumps({"methods": methods, "overlay": _OVERLAY, "pictures": entries}).replace("<", "\\u003c")
    stops = viz.diverging_colors(np.linspace(-1, 1, 21))
    colors = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in stops.tolist())
    filled = {
        "TITLE": html.escape(title),
        "ABOUT": html.escape(about),
        "COLORS": f"linear-gradient(to right, {colors})",
        "DATA": data,
    }
    places = re.compile("@(" + "|".join(filled) + ")@")  # one pass: what is filled in is not looked at again
    text = places.sub(lambda place: filled[place[1]], _TEMPLATE.read_text("utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    sealing.write_whole(path, text)
    return path


def _classes(scores: np.ndarray, target: int, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The first five, and the explained one if it is none of them."""
    weights = np.exp(scores.astype(np.float64) - scores.max())
    percent = 100 * weights / weights.sum()
    shown = np.argsort(-scores, kind="stable")[:_TOP].tolist()
    if target not in shown:
        shown.append(target)
    return [
        {
            "name": class_names[index],
            "probability": f"{percent[index]:.1f}",
            "score": f"{scores[index]:.2f}".replace("-", "−"),
            "explained": index == target,
        }
        for index in shown
    ]


def _picture(picture: np.ndarray) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=_JPEG_QUALITY)
    return _uri("image/jpeg", file)


def _heatmap(attributions: np.ndarray) -> str:
    """An indexed PNG, of the colors of `viz.heatmap`."""
    from PIL import Image

    values = viz.signed_sum(attributions) / viz.shared_scale(attributions)
    half = _LEVELS // 2
    index = np.rint((np.clip(values, -1, 1) + 1) * half).astype(np.uint8)
    picture = Image.frombytes("P", index.shape[::-1], index.tobytes())
    picture.putpalette(viz.diverging_colors(np.linspace(-1, 1, _LEVELS)).tobytes())
    file = io.BytesIO()
    picture.save(file, "png", optimize=True)
    return _uri("image/png", file)


def _uri(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
