"""What a stopped script goes on from is as it was written, or named and made anew: never other numbers."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from experiments.smooth_taylor import paper as smooth_taylor
from jxai.cli.running.compilation_cache import Programs
from jxai.cli.running.unfinished_rows import Rows
from jxai.results_log import ResultsLog

DAMAGES = ("cut", "zeros", "a flipped bit", "others in between", "another's place")


def damaged(content: bytes, damage: str, at: int, draw: np.random.Generator) -> bytes:
    """The bytes after a mishap at a place."""
    match damage:
        case "cut":
            return content[:at]
        case "zeros":
            return content[:at] + bytes(len(content) - at)
        case "a flipped bit":
            return content[:at] + bytes([content[at] ^ 1 << int(draw.integers(8))]) + content[at + 1 :]
        case "others in between":
            return content[:at] + draw.bytes(5) + content[at:]
        case _:  # as of two that write at once
            half = len(content) // 2
            return content[half : 2 * half] + content[:half] + content[2 * half :]


def mishaps(content: bytes, count: int = 12):
    draw = np.random.default_rng(len(content))
    for damage in DAMAGES:
        for at in draw.integers(0, len(content), count if damage != DAMAGES[-1] else 1):
            yield damaged(content, damage, int(at), draw)


ROWS = np.random.default_rng(0).normal(size=(6, 3, 5)).astype(np.float32)


def rows(path, count=6):
    found = Rows(path, (3, 5), np.dtype(np.float32))
    found.cut(found.count)
    for number in range(found.count, count):
        found.add(ROWS[number : number + 1])
    return found


def test_rows_are_gone_on_from_as_far_as_they_are_whole(tmp_path, capsys):
    path = tmp_path / "unfinished" / "method"
    np.testing.assert_array_equal(rows(path).array(), ROWS)
    whole = path.read_bytes()
    for content in mishaps(whole):
        path.write_bytes(content)
        again = Rows(path, (3, 5), np.dtype(np.float32))
        assert again.count <= 6
        if again.count * len(whole) // 6 < len(content) - len(whole) // 6:
            assert f"of {path} is damaged: made anew" in capsys.readouterr().err
        np.testing.assert_array_equal(rows(path).array()[:6], ROWS)
        path.unlink()


def test_rows_of_another_method_are_not_gone_on_from(tmp_path):
    rows(tmp_path / "one" / "method")
    for other in ("two/method", "one/other"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_bytes((tmp_path / "one" / "method").read_bytes())
        assert Rows(tmp_path / other, (3, 5), np.dtype(np.float32)).count == 0


def test_rows_that_change_meanwhile_are_an_error(tmp_path):
    found = rows(tmp_path / "method")
    content = bytearray((tmp_path / "method").read_bytes())
    content[-1] ^= 1
    (tmp_path / "method").write_bytes(content)
    with pytest.raises(
        OSError, match=r"expected 6 rows as they were written in .*method, got 5: start again"
    ):
        found.array()


def test_records_of_a_log_are_gone_on_from_as_far_as_they_are_whole(tmp_path, capsys):
    path, settings = tmp_path / "log.jsonl", {"seed": 1}

    def measure():
        log = ResultsLog(path, settings)
        for number in range(5):
            if not log.done(str(number)):
                log.append({"key": str(number), "values": [number / 7, float("nan")]})
        return log

    expected = json.dumps(measure().records)
    whole = path.read_bytes()
    for content in mishaps(whole, count=25):
        path.write_bytes(content)
        try:
            found = measure()
        except ValueError as error:  # in the first line: the settings
            assert str(path) in str(error)
            continue
        assert json.dumps(dict(sorted(found.records.items()))) == expected
        again = measure()
        assert json.dumps(dict(sorted(again.records.items()))) == expected
        assert again._is_whole
    assert "is damaged: its record is made anew" in capsys.readouterr().err


def test_kept_heat_maps_are_used_as_far_as_they_are_whole(tmp_path, capsys):
    arrays = {"name": np.array("a.png"), "picture": np.arange(300, dtype=np.uint8), "row": np.ones(40)}
    path = tmp_path / "network-0.npz"
    digest = np.frombuffer(smooth_taylor._digest(arrays), np.uint8)
    np.savez_compressed(path, digest=digest, **arrays)
    found = smooth_taylor._kept(path)
    assert found is not None and found.keys() == arrays.keys()
    for content in mishaps(path.read_bytes()):
        path.write_bytes(content)
        found = smooth_taylor._kept(path)
        if found is None:
            assert f"{path} is damaged" in capsys.readouterr().err
        else:
            assert all((found[name] == array).all() for name, array in arrays.items())
    np.savez_compressed(path, **arrays)
    assert smooth_taylor._kept(path) is None


def test_compiled_programs_that_are_damaged_are_replaced(tmp_path, capsys):
    programs = Programs(str(tmp_path / "cache"))
    assert programs.get("jit_f-1") is None
    value = np.random.default_rng(0).bytes(500)
    programs.put("jit_f-1", value)
    (path,) = programs.path.iterdir()
    for content in mishaps(path.read_bytes()):
        path.write_bytes(content)
        assert programs.get("jit_f-1") is None
        assert f"{path} is damaged: this program is compiled anew" in capsys.readouterr().err
        programs.put("jit_f-1", value)
        assert programs.get("jit_f-1") == value
    # Nor is one that was put under another key.
    path.rename(path.with_name(path.name.replace("f-1", "f-2")))
    assert programs.get("jit_f-2") is None


COMPILING = """
from jxai.cli.running import compilation_cache
compilation_cache.keep_compiled_programs()
compilation_cache.keep_compiled_programs()
import jax
jax.jit(lambda x: jax.numpy.sin(x) @ x)(jax.numpy.ones((9, 9)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["JXAI_CACHE", "JAX_COMPILATION_CACHE_DIR"])
def test_a_damaged_cache_is_whole_after_the_next_start(tmp_path, variable):
    folder = tmp_path / "cache"
    unset = {"JAX_ENABLE_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_DIR"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment |= {"JXAI_CACHE": str(tmp_path / "other"), variable: str(folder)}

    def start():
        done = subprocess.run(
            [sys.executable, "-c", COMPILING], env=environment, check=True, capture_output=True, text=True
        )
        return done.stderr, {path.name: path.stat().st_size for path in folder.iterdir()}

    said, whole = start()
    assert whole and said == ""
    assert start() == ("", whole)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    said, after = start()
    assert said.count("is damaged: this program is compiled anew") == len(whole)
    assert after.keys() == whole.keys() and min(after.values()) > 100
    assert start()[0] == ""
