import io
import os
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jxai import data
from jxai.data.decode import FORMATS, MOST_PIXELS, decode, image_shape, opened
from jxai.data.preprocess import resample, resize_and_crop

ROOT = Path(__file__).resolve().parents[2]

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def encoded(picture: Image.Image, kind: str = "png") -> bytes:
    file = io.BytesIO()
    picture.save(file, format=kind)
    return file.getvalue()


def test_decodes_what_was_encoded():
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(PIXELS)), name="x"), PIXELS)
    gray = decode(encoded(Image.fromarray(PIXELS[..., 0])), name="x")
    np.testing.assert_array_equal(gray, PIXELS[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize("kind", ["jpeg", "bmp", "gif", "webp"])
def test_decodes_other_formats(kind):
    assert decode(encoded(Image.fromarray(PIXELS), kind), name="x").shape == (5, 7, 3)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1", "I;16"])
def test_decodes_other_modes_to_rgb(mode):
    picture = Image.new(mode, (7, 5))
    assert decode(encoded(picture), name="x").shape == (5, 7, 3)


def test_keeps_the_upper_bits_of_sixteen():
    gray = np.asarray([[0, 300, 30_000, 65_535]], np.uint16)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(gray)), name="x")[0, :, 0], [0, 1, 117, 255])


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


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def transparent():
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 48, 4), np.uint8))


def palette():
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 4, (40, 48), np.uint8), "P")
    picture.putpalette([200, 10, 10, 10, 200, 10, 0, 0, 0, 255, 255, 0])
    return picture


def noise(shape, dtype=np.uint8):
    return Image.fromarray(np.random.default_rng(3).integers(0, np.iinfo(dtype).max, shape, dtype))


# kohya-ss/sd-scripts#1316, ultralytics/yolov5#405, huggingface/dataset-viewer#2605.
FILES = {
    **{
        f"turned {turn}.{kind}": (noise((40, 48, 3)), {"exif": exif(turn)})
        for turn in range(1, 9)
        for kind in ("jpg", "png", "webp", "tiff")
    },
    **{f"transparent.{kind}": (transparent(), {}) for kind in ("png", "webp", "tiff")},
    "clear.gif": (palette(), {"transparency": 1}),
    "clear.png": (palette(), {"transparency": 2}),
    "palette.bmp": (palette(), {}),
    "sixteen.png": (noise((40, 48), np.uint16), {}),
    "sixteen.tiff": (noise((40, 48), np.uint16), {}),
    "cmyk.jpg": (noise((40, 48, 4)).convert("CMYK"), {}),
    "gray.png": (noise((40, 48)), {}),
    "gray and clear.png": (transparent().convert("LA"), {}),
    "two.png": (noise((40, 48)).convert("1"), {}),
    "moving.png": (noise((40, 48, 3)), {"save_all": True, "append_images": [palette().convert("RGB")]}),
    "moving.gif": (palette(), {"save_all": True, "append_images": [noise((40, 48))]}),
}


@pytest.mark.filterwarnings("ignore:.*frames or pages")
@pytest.mark.parametrize("name", FILES)
def test_every_way_to_read_a_file_sees_the_same(tmp_path, name, monkeypatch):
    picture, options = FILES[name]
    for folder in "ab":
        (tmp_path / "all" / folder).mkdir(parents=True)
        picture.save(tmp_path / "all" / folder / name, **options)
    path = tmp_path / "all/b" / name
    shown = data.read_picture(path)
    assert shown.shape == ((48, 40, 3) if re.search("turned [5-8]", name) else (40, 48, 3))
    content = path.read_bytes()
    np.testing.assert_array_equal(decode(content, name="x"), shown)
    assert image_shape(content, name="x") == shown.shape[:2]
    in_memory = data.load_folder(tmp_path / "all")
    monkeypatch.setattr("jxai.data.folder._MEMORY_LIMIT", 0)
    lazy = data.load_folder(tmp_path / "all")
    for source in (in_memory, lazy):
        np.testing.assert_array_equal(source.image(1), shown)
    # At another size, and a part of it: as of the picture that is shown. JPEG may be decoded at half its size.
    expected = resize_and_crop(Image.fromarray(shown), 30)
    np.testing.assert_array_equal(lazy.images([1], 30)[0], expected)
    box = (3, 5, 35, 30)
    with opened(content, "x") as encoded_one:
        part = np.asarray(resample(encoded_one, 24, box=box))
    np.testing.assert_array_equal(part, np.asarray(resample(Image.fromarray(shown), 24, box=box)))
    drawn = [
        source.augmented(1, np.random.default_rng(0), size=20, kind="resized-crop")
        for source in (in_memory, lazy)
    ]
    np.testing.assert_array_equal(*drawn)


@pytest.mark.parametrize("rows", [1, 7, 10**6])
@pytest.mark.parametrize("name", ["turned 6.jpg", "transparent.png", "clear.gif", "sixteen.png", "cmyk.jpg"])
def test_bands_make_no_difference(name, rows, monkeypatch):
    picture, options = FILES[name]
    file = io.BytesIO()
    picture.save(file, {"jpg": "jpeg"}.get(name[-3:], name[-3:]), **options)
    whole = decode(file.getvalue(), name="x")
    monkeypatch.setattr("jxai.data.decode._BAND", 48 * rows)
    np.testing.assert_array_equal(decode(file.getvalue(), name="x"), whole)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(any program) print\nshowpage\n%%EOF\n"
OTHERS = {
    "eps": EPS,
    "eps with a preview": struct.pack("<IIIIIIIH", 0xC6D3D0C5, 30, len(EPS), 0, 0, 0, 0, 0xFFFF)[:30] + EPS,
    "ps": b"%!PS-Adobe-3.0\n(any program) print\nshowpage\n",
    "pdf": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer<<>>\n%%EOF",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "wmf": b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<hhhhHI", 0, 0, 10, 10, 1440, 0) + bytes(40),
    "emf": b"\x01\0\0\0" + bytes(36) + b" EMF" + bytes(64),
    "fpx": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512),
    "xpm": b'/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c #000000", "a"};\n',
    "xbm": b"#define im_width 8\n#define im_height 1\nstatic char im_bits[] = {\n0x01 };\n",
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "msp": b"DanM" + bytes(28),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("ending", ["jpg", "eps"])
def test_no_file_starts_a_program(tmp_path, monkeypatch, kind, ending):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("gs", "djpeg", "inkscape", "convert", "pdftoppm"):
        (programs / name).write_text(f"#!/bin/sh\necho $0 >> {tmp_path}/ran\necho 10.0\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / "all/a" / f"cat.{ending}"
    path.parent.mkdir(parents=True)
    path.write_bytes(OTHERS[kind])
    for read in (lambda: data.read_picture(path), lambda: data.load_folder(tmp_path / "all")):
        with pytest.raises(ValueError, match=rf"got .*cat\.{ending} \(none of AVIF, .*WEBP"):
            read()
    assert not (tmp_path / "ran").exists()


def test_pictures_are_opened_with_a_list_of_formats_everywhere():
    calls = [
        (path, call)
        for folder in ("jxai", "experiments")
        for path in (ROOT / folder).rglob("*.py")
        for call in re.findall(r"Image\.open\([^\n]*|imread\([^\n]*", path.read_text("utf-8"))
    ]
    assert len(calls) >= 2 and all("formats=" in call for _, call in calls), calls
    assert not {"EPS", "WMF", "PDF", "FPX", "MIC"} & FORMATS.keys()


def png_of(width, height):
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b""))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # Pillow's own, before ours
@pytest.mark.parametrize(
    "size", [(178_000_000, 1), (1, 178_000_000), (13_300, 13_300), (65_536, 1), (8193, 6144)]
)
def test_too_large_pictures_are_refused_by_name(tmp_path, size):
    path = tmp_path / "strip.png"
    path.write_bytes(png_of(*size))
    with pytest.raises(
        ValueError, match=rf"strip\.png \({size[0]} x {size[1]} pixels, more than {MOST_PIXELS} or"
    ):
        data.read_picture(path)


def test_want_of_memory_names_the_file(monkeypatch):
    monkeypatch.setattr("jxai.data.decode.pixels", lambda _: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(ValueError, match=r"got some/file \(more memory than there is\)"):
        decode(encoded(Image.fromarray(PIXELS)), name="some/file")


def test_a_file_of_thousands_of_scans_is_refused():
    file = io.BytesIO()
    noise((3000, 4000)).save(file, "jpeg", progressive=True)
    content = file.getvalue()
    assert decode(content, name="x").shape == (3000, 4000, 3)
    scan = content[content.rindex(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match="scans, each over the whole picture"):
        decode(content[:-2] + scan[:20] * 2000 + content[-2:], name="x")


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes with names")
def test_what_would_be_waited_for_is_no_picture(tmp_path):
    (tmp_path / "all/a").mkdir(parents=True)
    os.mkfifo(tmp_path / "all/a/pipe.png")
    os.symlink("/dev/zero", tmp_path / "zero.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**40)
    for path, said in {
        "all/a/pipe.png": "no regular",
        "zero.png": "no regular",
        "huge.png": "bytes, more",
    }.items():
        with pytest.raises(ValueError, match=rf"{path} \(.*{said}"):
            data.read_picture(tmp_path / path)
    with pytest.raises(ValueError, match="pipe"):
        data.load_folder(tmp_path / "all")
