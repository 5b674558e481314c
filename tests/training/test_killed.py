"""Training that is killed in a step, in a validation and while it writes ends as one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jxai import training

PHASES = ("step", "evaluation", "writing")


def run(folder: Path, cache: Path, kill: tuple[str, int, float] | None = None) -> int:
    """The exit status of `killed_run.py`; killed so long after it said so often that a phase begins."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    script = Path(__file__).with_name("killed_run.py")
    command = [sys.executable, str(script), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        if kill is not None:
            phase, count, delay = kill
            for line in process.stdout:
                count -= line.strip() == phase
                if count == 0:
                    time.sleep(delay)
                    process.kill()
                    break
        process.stdout.read()
        return process.wait(timeout=120)


def left(folder: Path) -> tuple[list[np.ndarray], list[dict]]:
    """What a finished run leaves: its state and, but for times, its metrics."""
    with np.load(folder / "end.npz") as end:
        arrays = [end[name] for name in end.files]
    lines = training.read_metrics(folder / "metrics.jsonl")
    return arrays, [
        {name: value for name, value in line.items() if name != "episodes_per_second"} for line in lines
    ]


def assert_ends_alike(folder: Path, straight: Path) -> None:
    for one, other in zip(left(folder)[0], left(straight)[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert left(folder)[1] == left(straight)[1]


@pytest.mark.slow
def test_three_kills(tmp_path: Path) -> None:
    cache, killed, straight = (tmp_path / name for name in ("cache", "killed", "straight"))
    assert run(straight, cache) == 0
    random_moment = random.Random(0)
    for phase in PHASES:
        kill = (phase, 3, random_moment.uniform(0, 0.01))
        assert run(killed, cache, kill) == -signal.SIGKILL
    assert run(killed, cache) == 0
    assert_ends_alike(killed, straight)
