import functools

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from jxai import data
from jxai.data import augmentation, device_augment
from jxai.data.preprocess import MEAN, STD, normalize

KINDS = ("resized-crop", "crop-erase")
KEY = jax.random.key(0)


@functools.cache
def compiled(kind: str):
    return jax.jit(functools.partial(data.augment_on_device, kind=kind, size=24))


def as_bytes(augmented) -> np.ndarray:
    return (np.asarray(augmented) * np.asarray(STD, np.float32) + np.asarray(MEAN, np.float32)) * 255


def drawn(pixels: np.ndarray, count: int, *, kind: str) -> np.ndarray:
    """One picture augmented so many times, in [0, 255]."""
    return as_bytes(compiled(kind)(KEY, np.broadcast_to(pixels, (count, *pixels.shape)), np.arange(count)))


@pytest.fixture(scope="module")
def smooth() -> np.ndarray:
    """A picture of 40 x 40 without noise, which no two resamplings treat alike."""
    y, x = np.mgrid[:40, :40] / 40
    waves = np.stack([np.sin(6 * x + 3 * y), np.cos(5 * y), np.sin(4 * x * y)], axis=-1)
    return (127 + 90 * waves).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_the_same_in_whatever_batch(smooth, kind):
    pictures = np.stack([np.roll(smooth, shift, axis=0) for shift in range(400)])
    whole = compiled(kind)(KEY, pictures, np.arange(400))
    chosen = np.asarray([17, 3, 399, 3] * 100)
    np.testing.assert_allclose(
        compiled(kind)(KEY, pictures[chosen], chosen), np.asarray(whole)[chosen], rtol=0, atol=1e-5
    )
    other = compiled(kind)(jax.random.key(1), pictures, np.arange(400))
    assert (abs(np.asarray(other) - np.asarray(whole)).max(axis=(1, 2, 3)) > 0.1).mean() > 0.99


def test_bytes_and_normalized_pictures_give_the_same(smooth):
    augment = compiled("crop-erase")
    pictures = np.broadcast_to(smooth, (400, *smooth.shape))
    np.testing.assert_allclose(
        augment(KEY, normalize(pictures), np.arange(400)),
        augment(KEY, pictures, np.arange(400)),
        rtol=0,
        atol=1e-4,
    )


RESAMPLE = jax.jit(device_augment._resample, static_argnums=1)
CROP_BOXES = jax.jit(jax.vmap(device_augment._crop_box, in_axes=(0, None, None)), static_argnums=(1, 2))


def test_a_crop_is_resampled_as_pillow_does(smooth):
    # The same part in both; within three levels, for Pillow cuts it out first and rounds to bytes.
    for left, top, right, bottom in ((0, 0, 40, 40), (4, 2, 36, 30), (10, 12, 26, 20)):
        start, extent = np.asarray([top, left]), np.asarray([bottom - top, right - left])
        ours = RESAMPLE(smooth.astype(np.float32), 12, start, extent)
        part = Image.fromarray(smooth).crop((left, top, right, bottom))
        pillows = np.asarray(part.resize((12, 12), Image.Resampling.BILINEAR), np.float32)
        apart = abs(np.asarray(ours) - pillows)
        assert apart[1:-1, 1:-1].max() <= 2 and apart.max() <= 9


def test_colors_change_as_pillows_do(smooth):
    jitter = jax.jit(device_augment._jitter)
    for factors in ((1.4, 0.6, 1.3), (0.6, 1.4, 0.7), (1.0, 1.0, 1.0)):
        ours = 255 * jitter(smooth.astype(np.float32) / 255, np.asarray(factors, np.float32))
        picture = Image.fromarray(smooth)
        enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for enhancer, factor in zip(enhancers, factors, strict=True):
            picture = enhancer(picture).enhance(factor)
        # Pillow cuts fractions off three times, and takes gray in bytes.
        assert abs(np.asarray(ours) - np.asarray(picture)).max() <= 4


@pytest.mark.parametrize("kind", KINDS)
def test_flips_every_second_picture(kind):
    ramp = np.repeat(np.linspace(0, 255, 40).astype(np.uint8)[None, :, None], 40, axis=0).repeat(3, axis=2)
    steps = np.diff(drawn(ramp, 400, kind=kind).mean(axis=3), axis=2)
    rising = (steps > 0).sum(axis=(1, 2)) > (steps < 0).sum(axis=(1, 2))
    assert 160 <= rising.sum() <= 240  # 200 ± 4 standard deviations


def test_changes_brightness_by_at_most_two_fifths():
    values = drawn(np.full((40, 40, 3), 100, np.uint8), 400, kind="resized-crop")[:, 12, 12, 0]
    assert 59.9 <= values.min() < 64 and 136 < values.max() <= 140.1
    assert abs(values.mean() - 100) < 5


def test_crops_are_the_hosts_in_distribution():
    random = np.random.default_rng(1).random((4000, 22), np.float32)
    boxes = CROP_BOXES(random, 100, 80)
    top, left, height, width = map(np.asarray, boxes)
    assert (
        (top >= 0).all() and (top + height <= 100).all() and (left >= 0).all() and (left + width <= 80).all()
    )
    for value in boxes:
        np.testing.assert_array_equal(value, np.round(value))
    rng = np.random.default_rng(0)
    host = np.asarray([augmentation._crop_box(rng, 80, 100) for _ in range(4000)], np.float64)
    hosts = (host[:, 1], host[:, 0], host[:, 3] - host[:, 1], host[:, 2] - host[:, 0])
    for ours, theirs in zip((top, left, height, width), hosts, strict=True):
        error = 5 * theirs.std() * np.sqrt(2 / 4000)
        assert abs(ours.mean() - theirs.mean()) < error
        assert np.all(
            abs(np.quantile(ours, [0.1, 0.5, 0.9]) - np.quantile(theirs, [0.1, 0.5, 0.9])) < 3 * error + 1
        )


@pytest.mark.parametrize(("shape", "box"), [((4, 300), (0, 147, 4, 5)), ((300, 4), (147, 0, 5, 4))])
def test_a_picture_too_long_for_random_crops_gives_its_center(shape, box):
    random = np.random.default_rng(0).random((4000, 22), np.float32)
    boxes = np.stack(CROP_BOXES(random, *shape), axis=1)
    np.testing.assert_array_equal(boxes, np.broadcast_to(box, boxes.shape))


def test_crops_are_moved_over_black_and_every_second_is_erased():
    white = drawn(np.full((40, 40, 3), 255, np.uint8), 400, kind="crop-erase")
    filled = (abs(white - 255 * np.asarray(MEAN)) < 0.01).all(axis=3)
    erased = filled.any(axis=(1, 2))
    assert 160 <= erased.sum() <= 240
    areas = filled[erased].mean(axis=(1, 2))
    assert 0.01 < areas.min() < 0.06 and 0.34 < areas.max() < 0.43 and abs(areas.mean() - 0.21) < 0.035
    black = (abs(white[~erased]) < 0.01).all(axis=3)
    expected = (
        len(black) / 17 * np.asarray([1, *[2] * 8])
    )  # offsets 0 to 16: k and 16 - k leave as much black
    for moved in (black.all(axis=2).sum(axis=1), black.all(axis=1).sum(axis=1)):
        assert (abs(np.bincount(moved, minlength=9) - expected) < 5 * np.sqrt(expected)).all()


def test_wrong_shapes_and_names_are_told():
    pictures = np.zeros((3, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"indices \(n,\), got \(3, 8, 8, 3\) and \(2,\)"):
        data.augment_on_device(KEY, pictures, np.arange(2), kind="crop-erase")
    with pytest.raises(ValueError, match=r"expected images \(n, H, W, 3\)"):
        data.augment_on_device(KEY, pictures[0], np.arange(8), kind="crop-erase")
    with pytest.raises(ValueError, match="expected kind among resized-crop, crop-erase, got 'flip'"):
        data.augment_on_device(KEY, pictures, np.arange(3), kind="flip")
