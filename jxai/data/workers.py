"""Processes that make a dataset's batches, each every n-th, and end with the process that asked for them.

They are new interpreters that import nothing of the program: it needs no `if __name__ == "__main__":`, and may come
from standard input or a notebook. Batches come through a pipe, so that nothing is left in shared memory. Assumes that
both ends are this package's: what comes out of the pipe is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import IO, TYPE_CHECKING, Any

from jxai import extras
from jxai.errors import InputError

if TYPE_CHECKING:
    import grain

# Signals to a whole group of processes (Ctrl-C, a scheduler's SIGTERM) are the parent's to answer, from the start on.
_PROGRAM = """
import json, signal, sys
for name in ("SIGINT", "SIGTERM"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
sys.path[:] = json.loads(sys.argv[1])
from jxai.data import workers
workers.work()
"""


class Workers(Iterator[Any]):
    """The batches of a dataset, made ahead by worker processes; in the dataset's order."""

    def __init__(
        self, dataset: grain.MapDataset[Any], *, num_workers: int, num_threads: int, buffer_size: int
    ):
        """Start the processes.

        Args:
            dataset: with random access; what `cloudpickle` can send.
            num_workers: how many processes.
            num_threads: of each, at least 1.
            buffer_size: batches made ahead, by each.
        """
        with extras.named():
            import cloudpickle

        self._processes = [
            subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for _ in range(num_workers)
        ]
        # Also where nobody calls `close`: at the end of the process or of the last reference.
        self.close = weakref.finalize(self, _end, self._processes)
        for number, process in enumerate(self._processes):
            own = dataset[number::num_workers]
            # One that has ended already is told of where its batch is asked for.
            with contextlib.suppress(BrokenPipeError):
                to_it, _ = _pipes(process)
                to_it.write(cloudpickle.dumps((os.getpid(), own, num_threads, buffer_size)))
                to_it.flush()
        self._turn = 0
        self._arriving = [_arriving(process) for process in self._processes]

    def __next__(self) -> Any:
        number = self._turn % len(self._processes)
        process = self._processes[number]
        try:
            batch, error, trace = self._arriving[number].result()
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):  # cut short
            raise ChildProcessError(
                f"expected batches of worker process {process.pid}, got its end with status {process.wait()}: "
                "look at its messages; out of memory (-9)? Then take fewer workers or a smaller buffer_size"
            ) from None
        if error is not None:
            if not isinstance(error, StopIteration):
                error.add_note(f"In worker process {process.pid}:\n{trace}")
            raise error
        self._turn += 1
        self._arriving[number] = _arriving(process)
        return batch


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """To it and from it."""
    assert process.stdin is not None and process.stdout is not None
    return process.stdin, process.stdout


def _arriving(process: subprocess.Popen[bytes]) -> Future[tuple[Any, Exception | None, str]]:
    """What comes next, received meanwhile."""
    _, stream = _pipes(process)
    future: Future[tuple[Any, Exception | None, str]] = Future()

    def receive() -> None:
        try:
            future.set_result(pickle.load(stream))
        except BaseException as error:  # handed on, whatever it is
            future.set_exception(error)

    # No pool: Python waits for a pool's threads at its end, before the processes are ended.
    threading.Thread(target=receive, daemon=True).start()
    return future


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
        for pipe in _pipes(process):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def work() -> None:
    """What a worker process does: makes its share of the batches, and sends them."""
    # What is printed here must not come between the batches.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        parent, dataset, num_threads, buffer_size = _given()
        _end_with(parent)
        for batch in _batches(dataset, num_threads, buffer_size):
            _send(out, batch)
        _send(out, error=StopIteration())
    except BrokenPipeError:
        os._exit(0)  # nobody wants more
    except Exception as error:
        _send(out, error=_sendable(error), trace=traceback.format_exc())


def _given() -> Any:
    """What the parent sent."""
    try:
        return pickle.load(sys.stdin.buffer)
    except Exception as error:  # of modules that are imported for it, which may do anything
        raise InputError(
            f"expected a dataset that a new process can load, got {type(error).__name__}: {error}: take functions of "
            "modules on sys.path, of the program itself, or such as are defined in other functions"
        ) from error


def _batches(dataset: grain.MapDataset[Any], num_threads: int, buffer_size: int) -> Iterable[Any]:
    import grain

    reading = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=buffer_size)
    return dataset.to_iter_dataset(reading)


def _send(out: IO[bytes], batch: Any = None, *, error: Exception | None = None, trace: str = "") -> None:
    pickle.dump((batch, error, trace), out, protocol=5)
    out.flush()


def _sendable(error: Exception) -> Exception:
    """The error, or its text where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of its own methods, which may do anything
        return RuntimeError(repr(error))
    return error


def _end_with(parent: int) -> None:
    """Ends this process when its parent has ended, however that came."""

    def wait_for_pipe() -> None:
        sys.stdin.buffer.read(1)
        os._exit(0)

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    # The pipe ends at once, unless processes that the parent forked have its other end too.
    waits = [wait_for_pipe] if os.name == "nt" else [wait_for_pipe, look]
    for wait in waits:
        threading.Thread(target=wait, daemon=True).start()
