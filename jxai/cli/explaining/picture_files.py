"""What the command line names as pictures: files, folders, or the twenty photographs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jxai import data
from jxai.checks import printable
from jxai.cli.explaining.photographs import photographs, square
from jxai.cli.running.written import NOTE, written_files
from jxai.data.decode import FORMATS


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture as the network sees it.

    Attributes:
        name: for people: what is no letter, sign or space in a file's name is escaped.
        pixels: uint8, (224, 224, 3).
        label: number of its true class, if known.
    """

    name: str
    pixels: np.ndarray
    label: int | None = None


def read_pictures(paths: Sequence[Path], *, count: int | None = None) -> list[Picture]:
    """Read files, and every picture below folders.

    Args:
        paths: files and folders; none are the twenty photographs.
        count: at most so many, the first ones.

    Returns:
        The pictures.

    Raises:
        ValueError: a path that is not there, a folder without pictures, or a file that is no readable picture; or a
            count below 1.
    """
    if count is not None and count < 1:
        raise ValueError(f"expected a count of at least 1, got {count}: leave it out for all pictures")
    if not paths:
        shown = enumerate(photographs()[:count])
        return [Picture(f"photograph {i}", one.picture, one.label) for i, one in shown]
    found = [file for path in paths for file in _files(path)][:count]
    return [Picture(printable(name), square(data.read_picture(file))) for name, file in found]


def _files(path: Path) -> list[tuple[str, Path]]:
    """Names and paths of the pictures that a path stands for."""
    if not path.is_dir():
        return [(path.name, path)]
    endings = {ending for endings in FORMATS.values() for ending in endings}
    written = {note.parent / name for note in path.rglob(NOTE) for name in written_files(note.parent)}
    below = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in endings
        and file.is_file()
        and not file.name.startswith(".")
        and file not in written
    )
    if not below:
        raise ValueError(
            f"expected pictures below {printable(path)}, got none: give a folder with PNG or JPEG files"
        )
    return [(str(file.relative_to(path)), file) for file in below]
