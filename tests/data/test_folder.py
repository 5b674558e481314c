from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jxai import data
from jxai.data import folder

RNG = np.random.default_rng(0)
PIXELS = {
    name: RNG.integers(0, 256, (4, 12, 12, 3), np.uint8) for name in ("ant", "bee", "cat", "dog", "elk")
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "animals"
    for name in reversed(PIXELS):
        (root / name).mkdir(parents=True)
        for i in (2, 0, 3, 1):
            Image.fromarray(PIXELS[name][i]).save(root / name / f"{i}.png")
    return root


def test_classes_and_pictures_are_in_sorted_order(pictures):
    source = data.load_folder(pictures)
    assert source.name == "animals" and source.class_names == tuple(PIXELS)
    np.testing.assert_array_equal(source.labels, np.repeat(np.arange(5), 4))
    np.testing.assert_array_equal(source.images(np.arange(20), 12), np.concatenate(list(PIXELS.values())))


def test_splits_are_by_class(pictures):
    assert data.load_folder(pictures, split="base").class_names == ("ant", "cat", "elk")
    novel = data.load_folder(str(pictures), split="novel")
    assert novel.class_names == ("dog",)
    np.testing.assert_array_equal(novel.labels, [0] * 4)
    np.testing.assert_array_equal(novel.image(1), PIXELS["dog"][1])
    with pytest.raises(ValueError, match="expected a split"):
        data.load_folder(pictures, split="test")


def test_more_than_the_memory_takes_is_read_when_asked_for(pictures, monkeypatch):
    kept = data.load_folder(pictures)
    monkeypatch.setattr(folder, "_MEMORY_LIMIT", 1000)
    read = data.load_folder(pictures)
    assert isinstance(kept.pictures, np.ndarray) and not isinstance(read.pictures, np.ndarray)
    assert read.fingerprint == kept.fingerprint
    np.testing.assert_array_equal(read.array(12), kept.array(12))
    np.testing.assert_array_equal(read.array(8), kept.array(8))


def test_pictures_of_different_sizes(pictures):
    Image.new("L", (30, 20)).save(pictures / "ant/4.jpg")
    source = data.load_folder(pictures)
    assert source.image(4).shape == (20, 30, 3)
    assert source.array(16).shape == (21, 16, 16, 3)


def test_hidden_files_and_files_beside_the_classes_are_left_out(pictures):
    (pictures / "ant/.DS_Store").write_bytes(b"no picture")
    (pictures / ".cache").mkdir()
    (pictures / "LICENCE").write_text("free")
    assert len(data.load_folder(pictures)) == 20


def test_a_picture_saved_twice_is_one(pictures):
    (pictures / "ant/copy.png").write_bytes((pictures / "bee/0.png").read_bytes())
    source = data.load_folder(pictures)
    assert len(source) == 21 and len(np.unique(source.digests)) == 20


@pytest.mark.parametrize("content", [b"", b"no picture", "half"])
@pytest.mark.parametrize("split", ["all", "novel"])
def test_an_unreadable_file_is_named(pictures, content, split):
    path = pictures / "dog/2.png"
    path.write_bytes(path.read_bytes()[:200] if content == "half" else content)
    with pytest.raises(
        ValueError, match=r"expected a readable image, got .*animals/dog/2\.png .*: repair or"
    ):
        data.load_folder(pictures, split=split)


def test_a_folder_inside_a_class_is_named(pictures):
    (pictures / "dog/more").mkdir()
    with pytest.raises(ValueError, match=r"expected a readable image, got .*dog/more"):
        data.load_folder(pictures)


def test_damage_that_is_found_late_is_named(pictures, monkeypatch):
    monkeypatch.setattr(folder, "_MEMORY_LIMIT", 1000)
    path = pictures / "dog/2.png"
    path.write_bytes(path.read_bytes()[:200])
    source = data.load_folder(pictures)
    with pytest.raises(ValueError, match=r"expected a readable image, got .*dog/2\.png"):
        source.images(np.arange(20), 12)
    path.unlink()
    with pytest.raises(ValueError, match=r"expected a readable image, got .*dog/2\.png .*No such file"):
        source.image(14)


def test_a_folder_of_another_kind_is_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match=r"got .*/nowhere: no such folder"):
        data.load_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"got .*/ant without any"):
        data.load_folder(pictures / "ant")
    (pictures / "fox").mkdir()
    with pytest.raises(ValueError, match=r"expected pictures in every class folder, got none in .*/fox"):
        data.load_folder(pictures)
