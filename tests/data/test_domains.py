import importlib.resources
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from jxai import data
from jxai.data import builders

ROOT = Path(__file__).resolve().parents[2]

# Classes and pictures, from the table in data/README.md.
SIZES = {
    "latin": (47, 47 * 120),
    "hebrew": (27, 27 * 36),
    "thai": (56, 2877),
    "arabic": (30, 30 * 36),
    "georgian": (33, 33 * 26),
    "fashion": (10, 10 * 100),
    "pictograms": (285, 285 * 5),
}


def test_the_registry_is_the_benchmark():
    assert list(data.DOMAINS) == list(SIZES)
    assert all(name == domain.name for name, domain in data.DOMAINS.items())


@pytest.mark.parametrize("name", SIZES)
def test_a_domain_is_its_archive(name):
    source, archive = data.load(name), builders.read_archive(name)
    expected = archive["images"]
    if expected.ndim == 3:
        expected = np.stack([expected] * 3, axis=-1)
    np.testing.assert_array_equal(source.images(np.arange(len(source)), 32), expected)
    np.testing.assert_array_equal(source.labels, archive["labels"])
    assert source.labels.dtype == np.int32
    assert source.class_names == tuple(archive["class_names"])
    assert (len(source.class_names), len(source)) == SIZES[name]
    assert source.name == name and source.split == "all"


@pytest.mark.parametrize("name", SIZES)
def test_a_domain_ships_with_its_license(name):
    table = (importlib.resources.files("jxai.data") / "archives" / "README.md").read_text(encoding="utf-8")
    assert f"| `{name}`" in table
    assert data.DOMAINS[name].license and data.DOMAINS[name].description


def test_the_metadata_names_every_license_of_the_archives():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = set(re.findall(r"[\w.-]+", project["license"])) - {"AND", "WITH"}
    folder = importlib.resources.files("jxai.data") / "archives"
    table = [
        line for line in (folder / "README.md").read_text("utf-8").splitlines() if line.startswith("| `")
    ]
    of_files = {one for line in table for one in re.findall(r"[\w.-]+", line.split("|")[-2]) if one in named}
    assert named - of_files == {"BSD-3-Clause"}  # of ImageNet's class names
    assert len(table) == len(SIZES)
    assert all(re.search(r"MIT|GPL|Aenigma", line.split("|")[-2]) for line in table)
    assert (folder / "GPL-2.txt").is_file() and (folder / "NOTICES.txt").is_file()


@pytest.mark.parametrize("name", SIZES)
def test_the_settings_of_a_domain_can_be_drawn(name):
    source = data.load(name)
    for shot, num_query in data.DOMAINS[name].settings:
        support, query = data.episode_indices(source, way=5, shot=shot, num_query=num_query, seed=0, index=0)
        assert (len(support), len(query)) == (5 * shot, 5 * num_query)


def test_splits_are_by_class_and_numbered_anew():
    whole = data.load("latin")
    names, pictures = [], 0
    for split, start, step, classes in (("base", 0, 2, 24), ("validation", 1, 4, 12), ("novel", 3, 4, 11)):
        part = data.load("latin", split=split)
        assert part.split == split and len(part.class_names) == classes
        assert part.class_names == whole.class_names[start::step]
        np.testing.assert_array_equal(np.unique(part.labels), np.arange(classes))
        rows = np.flatnonzero(np.isin(whole.labels, np.arange(47)[start::step]))
        np.testing.assert_array_equal(
            part.images(np.arange(len(part)), 32), whole.images(rows, 32), err_msg=split
        )
        assert [part.class_names[c] for c in part.labels] == [
            whole.class_names[c] for c in whole.labels[rows]
        ]
        names += part.class_names
        pictures += len(part)
    assert sorted(names) == sorted(whole.class_names) and pictures == len(whole)


def test_loading_again_shares_the_pictures():
    assert data.load("hebrew") is data.load("hebrew")
    assert data.load("hebrew", split="base").pictures is data.load("hebrew").pictures


def test_an_unknown_domain_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"one of latin, hebrew, thai, .*CUB, .*Plantae, got 'klingon'"):
        data.load("klingon")


def test_an_unknown_split_lists_the_known_ones(monkeypatch, tmp_path):
    monkeypatch.setenv("JXAI_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"one of all, base, validation, novel, got 'train'"):
        data.load("latin", split="train")
    assert not list(tmp_path.iterdir())  # said before anything is prepared
