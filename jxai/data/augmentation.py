"""The augmentations of the few-shot releases, on the host.

Everything random takes a NumPy generator, so that a picture is a function of the stream that its caller derives
from (seed, index). `jxai.data.device_augment` does the same on the accelerator.
"""

import math
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from jxai.checks import shown
from jxai.data.decode import upright_size
from jxai.data.preprocess import MEAN, resample
from jxai.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

Augmentation = Literal["resized-crop", "crop-erase"]

# Random resized crop: share of the picture's area, and width over height (torchvision's, as in the releases).
CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10

# Color jitter: brightness, contrast and color are each multiplied by a factor in [1 - 0.4, 1 + 0.4].
JITTER = 0.4

# The cross-attention release's: black pixels around the picture before a crop, and how it erases.
PADDING = 8
ERASE_PROBABILITY = 0.5
ERASE_AREA = (0.02, 0.4)
ERASE_RATIO = (0.3, 1 / 0.3)
ERASE_ATTEMPTS = 100

_FILL = np.rint(255 * np.asarray(MEAN)).astype(np.uint8)


def check_augmentation(augment: str | None, *, numbers: bool = False) -> None:
    """Checks the name of an augmentation.

    Args:
        augment: the name, or None for none.
        numbers: whether batches hold numbers of pictures alone, which cannot be augmented.

    Raises:
        ValueError: unknown name, or one with `numbers`.
    """
    if augment is not None and numbers:
        raise InputError(
            f"expected no `augment` with `numbers`, got {shown(augment)}: there are no pictures yet, use "
            "augment_on_device once they are looked up"
        )
    if augment is not None and (not isinstance(augment, str) or augment not in get_args(Augmentation)):
        raise InputError(
            f"expected `augment` as None or one of {', '.join(get_args(Augmentation))}, got {augment!r}: "
            "name one of these"
        )


def augment(picture: "Image.Image", rng: np.random.Generator, *, size: int, kind: Augmentation) -> np.ndarray:
    """Augments a picture as the few-shot releases do in training.

    "resized-crop" (RelationNet, GNN): a random crop of 8 to 100 % of the area with aspect ratio 3/4 to 4/3, resized;
    then brightness, contrast and color each times a factor in [0.6, 1.4]; then a horizontal flip of every second
    picture. "crop-erase" (cross attention): the picture resized, 8 black pixels around it, a random crop of the size;
    a flip of every second; of every second, a rectangle of 2 to 40 % of the area, aspect ratio 0.3 to 1/0.3, becomes
    ImageNet's mean.

    Args:
        picture: as Pillow opens it; the decoder's state of it changes.
        rng: the source of randomness; the number of values drawn varies from picture to picture.
        size: side of the result in pixels.
        kind: which augmentation.

    Returns:
        uint8 (size, size, 3).
    """
    return (_resized_crop if kind == "resized-crop" else _crop_erase)(picture, rng, size)


def _resized_crop(picture: "Image.Image", rng: np.random.Generator, size: int) -> np.ndarray:
    from PIL import ImageEnhance

    cropped = resample(picture, size, box=_crop_box(rng, *upright_size(picture)))
    factors = rng.uniform(1 - JITTER, 1 + JITTER, size=3)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for enhancer, factor in zip(enhancers, factors, strict=True):
        cropped = enhancer(cropped).enhance(float(factor))
    return _flip(np.asarray(cropped), rng)


def _crop_erase(picture: "Image.Image", rng: np.random.Generator, size: int) -> np.ndarray:
    padded = np.pad(np.asarray(resample(picture, size)), ((PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    top, left = rng.integers(2 * PADDING + 1, size=2)
    image = _flip(padded[top : top + size, left : left + size], rng)
    if rng.random() < ERASE_PROBABILITY:
        top, left, height, width = _erased(rng, size)
        image = image.copy()
        image[top : top + height, left : left + width] = _FILL
    return image


def _flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image[:, ::-1] if rng.random() < 0.5 else image


def _crop_box(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    """Returns left, top, right and bottom of a random crop, or of the largest center crop that is allowed."""
    for _ in range(CROP_ATTEMPTS):
        area = height * width * rng.uniform(*CROP_AREA)
        ratio = math.exp(rng.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(height - crop_height + 1))
            left = int(rng.integers(width - crop_width + 1))
            return left, top, left + crop_width, top + crop_height
    crop_width = min(width, max(1, round(height * CROP_RATIO[1])))
    crop_height = min(height, max(1, round(width / CROP_RATIO[0])))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def _erased(rng: np.random.Generator, size: int) -> tuple[int, int, int, int]:
    """Returns top, left, height and width of the rectangle to erase; empty if none fits, as in tiny pictures."""
    for _ in range(ERASE_ATTEMPTS):
        area, ratio = size * size * rng.uniform(*ERASE_AREA), rng.uniform(*ERASE_RATIO)
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if height < size and width < size:
            top, left = rng.integers(size - height + 1), rng.integers(size - width + 1)
            return int(top), int(left), height, width
    return 0, 0, 0, 0
