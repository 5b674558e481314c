"""Several processes as one run: bit-identical to one process, and what happens when one of them is lost."""

import json
import signal
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from processes import HEARTBEAT, finish, start

from jxai import training
from jxai.cli.running.hosts import Hosts, from_first, in_shares, in_turns, together
from jxai.cli.running.unfinished_rows import Rows

EXPLAINING, TABULATING = (Path(__file__).with_name(name) for name in ("explaining.py", "tabulating.py"))
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


@pytest.fixture(autouse=True, scope="module")
def compiled(tmp_path_factory):
    """Later processes start quicker; and this is where the scripts keep compiled programs by themselves."""
    folder = tmp_path_factory.mktemp("compiled")
    patch = pytest.MonkeyPatch()
    patch.setenv("JXAI_CACHE", str(folder))
    patch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, compiled):
    """A run's folder after one process of eight devices, and how to start others."""
    folder = tmp_path_factory.mktemp("runs")

    def train(name, *, processes):
        options = [f"--config.{flag}={value}" for flag, value in FLAGS.items()]
        options += ["--config.deterministic", "--no-progress", "--folder", str(folder / name)]
        options = ["letters-quick/relation-guided", *options]
        return start("train", options, processes=processes, devices=8 // processes)

    assert_ended_well(finish(train("one", processes=1), timeout=TIMEOUT))
    assert any(compiled.iterdir())
    return folder, train


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """What one process makes of the small pictures, and what it prints."""
    folder = tmp_path_factory.mktemp("explained")
    ended = finish(start(EXPLAINING, ["--folder", str(folder)], processes=1, devices=1), timeout=TIMEOUT)
    assert_ended_well(ended)
    return folder, printed(ended, folder)


def assert_ended_well(ended):
    assert [code for code, _, _ in ended] == [0] * len(ended), "\n".join(errors for _, _, errors in ended)


def assert_said_once(errors, start):
    """In one line, wherever it stands: the library that connects the processes may have the last word."""
    assert len([line for line in errors.splitlines() if line.startswith(start)]) == 1, errors


def assert_same_arrays(one, other):
    with np.load(one) as first, np.load(other) as second:
        assert first.files == second.files
        for array in first.files:
            np.testing.assert_array_equal(first[array], second[array])


def printed(ended, folder):
    """Lines of each process, but for those of the library that connects CPUs."""
    texts = [output.replace(str(folder), "") for _, output, _ in ended]
    return [[line for line in text.splitlines() if "peer ranks" not in line] for text in texts]


def wait_until(reached, running):
    until = time.monotonic() + TIMEOUT
    while not reached():
        assert time.monotonic() < until and all(process.poll() is None for process in running)
        time.sleep(0.05)


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
@pytest.mark.alone
def test_two_processes_of_four_devices_train_as_one_of_eight(trained):
    folder, train = trained
    ended = finish(train("two", processes=2), timeout=TIMEOUT)
    assert_ended_well(ended)
    assert_same_run(folder / "one", folder / "two")


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("lost", [0, 1], ids=["coordinator", "other"])
def test_when_a_process_is_killed_the_other_ends_and_a_restart_resumes(trained, lost):
    folder, train = trained
    name = f"killed-{lost}"
    running = train(name, processes=2)
    wait_until((folder / name / "episodes" / "10").is_dir, running)
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
@pytest.mark.alone
def test_when_one_is_asked_to_stop_all_save_and_a_restart_goes_on(trained):
    folder, train = trained
    running = train("stopped", processes=2)
    wait_until((folder / "stopped" / "config.json").is_file, running)  # the step is compiled next
    running[1].send_signal(signal.SIGTERM)
    ended = finish(running, timeout=TIMEOUT)
    assert [code for code, _, _ in ended] == [128 + signal.SIGTERM] * 2
    assert not (folder / "stopped" / "episodes" / str(STEPS)).exists()
    assert_ended_well(finish(train("stopped", processes=2), timeout=TIMEOUT))
    assert_same_run(folder / "one", folder / "stopped")


@pytest.mark.slow
@pytest.mark.alone
def test_a_table_goes_on_from_the_results_of_the_first_process(tmp_path):
    def tabulate(folder, *more, processes):
        options = ["--folder", str(folder), *more]
        running = start(TABULATING, options, processes=processes, devices=2 // processes)
        assert_ended_well(finish(running, timeout=TIMEOUT))

    one, two = tmp_path / "one", tmp_path / "two"
    tabulate(one, processes=1)
    tabulate(two, "--systems", "relation", processes=2)
    first = two / "results-0" / "tiny" / "1shot-relation-0.json"
    before = first.stat().st_mtime_ns
    tabulate(two, processes=2)
    assert first.stat().st_mtime_ns == before
    assert not (two / "results-1").exists()
    results = [sorted((folder / "results-0" / "tiny").glob("*.json")) for folder in (one, two)]
    assert [path.name for path in results[0]] == ["1shot-relation-0.json", "1shot-relation-guided-0.json"]
    for paths in zip(*results, strict=True):
        found = [json.loads(path.read_text()) for path in paths]
        for result in found:
            del result["seconds"], result["made_with"], result["digest"]
        assert found[0] == found[1]
    tables = [folder / "results-0" / "tiny" / "table.md" for folder in (one, two)]
    assert tables[0].read_text() == tables[1].read_text()


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize(
    ("number", "status", "seconds"),
    [(signal.SIGTERM, -signal.SIGTERM, 5), (signal.SIGINT, 128 + signal.SIGINT, 60)],
    ids=["SIGTERM", "SIGINT"],
)
def test_a_signal_ends_an_explanation_and_a_restart_goes_on(explained, tmp_path, number, status, seconds):
    options = ["--folder", str(tmp_path), "--no-table"]
    running = start(EXPLAINING, options, processes=2, devices=1)
    there = tmp_path / "explain"
    wait_until(lambda: any(path.stat().st_size for path in there.glob("unfinished-*/*")), running)
    running[1].send_signal(number)
    assert running[1].wait(timeout=seconds) == status
    ended = finish(running, timeout=3 * HEARTBEAT)
    assert ended[0][0] not in (0, 2)
    (kept,) = there.glob("unfinished-*/input-x-gradient")
    there_already = Rows(kept, (224, 224, 3), np.dtype(np.float32))
    marked = np.array(there_already.array())
    marked[0, 0, 0, 0] = 7
    there_already.cut(0)
    there_already.add(marked)
    with kept.open("ab") as file:
        file.write(b"of a row that was not finished")
    assert_ended_well(finish(start(EXPLAINING, options, processes=2, devices=1), timeout=TIMEOUT))
    with np.load(explained[0] / "explain" / "attributions.npz") as arrays:
        expected = dict(arrays)
    expected["attributions/input-x-gradient"][0, 0, 0, 0] = 7  # was not made again
    with np.load(there / "attributions.npz") as arrays:
        assert arrays.files == list(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(arrays[name], array)
    assert not list(there.glob("unfinished-*"))


@pytest.mark.slow
@pytest.mark.alone
def test_wrong_input_ends_every_process_with_status_2(tmp_path):
    options = ["--folder", str(tmp_path), "--methods", "nothing"]
    for code, _, errors in finish(start(EXPLAINING, options, processes=2, devices=1), timeout=TIMEOUT):
        assert code == 2 and "Traceback" not in errors
        assert_said_once(errors, "InputError: expected methods among ")


@pytest.mark.slow
@pytest.mark.alone
def test_what_the_first_process_cannot_write_is_said_in_one_line(tmp_path):
    (tmp_path / "explain").write_text("where a folder should be")
    options = ["--folder", str(tmp_path), "--no-table"]
    first, other = finish(start(EXPLAINING, options, processes=2, devices=1), timeout=TIMEOUT)
    assert first[0] == 2 and "Traceback" not in first[2]
    assert_said_once(first[2], "OSError: expected to write ")
    assert other[0] not in (0, 2)


@pytest.mark.slow
@pytest.mark.alone
def test_pictures_are_explained_and_judged_as_by_one_process(explained, tmp_path):
    folder, text = explained
    ended = finish(start(EXPLAINING, ["--folder", str(tmp_path)], processes=2, devices=1), timeout=TIMEOUT)
    assert_ended_well(ended)
    assert printed(ended, tmp_path) == [*text, []]  # the first one's alone
    for name in ("explain/attributions.npz", "table/efficientnet-lite0-0.npz"):
        assert_same_arrays(folder / name, tmp_path / name)
    logs = [
        (there / "table" / "efficientnet-lite0.jsonl").read_text().splitlines()
        for there in (folder, tmp_path)
    ]
    one, two = ([{**json.loads(line), "seconds": 0, "digest": ""} for line in log] for log in logs)
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
@pytest.mark.alone
def test_without_a_cluster_there_is_nothing_to_join(tmp_path):
    options = ["letters-quick/relation", "--folder", str(tmp_path), "--distributed"]
    (ended,) = finish(start("train", options, processes=1, devices=1), timeout=TIMEOUT)
    code, _, errors = ended
    assert code == 2
    assert errors.startswith(
        "InputError: expected a cluster that tells its processes of one another, got none"
    )
