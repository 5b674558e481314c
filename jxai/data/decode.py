"""Encoded pictures to arrays: the one decoder, of folders, archives, prepared data sets and single files alike.

A picture is what a person sees: turned as EXIF asks, of an animation the first frame, transparency over white.
"""

import abc
import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jxai import extras
from jxai.checks import printable, reason
from jxai.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

# What is read, and the ends of such files' names. Pillow knows others: vectors, for which it starts programs (EPS),
# or what takes far more memory to decode than the picture does (JPEG 2000).
FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}

# 50 million pixels, of the telephones of today. Decoding takes at most 16 bytes each, at a time when Pillow holds the
# picture twice (WebP); a row costs some of its own.
MOST_PIXELS = 8192 * 6144
_LONGEST_SIDE = 65_535
_MOST_BYTES = 2**29  # of a file: twice what so many pixels take as they are
# A progressive JPEG file of a few bytes a scan may go over the picture thousands of times; programs write ten.
_SCANS, _MOST_SCANNED = 30, 2**31
_BAND = 2**22  # pixels that are converted at a time


class LazyPictures(abc.ABC):
    """Pictures that are decoded when they are asked for."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of pictures."""

    @abc.abstractmethod
    def opened(self, i: int) -> "contextlib.AbstractContextManager[Image.Image]":
        """Opens picture i; what fails inside the `with` is an error that names it."""

    def __getitem__(self, i: int, /) -> np.ndarray:
        with self.opened(i) as picture:
            return pixels(picture)


def decode(data: bytes, *, name: str) -> np.ndarray:
    """Decodes a picture in one of `FORMATS`.

    Args:
        data: the encoded picture.
        name: what an error calls it, such as its path.

    Returns:
        uint8 (H, W, 3), as `pixels` says.

    Raises:
        ValueError: the bytes are no picture, a damaged one, one of more than `MOST_PIXELS`, or numbers of more than
            16 bits.
    """
    with opened(data, name) as picture:
        return pixels(picture)


def pixels(picture: "Image.Image") -> np.ndarray:
    """The picture as a person sees it.

    Args:
        picture: as Pillow opens it.

    Returns:
        uint8 (H, W, 3). The rotation that EXIF asks for is applied; gray, palette and CMYK become RGB; of 16 bits the
        upper 8 stay; transparency is laid over white.

    Raises:
        ValueError: floating point or more than 16 bits, so that nothing says which number is white.
    """
    picture.load()  # a PNG file may say behind the picture how to turn it
    turn = _orientation(picture)
    width, height = picture.size
    upright = np.empty((*((width, height) if turn > 4 else (height, width)), 3), np.uint8)
    stored = _as_stored(upright, turn)
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        band = picture.crop((0, top, width, min(top + rows, height))) if rows < height else picture
        stored[top : top + rows] = np.asarray(_rgb(band, picture.format))
    return upright


def to_rgb(picture: "Image.Image") -> "Image.Image":
    """The picture as `pixels` gives it, as an image of Pillow.

    Args:
        picture: as Pillow opens it.

    Returns:
        The picture itself if it is RGB, opaque and upright; else another one.

    Raises:
        ValueError: as `pixels`.
    """
    from PIL import Image

    picture.load()
    if picture.mode == "RGB" and not picture.has_transparency_data and _orientation(picture) == 1:
        return picture
    return Image.fromarray(pixels(picture))


def upright_size(picture: "Image.Image") -> tuple[int, int]:
    """Width and height of a picture as it is seen.

    Args:
        picture: as Pillow opens it; one of PNG is decoded by that.

    Returns:
        In pixels.
    """
    if picture.format == "PNG":
        picture.load()
    width, height = picture.size
    return (height, width) if _orientation(picture) > 4 else (width, height)


def image_shape(data: bytes, *, name: str) -> tuple[int, int]:
    """Reads a picture's size from its header alone.

    Args:
        data: the encoded picture.
        name: what an error calls it, such as its path.

    Returns:
        Height and width in pixels, as it is seen.

    Raises:
        ValueError: the bytes are no picture.
    """
    with opened(data, name) as picture:
        width, height = picture.size
        return (width, height) if _orientation(picture) > 4 else (height, width)


def read_bytes(path: Path) -> bytes:
    """What a picture file holds.

    Args:
        path: the file.

    Returns:
        Its bytes.

    Raises:
        ValueError: it cannot be read (named), is no regular file, which reading might wait for without end, or is
            larger than any picture.
    """
    try:
        # Opening a pipe would wait for its other end.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise ValueError("no regular file")
            if about.st_size > _MOST_BYTES:
                raise ValueError(f"{about.st_size} bytes, more than {_MOST_BYTES}")
            return file.read()
    except (OSError, ValueError) as error:  # a path may hold a null byte
        raise _unreadable(str(path), error) from error


@contextlib.contextmanager
def opened(data: bytes, name: str) -> "Iterator[Image.Image]":
    """Open an encoded picture; whatever fails inside the `with` is an error that names it.

    Args:
        data: the encoded picture.
        name: what an error calls it, such as its path.

    Yields:
        The picture, not yet decoded.

    Raises:
        ValueError: the bytes are no picture of `FORMATS`, a damaged one, or one that is too large.
    """
    with extras.named():
        from PIL import Image, UnidentifiedImageError

    Image.init()
    known = [
        kind for kind in FORMATS if kind in Image.OPEN
    ]  # AVIF is an option of Pillow's; MPO opens as JPEG
    try:
        with Image.open(io.BytesIO(data), formats=known) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS or max(width, height) > _LONGEST_SIDE:
                raise ValueError(
                    f"{width} x {height} pixels, more than {MOST_PIXELS} or than {_LONGEST_SIDE} a side"
                )
            scans = data.count(b"\xff\xda") if picture.format in ("JPEG", "MPO") else 0
            if scans > _SCANS and scans * width * height > _MOST_SCANNED:
                raise ValueError(f"{scans} scans, each over the whole picture")
            yield picture
    except UnidentifiedImageError as error:
        raise _unreadable(name, ValueError(f"none of {', '.join(known)}")) from error
    # Pillow reports damage as OSError, SyntaxError, ValueError and others, by format.
    except Exception as error:
        raise _unreadable(name, error) from error


def _orientation(picture: "Image.Image") -> int:
    """How EXIF asks to turn a picture, 1 (not at all) to 8; 5 to 8 change width and height."""
    from PIL import ExifTags, Image

    if picture.format == "TIFF":  # Pillow turns those itself
        return 1
    # The method of PNG files would decode them.
    turn = Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)
    return turn if turn in range(1, 9) else 1


def _as_stored(upright: np.ndarray, turn: int) -> np.ndarray:
    """A view of the upright picture whose rows are those of the file."""
    # Whether rows and columns change places, and which of them run backwards then.
    down, across = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}.get(
        turn, (1, 1)
    )
    return (upright.transpose(1, 0, 2) if turn > 4 else upright)[::down, ::across]


def _rgb(picture: "Image.Image", kind: str | None) -> "Image.Image":
    """A part of a picture in RGB, 8 bits a channel."""
    from PIL import Image

    picture = _eight_bits(picture, kind)
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB")


def _eight_bits(picture: "Image.Image", kind: str | None) -> "Image.Image":
    """The picture itself, or of 16 bits the upper 8: `convert` would clip those at 255."""
    from PIL import Image

    if picture.mode == "F":
        raise ValueError("floating point, whose white is unknown")
    if not picture.mode.startswith("I"):
        return picture
    if picture.mode == "I" and kind not in ("PNG", "PPM"):  # those have no more than 16 bits
        raise ValueError("32 bits, whose white is unknown")
    gray = np.asarray(picture)
    if gray.min() < 0 or gray.max() > 65_535:
        raise ValueError(f"numbers from {gray.min()} to {gray.max()}, not of 16 bits")
    return Image.fromarray((gray >> 8).astype(np.uint8))


def _unreadable(name: str, error: Exception) -> InputError:
    said = "more memory than there is" if isinstance(error, MemoryError) else reason(error)
    return InputError(
        f"expected a readable image, got {printable(name)} ({said}): repair or remove that file"
    )
