"""What the pictures of this package share.

Matplotlib loads when a picture is drawn, without pyplot and its global state.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jxai import extras
from jxai.checks import check_count, shown
from jxai.errors import InputError, InputTypeError
from jxai.sealing import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Below, FreeType refuses the smaller letters.
_LEAST_DPI = 20


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure whose layout avoids overlaps.

    Args:
        width: in inches.
        height: in inches.

    Returns:
        The figure; `Figure` itself draws with Agg, whatever backend the user's session has.
    """
    with extras.named():
        from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: int) -> Path:
    """Write a figure as PNG and make the folders above it; an older picture stays whole until then.

    Args:
        figure: what is drawn.
        path: the file; it ends in ".png".
        dpi: pixels an inch.

    Returns:
        The path.

    Raises:
        ValueError: if the path has another ending, or dpi is less than 20.
    """
    check_count("dpi", dpi, least=_LEAST_DPI)
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"expected a path that ends in .png, got {path}: pictures are written as PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: figure.savefig(file, dpi=dpi, format="png"))
    return path


def check_texts(name: str, texts: Sequence[str], *, count: int | None = None) -> None:
    """Refuse what are not texts, or not so many.

    Args:
        name: what an error calls them.
        texts: what should be a list of them.
        count: how many there should be.

    Raises:
        TypeError: if they are no sequence of texts.
        ValueError: if they are of another number.
    """
    if (
        isinstance(texts, str)
        or not isinstance(texts, Sequence)
        or not all(isinstance(text, str) for text in texts)
    ):
        raise InputTypeError(f"expected {name} as a sequence of texts, got {shown(texts)}: give a list")
    if count is not None and len(texts) != count:
        raise InputError(f"expected {count} {name}, got {len(texts)}: one a picture")


def printable(text: str) -> str:
    """The text itself, or the names of its characters where Matplotlib's own font cannot draw them.

    Args:
        text: a class name.

    Returns:
        What to print: "ko kai" for the Thai letter of that name, which the font lacks.
    """
    if all(ord(character) in _drawable() for character in text):
        return text
    names = (unicodedata.name(character, f"U+{ord(character):04X}") for character in text)
    return " ".join(_short(name) for name in names)


def _short(name: str) -> str:
    """From THAI CHARACTER KO KAI to ko kai: the script is known."""
    for kind in (" CHARACTER ", " LETTER ", " DIGIT ", " SYLLABLE "):
        if kind in name:
            return name.split(kind, 1)[1].lower()
    return name.lower()


@cache
def _drawable() -> frozenset[int]:
    with extras.named():
        from matplotlib import font_manager

    path = font_manager.findfont("DejaVu Sans")  # comes with Matplotlib
    return frozenset(font_manager.get_font(path).get_charmap())
