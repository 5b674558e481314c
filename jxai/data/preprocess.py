"""Pictures on the host: resizing, the augmentation of the few-shot releases, and normalisation.

Pictures are uint8 (H, W, 3) in RGB until `normalise` makes them float32. Everything random takes a NumPy
generator, so that a picture is a function of the stream that its caller derives from (seed, index).
"""

import math

import numpy as np

# ImageNet's channel means and deviations, with which the few-shot releases normalise every domain.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Before a centre crop the picture is resized to this many times the crop's side.
RESIZE_FACTOR = 1.15

# Random resized crop: share of the picture's area, and width over height (torchvision's, as in the releases).
_CROP_AREA = (0.08, 1.0)
_CROP_RATIO = (3 / 4, 4 / 3)
_CROP_ATTEMPTS = 10

# Colour jitter: brightness, contrast and colour are each multiplied by a factor in [1 - 0.4, 1 + 0.4].
_JITTER = 0.4


def normalise(images: np.ndarray) -> np.ndarray:
    """Scales bytes to [0, 1] and normalises each channel by ImageNet's mean and deviation.

    Args:
        images: uint8, (..., 3).

    Returns:
        float32 of the same shape: (images / 255 - MEAN) / STD.
    """
    # One multiplication and one addition a value: this runs on every picture of every episode.
    std = np.asarray(STD, np.float32)
    scale = np.float32(1 / 255) / std
    shift = -np.asarray(MEAN, np.float32) / std
    normalised = images * scale
    normalised += shift
    return normalised


def denormalise(images: np.ndarray) -> np.ndarray:
    """Turns normalised images back into bytes, to draw them.

    Args:
        images: float, (..., 3), as `normalise` makes them.

    Returns:
        uint8 of the same shape; exactly the bytes that were normalised, other values rounded and clipped.
    """
    scaled = np.asarray(images, np.float32) * np.asarray(STD, np.float32) + np.asarray(MEAN, np.float32)
    return np.clip(np.rint(scaled * 255), 0, 255).astype(np.uint8)


def resize_and_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Brings a picture to the test-time size: resized to 1.15 times the size, then its centre.

    Args:
        image: uint8 (H, W, 3).
        size: side of the result in pixels.

    Returns:
        uint8 (size, size, 3); the picture itself if that is its size already.
    """
    if image.shape[:2] == (size, size):
        return image
    side = int(RESIZE_FACTOR * size)
    margin = round((side - size) / 2)
    return _resize(image, side)[margin : margin + size, margin : margin + size]


def augment(image: np.ndarray, rng: np.random.Generator, *, size: int) -> np.ndarray:
    """Augments a picture as the few-shot releases do in training.

    A random resized crop (8 to 100 % of the area, aspect ratio 3/4 to 4/3), then brightness, contrast and
    colour each times a factor in [0.6, 1.4], then a horizontal flip of every second picture.

    Args:
        image: uint8 (H, W, 3).
        rng: the source of randomness; the number of values drawn varies from picture to picture.
        size: side of the result in pixels.

    Returns:
        uint8 (size, size, 3).
    """
    from PIL import Image, ImageEnhance

    top, left, height, width = _random_crop(rng, image.shape[0], image.shape[1])
    picture = Image.fromarray(_resize(image[top : top + height, left : left + width], size))
    factors = rng.uniform(1 - _JITTER, 1 + _JITTER, size=3)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for enhancer, factor in zip(enhancers, factors, strict=True):
        picture = enhancer(picture).enhance(float(factor))
    augmented = np.asarray(picture)
    return augmented[:, ::-1] if rng.random() < 0.5 else augmented


def _random_crop(rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    """Returns top, left, height and width of a random crop, or the largest centre crop that is allowed."""
    for _ in range(_CROP_ATTEMPTS):
        area = height * width * rng.uniform(*_CROP_AREA)
        ratio = math.exp(rng.uniform(math.log(_CROP_RATIO[0]), math.log(_CROP_RATIO[1])))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(height - crop_height + 1))
            left = int(rng.integers(width - crop_width + 1))
            return top, left, crop_height, crop_width
    crop_width = min(width, max(1, round(height * _CROP_RATIO[1])))
    crop_height = min(height, max(1, round(width / _CROP_RATIO[0])))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _resize(image: np.ndarray, side: int) -> np.ndarray:
    # Bilinear and not keeping the aspect ratio, as released.
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
