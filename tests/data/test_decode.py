import io

import numpy as np
import pytest
from PIL import Image

from jxai.data.decode import decode, image_shape

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def encoded(picture: Image.Image, kind: str = "png") -> bytes:
    file = io.BytesIO()
    picture.save(file, format=kind)
    return file.getvalue()


def test_decodes_what_was_encoded():
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(PIXELS)), name="x"), PIXELS)
    grey = decode(encoded(Image.fromarray(PIXELS[..., 0])), name="x")
    np.testing.assert_array_equal(grey, PIXELS[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize("kind", ["jpeg", "bmp", "gif", "webp"])
def test_decodes_other_formats(kind):
    assert decode(encoded(Image.fromarray(PIXELS), kind), name="x").shape == (5, 7, 3)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1", "I;16"])
def test_decodes_other_modes_to_rgb(mode):
    picture = Image.new(mode, (7, 5))
    assert decode(encoded(picture), name="x").shape == (5, 7, 3)


def test_keeps_the_upper_bits_of_sixteen():
    grey = np.asarray([[0, 300, 30_000, 65_535]], np.uint16)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(grey)), name="x")[0, :, 0], [0, 1, 117, 255])


def test_reads_the_size_from_the_header():
    data = encoded(Image.fromarray(PIXELS))
    assert image_shape(data, name="x") == (5, 7)
    assert image_shape(data[:60], name="x") == (5, 7)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_damage_is_an_error_that_names_the_picture(kind):
    large = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(large), kind)
    for damaged in (b"", b"no picture", data[: len(data) // 2]):
        with pytest.raises(ValueError, match=r"expected a readable image, got some/file .*repair or remove"):
            decode(damaged, name="some/file")
    with pytest.raises(ValueError, match="got some/file"):
        image_shape(b"no picture", name="some/file")
