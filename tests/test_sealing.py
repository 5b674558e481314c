"""Files that are written whole and sealed, and the lock of a folder."""

import json
import threading

import pytest

from jxai import sealing
from jxai.locks import FileLock


def test_a_file_is_replaced_and_not_written_through_a_link(tmp_path):
    victim, place = tmp_path / "victim", tmp_path / "a.json"
    victim.write_text("precious")
    place.symlink_to(victim)
    for predictable in (".a.json.tmp", "a.json.tmp"):
        (tmp_path / predictable).symlink_to(victim)
    sealing.write_whole(place, "new")
    assert place.read_text() == "new" and not place.is_symlink()
    assert victim.read_text() == "precious"


def test_many_who_write_at_once_leave_what_one_of_them_wrote(tmp_path):
    contents = [str(number) * 100_000 for number in range(8)]
    threads = [
        threading.Thread(target=sealing.write_whole, args=(tmp_path / "a", content)) for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_text() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_fails_leaves_the_old_file_alone(tmp_path):
    def half(file):
        file.write(b"half")
        raise KeyboardInterrupt

    sealing.write_whole(tmp_path / "a", b"old")
    with pytest.raises(KeyboardInterrupt):
        sealing.write_whole(tmp_path / "a", half)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]
    with pytest.raises(FileNotFoundError):
        sealing.write_whole(tmp_path / "nowhere" / "a", "new")


def test_a_seal_shows_every_change():
    about = {"step": 3, "values": [0.1, float("inf")], "name": "ü", "nested": {"a": None, "b": (1, 2)}}
    sealed = sealing.seal(about)
    assert sealing.is_sealed(sealed) and not sealing.is_sealed(about)
    assert sealing.unseal(json.loads(json.dumps(sealed))) == {**about, "nested": {"a": None, "b": [1, 2]}}
    changed = [{**sealed, "step": 4}, {**sealed, "more": 1}, {**sealed, "digest": "0" * 32}]
    changed += [{name: value for name, value in sealed.items() if name != without} for without in sealed]
    for one in changed:
        with pytest.raises(ValueError, match="a description"):
            sealing.unseal(one)


def test_a_digest_tells_where_parts_end():
    found = [sealing.digest_of(*parts) for parts in ((b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""))]
    assert len(set(found)) == 4 and {len(one) for one in found} == {16}


def test_a_lock_is_not_taken_through_a_link(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".in_use").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="expected a lock of our own, got a symbolic link: remove it"):
        FileLock(tmp_path / ".in_use").take()
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("there", [b"", b"\xff\xfe\0", b"process 1 on here"])
def test_whatever_a_lock_holds_it_is_taken_and_says_by_whom(tmp_path, there):
    path = tmp_path / ".in_use"
    path.write_bytes(there)
    first, second = FileLock(path), FileLock(path)
    assert first.take() and not first.take()
    with pytest.raises(BlockingIOError, match=r"process \d+ on "):
        second.take()
    path.write_bytes(there)  # by somebody who does not ask
    with pytest.raises(BlockingIOError):
        second.take()
    first.release()
    assert second.take()
    second.release()
