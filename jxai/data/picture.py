"""A photograph as somebody's camera or program wrote it: to bytes of RGB, upright, and its central square."""

import os
import warnings
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from jxai import extras
from jxai.checks import as_path, check_choice, check_count, printable, shown
from jxai.data.decode import opened, pixels, read_bytes
from jxai.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from PIL import Image

Resampling = Literal["bicubic", "bilinear"]

# Phones put a second picture for depth or as a thumbnail behind the first one: nobody would call that animated.
_ONE_PICTURE = ("MPO",)
_COUNTED = 2**18  # bytes of a file whose frames are counted


def read_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a picture file as a person sees it.

    The rotation that EXIF asks for is applied. Gray, palette and CMYK become RGB; of 16 bits the upper 8 stay;
    transparency is laid over white. Of an animation or of several pages the first is taken, with a warning. Folders
    and data sets are read in the same way, without that warning.

    Args:
        path: the file: AVIF, BMP, GIF, JPEG, PNG, PPM, TIFF or WebP, of at most 50 million pixels.

    Returns:
        uint8 (H, W, 3).

    Raises:
        TypeError: no path.
        ValueError: the file is missing, no picture, a damaged one, too large, or has no bytes for colors (named).
    """
    data = read_bytes(as_path("a picture", path))
    with opened(data, str(path)) as picture:
        frames = "" if picture.format in _ONE_PICTURE else _frames(picture, len(data))
        decoded = pixels(picture)
    if frames:
        warnings.warn(f"{printable(path)} has {frames} frames or pages: the first is taken", stacklevel=2)
    return decoded


def _frames(picture: "Image.Image", size: int) -> str:
    """How many frames a file has, or "" for one; all of a long one would have to be looked for."""
    if size > _COUNTED:
        return "several" if getattr(picture, "is_animated", False) else ""
    count = getattr(picture, "n_frames", 1)
    return str(count) if count > 1 else ""


def center_square(
    picture: np.ndarray, *, size: int, shorter: int, resampling: Resampling = "bicubic"
) -> np.ndarray:
    """The center of a picture, as ImageNet's networks are tested.

    Args:
        picture: uint8 (H, W, 3).
        size: side of the result in pixels.
        shorter: what the picture's shorter side is resized to before the center is cut out; at least `size`.
        resampling: how: bicubically, as EfficientNets were tested, or bilinearly, as torchvision's networks were.

    Returns:
        uint8 (size, size, 3).

    Raises:
        TypeError: if the picture is no array of bytes.
        ValueError: if it has another shape, `shorter` is less than `size`, or the resampling is unknown.
    """
    with extras.named():
        from PIL import Image

    if getattr(picture, "dtype", None) != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise InputTypeError(
            f"expected a picture of uint8 (H, W, 3), got {shown(picture)}: read it with read_picture"
        )
    if not picture.size:
        raise InputError(f"expected a picture with pixels, got shape {picture.shape}: leave it out")
    check_count("size", size)
    check_count("shorter", shorter)
    check_choice("resampling", resampling, get_args(Resampling))
    if shorter < size:
        raise InputError(
            f"expected shorter of at least size, got {shorter} and {size}: a larger square would stick out"
        )
    whole = _not_long(Image.fromarray(picture))
    factor = shorter / min(whole.size)
    width, height = (round(side * factor) for side in whole.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = whole.resize((width, height), Image.Resampling[resampling.upper()])
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def _not_long(picture: "Image.Image") -> "Image.Image":
    """The middle of a strip: one of 1 x 20000 pixels would be resized to more than memory holds."""
    longest = 4 * min(picture.size)
    if max(picture.size) <= longest:
        return picture
    width, height = (min(side, longest) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
