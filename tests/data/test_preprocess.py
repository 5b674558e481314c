import numpy as np
import pytest
from PIL import Image

from jxai.data import preprocess

PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def test_normalise_is_imagenets():
    expected = (PICTURE / 255 - np.asarray([0.485, 0.456, 0.406])) / np.asarray([0.229, 0.224, 0.225])
    normalised = preprocess.normalise(PICTURE[None])
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised[0], expected, rtol=0, atol=1e-6)


def test_denormalise_gives_every_byte_back():
    bytes_ = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    np.testing.assert_array_equal(preprocess.denormalise(preprocess.normalise(bytes_)), bytes_)
    np.testing.assert_array_equal(preprocess.denormalise(np.asarray([[-99.0, 0.0, 99.0]])), [[0, 116, 255]])


def test_the_stored_size_is_left_alone():
    assert preprocess.resize_and_crop(PICTURE, 32) is PICTURE


@pytest.mark.parametrize(("size", "side"), [(84, 96), (224, 257), (16, 18), (1, 1)])
def test_another_size_is_the_centre_of_1_15_times_it(size, side):
    # int(1.15 * size), as released; margins are torchvision's: half the difference, rounded.
    resized = np.asarray(Image.fromarray(PICTURE).resize((side, side), Image.Resampling.BILINEAR))
    margin = round((side - size) / 2)
    np.testing.assert_array_equal(
        preprocess.resize_and_crop(PICTURE, size), resized[margin : margin + size, margin : margin + size]
    )


def test_a_long_picture_is_squeezed():
    picture = np.zeros((10, 40, 3), np.uint8)
    picture[:, 20:] = 255
    resized = preprocess.resize_and_crop(picture, 20)
    assert resized.shape == (20, 20, 3)
    assert not resized[:, :8].any() and (resized[:, 12:] == 255).all()


@pytest.mark.parametrize("shape", [(32, 32, 3), (20, 50, 3), (300, 4, 3), (1, 1, 3)])
@pytest.mark.parametrize("size", [32, 84])
def test_augment_gives_the_size_asked_for(shape, size):
    picture = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    for seed in range(5):
        augmented = preprocess.augment(picture, np.random.default_rng(seed), size=size)
        assert augmented.shape == (size, size, 3) and augmented.dtype == np.uint8


def test_augment_is_a_function_of_the_stream():
    first, second, other = (
        preprocess.augment(PICTURE, np.random.default_rng(seed), size=32) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_augment_flips_every_second_picture():
    # Dark on the left, light on the right: still so in whatever crop, unless it was flipped.
    ramp = np.repeat(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    flipped = 0
    for seed in range(200):
        means = preprocess.augment(ramp, np.random.default_rng(seed), size=16).mean(axis=(0, 2))
        flipped += means[0] > means[-1]
    assert 70 <= flipped <= 130  # 100 ± 4 standard deviations


def test_augment_changes_brightness_by_at_most_two_fifths():
    grey = np.full((32, 32, 3), 100, np.uint8)
    values = [preprocess.augment(grey, np.random.default_rng(seed), size=8).mean() for seed in range(200)]
    # On one flat grey contrast and colour change nothing.
    assert 59 <= min(values) < 66 and 134 < max(values) <= 141


def test_random_crops_keep_the_releases_bounds():
    rng = np.random.default_rng(0)
    areas, ratios = [], []
    for _ in range(2000):
        top, left, height, width = preprocess._random_crop(rng, 100, 100)
        assert 0 <= top <= 100 - height and 0 <= left <= 100 - width
        areas.append(height * width / 1e4)
        ratios.append(width / height)
    # 0.08 to 1 and 3/4 to 4/3, up to the rounding of the sides to pixels.
    assert 0.075 < min(areas) < 0.1 and 0.95 < max(areas) <= 1
    assert 0.73 < min(ratios) < 0.77 and 1.3 < max(ratios) < 1.37


@pytest.mark.parametrize(
    ("shape", "crop"), [((4, 300), (0, 147, 4, 5)), ((300, 4), (147, 0, 5, 4)), ((1, 1), (0, 0, 1, 1))]
)
def test_a_picture_too_long_for_random_crops_gives_its_centre(shape, crop):
    # 8 % of these areas has sides longer than the short one already (of 1 x 1 every crop is the whole).
    assert preprocess._random_crop(np.random.default_rng(0), *shape) == crop
