"""Several processes as one run: bit-identical to one process, and what happens when one of them is lost."""

import json
import signal
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from processes import EXPERIMENTS, HEARTBEAT, finish, start

from hosts import Hosts, from_first, in_shares, in_turns, together
from jxai import training

STEPS = 50
TIMEOUT = 600
# The first configuration of the quickstart, as small as it trains at all.
FLAGS = {
    "width": 8,
    "head-width": 8,
    "shot": 1,
    "queries": 1,
    "pretraining.steps": 2,
    "steps": STEPS,
    "episodes-per-step": 8,
    "eval-every": 10,
    "validation-episodes": 5,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's folder after one process of eight devices, and how to start others."""
    folder = tmp_path_factory.mktemp("runs")
    patch = pytest.MonkeyPatch()
    # Later processes start quicker; and this is where the scripts keep compiled programs by themselves.
    patch.setenv("JXAI_CACHE", str(folder / "compiled"))
    patch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

    def train(name, *, processes):
        options = [f"--config.{flag}={value}" for flag, value in FLAGS.items()]
        options += ["--config.deterministic", "--no-progress", "--folder", str(folder / name)]
        options = ["letters-quick/relation-guided", *options]
        return start(EXPERIMENTS / "train.py", options, processes=processes, devices=8 // processes)

    assert_ended_well(finish(train("one", processes=1), timeout=TIMEOUT))
    assert any((folder / "compiled").iterdir())
    yield folder, train
    patch.undo()


def assert_ended_well(ended):
    assert [code for code, _, _ in ended] == [0] * len(ended), "\n".join(errors for _, _, errors in ended)


def assert_same_run(one, other):
    variables = [training.load_variables(folder / "episodes", which=STEPS) for folder in (one, other)]
    chex.assert_trees_all_equal(*variables)
    lines = [
        [
            {name: value for name, value in line.items() if name != "episodes_per_second"}
            for line in training.read_metrics(folder / "metrics.jsonl")
        ]
        for folder in (one, other)
    ]
    assert lines[0] == lines[1]
    assert lines[0][-1]["step"] == STEPS
    assert (one / "config.json").read_bytes() == (other / "config.json").read_bytes()


@pytest.mark.slow
def test_two_processes_of_four_devices_train_as_one_of_eight(trained):
    folder, train = trained
    ended = finish(train("two", processes=2), timeout=TIMEOUT)
    assert_ended_well(ended)
    assert_same_run(folder / "one", folder / "two")


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1], ids=["coordinator", "other"])
def test_when_a_process_is_killed_the_other_ends_and_a_restart_resumes(trained, lost):
    folder, train = trained
    name = f"killed-{lost}"
    running = train(name, processes=2)
    until = time.monotonic() + TIMEOUT
    while not (folder / name / "episodes" / "10").is_dir():
        assert time.monotonic() < until and all(process.poll() is None for process in running)
        time.sleep(0.05)
    running[lost].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    ended = finish(running, timeout=3 * HEARTBEAT)
    assert time.monotonic() - killed < 3 * HEARTBEAT
    (code, _, errors) = ended[1 - lost]
    assert code not in (0, -signal.SIGKILL)
    assert "start all of them again" in errors or "distributed service detected fatal errors" in errors
    assert not (folder / name / "episodes" / str(STEPS)).exists()
    assert_ended_well(finish(train(name, processes=2), timeout=TIMEOUT))
    assert_same_run(folder / "one", folder / name)


@pytest.mark.slow
def test_pictures_are_explained_and_judged_as_by_one_process(tmp_path):
    script = Path(__file__).with_name("explaining.py")
    printed = {}
    for processes in (1, 2):
        options = ["--folder", str(tmp_path / str(processes))]
        ended = finish(start(script, options, processes=processes, devices=1), timeout=TIMEOUT)
        assert_ended_well(ended)
        printed[processes] = [
            # The library that connects CPUs prints too.
            [
                line.replace(str(tmp_path / str(processes)), "")
                for line in output.splitlines()
                if "peer ranks" not in line
            ]
            for _, output, _ in ended
        ]
    assert printed[2] == [*printed[1], []]  # the first one's alone
    for name in ("explain/attributions.npz", "table/efficientnet-lite0-0.npz"):
        with np.load(tmp_path / "1" / name) as one, np.load(tmp_path / "2" / name) as two:
            assert one.files == two.files
            for array in one.files:
                np.testing.assert_array_equal(one[array], two[array])
    logs = [
        (tmp_path / str(processes) / "table" / "efficientnet-lite0.jsonl").read_text().splitlines()
        for processes in (1, 2)
    ]
    one, two = ([{**json.loads(line), "seconds": 0} for line in log] for log in logs)
    assert one == two
    assert [line.get("key") for line in one] == [None, "0.png", "1.png", "2.png"]


def test_work_is_dealt_out_in_order():
    devices = []

    def work(item):
        (device,) = jax.numpy.zeros(()).devices()
        devices.append(device.id)
        return {"item": np.array([item]), "double": 2 * item}

    for on_each_device in (False, True):
        results = list(in_turns(work, range(11), on_each_device=on_each_device))
        assert [result["item"].tolist() for result in results] == [[item] for item in range(11)]
        assert [int(result["double"]) for result in results] == list(range(0, 22, 2))
    # Alone: eleven pieces on the first device; then rounds of eight, the second one filled up.
    assert devices[:11] == [0] * 11
    assert sorted(devices[11:]) == sorted([*range(8), *range(8)])
    devices.clear()
    assert len(list(in_turns(work, [1, 2], on_each_device=True))) == len(devices) == 2
    assert list(in_turns(work, [])) == list(in_turns(work, [], on_each_device=True)) == []


def test_rows_come_back_in_order():
    rows = np.arange(10).reshape(5, 2)
    np.testing.assert_array_equal(
        in_shares(lambda a, b: a.sum(1) + b, rows, np.arange(5)), rows.sum(1) + range(5)
    )
    np.testing.assert_array_equal(from_first(np.array([True, False])), [True, False])


def test_an_incomplete_address_is_named():
    incomplete = Hosts(coordinator="localhost:1", num_processes=2)
    message = "expected --coordinator, --num-processes and --process-id together"
    with pytest.raises(ValueError, match=message), together(incomplete):
        pass


@pytest.mark.slow
def test_without_a_cluster_there_is_nothing_to_join(tmp_path):
    options = ["letters-quick/relation", "--folder", str(tmp_path), "--distributed"]
    (ended,) = finish(start(EXPERIMENTS / "train.py", options, processes=1, devices=1), timeout=TIMEOUT)
    code, _, errors = ended
    assert code == 2
    assert errors.startswith(
        "ValueError: expected a cluster that tells its processes of one another, got none"
    )
