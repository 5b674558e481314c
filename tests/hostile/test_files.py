"""Files that are damaged or made to do harm: clear errors only, and nothing in them is run."""

import dataclasses
import io
import json
import pickle
import shutil
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from strategies import EFFORTS, in_each_run

from jxai import data
from jxai.data import archive, prepared
from jxai.data.decode import decode, image_shape
from jxai.data.listing import Listing
from jxai.models import read_weights

ROOT = Path(__file__).resolve().parents[2]
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)


@st.composite
def damaged(draw, whole):
    """A file's bytes cut, changed, filled with zeros, or with others in between."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        match draw(st.sampled_from(["cut", "flip", "zeros", "insert", "drop", "replace"])):
            case "cut":
                del content[at:]
            case "flip" if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "zeros":
                content[at : at + 16] = bytes(len(content[at : at + 16]))
            case "insert":
                content[at:at] = draw(st.binary(max_size=8))
            case "drop":
                del content[at : at + 5]
            case "replace":
                content[at : at + 4] = draw(st.binary(min_size=4, max_size=4))
    return bytes(content)


def assert_names(error, file):
    assert str(error).startswith("expected ") and f"{file}" in str(error) and ", got " in str(error), error


def encoded(kind, *, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, kind, **options)
    return file.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width, height, *, kind=2, body=b"", extra=b""):
    """A PNG file whose header says what it likes."""
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(body)), chunk(b"IEND", b"")]
    )


def looked_at(content, name="some/file"):
    """The picture and its size, or the error that names it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of some damage
        try:
            return decode(content, name=name), image_shape(content, name=name)
        except ValueError as error:
            assert str(error).startswith(f"expected a readable image, got {name} ("), error
            return None


PICTURES = {
    "jpeg": encoded("jpeg"),
    "png": encoded("png"),
    "gif": encoded("gif"),
    "bmp": encoded("bmp"),
    "webp": encoded("webp"),
    "tiff": encoded("tiff"),
    "cmyk": encoded("jpeg", mode="CMYK"),
    "palette": encoded("png", mode="P"),
    "exif": encoded("jpeg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
}


@EFFORTS
@pytest.mark.parametrize("kind", PICTURES)
def test_damaged_pictures(kind, examples, tmp_path):
    @in_each_run(examples, content=damaged(PICTURES[kind]) | st.binary(max_size=64))
    def search(content):
        found = looked_at(content)
        assert found is None or (found[0].dtype == np.uint8 and found[0].shape == (*found[1], 3))
        file = tmp_path / "picture"
        file.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert data.read_picture(file).ndim == 3
            except ValueError as error:
                assert_names(error, file)


BOMBS = {
    "of 60000 x 60000 pixels": png_of(60_000, 60_000),
    "of the largest sides": png_of(2**31 - 1, 2**31 - 1),
    "of no pixels": png_of(0, 5),
    "of text that unpacks to much": png_of(
        4, 4, body=bytes(52), extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))
    ),
    "of another kind": png_of(4, 4, kind=9, body=bytes(52)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_go_off(name):
    assert looked_at(BOMBS[name]) is None


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pictures_whose_white_is_unknown(mode):
    file = io.BytesIO()
    Image.new(mode, (4, 3)).save(file, "tiff")
    assert looked_at(file.getvalue()) is None


@EFFORTS
def test_a_folder_with_a_damaged_picture(examples, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(PICTURES["png"])

    @in_each_run(examples, content=damaged(PICTURES["png"]))
    def search(content):
        (tmp_path / "b/0.png").write_bytes(content)
        try:
            assert len(data.load_folder(tmp_path)) == 2
        except ValueError as error:
            assert_names(error, "b/0.png")


ARRAYS = {"fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "fc.bias": np.zeros(2)}


def npz():
    file = io.BytesIO()
    np.savez(file, **ARRAYS)
    return file.getvalue()


def safetensors():
    header, content = {}, b""
    for name, value in ARRAYS.items():
        one = value.tobytes()
        header[name] = {
            "dtype": f"F{8 * value.itemsize}",
            "shape": list(value.shape),
            "data_offsets": [len(content), len(content) + len(one)],
        }
        content += one
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def text_of(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def described(name, size):
    """The pickle of a tensor of one axis, as PyTorch writes it, but for its outer parts."""
    storage = b"(" + text_of("storage") + b"ctorch\nFloatStorage\n" + text_of("0") + text_of("cpu")
    storage += b"K" + bytes([size]) + b"tQ"
    rebuilt = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0K" + bytes([size]) + b"\x85K\x01\x85\x89}tR"
    )
    return text_of(name) + rebuilt + b"s"


PICKLE = b"\x80\x02}" + described("w", 3) + b"."


def torch_zip(pickled=PICKLE):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", np.arange(3, dtype=np.float32).tobytes())
    return file.getvalue()


def torch_stream(pickled=PICKLE):
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    start = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    return start + pickled + pickle.dumps(["0"], protocol=2) + struct.pack("<q", 3) + bytes(12)


WEIGHTS = {
    ".npz": npz,
    ".safetensors": safetensors,
    ".pth": torch_zip,
    ".pt": lambda: torch_stream(PICKLE.replace(b"tQ", b"NtQ")),
}


def weights_of(path, content):
    path.write_bytes(content)
    try:
        return read_weights(path)
    except ValueError as error:
        assert_names(error, path)
        return None


@pytest.mark.parametrize("suffix", WEIGHTS)
def test_whole_weights_are_read(suffix, tmp_path):
    assert weights_of(tmp_path / f"w{suffix}", WEIGHTS[suffix]())


@EFFORTS
@pytest.mark.parametrize("suffix", WEIGHTS)
def test_damaged_weights(suffix, examples, tmp_path):
    @in_each_run(examples, content=damaged(WEIGHTS[suffix]()) | st.binary(max_size=64))
    def search(content):
        found = weights_of(tmp_path / f"w{suffix}", content)
        assert found is None or all(isinstance(value, np.ndarray) for value in found.values())


def test_an_archive_of_objects_is_refused(tmp_path):
    class Harm:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    file = io.BytesIO()
    np.savez(file, w=np.array([Harm()], object))
    assert weights_of(tmp_path / "w.npz", file.getvalue()) is None
    assert not (tmp_path / "ran").exists()


HARM = [
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("os", "system"),
    ("posix", "mkdir"),
    ("subprocess", "Popen"),
]
HARM += [
    ("torch", "load"),
    ("numpy", "load"),
    ("jxai.models.torch_file", "read_torch"),
    ("functools", "partial"),
]
HARM += [("collections", "OrderedDict"), ("torch._utils", "_rebuild_parameter"), ("torch", "FloatStorage")]
OPCODES = [bytes([code]) for code in b")]}(tlasRbQ\x85\x86\x87\x81\x88\x89N02u.e\x93\x94\x90\x91\x8f\x92io"]


@st.composite
def programs(draw, target):
    """A pickle of any instructions: names of any functions, calls, and changes of what they gave."""
    words = st.sampled_from(
        [str(target), f"open({str(target)!r}, 'w')", f"touch {target}", "storage", "__setstate__"]
    )
    one = st.one_of(
        st.sampled_from(HARM).map(lambda name: f"c{name[0]}\n{name[1]}\n".encode()),
        st.sampled_from(HARM).map(lambda name: text_of(name[0]) + text_of(name[1]) + b"\x93"),
        st.sampled_from(OPCODES),
        words.map(text_of),
        words.map(lambda word: text_of(word) + b"\x85R"),
        st.integers(0, 2**32 - 1).map(lambda place: b"r" + struct.pack("<I", place)),
        st.integers(0, 255).map(lambda number: b"K" + bytes([number])),
    )
    return b"\x80\x04" + b"".join(draw(st.lists(one, min_size=1, max_size=12))) + b"."


@EFFORTS
def test_no_pickle_runs_anything(examples, tmp_path):
    target = tmp_path / "ran"

    @in_each_run(10 * examples, program=programs(target), stream=st.booleans())
    def search(program, stream):
        weights_of(tmp_path / "w.pth", torch_stream(program) if stream else torch_zip(program))
        assert not target.exists()


def test_a_value_far_off_is_refused_before_memory_is_filled(tmp_path):
    far = b"\x80\x02}r\xff\xff\xff\x0f."
    with pytest.raises(ValueError, match="a value in place 268435455 of its pickle"):
        (tmp_path / "w.pth").write_bytes(torch_zip(far))
        read_weights(tmp_path / "w.pth")


@dataclasses.dataclass(frozen=True)
class Held:
    """Files in memory."""

    content: dict[str, bytes]

    def read(self, names):
        yield from ((name, self.content[name]) for name in names)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A prepared domain of four pictures."""
    content = {f"{c}/{i}": encoded("png") for c in "ab" for i in range(2)}
    listing = Listing([(c, [name for name in content if name[0] == c]) for c in "ab"], Held(content))
    return prepared.prepare(
        tmp_path_factory.mktemp("whole") / "toy",
        lambda: listing,
        name="toy",
        short_side=None,
        skip_corrupt=False,
        progress=False,
    )


@EFFORTS
@pytest.mark.parametrize("part", ["pictures.array_record", "index.npz"])
def test_damaged_records(part, examples, toy, tmp_path):
    whole = (toy.directory / part).read_bytes()
    copy = tmp_path / "copy"
    shutil.copytree(toy.directory, copy)

    @in_each_run(examples, content=damaged(whole))
    def search(content):
        (copy / part).write_bytes(content)
        try:
            source = prepared.read(dataclasses.replace(toy, directory=copy), "toy")
            pictures = [source.image(i) for i in range(len(source))]
        except ValueError as error:
            assert_names(error, copy)
        else:
            assert all((picture == PIXELS).all() for picture in pictures)


@EFFORTS
def test_damaged_archives_of_the_package(examples, tmp_path, monkeypatch):
    whole = (ROOT / "jxai/data/archives/thai.npz").read_bytes()
    monkeypatch.setattr(archive.importlib.resources, "files", lambda package: tmp_path)
    (tmp_path / "archives").mkdir()

    file = tmp_path / "archives/thai.npz"
    file.write_bytes(whole)
    right = archive.read_archive("thai")

    @in_each_run(examples, content=damaged(whole))
    def search(content):
        file.write_bytes(content)
        try:
            found = archive.read_archive("thai")
        except ValueError as error:
            assert_names(error, file)
        else:
            assert found.keys() == right.keys()
            assert all((found[name] == right[name]).all() for name in right)


def test_jax_arrays_are_no_files():
    with pytest.raises(TypeError, match="expected a file of weights as a path"):
        read_weights(jax.numpy.ones(3))
