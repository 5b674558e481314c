"""What the pictures of this package share.

Matplotlib loads when a picture is drawn, without pyplot and its global state.
"""

from __future__ import annotations

import os
import secrets
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from jxai.checks import check_count, shown

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
        raise ValueError(f"expected a path that ends in .png, got {path}: pictures are written as PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(path, lambda file: figure.savefig(file, dpi=dpi, format="png"))


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> Path:
    """Write a file beside its place and move it there; a link that is there is replaced, not followed.

    Args:
        path: the file.
        write: writes it into an open file.

    Returns:
        The path.
    """
    unfinished = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")
    try:
        with unfinished.open("xb") as file:
            write(file)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
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
        raise TypeError(f"expected {name} as a sequence of texts, got {shown(texts)}: give a list")
    if count is not None and len(texts) != count:
        raise ValueError(f"expected {count} {name}, got {len(texts)}: one a picture")


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
    from matplotlib import font_manager

    path = font_manager.findfont("DejaVu Sans")  # comes with Matplotlib
    return frozenset(font_manager.get_font(path).get_charmap())
