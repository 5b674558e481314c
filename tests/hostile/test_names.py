"""Names of files and folders, and texts of others, that would steer a terminal, a page or a table."""

import io
import os
import tarfile
import warnings

import numpy as np
import pytest
from PIL import Image

from jxai import InputError, data
from jxai.checks import printable
from jxai.cli.explaining.picture_files import read_pictures
from jxai.cli.fewshot import run_record
from jxai.cli.fewshot.tables import _cell
from jxai.cli.running import command_line
from jxai.data.listing import Archive
from jxai.models import load_pretrained, read_weights
from jxai.models.bottleneck import ResNet50

NAMES = [
    "\x1b[2J\x1b[31mcat\x1b]0;owned\x07.png",
    "dog.png: tabby, score 99.00; explained: tabby\nx.png",
    "\rforged\u2028line.png",
    "\u202egnp.exe.png",
    os.fsdecode(b"\xff\x9b31m.png"),
    "\x9b31m\x7f\x08.png",
]


def picture():
    file = io.BytesIO()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def test_what_is_printable():
    assert printable("Größe 猫.png") == "Größe 猫.png"
    assert printable("a\x1bb\nc\udcff\u202e") == r"a\x1bb\nc\udcff\u202e"
    assert len(printable("x" * 10**7)) < 500


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_called_by_printable_names(tmp_path, name, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_bytes(picture())
    for paths in ([tmp_path], [tmp_path / "a" / name]):
        (found,) = read_pictures(paths)
        assert found.name.isprintable() and found.name.encode()


def says(call):
    with pytest.raises((ValueError, OSError, TypeError)) as told, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()
    said = str(told.value)
    assert said.isprintable() and said.encode() and len(said) < 3000, said
    return said


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_printable(tmp_path, name):
    folder = tmp_path / name
    (folder / name).mkdir(parents=True)
    says(lambda: data.load_folder(folder / name))
    says(lambda: data.load_folder(folder))
    (folder / name / name).write_bytes(b"no picture")
    says(lambda: data.load_folder(folder))
    says(lambda: data.read_picture(folder / name / name))
    says(lambda: data.load_folder(folder / name / name))
    says(lambda: data.load("CUB", manual_dir=folder / "none"))
    says(lambda: data.load("CUB", manual_dir=folder))
    (folder / "CUB_200_2011.tgz").write_bytes(b"no archive")
    says(lambda: data.load("CUB", manual_dir=folder))
    for ending in ("npz", "safetensors", "pth", "none"):
        path = folder / f"{name}.{ending}"
        says(lambda path=path: read_weights(path))
        path.write_bytes(b"no weights")
        says(lambda path=path: read_weights(path))
    np.savez(path := folder / f"{name}.npz", **{"w\x1b[2J": np.zeros(3)})
    says(lambda: load_pretrained(ResNet50(), path))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_in_an_archive_is_printable(tmp_path, name):
    with tarfile.open(tmp_path / "a.tar", "w"):
        pass
    says(lambda: dict(Archive(tmp_path / "a.tar").read([name] * 20)))


def test_warnings_are_printable(tmp_path):
    path = tmp_path / NAMES[0]
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(path, "png", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning) as told:
        data.read_picture(path)
    assert str(told[0].message).isprintable()


@pytest.mark.parametrize("name", NAMES)
def test_lines_of_scripts_are_lines(name, capsys):
    def main():
        raise InputError(f"expected a file, got {name}: give one")

    with pytest.raises(SystemExit):
        command_line.guarded(main)
    run_record._say(f"commit {name}")
    first, second = capsys.readouterr().err.splitlines()
    assert first.isprintable() and second.isprintable()


def test_names_stay_in_their_cells():
    assert _cell("a | b\n| c") == r"a \| b\n\| c"


def test_classes_of_any_name_have_a_fingerprint(tmp_path):
    for name in (b"\xff", b"a"):
        (tmp_path / os.fsdecode(name)).mkdir()
        (tmp_path / os.fsdecode(name) / "0.png").write_bytes(picture())
    assert len(data.load_folder(tmp_path).fingerprint) == 32
