"""Encoded pictures to arrays."""

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


def decode(data: bytes, *, name: str) -> np.ndarray:
    """Decodes a picture in any format that Pillow reads.

    Args:
        data: the encoded picture.
        name: what an error calls it, such as its path.

    Returns:
        uint8 (H, W, 3); grey pictures get three equal channels, of 16 bits the upper 8 stay, transparency is
        dropped.

    Raises:
        ValueError: the bytes are no picture, or a damaged one.
    """
    from PIL import Image

    with _opened(data, name) as picture:
        if picture.mode.startswith("I"):  # 16 bits, which `convert` would clip at 255
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        return np.asarray(picture.convert("RGB"))


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
    with _opened(data, name) as picture:
        return picture.height, picture.width


@contextlib.contextmanager
def _opened(data: bytes, name: str) -> "Iterator[Image.Image]":
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            yield picture
    # Pillow reports damage as OSError, SyntaxError, ValueError and others, by format.
    except Exception as error:
        raise ValueError(
            f"expected a readable image, got {name} ({error}): repair or remove that file"
        ) from error
