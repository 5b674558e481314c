"""Encoded pictures to arrays."""

import abc
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


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
            return np.asarray(to_rgb(picture))


def decode(data: bytes, *, name: str) -> np.ndarray:
    """Decodes a picture in any format that Pillow reads.

    Args:
        data: the encoded picture.
        name: what an error calls it, such as its path.

    Returns:
        uint8 (H, W, 3); grey pictures get three equal channels, of 16 bits the upper 8 stay, transparency is
        dropped.

    Raises:
        ValueError: the bytes are no picture, a damaged one, or numbers of more than 16 bits.
    """
    with opened(data, name) as picture:
        return np.asarray(to_rgb(picture))


def to_rgb(picture: "Image.Image") -> "Image.Image":
    """The picture in RGB with 8 bits a channel.

    Args:
        picture: as Pillow opens it.

    Returns:
        The picture itself if it is RGB, not decoded by that; else another one: grey has three equal channels, of 16
        bits the upper 8 stay, transparency is dropped.

    Raises:
        ValueError: floating point or more than 16 bits, so that nothing says which number is white.
    """
    return picture if picture.mode == "RGB" else eight_bits(picture, kind=picture.format).convert("RGB")


def image_shape(data: bytes, *, name: str) -> tuple[int, int]:
    """Reads a picture's size from its header alone.

    Args:
        data: the encoded picture.
        name: what an error calls it, such as its path.

    Returns:
        Height and width in pixels.

    Raises:
        ValueError: the bytes are no picture.
    """
    with opened(data, name) as picture:
        return picture.height, picture.width


def eight_bits(picture: "Image.Image", *, kind: str | None) -> "Image.Image":
    """The picture with 8 bits a channel.

    Args:
        picture: as Pillow opens it; grey of 16 bits is in a mode that `convert` would clip at 255.
        kind: the file's format, such as "PNG".

    Returns:
        The picture itself, or of 16 bits the upper 8.

    Raises:
        ValueError: floating point or more than 16 bits, so that nothing says which number is white.
    """
    from PIL import Image

    if picture.mode == "F":
        raise ValueError("floating point, whose white is unknown")
    if not picture.mode.startswith("I"):
        return picture
    if picture.mode == "I" and kind not in ("PNG", "PPM"):  # those have no more than 16 bits
        raise ValueError("32 bits, whose white is unknown")
    grey = np.asarray(picture)
    if grey.min() < 0 or grey.max() > 65_535:
        raise ValueError(f"numbers from {grey.min()} to {grey.max()}, not of 16 bits")
    return Image.fromarray((grey >> 8).astype(np.uint8))


def read_bytes(path: Path) -> bytes:
    """What a picture file holds.

    Args:
        path: the file.

    Returns:
        Its bytes.

    Raises:
        ValueError: it cannot be read (named).
    """
    try:
        return path.read_bytes()
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
        ValueError: the bytes are no picture, or a damaged one.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            yield picture
    # Pillow reports damage as OSError, SyntaxError, ValueError and others, by format.
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> ValueError:
    return ValueError(f"expected a readable image, got {name} ({error}): repair or remove that file")
