"""What the command line names as pictures: files, folders, or the twenty photographs."""

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jxai import data
from jxai.checks import printable
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0, InputSpace
from jxai.cli.explaining.photographs import photographs
from jxai.cli.running.written import NOTE, written_files
from jxai.data.decode import FORMATS
from jxai.errors import InputError
from jxai.progress import Progress, tracked

_IN_MEMORY = 256  # pictures; of more each is read where it is used
_NAMED = 20  # unreadable files in an error


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture as the network sees it.

    Attributes:
        name: for people: what is no letter, sign or space in a file's name is escaped.
        source: its pixels, uint8, (size, size, 3), or what reads them.
        label: number of its true class, if known.
        digest: of its file, or of its pixels.
    """

    name: str
    source: np.ndarray | Callable[[], np.ndarray]
    label: int | None = None
    digest: bytes = b""

    @property
    def pixels(self) -> np.ndarray:
        """uint8, (size, size, 3)."""
        return self.source() if callable(self.source) else self.source


def read_pictures(
    paths: Sequence[Path],
    *,
    count: int | None = None,
    space: InputSpace = EFFICIENTNET_LITE0,
    skip_corrupt: bool = False,
    progress: Progress = False,
) -> list[Picture]:
    """Read files, and every picture below folders.

    Every file is decoded once, so that what is unreadable is known before anything is computed. Of many pictures the
    pixels are not kept but read again where they are used.

    Args:
        paths: files and folders; none are the twenty photographs.
        count: at most so many, the first ones.
        space: what the network takes.
        skip_corrupt: leave out what cannot be read, and say which and how many on the standard error.
        progress: how far it is, as it is shown.

    Returns:
        The pictures.

    Raises:
        ValueError: a path that is not there, a folder without pictures, or files that are no readable pictures, all
            of them named; or a count below 1.
    """
    if count is not None and count < 1:
        raise InputError(f"expected a count of at least 1, got {count}: leave it out for all pictures")
    if not paths:
        shown = enumerate(photographs(space)[:count])
        return [Picture(f"photograph {i}", one.picture, one.label, _digest(one.picture)) for i, one in shown]
    files = [file for path in paths for file in _files(path)][:count]
    found: list[Picture] = []
    unreadable: list[str] = []
    for name, file in tracked(files, name="reading", unit="picture", progress=progress):
        try:
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, hashlib.blake2b).digest()
            pixels = _read(file, space)
        except (ValueError, OSError) as error:
            unreadable.append(f"{printable(name)} ({printable(error, 200)})")
            continue
        source = pixels if len(files) <= _IN_MEMORY else lambda file=file: _read(file, space)
        found.append(Picture(printable(name), source, digest=digest))
    if unreadable and (not skip_corrupt or not found):
        more = f" and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
        raise InputError(
            f"expected {len(files)} readable pictures, got {len(unreadable)} that are not: "
            f"{'; '.join(unreadable[:_NAMED])}{more}: mend them"
            + ("" if skip_corrupt else ", or leave them out with --skip-corrupt")
        )
    if unreadable:
        print(
            f"left out, for they cannot be read: {len(unreadable)} of {len(files)} pictures", file=sys.stderr
        )
        for line in unreadable:
            print(f"  {line}", file=sys.stderr)
    return found


def _read(file: Path, space: InputSpace) -> np.ndarray:
    return space.square(data.read_picture(file))


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes()).digest()


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
        raise InputError(
            f"expected pictures below {printable(path)}, got none: give a folder with PNG or JPEG files"
        )
    return [(str(file.relative_to(path)), file) for file in below]
