import dataclasses
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from made_data import encoded

from jxai import data
from jxai.data import loading, prepared
from jxai.data.decode import decode
from jxai.data.listing import Listing


@dataclasses.dataclass(frozen=True)
class Held:
    """Files in memory, given in another order than the listing's."""

    content: dict[str, bytes]

    def read(self, names):
        for name in sorted(names, reverse=True):
            yield name, self.content[name]


CONTENT = {
    f"{c}/{i}": encoded(10 * ord(c) + i, kind="png" if i == 1 else "jpeg", width=30, height=20)
    for c in "abcd"
    for i in range(3)
}


def listing(content: dict[str, bytes] = CONTENT, class_names: str = "abcd", **options) -> Listing:
    classes = [(c, [name for name in content if name[0] == c]) for c in class_names]
    return Listing(classes, Held(content), **options)


def prepare(directory: Path, held: Listing, **options) -> prepared.Prepared:
    options = {"name": "toy", "short_side": None, "skip_corrupt": False, "progress": False, **options}
    return prepared.prepare(directory, lambda: held, **options)


def test_a_prepared_domain_is_its_files(tmp_path):
    source = prepared.read(prepare(tmp_path / "toy", listing()), "toy")
    assert source.name == "toy" and source.class_names == ("a", "b", "c", "d") and len(source) == 12
    np.testing.assert_array_equal(source.labels, np.repeat(np.arange(4), 3))
    for i, content in enumerate(CONTENT.values()):
        np.testing.assert_array_equal(source.image(i), decode(content, name="expected"))
    assert source.restrict("base").class_names == ("a", "c")
    np.testing.assert_array_equal(source.restrict("novel").image(2), source.image(11))


def test_splits_of_its_own_are_kept(tmp_path):
    own = listing(class_splits=("novel", "base", "base", "validation"))
    source = prepared.read(prepare(tmp_path / "toy", own), "toy")
    assert source.restrict("base").class_names == ("b", "c") and source.restrict("novel").class_names == (
        "a",
    )


class Forwards(Held):
    def read(self, names):
        yield from ((name, self.content[name]) for name in names)


def test_the_order_of_reading_does_not_matter(tmp_path):
    backwards = prepared.read(prepare(tmp_path / "one", listing()), "toy")
    held = dataclasses.replace(listing(), files=Forwards(CONTENT))
    forwards = prepared.read(prepare(tmp_path / "two", held), "toy")
    assert forwards.fingerprint == backwards.fingerprint
    np.testing.assert_array_equal(forwards.array(8), backwards.array(8))


def test_a_domain_is_prepared_once(tmp_path):
    first = prepare(tmp_path / "toy", listing())
    again = prepared.prepare(
        tmp_path / "toy", pytest.fail, name="toy", short_side=None, skip_corrupt=False, progress=False
    )
    assert first == again
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == [".lock", "2"]


def test_pictures_can_be_stored_smaller(tmp_path):
    small = prepared.read(prepare(tmp_path / "toy", listing(), short_side=10), "toy")
    assert {small.image(i).shape for i in range(12)} == {(10, 15, 3)}
    as_they_are = prepared.read(prepare(tmp_path / "same", listing(), short_side=20), "toy")
    np.testing.assert_array_equal(as_they_are.image(5), decode(CONTENT["b/2"], name="expected"))
    assert small.fingerprint != as_they_are.fingerprint


CORRUPT = {**CONTENT, "b/1": CONTENT["b/1"][:200], "c/0": b"no picture"}


def test_corrupt_pictures_are_named(tmp_path):
    said = (
        r"got 2 of 12 in toy that are not: c/0, b/1 .*leave them out with data\.prepare\(skip_corrupt=True\)"
    )
    with pytest.raises(ValueError, match=said):
        prepare(tmp_path / "toy", listing(CORRUPT))
    assert [path.name for path in (tmp_path / "toy").iterdir()] == [".lock"]


def test_corrupt_pictures_can_be_left_out_and_are_counted(tmp_path):
    done = prepare(tmp_path / "toy", listing(CORRUPT), skip_corrupt=True)
    assert done.skipped == ("b/1", "c/0")
    assert prepare(tmp_path / "toy", listing()).skipped == done.skipped  # told again from the index
    source = prepared.read(done, "toy")
    np.testing.assert_array_equal(np.bincount(source.labels), [3, 2, 2, 3])
    np.testing.assert_array_equal(source.image(4), decode(CONTENT["b/2"], name="expected"))


def test_classes_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected class names that differ, got 'a' more than once in 'toy'"):
        prepare(tmp_path / "toy", listing(class_names="aba"))


def test_a_picture_that_is_listed_twice_is_named(tmp_path):
    twice = Listing([("a", ["a/0", "a/1"]), ("b", ["a/1"])], Held(CONTENT))
    with pytest.raises(ValueError, match="expected every picture in one class, got a/1 again"):
        prepare(tmp_path / "toy", twice)


def test_an_interrupted_preparation_restarts_cleanly(tmp_path):
    class Interrupted(Held):
        def read(self, names):
            yield from list(super().read(names))[:5]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "toy", dataclasses.replace(listing(), files=Interrupted(CONTENT)))
    assert [path.name for path in (tmp_path / "toy").iterdir()] == [".lock"]
    left = tmp_path / "toy/.preparing-2"  # as after a kill
    left.mkdir()
    (left / "pictures.array_record").write_bytes(b"half")
    assert len(prepared.read(prepare(tmp_path / "toy", listing()), "toy")) == 12
    assert not left.exists()


def test_one_process_prepares_while_others_wait(tmp_path):
    # Threads stand for processes: the lock is of the open file.
    calls, done = [], []

    def slow() -> Listing:
        calls.append(None)
        time.sleep(0.2)
        return listing()

    def run() -> None:
        options = {"name": "toy", "short_side": None, "skip_corrupt": False, "progress": False}
        done.append(prepared.prepare(tmp_path / "toy", slow, **options))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(done) == 3 and len({one.directory for one in done}) == 1


SLOW = """
import time
from pathlib import Path
from jxai.data import prepared
from jxai.data.listing import Listing

class Slow:
    def read(self, names):
        for name in names:
            time.sleep(0.005)
            yield name, Path({pictures!r}, name).read_bytes()

names = sorted(path.name for path in Path({pictures!r}).iterdir())
listing = Listing([(name, [name]) for name in names], Slow())
prepared.prepare(Path({target!r}), lambda: listing, name="toy", short_side=None, skip_corrupt=False, progress=False)
"""


def written_since(began: int, path: Path) -> bool:
    try:
        return path.stat().st_mtime_ns > began
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_preparation_that_is_killed_again_and_again_is_made_anew(tmp_path):
    pictures, target = tmp_path / "pictures", tmp_path / "toy"
    pictures.mkdir()
    for i in range(400):
        (pictures / f"{i:04}").write_bytes(encoded(i))
    program = SLOW.format(pictures=str(pictures), target=str(target))
    records = target / ".preparing-2/pictures.array_record"
    for delay in np.random.default_rng(0).uniform(0, 0.5, 25):  # all of it takes 2 seconds at least
        began = time.time_ns()
        process = subprocess.Popen([sys.executable, "-c", program])
        while process.poll() is None and not written_since(began, records):
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
        assert not (target / "2").exists() and records.exists()
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert sorted(path.name for path in target.iterdir()) == [".lock", "2"]
    source = prepared.read(prepared.Prepared(target / "2"), "toy")
    assert len(source) == 400
    np.testing.assert_array_equal(source.image(399), decode(encoded(399), name="expected"))
    straight = SLOW.format(pictures=str(pictures), target=str(tmp_path / "straight"))
    subprocess.run([sys.executable, "-c", straight], check=True, timeout=120)
    other = prepared.read(prepared.Prepared(tmp_path / "straight" / "2"), "toy")
    assert source.fingerprint == other.fingerprint
    records = [root / "2" / "pictures.array_record" for root in (target, tmp_path / "straight")]
    assert records[0].read_bytes() == records[1].read_bytes()


@pytest.mark.parametrize("file", ["index.npz", "pictures.array_record"])
@pytest.mark.parametrize("damage", ["truncated", "overwritten", "gone"])
def test_a_damaged_copy_is_named(tmp_path, file, damage):
    done = prepare(tmp_path / "toy", listing())
    path = done.directory / file
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "overwritten":
        path.write_bytes(bytes(len(content) // 2) + content[len(content) // 2 :])
    else:
        path.unlink()
    with pytest.raises(ValueError, match=rf"expected .*{done.directory}"):
        source = prepared.read(done, "toy")
        for i in range(len(source)):
            source.image(i)


def test_damage_that_is_found_late_names_the_picture(tmp_path, monkeypatch):
    source = prepared.read(prepare(tmp_path / "toy", listing()), "toy")
    # Of another picture, so well formed.
    monkeypatch.setattr(type(source.pictures.records), "__getitem__", lambda *_: CONTENT["a/1"])
    with pytest.raises(
        ValueError, match=r"expected a prepared domain .*other bytes than were written of a/2"
    ):
        source.image(2)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(
        ValueError, match=r"expected to write prepared data below .*/file/toy, got .*: set JXAI_DATA"
    ):
        prepare(tmp_path / "file/toy", listing())


def test_a_source_can_be_sent_to_worker_processes(tmp_path):
    source = prepared.read(prepare(tmp_path / "toy", listing()), "toy")
    source.image(0)  # opens the file
    sent = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(sent.image(7), source.image(7))


def test_threads_read_what_one_reads(tmp_path):
    source = prepared.read(prepare(tmp_path / "toy", listing()), "toy")
    options = {"way": 2, "shot": 1, "num_query": 2, "seed": 0, "num_episodes": 40, "image_size": 12}
    dataset = data.episode_dataset(source, **options, augment="resized-crop")
    one = [batch.query for batch in data.iterate(dataset, num_threads=0)]
    np.testing.assert_array_equal([batch.query for batch in data.iterate(dataset, num_threads=4)], one)


@pytest.mark.slow
def test_worker_processes_read_what_one_reads(tmp_path):
    source = prepared.read(prepare(tmp_path / "toy", listing()), "toy")
    options = {"way": 2, "shot": 1, "num_query": 2, "seed": 0, "num_episodes": 20, "image_size": 12}
    dataset = data.episode_dataset(source, **options, augment="crop-erase")
    one = [batch.query for batch in data.iterate(dataset, num_threads=0)]
    batches = data.iterate(dataset, num_threads=2, num_workers=2)
    taken = [next(batches).query for _ in range(7)]
    state = batches.get_state()
    batches.close()
    resumed = data.iterate(dataset)  # in threads: the state is the same
    resumed.set_state(state)
    np.testing.assert_array_equal([*taken, *(batch.query for batch in resumed)], one)


def test_a_domain_of_the_papers_is_loaded_by_name(small_cub):
    small, place = small_cub
    source = data.load("CUB")
    assert source.name == "CUB" and source.class_names == tuple(small.classes) and len(source) == 12
    names = [name for names in small.classes.values() for name in names]
    for i in (11, 0, 5):
        np.testing.assert_array_equal(source.image(i), decode(small.files[names[i]], name="expected"))
    assert data.load("CUB", split="validation").class_names == ("002.Laysan_Albatross",)
    assert data.load("CUB") is source
    other = data.load("CUB", manual_dir=place, short_side=5)
    assert other.image(0).shape == (5, 7, 3)
    assert data.prepare("CUB").directory.parents[1] == place.parents[1] / "prepared/CUB/full"


def test_an_archive_gives_the_domain_that_its_files_give(small_cub, tmp_path, monkeypatch):
    small, _ = small_cub
    unpacked = data.load("CUB")
    monkeypatch.setenv("JXAI_DATA", str(tmp_path / "other"))
    packed = data.load("CUB", manual_dir=small.write(tmp_path / "packed", packed=True))
    assert packed.fingerprint == unpacked.fingerprint
    np.testing.assert_array_equal(packed.array(9), unpacked.array(9))


def test_what_somebody_has_to_get_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("JXAI_DATA", str(tmp_path))
    loading._whole.cache_clear()
    for name, domain in data.PAPER_DOMAINS.items():
        with pytest.raises(
            ValueError, match=rf"in {tmp_path}/manual/{name}, got none of them: put there"
        ) as told:
            data.load(name)
        assert domain.needs in str(told.value)


def test_a_progress_bar_is_shown_if_asked(small_cub, capfd, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    data.prepare("CUB")
    assert capfd.readouterr() == ("", "")
    data.prepare("CUB", short_side=6, progress=True)
    shown = capfd.readouterr()
    assert shown.out == "" and "12/12" in shown.err


def test_options_are_checked():
    with pytest.raises(
        ValueError, match=r"one of latin, .*pictograms, miniImageNet, .*Plantae, got 'klingon'"
    ):
        data.prepare("klingon")
    with pytest.raises(ValueError, match="expected `short_side` as an integer of at least 1, got 0"):
        data.prepare("CUB", short_side=0)
    with pytest.raises(ValueError, match="expected no manual_dir and no short_side for 'latin'"):
        data.prepare("latin", short_side=16)


def test_prepared_data_lives_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("JXAI_DATA", str(tmp_path / "given"))
    assert prepared.data_root() == tmp_path / "given"
    monkeypatch.delenv("JXAI_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert prepared.data_root() == tmp_path / "jxai"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert prepared.data_root() == tmp_path / "home/.cache/jxai"
