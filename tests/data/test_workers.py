"""Worker processes: started from any kind of program, gone with it, and a clear end where they end."""

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import grain
import numpy as np
import pytest

from jxai import data

# A batch that a test can tell from the others, of 4 MB: more than a pipe holds.
PROGRAM = """
import os, sys
import grain, numpy as np
from jxai import data
dataset = grain.MapDataset.range(1000).map(lambda i: (np.full((1024, 1024), i, np.float32), os.getpid()))
batches = data.iterate(dataset, num_workers=2, num_threads=1, buffer_size=2)
found = [next(batches) for _ in range(5)]
print([int(batch[0][3, 4]) for batch in found], *dict.fromkeys(batch[1] for batch in found), flush=True)
"""
WAITING = PROGRAM + "import time; time.sleep(600)\n"
ENDS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int], seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(alive, pids))


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


def ended(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    process.send_signal(number)
    process.communicate(timeout=40)


def started(tmp_path: Path, program: str, how: str) -> subprocess.Popen[str]:
    """A program that has no main guard, started in one of the ways that people do."""
    command, text = [sys.executable, "-c", program], None
    if how == "script":
        (tmp_path / "script.py").write_text(program)
        command = [sys.executable, str(tmp_path / "script.py")]
    elif how in ("standard input", "prompt"):
        command, text = [sys.executable, *(["-i", "-q"] if how == "prompt" else ["-"])], program
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    process.stdin.write(text or "")
    process.stdin.close()
    process.stdin = None
    return process


def assert_works(process: subprocess.Popen[str]) -> None:
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.startswith("[0, 1, 2, 3, 4] "), errors
    assert gone([int(pid) for pid in output.split("]")[1].split()])


@pytest.mark.slow
def test_a_program_from_standard_input_has_workers(tmp_path):
    assert_works(started(tmp_path, PROGRAM, "standard input"))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["script", "command", "prompt"])
def test_a_program_without_a_main_guard_has_workers(tmp_path, how):
    assert_works(started(tmp_path, PROGRAM, how))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_a_process_that_multiprocessing_started(tmp_path, method):
    script = "import multiprocessing, sys\ndef main():\n" + PROGRAM.replace("\n", "\n    ")
    script += f"""
if __name__ == "__main__":
    process = multiprocessing.get_context({method!r}).Process(target=main)
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""
    assert_works(started(tmp_path, script, "script"))


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_workers_end_with_their_parent_and_leave_nothing(tmp_path, end):
    before = shared_memory()
    process = started(tmp_path, WAITING, "script")
    assert process.stdout is not None and process.stderr is not None
    workers = [int(pid) for pid in process.stdout.readline().split("]")[1].split()]
    assert len(workers) == 2 and all(map(alive, workers))
    ended(process, ENDS[end])
    assert gone(workers)
    assert shared_memory() <= before


@pytest.mark.slow
def test_workers_end_with_a_parent_whose_fork_lives_on(tmp_path):
    forking = "import os\nif not os.fork():\n    import time\n    time.sleep(12)\n    os._exit(0)\n"
    process = started(tmp_path, WAITING.replace("import time;", forking + "import time;"), "script")
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split("]")[1].split()]
    time.sleep(1)  # for the fork
    process.kill()
    assert gone(workers)  # while the fork holds its pipes
    ended(process)


@pytest.mark.slow
def test_what_is_not_closed_ends_with_the_last_reference():
    batches = data.iterate(grain.MapDataset.range(100).map(lambda i: (i, os.getpid())), num_workers=1)
    _, pid = next(batches)
    assert alive(pid)
    del batches
    assert gone([pid])


@pytest.mark.slow
def test_a_signal_to_all_processes_is_the_parents_alone():
    # As Ctrl-C in a terminal and a scheduler's SIGTERM send it, from the moment at which the workers start.
    batches = data.iterate(grain.MapDataset.range(100).map(lambda i: (i, os.getpid())), num_workers=1)
    pid = next(batches)[1]
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert [i for i, _ in batches] == list(range(1, 100))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_an_error_within_seconds():
    batches = data.iterate(
        grain.MapDataset.range(10**6).map(lambda i: (np.full(10**6, i), os.getpid())), num_workers=2
    )
    pids = [next(batches)[1] for _ in range(2)]
    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=f"expected batches of worker process {pids[0]}, got .* -9: "):
        for _ in range(100):
            next(batches)
    batches.close()
    assert gone(pids)
    assert int(next(batches)[0][0]) >= 2  # new ones go on
    batches.close()


@pytest.mark.slow
def test_a_workers_error_is_the_programs():
    # In here, so that they are sent themselves: a new process may find no module of this name.
    class Unsendable(Exception):
        def __reduce__(self):
            raise TypeError("cannot be sent")

    def refuse(i):
        print("what a worker prints does not come between its batches")
        if i == 3:
            raise ValueError("expected 3 to be fine, got it: no")
        if i == 5:
            raise Unsendable("five")
        return i

    batches = data.iterate(grain.MapDataset.range(9).map(refuse), num_workers=2)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="expected 3 to be fine, got it: no") as raised:
        next(batches)
    assert "in refuse" in raised.value.__notes__[-1]
    batches.set_state({"next_index": 4})
    assert next(batches) == 4
    with pytest.raises(RuntimeError, match=r"Unsendable\('five'\)"):
        next(batches)
    batches.close()


@pytest.mark.slow
def test_a_function_that_a_new_process_cannot_import_is_named(monkeypatch):
    module = types.ModuleType("of_no_file")
    exec("def same(i):\n    return i\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "of_no_file", module)
    batches = data.iterate(grain.MapDataset.range(9).map(module.same), num_workers=1)
    with pytest.raises(
        ValueError, match=r"^expected a dataset that a new process can load, got .*'of_no_file': "
    ):
        next(batches)
    batches.close()


@pytest.mark.slow
@pytest.mark.parametrize(("length", "workers"), [(7, 3), (2, 3), (1, 1), (6, 2)])
def test_the_dataset_ends_where_it_ends(length, workers):
    batches = data.iterate(grain.MapDataset.range(length), num_workers=workers)
    assert [int(i) for i in batches] == list(range(length))
    assert list(batches) == []
    batches.close()
