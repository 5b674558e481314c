"""Thousands of damaged files in one process with limits: `python fuzzing.py READER FIRST COUNT PROGRESS`.

A process ends with status 0 if every file was read or refused by an error that names it. Five seconds of a core for
one call end it (SIGPROF), as a minute of waiting (SIGALRM) and a crash do; PROGRESS then holds the number of the
file, from which it can be made again. More than 1 GB beyond what the imports took cannot be had.
"""

import contextlib
import dataclasses
import io
import json
import os
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jxai import data
from jxai.data import archive, prepared
from jxai.data.decode import decode, image_shape, opened
from jxai.data.listing import Archive, Listing
from jxai.data.preprocess import resize_and_crop
from jxai.models import read_weights

SECONDS, BYTES = 5, 2**30
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
ARRAYS = {"fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "fc.bias": np.zeros(2)}
# What lengths, counts and sizes are set to.
_NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**60, 2**63 - 1, 2**64 - 1)


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """A file's bytes cut, changed, filled, repeated, with others in between, or with numbers that are too large."""
    content = bytearray(whole)
    for _ in range(rng.integers(1, 5)):
        most = len(content) if rng.random() < 0.7 else min(64, len(content))
        at = int(rng.integers(most + 1))
        some = bytes(rng.integers(0, 256, int(rng.integers(1, 9)), np.uint8))
        match rng.integers(8):
            case 0:
                del content[at:]
            case 1 if at < len(content):
                content[at] ^= 1 << int(rng.integers(8))
            case 2:
                content[at : at + 16] = bytes(len(content[at : at + 16]))
            case 3:
                content[at:at] = some
            case 4:
                del content[at : at + len(some)]
            case 5:
                content[at : at + len(some)] = some
            case 6:
                content[at:at] = content[at : at + int(rng.integers(1, 200))]
            case _:
                size = int(rng.choice([1, 2, 4, 8]))
                number = int(_NUMBERS[rng.integers(len(_NUMBERS))]) % 256**size
                content[at : at + size] = number.to_bytes(size, "big" if rng.random() < 0.5 else "little")
    return bytes(content)


class Reader(NamedTuple):
    """What reads a kind of file.

    Attributes:
        whole: files as they should be, one of which is damaged each time.
        read: reads a file of this content; raises what it likes.
        made: other contents, by a random generator.
    """

    whole: list[bytes]
    read: Callable[[bytes, Path], Any]
    made: Callable[[np.random.Generator], bytes] | None = None


def encoded(kind: str, *, mode: str = "RGB", **options: Any) -> bytes:
    """A small picture in a format."""
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, kind, **options)
    return file.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _frames(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    others = [Image.fromarray(PIXELS[::-1]), Image.fromarray(255 - PIXELS)]
    Image.fromarray(PIXELS).save(file, kind, save_all=True, append_images=others, **options)
    return file.getvalue()


def _transparent(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.concatenate([PIXELS, PIXELS[..., :1]], axis=2)).save(file, kind, **options)
    return file.getvalue()


def _sixteen() -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257).save(file, "png")
    return file.getvalue()


PICTURES = {
    "jpeg": lambda: [
        encoded("jpeg"),
        encoded("jpeg", mode="CMYK"),
        encoded("jpeg", progressive=True),
        encoded("jpeg", exif=_exif()),
        _frames("mpo"),
    ],
    "png": lambda: [
        encoded("png"),
        encoded("png", mode="P"),
        encoded("png", mode="1"),
        encoded("png", exif=_exif()),
        _transparent("png"),
        _sixteen(),
        _frames("png"),
    ],
    "gif": lambda: [encoded("gif"), _frames("gif"), _transparent("gif")],
    "bmp": lambda: [encoded("bmp"), encoded("bmp", mode="P"), encoded("bmp", mode="1"), _transparent("bmp")],
    "webp": lambda: [encoded("webp"), encoded("webp", lossless=True), _frames("webp"), _transparent("webp")],
    "tiff": lambda: [
        encoded("tiff"),
        encoded("tiff", compression="tiff_lzw"),
        encoded("tiff", compression="jpeg"),
        encoded("tiff", mode="1", compression="group4"),
        encoded("tiff", exif=_exif()),
        _frames("tiff"),
    ],
    "ppm": lambda: [
        encoded("ppm"),
        encoded("ppm", mode="L"),
        b"P3 2 1 9\n1 2 3 4 5 6\n",
        b"Pf 1 1 1.0\n\0\0\0\0",
    ],
    "avif": lambda: [encoded("avif")],
}


def _read_picture(content: bytes, file: Path) -> None:
    found = decode(content, name=str(file))
    assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3 and found.size
    # A PNG file may say behind its pixels how it is turned.
    assert sorted(found.shape[:2]) == sorted(image_shape(content, name=str(file)))
    measure_time()
    with opened(content, str(file)) as picture:
        assert resize_and_crop(picture, 4).shape == (4, 4, 3)
    measure_time()
    file.write_bytes(content)
    assert (data.read_picture(file) == found).all()


def _read_folder(content: bytes, file: Path) -> None:
    for name in "ab":
        (file.with_name("folder") / name).mkdir(parents=True, exist_ok=True)
        (file.with_name("folder") / name / file.name).write_bytes(
            content if name == "b" else PICTURES["png"]()[0]
        )
    source = data.load_folder(file.with_name("folder"))
    assert len(source) == 2 and (source.image(0) == PIXELS).all()


def _npz(save: Callable[..., None]) -> bytes:
    file = io.BytesIO()
    save(file, **ARRAYS)
    return file.getvalue()


def safetensors() -> bytes:
    """The arrays in that format."""
    header, content = {}, b""
    for name, value in ARRAYS.items():
        place = [len(content), len(content) + value.nbytes]
        header[name] = {"dtype": f"F{8 * value.itemsize}", "shape": list(value.shape), "data_offsets": place}
        content += value.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def text_of(word: str) -> bytes:
    """A text of a pickle."""
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def described(name: str, size: int) -> bytes:
    """A tensor of one axis as an item of a pickled dictionary, as PyTorch writes it."""
    storage = b"(" + text_of("storage") + b"ctorch\nFloatStorage\n" + text_of("0") + text_of("cpu")
    storage += b"K" + bytes([size]) + b"tQ"
    view = b"K\0K" + bytes([size]) + b"\x85K\x01\x85\x89}tR"
    return text_of(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"s"


PICKLE = b"\x80\x02}" + text_of("epoch") + b"K\x03s" + described("w", 3) + b"."


def torch_zip(pickled: bytes = PICKLE) -> bytes:
    """A file of PyTorch's zip format."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", np.arange(3, dtype=np.float32).tobytes())
    return file.getvalue()


def torch_stream(pickled: bytes = PICKLE) -> bytes:
    """A file of PyTorch's older format."""
    number = lambda value: b"\x80\x02\x8a" + bytes([len(value)]) + value + b"."  # noqa: E731
    start = number((0x1950A86A20F9469CFC6C).to_bytes(10, "little")) + number((1001).to_bytes(2, "little"))
    start += b"\x80\x02}" + text_of("little_endian") + b"\x88s."
    keys = b"\x80\x02]" + text_of("0") + b"a."
    return start + pickled.replace(b"tQ", b"NtQ") + keys + struct.pack("<q", 3) + bytes(12)


_NAMES = ["os\nsystem", "builtins\neval", "collections\nOrderedDict", "torch\nFloatStorage", "torch\nload"]
_NAMES += [f"torch._utils\n_rebuild_{what}" for what in ("tensor_v2", "tensor_v3", "parameter", "tensor")]
_NAMES += ["argparse\nNamespace", "torch._tensor\n_rebuild_from_type_v2", "torch.storage\nUntypedStorage"]
_CODES = [bytes([code]) for code in b")]}(tlasRbQ\x85\x86\x87\x81\x88\x89N02u.e\x93\x94\x90\x91\x8f\x92iod1"]


def program(rng: np.random.Generator) -> bytes:
    """A pickle of any instructions, some of them many times over."""
    parts = []
    for _ in range(rng.integers(1, 25)):
        match rng.integers(7):
            case 0:
                parts.append(f"c{_NAMES[rng.integers(len(_NAMES))]}\n".encode())
            case 1:
                parts.append(text_of("storage" if rng.random() < 0.5 else "w"))
            case 2:
                parts.append(bytes([*b"qhKj"][i] for i in [rng.integers(3)]) + bytes([rng.integers(4)]))
            case 3:
                code = [b"X", b"B", b"T", b"\x8a", b"\x8b", b"\x8d", b"\x8e", b"r", b"j", b"\x95", b"\x96"]
                length = bytes(rng.choice([0, 1, 0x7F, 0xFF], 8).astype(np.uint8))
                parts.append(code[rng.integers(len(code))] + length)
            case 4:
                some = b"".join(_CODES[i] for i in rng.integers(len(_CODES), size=2))
                parts.append(some * int(rng.choice([2, 50, 5000])))
            case _:
                parts.append(_CODES[rng.integers(len(_CODES))])
    return b"\x80\x04" + b"".join(parts) + b"."


def _read_weights(suffix: str) -> Callable[[bytes, Path], None]:
    def read(content: bytes, file: Path) -> None:
        file = file.with_suffix(suffix)
        file.write_bytes(content)
        found = read_weights(file)
        assert all(isinstance(value, np.ndarray) and value.size <= 2**24 for value in found.values())

    return read


@dataclasses.dataclass(frozen=True)
class _Held:
    content: dict[str, bytes]

    def read(self, names: Any) -> Any:
        yield from ((name, self.content[name]) for name in names)


def _prepared(part: str) -> Reader:
    """A part of a prepared domain of four pictures."""
    content = {f"{c}/{i}": encoded("png") for c in "ab" for i in range(2)}
    listing = Listing([(c, [name for name in content if name[0] == c]) for c in "ab"], _Held(content))
    where = Path(tempfile.mkdtemp(), "toy")
    options = {"name": "toy", "short_side": None, "skip_corrupt": False, "progress": False}
    toy = prepared.prepare(where, lambda: listing, **options)

    def read(content: bytes, file: Path) -> None:
        (toy.directory / part).write_bytes(content)
        source = prepared.read(toy, str(file))
        for i in range(len(source)):
            # Checksums of the records, digests of the index.
            assert (source.image(i) == PIXELS).all()

    return Reader([(toy.directory / part).read_bytes()], read)


def _package_archive() -> Reader:
    file = io.BytesIO()
    labels, names = np.array([0, 1], np.int16), np.array(["a", "b"])
    np.savez_compressed(file, images=np.stack([PIXELS[:8, :8, 0]] * 2), labels=labels, class_names=names)
    folder = Path(tempfile.mkdtemp())
    (folder / "archives").mkdir()
    archive.importlib.resources.files = lambda package: folder

    def read(content: bytes, file: Path) -> None:
        (folder / "archives/thai.npz").write_bytes(content)
        found = archive.read_archive("thai")
        assert (found["labels"] == labels).all() and (found["class_names"] == names).all()

    return Reader([file.getvalue()], read)


def _tar(mode: str) -> Reader:
    def whole() -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode) as archive:
            for name in ("some/a/0.png", "some/a/1.png", "some/b/2.png"):
                member = tarfile.TarInfo(name)
                member.size = len(PICTURES["png"]()[0])
                archive.addfile(member, io.BytesIO(PICTURES["png"]()[0]))
        return file.getvalue()

    def read(content: bytes, file: Path) -> None:
        file = file.with_suffix(".tar" if mode == "w" else ".tgz")
        file.write_bytes(content)
        archive = Archive(file)
        assert len(dict(archive.read(archive.names("some")))) <= 4

    return Reader([whole()], read)


READERS: dict[str, Callable[[], Reader]] = {
    **{kind: lambda kind=kind: Reader(PICTURES[kind](), _read_picture) for kind in PICTURES},
    "a folder": lambda: Reader(PICTURES["png"]() + PICTURES["jpeg"](), _read_folder),
    "npz": lambda: Reader([_npz(np.savez), _npz(np.savez_compressed)], _read_weights(".npz")),
    "safetensors": lambda: Reader([safetensors()], _read_weights(".safetensors")),
    "pth": lambda: Reader([torch_zip()], _read_weights(".pth")),
    "pt": lambda: Reader([torch_stream()], _read_weights(".pt")),
    "pickle": lambda: Reader([], _read_weights(".pth"), lambda rng: torch_zip(program(rng))),
    "damaged pickle": lambda: Reader([], _read_weights(".pth"), lambda rng: torch_zip(damaged(PICKLE, rng))),
    "records": lambda: _prepared("pictures.array_record"),
    "index": lambda: _prepared("index.npz"),
    "package": _package_archive,
    "tar": lambda: _tar("w"),
    "tgz": lambda: _tar("w:gz"),
}


def measure_time() -> None:
    """Begin anew to count the seconds of a call."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 12 * SECONDS)


def main(name: str, first: int, count: int, progress: Path) -> None:
    """Read so many files of a kind."""
    warnings.simplefilter("ignore")  # Pillow warns of some damage
    reader = READERS[name]()
    folder = Path(tempfile.mkdtemp())
    file = folder / "some file"
    # Once before memory is limited: what is loaded late counts as imports do.
    for content in reader.whole:
        with contextlib.suppress(ValueError):
            reader.read(content, file)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
    with progress.open("wb", buffering=0) as at:
        for number in range(first, first + count):
            os.pwrite(at.fileno(), f"{number:9}".encode(), 0)
            rng = np.random.default_rng([number, len(name)])
            content = (
                reader.made(rng) if reader.made else damaged(reader.whole[number % len(reader.whole)], rng)
            )
            measure_time()
            try:
                reader.read(content, file)
            except ValueError as error:
                said = str(error)
                if not (said.startswith("expected ") and ", got " in said and said.isprintable()):
                    raise
                assert len(said) < 2000, len(said)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
