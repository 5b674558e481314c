"""Every reader of files, on thousands of damaged ones: no crash, no five seconds a call, no gigabyte.

`make test-long` reads ten thousand of each, of which the slow tests' are the first.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import READERS

PROGRAM = Path(__file__).with_name("fuzzing.py")


@pytest.mark.parametrize(
    "count",
    [20, pytest.param(2000, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.long)],
    ids=["few", "many", "all"],
)
@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name, count, tmp_path):
    if count < 100 and name not in ("png", "pickle"):
        pytest.skip("a process each: two stand for all in the quick tests")
    progress = tmp_path / "progress"
    command = [sys.executable, str(PROGRAM), name, "0", str(count), str(progress)]
    environment = os.environ | {"TMPDIR": str(tmp_path), "JXAI_DATA": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=environment)
    ended = signal.Signals(-done.returncode).name if done.returncode < 0 else done.returncode
    where = progress.read_text() if progress.exists() else "none"
    assert done.returncode == 0, f"{ended} at file {where} of {name!r}: {done.stderr[-3000:]}"
