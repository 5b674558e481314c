import io

import numpy as np
import pytest
from PIL import Image

from jxai.data import preprocess

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS)


def test_normalize_is_imagenets():
    expected = (PIXELS / 255 - np.asarray([0.485, 0.456, 0.406])) / np.asarray([0.229, 0.224, 0.225])
    normalized = preprocess.normalize(PIXELS[None])
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 5, 3), (0, 4, 5, 3), (2, 0, 3)])
def test_normalize_takes_any_shape(shape):
    pixels = np.resize(PIXELS, shape)
    normalized = preprocess.normalize(pixels)
    assert normalized.shape == shape
    for channel in range(3):
        column = preprocess.normalize(np.repeat(pixels[..., channel : channel + 1], 3, axis=-1))
        np.testing.assert_array_equal(normalized[..., channel], column[..., channel])


def test_denormalize_gives_every_byte_back():
    bytes_ = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    np.testing.assert_array_equal(preprocess.denormalize(preprocess.normalize(bytes_)), bytes_)
    np.testing.assert_array_equal(preprocess.denormalize(np.asarray([[-99.0, 0.0, 99.0]])), [[0, 116, 255]])


def test_the_stored_size_is_left_alone():
    np.testing.assert_array_equal(preprocess.resize_and_crop(PICTURE, 32), PIXELS)


@pytest.mark.parametrize(("size", "side"), [(84, 96), (224, 257), (16, 18), (1, 1)])
def test_another_size_is_the_center_of_1_15_times_it(size, side):
    # int(1.15 * size), as released; margins are torchvision's: half the difference, rounded.
    resized = np.asarray(PICTURE.resize((side, side), Image.Resampling.BILINEAR))
    margin = round((side - size) / 2)
    np.testing.assert_array_equal(
        preprocess.resize_and_crop(PICTURE, size), resized[margin : margin + size, margin : margin + size]
    )


def test_a_long_picture_is_squeezed():
    picture = np.zeros((10, 40, 3), np.uint8)
    picture[:, 20:] = 255
    resized = preprocess.resize_and_crop(Image.fromarray(picture), 20)
    assert resized.shape == (20, 20, 3)
    assert not resized[:, :8].any() and (resized[:, 12:] == 255).all()


def test_a_part_of_a_picture_is_resampled_as_if_it_were_cut_out():
    part = PICTURE.crop((3, 5, 20, 31)).resize((12, 12), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(
        np.asarray(preprocess.resample(PICTURE, 12, box=(3, 5, 20, 31))), np.asarray(part)
    )


def photograph(width: int, height: int) -> bytes:
    """A smooth picture with edges, as JPEG."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    waves = [np.sin(9 * x + 5 * y * y), np.cos(7 * y), np.sin(20 * x * y)]
    pixels = 127 + 80 * np.stack(waves, axis=-1) + 40 * ((x > 0.3) & (y > 0.4))[..., None]
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, format="jpeg", quality=90)
    return file.getvalue()


@pytest.mark.parametrize("box", [None, (100, 40, 420, 360)])
def test_a_jpeg_file_may_be_decoded_at_a_part_of_its_size(box):
    with Image.open(io.BytesIO(photograph(500, 375))) as opened:
        reduced = np.asarray(preprocess.resample(opened, 96, box=box), np.float32)
        assert opened.size == (250, 188)  # half: a quarter of 375 or of 320 would be less than 96
    with Image.open(io.BytesIO(photograph(500, 375))) as opened:
        whole = np.asarray(
            opened.convert("RGB").crop(box).resize((96, 96), Image.Resampling.BILINEAR), np.float32
        )
    assert abs(reduced - whole).mean() < 1.5
    with Image.open(io.BytesIO(photograph(500, 375))) as opened:
        preprocess.resample(opened, 224, box=box)
        assert opened.size == (500, 375)
