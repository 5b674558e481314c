"""Photographs as cameras and programs write them, and the square that a network sees."""

import warnings

import numpy as np
import pytest
from PIL import Image

from jxai.data import center_square, read_picture

# Four flat quarters survive JPEG: red and green above, blue and white below.
COLORS = np.array([[[220, 30, 30], [30, 180, 30]], [[30, 30, 220], [240, 240, 240]]], np.uint8)
PIXELS = COLORS.repeat(16, axis=0).repeat(24, axis=1)


def corners(picture):
    height, width = picture.shape[0] // 4, picture.shape[1] // 4
    return picture[height :: 2 * height, width :: 2 * width].astype(int)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tiff"])
def test_reads_a_picture(tmp_path, name):
    Image.fromarray(PIXELS).save(tmp_path / name)
    picture = read_picture(tmp_path / name)
    assert picture.shape == (32, 48, 3) and picture.dtype == np.uint8
    np.testing.assert_allclose(corners(picture), COLORS, atol=8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_turns_a_picture_upright(tmp_path, orientation, kind):
    # What a camera stores, from EXIF's table: where the first row and the first column of the file belong.
    turn = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, 1),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: np.rot90(x, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(turn[orientation](PIXELS))
    Image.fromarray(stored).save(tmp_path / f"a.{kind}", exif=exif)
    picture = read_picture(tmp_path / f"a.{kind}")
    assert picture.shape == (32, 48, 3)
    np.testing.assert_allclose(corners(picture), COLORS, atol=8)


def test_cmyk_and_gray_and_palettes(tmp_path):
    picture = Image.fromarray(PIXELS)
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg")
    np.testing.assert_allclose(corners(read_picture(tmp_path / "cmyk.jpg")), COLORS, atol=12)
    picture.quantize(8).save(tmp_path / "palette.png")
    np.testing.assert_allclose(corners(read_picture(tmp_path / "palette.png")), COLORS, atol=8)
    gray = PIXELS[..., 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "gray.png"), np.stack([gray] * 3, axis=-1))
    Image.fromarray(gray > 100).save(tmp_path / "two.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "two.png")[..., 1], 255 * (gray > 100))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 255, 256, 30_000, 65_535]], np.uint16)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(read_picture(tmp_path / name)[0, :, 0], [0, 0, 1, 117, 255])
    (tmp_path / "a.pgm").write_bytes(b"P5 5 1 65535\n" + values.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_picture(tmp_path / "a.pgm")[0, :, 2], [0, 0, 1, 117, 255])


def test_transparency_lies_over_white(tmp_path):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = 0, 51, 255  # black: not there, a fifth, whole
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png")[0, :, 0], [255, 204, 0])
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([200, 10, 10, 10, 200, 10])
    palette.save(tmp_path / "p.png", transparency=1)
    np.testing.assert_array_equal(read_picture(tmp_path / "p.png"), [[[200, 10, 10], [255, 255, 255]]])


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff"])
def test_of_an_animation_the_first_frame_is_taken_and_said(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("#c00000", "#00c000", "#0000c0")]
    path = tmp_path / f"a.{kind}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=rf"a\.{kind} has 3 frames or pages: the first is taken"):
        picture = read_picture(path)
    np.testing.assert_allclose(picture, np.full((8, 8, 3), (192, 0, 0)), atol=8)


def test_a_telephones_second_picture_needs_no_warning(tmp_path):
    Image.fromarray(PIXELS).save(
        tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(tmp_path / "a.jpg").shape == (32, 48, 3)


def test_what_cannot_be_read_is_named(tmp_path):
    large = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(large).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(tmp_path / "deep.tiff")
    for name in ("half.jpg", "empty.png", "text.png", "float.tiff", "deep.tiff", "missing.png"):
        with pytest.raises(ValueError, match=rf"expected a readable image, got .*{name} .*repair or remove"):
            read_picture(tmp_path / name)
    with pytest.raises(ValueError, match="expected a readable image"):
        read_picture(tmp_path)


def test_the_center_is_that_of_the_resized_picture():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (80, 100, 3), np.uint8)
    square = center_square(picture, size=28, shorter=32)
    resized = np.asarray(Image.fromarray(picture).resize((40, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(square, resized[2:30, 6:34])
    assert center_square(picture[:3, :2], size=28, shorter=32).shape == (28, 28, 3)
    with pytest.raises(ValueError, match="expected shorter of at least size, got 16 and 28"):
        center_square(picture, size=28, shorter=16)


def test_a_long_strip_does_not_become_huge():
    strip = np.zeros((1, 60_000, 3), np.uint8)
    strip[:, 30_000] = 255
    square = center_square(strip, size=224, shorter=256)  # 256 x 15 million as a whole
    assert square.shape == (224, 224, 3) and square.max() > 200
    assert center_square(strip.transpose(1, 0, 2), size=224, shorter=256).shape == (224, 224, 3)


def test_gray_of_32_bits_has_no_known_white(tmp_path):
    Image.fromarray(np.full((4, 4), 200, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif .*white is unknown"):
        read_picture(tmp_path / "a.tif")
