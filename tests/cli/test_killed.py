"""What is killed at random moments ends as what was not: a training, a table, an explanation.

`make test-long` kills each 25 times, which takes a quarter of an hour.
"""

import collections
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jxai import training

ROOT = Path(__file__).resolve().parents[2]
STEPS, ENCODER_STEPS = 40, 6
TRAIN = [
    *("-P", "-m", "jxai.cli", "train", "letters-quick/relation-guided", "--no-progress"),
    *("--config.width", "8", "--config.head-width", "8", "--config.queries", "3"),
    *("--config.steps", str(STEPS), "--config.eval-every", "1", "--config.validation-episodes", "4"),
    *("--config.pretraining.steps", str(ENCODER_STEPS), "--config.pretraining.save-every", "1"),
]

KILLS = int(os.environ.get("JXAI_KILLS", "8"))

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def run(
    command: Sequence[str],
    cache: Path,
    *,
    until: Callable[[], bool] | None = None,
    delay: float = 0,
    number: int = signal.SIGKILL,
) -> tuple[int, str]:
    """Exit status and output; with `until`, a signal is sent so long after it has become true."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        if until is not None:
            while process.poll() is None and not until():
                time.sleep(0.001)
            time.sleep(delay)
            process.send_signal(number)
        output, _ = process.communicate(timeout=900)
    return process.returncode, output


def newest(checkpoints: Path) -> int:
    steps = [int(path.name) for path in checkpoints.glob("*") if path.name.isdigit()]
    return max(steps, default=0)


def metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of metrics without the times; none where there is no file."""
    lines = training.read_metrics(path) if path.exists() else []
    return [{name: value for name, value in line.items() if name != "episodes_per_second"} for line in lines]


def phase(folder: Path) -> str:
    """What a training is doing, by what is in its folder."""
    if not (folder / "episodes").exists():
        return "encoder"
    if any((folder / "episodes").glob("*.orbax-checkpoint-tmp")):
        return "writing"
    lines = metrics(folder / "metrics.jsonl")
    return "evaluation" if lines and lines[-1]["phase"] == "train" else "step"


def digests(checkpoints: Path) -> dict[str, str]:
    """Of all arrays of the last checkpoint: parameters, batch statistics, optimizer state, step and key."""
    training.load_variables(checkpoints, which="latest")  # the digests are those of the arrays
    return json.loads((checkpoints / str(newest(checkpoints)) / "about" / "metadata").read_text())["digests"]


# Runs Python on one core alone, with the arguments that follow.
ON_ONE_CORE = [
    "-c",
    "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])",
]


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores"
)
def test_resumed_on_another_number_of_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "XLA_FLAGS", ""
    )  # compiled as users' programs are: by as many threads as there are cores
    cache, straight, killed = (tmp_path / name for name in ("cache", "straight", "killed"))
    assert run([*TRAIN, "--folder", str(straight)], cache)[0] == 0
    command = [*TRAIN, "--folder", str(killed)]
    assert run(command, cache, until=lambda: newest(killed / "episodes") >= 10)[0] == -signal.SIGKILL
    assert newest(killed / "episodes") < STEPS
    # Compiled there too, by a cache of its own.
    assert run([*ON_ONE_CORE, *command], tmp_path / "other")[0] == 0
    assert digests(killed / "episodes") == digests(straight / "episodes")
    assert metrics(killed / "metrics.jsonl") == metrics(straight / "metrics.jsonl")
    starts = json.loads((killed / "run.json").read_text())["starts"]
    assert [start["cores"] for start in starts] == [len(os.sched_getaffinity(0)), 1]
    assert {start["xla_threads"] for start in starts} == {8}


def killed_at_random(
    command: Sequence[str],
    cache: Path,
    *,
    progress: Callable[[], int],
    seconds: float,
    seed: int = 0,
) -> int:
    """Kill a command again and again: at any moment since its start, or soon after it has come further.

    Args:
        command: what is started, each time anew.
        cache: of compiled programs.
        progress: how far it is, by what is on the disk.
        seconds: that all of it took, once.
        seed: of the moments.

    Returns:
        How often it was killed: `KILLS` times, or less where it came to its end.
    """
    moment = random.Random(seed)
    for number in range(KILLS):
        before = progress()
        # Every other time at any moment, the start included, but never much further than before.
        latest = time.monotonic() + (moment.uniform(0, seconds / 2) if number % 2 else math.inf)

        def reached(before: int = before, latest: float = latest) -> bool:
            return time.monotonic() > latest or progress() > before

        status, _ = run(command, cache, until=reached, delay=moment.uniform(0, 0.02))
        if status == 0:
            return number
        assert status == -signal.SIGKILL
    return KILLS


@pytest.mark.long
def test_kills_of_a_training(tmp_path: Path) -> None:
    cache, straight, killed = (tmp_path / name for name in ("cache", "straight", "killed"))
    assert run([*TRAIN, "--folder", str(straight)], cache)[0] == 0
    moment, seen = random.Random(6), collections.Counter()
    plan = ["encoder"] * (KILLS // 6 + 1) + ["step", "evaluation", "writing"] * KILLS
    for wanted in plan[:KILLS]:
        checkpoints = killed / ("encoder" if wanted == "encoder" else "episodes")
        before = newest(checkpoints)

        def reached(checkpoints: Path = checkpoints, before: int = before, wanted: str = wanted) -> bool:
            return newest(checkpoints) > before and phase(killed) == wanted

        delay = moment.uniform(0, 0.01)
        status, _ = run([*TRAIN, "--folder", str(killed)], cache, until=reached, delay=delay)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        seen[phase(killed)] += 1
    assert seen.total() >= min(KILLS, 6) and len(seen) >= 3, seen
    assert run([*TRAIN, "--folder", str(killed)], cache)[0] == 0
    for name in ("encoder", "episodes"):
        assert digests(killed / name) == digests(straight / name)
    for name in ("metrics.jsonl", "encoder/metrics.jsonl"):
        assert metrics(killed / name) == metrics(straight / name)
    assert {line["step"] for line in metrics(killed / "metrics.jsonl")} == set(range(1, STEPS + 1))
    others = {path.name for path in (killed / "episodes").iterdir() if not path.name.isdigit()}
    assert others == {".deleted", ".in_use"}  # nothing half-written


def test_sigterm_ends_a_training_within_seconds(tmp_path: Path) -> None:
    cache, folder = tmp_path / "cache", tmp_path / "run"
    command = [*TRAIN, "--folder", str(folder)]
    for wanted in ("step", "evaluation", "writing"):
        before = newest(folder / "episodes")
        sent = 0.0

        def reached(before: int = before, wanted: str = wanted) -> bool:
            nonlocal sent
            sent = time.monotonic()
            return newest(folder / "episodes") > before and phase(folder) == wanted

        status, _ = run(command, cache, until=reached, number=signal.SIGTERM)
        assert status == 128 + signal.SIGTERM
        assert time.monotonic() - sent < 20  # on a busy machine; a second or two on an idle one
        assert newest(folder / "episodes") > before
        # A step that was going on is saved with its metrics, of which the next start writes the line.
        assert newest(folder / "episodes") - metrics(folder / "metrics.jsonl")[-1]["step"] in (0, 1)


def result_files(folder: Path) -> dict[str, Any]:
    """The table's text and each run's numbers, but for times."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "results" / "tiny").iterdir()):
        if path.suffix == ".json":
            found[path.name] = json.loads(path.read_text())
            del found[path.name]["seconds"], found[path.name]["made_with"], found[path.name]["digest"]
        elif path.suffix == ".md":
            found[path.name] = path.read_text()
    return found


@pytest.mark.long
def test_kills_of_a_table(tmp_path: Path) -> None:
    cache, straight, killed = (tmp_path / name for name in ("cache", "straight", "killed"))

    def table(folder: Path) -> list[str]:
        return [str(Path(__file__).with_name("tiny_table.py")), str(folder), "14"]

    assert run(table(tmp_path / "first"), cache)[0] == 0  # compiles
    began = time.monotonic()
    status, text = run(table(straight), cache)
    seconds = time.monotonic() - began
    assert status == 0

    def progress() -> int:
        checkpoints = [*killed.glob("runs/encoder-*"), *killed.glob("runs/tiny/*/episodes")]
        return sum(map(newest, checkpoints)) + len([*killed.glob("results/tiny/*.json")])

    assert killed_at_random(table(killed), cache, progress=progress, seconds=seconds) >= 3
    assert progress() > 0
    assert run(table(killed), cache) == (0, text)
    assert result_files(killed) == result_files(straight)
    assert {"1shot-relation-0.json", "1shot-relation-guided-0.json", "table.md"} == result_files(
        killed
    ).keys()


@pytest.mark.long
def test_kills_of_an_explanation(tmp_path: Path) -> None:
    cache, straight, killed = (tmp_path / name for name in ("cache", "straight", "killed"))
    command = [str(Path(__file__).with_name("explaining.py")), "--no-table", "--pictures", "96", "--folder"]
    assert run([*command, str(tmp_path / "first")], cache)[0] == 0  # compiles
    began = time.monotonic()
    assert run([*command, str(straight)], cache)[0] == 0
    seconds = time.monotonic() - began

    def progress() -> int:
        return sum(path.stat().st_size for path in killed.glob("explain/unfinished-*/*"))

    assert killed_at_random([*command, str(killed)], cache, progress=progress, seconds=seconds) >= 3
    assert run([*command, str(killed)], cache)[0] == 0
    with (
        np.load(straight / "explain" / "attributions.npz") as expected,
        np.load(killed / "explain" / "attributions.npz") as found,
    ):
        assert found.files == expected.files
        for name in found.files:
            np.testing.assert_array_equal(found[name], expected[name])
    names = [{path.name for path in (folder / "explain").iterdir()} for folder in (straight, killed)]
    # A kill while a file is written leaves what was beside it.
    assert {name for name in names[1] if not name.endswith(".tmp")} == names[0]
