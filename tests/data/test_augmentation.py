import numpy as np
import pytest
from PIL import Image

from jxai.data import augmentation
from jxai.data.augmentation import augment

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
KINDS = ("resized-crop", "crop-erase")
MEAN = np.asarray([124, 116, 104])  # ImageNet's, in bytes


def drawn(picture: Image.Image, count: int, *, kind: str, size: int) -> np.ndarray:
    return np.stack(
        [augment(picture, np.random.default_rng(seed), size=size, kind=kind) for seed in range(count)]
    )


def flat(value: int, side: int = 32) -> Image.Image:
    return Image.fromarray(np.full((side, side, 3), value, np.uint8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(32, 32, 3), (20, 50, 3), (300, 4, 3), (1, 1, 3)])
@pytest.mark.parametrize("size", [1, 32, 84])
def test_gives_the_size_asked_for(kind, shape, size):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, shape, np.uint8))
    augmented = drawn(picture, 5, kind=kind, size=size)
    assert augmented.shape == (5, size, size, 3) and augmented.dtype == np.uint8


@pytest.mark.parametrize("kind", KINDS)
def test_is_a_function_of_the_stream(kind):
    first, again, other = (
        augment(PICTURE, np.random.default_rng(seed), size=32, kind=kind) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("kind", KINDS)
def test_flips_every_second_picture(kind):
    # Dark on the left, light on the right: still so in whatever crop, unless it was flipped.
    ramp = np.repeat(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    rows = drawn(Image.fromarray(ramp), 200, kind=kind, size=32).mean(axis=3)
    rising = (np.diff(rows, axis=2) > 0).sum(axis=(1, 2)) > (np.diff(rows, axis=2) < 0).sum(axis=(1, 2))
    assert 70 <= rising.sum() <= 130  # 100 ± 4 standard deviations


def test_changes_brightness_by_at_most_two_fifths():
    values = drawn(flat(100), 200, kind="resized-crop", size=8).mean(axis=(1, 2, 3))
    # On one flat gray contrast and color change nothing.
    assert 59 <= values.min() < 66 and 134 < values.max() <= 141


def test_random_crops_keep_the_releases_bounds():
    rng = np.random.default_rng(0)
    areas, ratios = [], []
    for _ in range(2000):
        left, top, right, bottom = augmentation._crop_box(rng, 100, 100)
        assert 0 <= left < right <= 100 and 0 <= top < bottom <= 100
        areas.append((right - left) * (bottom - top) / 1e4)
        ratios.append((right - left) / (bottom - top))
    # 0.08 to 1 and 3/4 to 4/3, up to the rounding of the sides to pixels.
    assert 0.075 < min(areas) < 0.1 and 0.95 < max(areas) <= 1
    assert 0.73 < min(ratios) < 0.77 and 1.3 < max(ratios) < 1.37


@pytest.mark.parametrize(
    ("size", "box"),
    [((300, 4), (147, 0, 152, 4)), ((4, 300), (0, 147, 4, 152)), ((1, 1), (0, 0, 1, 1))],
)
def test_a_picture_too_long_for_random_crops_gives_its_center(size, box):
    # 8 % of these areas has sides longer than the short one already (of 1 x 1 every crop is the whole).
    assert augmentation._crop_box(np.random.default_rng(0), *size) == box


def test_crops_are_moved_by_up_to_eight_pixels_over_black():
    white = drawn(flat(255), 800, kind="crop-erase", size=32)
    white = white[~(white == MEAN).all(axis=3).any(axis=(1, 2))]  # not the erased ones
    black = (white == 0).all(axis=3)
    expected = (
        len(black) / 17 * np.asarray([1, *[2] * 8])
    )  # offsets 0 to 16: k and 16 - k leave as much black
    for moved in (black.all(axis=2).sum(axis=1), black.all(axis=1).sum(axis=1)):
        assert (abs(np.bincount(moved, minlength=9) - expected) < 5 * np.sqrt(expected)).all()


def test_every_second_picture_has_a_rectangle_of_the_mean():
    white = drawn(flat(255, 84), 400, kind="crop-erase", size=84)
    filled = (white == MEAN).all(axis=3)
    erased = filled.any(axis=(1, 2))
    assert 160 <= erased.sum() <= 240  # 200 ± 4 standard deviations
    areas, ratios = [], []
    for mask in filled[erased]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        areas.append(mask.mean())
        ratios.append(len(rows) / len(columns))
    # 2 to 40 % and 0.3 to 1/0.3, up to the rounding of the sides to pixels.
    assert 0.017 < min(areas) < 0.05 and 0.35 < max(areas) < 0.42
    assert 0.27 < min(ratios) < 0.45 and 2.7 < max(ratios) < 3.6
    assert abs(np.mean(areas) - 0.21) < 0.03 and abs(np.mean(ratios) - (0.3 + 1 / 0.3) / 2) < 0.25


def test_an_unknown_name_is_told():
    for name in ("flip", True, False):
        with pytest.raises(ValueError, match="expected `augment` as None or one of resized-crop, crop-erase"):
            augmentation.check_augmentation(name)
    augmentation.check_augmentation(None)
