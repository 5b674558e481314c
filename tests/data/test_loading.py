"""Which prepared copy is read: that of the files that were named, as they are now."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from made_data import MADE, encoded

from jxai import data
from jxai.data import listing as listing_module
from jxai.data import loading
from jxai.data.decode import decode
from jxai.data.stamps import stamp


def shown(source):
    return [source.image(i).tobytes() for i in range(len(source))]


def as_files(small, **changes):
    """What the pictures of a data set look like, in its order."""
    names = [name for names in small.classes.values() for name in names]
    return [decode({**small.files, **changes}[name], name="expected").tobytes() for name in names]


def other(small, *, seed=1):
    """The same data set, but each picture another one."""
    pictures = {name for names in small.classes.values() for name in names}
    files = {
        name: encoded(seed * 1000 + i, width=14, height=10) if name in pictures else content
        for i, (name, content) in enumerate(small.files.items())
    }
    return dataclasses.replace(small, files=files)


@pytest.mark.parametrize("packed", [False, True])
def test_each_folder_gives_its_own_pictures(small_cub, tmp_path, packed):
    # easy-few-shot-learning#41: several copies of a data set about.
    small, _ = small_cub
    first = small.write(tmp_path / "A", packed=packed)
    second = other(small).write(tmp_path / "B", packed=packed)
    for _ in range(2):
        a, b = (data.load("CUB", manual_dir=place) for place in (first, second))
        assert shown(a) == as_files(small) and shown(b) == as_files(other(small))
        assert a.fingerprint != b.fingerprint
        loading._whole.cache_clear()
    for place in ("nowhere", "A/CUB_200_2011/README"):
        with pytest.raises(ValueError, match=rf"expected a folder as manual_dir, got .*{place}: no such"):
            data.load("CUB", manual_dir=tmp_path / place)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="got none of them: put there"):
        data.load("CUB", manual_dir=tmp_path / "empty")


def keeping_times(path, content):
    """As a careful copy does: another content, of the same length and time of modification."""
    about = path.stat()
    assert len(content) <= about.st_size
    path.write_bytes(content.ljust(about.st_size, b"\0"))  # behind the end of a picture nobody looks
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def moving_there(path, content):
    beside = path.with_name("beside")
    beside.write_bytes(path.read_bytes())
    os.utime(beside, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    keeping_times(beside, content)
    beside.replace(path)


def writing(path, content):
    path.write_bytes(content)


@pytest.mark.parametrize("change", [keeping_times, moving_there, writing])
@pytest.mark.parametrize("short_side", [None, 5])
def test_a_picture_that_changed_is_read_anew(small_cub, change, short_side):
    small, place = small_cub
    before = data.load("CUB", short_side=short_side)
    name = next(iter(small.classes.values()))[1]
    smaller = encoded(7, width=3, height=3)  # fewer bytes
    change(place / name, smaller)
    after = data.load("CUB", short_side=short_side)
    assert after.fingerprint != before.fingerprint
    np.testing.assert_array_equal(after.image(1), decode(smaller, name="expected"))
    assert shown(before)[0] == shown(after)[0] and shown(before)[2:] == shown(after)[2:]


def test_changed_rules_and_programs_have_copies_of_their_own(small_cub, monkeypatch):
    made = [data.prepare("CUB").directory]
    monkeypatch.setattr(loading, "__version__", "another")
    made.append(data.prepare("CUB").directory)
    small, _ = small_cub
    fewer = dataclasses.replace(small.domain, per_class=2, num_pictures=None)
    monkeypatch.setattr(loading, "PAPER_DOMAINS", {"CUB": fewer})
    made.append(data.prepare("CUB").directory)
    assert len(data.load("CUB")) < 12 and len(set(made)) == 3


def test_a_class_that_was_added_is_seen(small_cub):
    _, place = small_cub
    data.load("CUB")
    tables = place / "CUB_200_2011"
    with (tables / "classes.txt").open("a") as file:
        file.write("5 005.Another\n")
    with pytest.raises(ValueError, match=r"expected 4 classes .* got 5 classes"):
        data.load("CUB")


def test_what_was_put_away_is_remembered(small_cub):
    _, place = small_cub
    before = data.load("CUB")
    place.rename(place.with_name("elsewhere"))
    loading._whole.cache_clear()
    assert shown(data.load("CUB")) == shown(before)
    with pytest.raises(ValueError, match="got none of them: put there"):
        data.load("CUB", short_side=5)
    with pytest.raises(ValueError, match="no such folder"):
        data.load("CUB", manual_dir=place)


def test_files_that_change_while_they_are_prepared_are_told(small_cub, monkeypatch):
    small, place = small_cub
    real = loading.list_domain

    def changing(domain, directory):
        found = real(domain, directory)
        (place / small.classes["002.Laysan_Albatross"][0]).write_bytes(encoded(3))
        return found

    monkeypatch.setattr(loading, "list_domain", changing)
    with pytest.raises(
        ValueError, match=r"expected the files of CUB to stay as they are .*: prepare it again"
    ):
        data.load("CUB")
    monkeypatch.setattr(loading, "list_domain", real)
    assert len(data.load("CUB")) == 12


def test_a_copy_without_some_pictures_is_told_where_all_are_asked_for(small_cub):
    small, place = small_cub
    name = small.classes["002.Laysan_Albatross"][1]
    (place / name).write_bytes(b"no picture")
    assert data.prepare("CUB", skip_corrupt=True).skipped == (name,)
    assert len(data.load("CUB")) == 11
    with pytest.raises(ValueError, match=rf"got 1 in CUB that are not, left out .* {name}"):
        data.prepare("CUB")


@pytest.mark.parametrize("name", list(MADE))
@pytest.mark.parametrize("packed", [False, True])
def test_everything_that_a_layout_reads_counts(made, name, packed, tmp_path):
    small = made(name)
    if packed and not small.archives:
        pytest.skip("it has no archives")
    place = small.write(tmp_path / name, packed=packed)
    domain = small.domain

    def key():
        parts = [part if (place / part).exists() else archive for part, archive in domain.parts.items()]
        return stamp(place, filter(None, parts))

    read = set()
    real = {Path: Path.open, listing_module: listing_module.read_bytes}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Path, "open", lambda path, *how, **more: (read.add(path), real[Path](path, *how, **more))[1]
        )
        patch.setattr(
            listing_module, "read_bytes", lambda path: (read.add(path), real[listing_module](path))[1]
        )
        loading.list_domain(domain, place)
    names = [name for names in small.classes.values() for name in names]
    files = read | {place / name for name in names if (place / name).exists()}
    if packed:
        files |= {path for path in place.rglob("*") if path.is_file()}
    for file in sorted(file for file in files if file.is_relative_to(place)):
        before = key()
        os.utime(file, ns=(1, 1))
        assert key() != before, file
