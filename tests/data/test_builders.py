import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jxai import data
from jxai.data import builders

LOAD = "from jxai import data; print(data.load('hebrew').fingerprint)"


def test_is_a_tfds_builder_with_random_access(prepared_root):
    data.load("pictograms")
    records = tfds.data_source(
        "jxai_embedded/pictograms",
        split="pictures",
        data_dir=prepared_root,
        builder_kwargs={"file_format": "array_record"},
    )
    archive = builders.read_archive("pictograms")
    assert len(records) == 1425
    for i in (1424, 0, 700):
        np.testing.assert_array_equal(records[i]["image"], archive["images"][i])
        assert records[i]["label"] == archive["labels"][i]
    assert "tensorflow" not in sys.modules


def test_prepares_quietly_and_once(tmp_path, capfd):
    directory = builders.prepare("hebrew", tmp_path)
    assert capfd.readouterr() == ("", "")
    written = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert builders.prepare("hebrew", tmp_path) == directory
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == written
    assert [path.name for path in tmp_path.iterdir()] == ["jxai_embedded"]


def test_an_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(self, *_args, **_options):
        Path(self.data_dir).mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(builders.JxaiEmbedded, "download_and_prepare", interrupted)
        with pytest.raises(KeyboardInterrupt):
            builders.read("hebrew", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() or path.name.startswith(".preparing")]
    assert len(builders.read("hebrew", tmp_path)) == 27 * 36


def test_of_two_preparations_at_once_the_first_stays(tmp_path, monkeypatch):
    original = builders.JxaiEmbedded.download_and_prepare
    first = []

    def overtaken(self, *args, **options):
        monkeypatch.setattr(builders.JxaiEmbedded, "download_and_prepare", original)
        directory = builders.prepare("hebrew", tmp_path)
        first.append((directory, directory.stat().st_ino))
        return original(self, *args, **options)

    monkeypatch.setattr(builders.JxaiEmbedded, "download_and_prepare", overtaken)
    directory = builders.prepare("hebrew", tmp_path)
    assert first == [(directory, directory.stat().st_ino)]
    assert [path.name for path in tmp_path.iterdir()] == ["jxai_embedded"]
    assert len(builders.read("hebrew", tmp_path)) == 27 * 36


@pytest.mark.slow
def test_processes_that_prepare_at_once_agree(monkeypatch, tmp_path):
    monkeypatch.setenv("JXAI_DATA", str(tmp_path))
    running = [
        subprocess.Popen([sys.executable, "-c", LOAD], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    printed = [process.communicate(timeout=120)[0].strip() for process in running]
    assert printed == [data.load("hebrew").fingerprint] * 3


@pytest.mark.slow
def test_a_killed_preparation_is_made_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("JXAI_DATA", str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", LOAD.replace("hebrew", "latin")])
    while not list(tmp_path.glob(".preparing-*")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert not (tmp_path / "jxai_embedded/latin/1.0.0").exists()
    assert len(data.load("latin")) == 47 * 120


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "gone"])
def test_a_damaged_copy_is_named(prepared_root, tmp_path, damage):
    shutil.copytree(builders.prepare("hebrew", prepared_root), tmp_path / "jxai_embedded/hebrew/1.0.0")
    (records,) = tmp_path.rglob("*array_record*")
    content = records.read_bytes()
    if damage == "truncated":
        records.write_bytes(content[: len(content) // 2])
    elif damage == "overwritten":
        records.write_bytes(content[:70_000] + bytes(200) + content[70_200:])
    else:
        records.unlink()
    with pytest.raises(ValueError, match=r"hebrew/1\.0\.0, got a damaged one .*: delete that directory"):
        builders.read("hebrew", tmp_path)


def test_an_incomplete_copy_is_named(tmp_path):
    foreign = tmp_path / "jxai_embedded/hebrew/1.0.0/something"
    foreign.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"hebrew/1\.0\.0, got an incomplete one: delete that directory"):
        builders.prepare("hebrew", tmp_path)
    assert foreign.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ValueError, match=r"below .*file/below, got .*: set JXAI_DATA"):
        builders.prepare("hebrew", tmp_path / "file/below")
