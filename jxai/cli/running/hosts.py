"""Several processes, on one host or many, as one run: how they find one another and divide the work.

    jxai train letters/relation --distributed            # SLURM, Open MPI, Kubernetes, a TPU pod
    jxai train letters/relation --coordinator host0:9876 --num-processes 2 --process-id 0

Every process runs the same command. The first one shows progress and writes files.
"""

import atexit
import contextlib
import ctypes
import dataclasses
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jxai.cli.running import command_line
from jxai.cli.running.options import arg
from jxai.errors import InputError

Item = TypeVar("Item")

# Seconds that a process which fails leaves to the others. They often find the same, as a wrong option, and could not
# say so any more: JAX aborts them when the first process is gone.
_GRACE = 2


@dataclasses.dataclass(frozen=True)
class Hosts:
    """How this process finds the others; by default it is alone."""

    distributed: bool = False
    """Join the processes that SLURM, Open MPI, Kubernetes or a TPU pod started, as it tells them."""
    coordinator: str | None = None
    """ADDRESS:PORT of the first process, which listens there; where no cluster tells."""
    num_processes: int | None = None
    """How many there are, with `coordinator`."""
    process_id: int | None = None
    """Which one this is, from 0, with `coordinator`."""
    heartbeat: int = 60
    """Seconds of silence after which a process counts as lost, and the others end."""


# In the options of a script; its flags have no prefix.
HostsOption = Annotated[Hosts, arg(name="")]


@contextlib.contextmanager
def together(hosts: Hosts) -> Iterator[None]:
    """Join the run's other processes before the first computation, and leave together with them.

    Args:
        hosts: how they are found.

    Raises:
        ValueError: a part of the address is missing, or there is no cluster that tells.
    """
    address = (hosts.coordinator, hosts.num_processes, hosts.process_id)
    if not hosts.distributed and address == (None, None, None):
        yield
        return
    if not hosts.distributed and None in address:
        raise InputError(
            "expected --coordinator, --num-processes and --process-id together, got some of them: give all "
            "three, or --distributed alone on a cluster"
        )
    try:
        jax.distributed.initialize(*address, heartbeat_timeout_seconds=hosts.heartbeat)
    except ValueError as error:
        raise InputError(
            f"expected a cluster that tells its processes of one another, got none ({error}): give --coordinator, "
            "--num-processes and --process-id"
        ) from error
    try:
        yield
        # The others have nothing to do while the first one writes, which may take longer than a heartbeat.
        with ended_by_sigterm():
            multihost_utils.sync_global_devices("the end")
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, jax.errors.JaxRuntimeError):
            error.add_note(
                f"Process {jax.process_index()} of {jax.process_count()}: if another one was lost, look at its "
                "messages and start all of them again; a run goes on from its last checkpoint or finished picture."
            )
        # JAX would wait at exit for the others, which wait for this one.
        status: Any = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
        try:
            command_line.guarded(functools.partial(_raise, error))
        except SystemExit as ended:
            status = ended.code
            raise
        finally:
            atexit.register(_leave, status)


def _raise(error: BaseException) -> None:
    raise error


def _leave(status: int) -> None:
    """End without the others; they notice at once, or after a heartbeat."""
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(_GRACE)
    os._exit(status)


# What sets a handler of a signal and gives the one before, both as addresses.
_set_handler = ctypes.pythonapi.PyOS_setsig
_set_handler.argtypes, _set_handler.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Where nothing is trained: SIGTERM ends this process at once, as it ends one that is alone.

    The handler that JAX sets in several processes only takes note, for the training that asks for it.
    """
    if jax.process_count() == 1:
        yield
        return
    # Set from C, that handler is nothing that the module signal could put back.
    noting = _set_handler(signal.SIGTERM, None)  # None is the address of the default
    try:
        yield
    finally:
        _set_handler(signal.SIGTERM, noting)


def is_first() -> bool:
    """Whether this process shows progress and writes files."""
    return jax.process_index() == 0


def from_first(array: np.ndarray) -> np.ndarray:
    """The first process's array, on all of them; every process gives one of the same shape."""
    return np.asarray(multihost_utils.broadcast_one_to_all(array))


def in_turns(
    work: Callable[[Item], Any], items: Sequence[Item], *, on_each_device: bool = False
) -> Iterator[Any]:
    """Divide independent pieces of work among the processes, one after the other to each.

    Each round ends when all processes are through with it, so that what is finished can be kept.

    Args:
        work: from a piece to arrays, of the same shapes for every piece.
        items: the pieces, the same in every process.
        on_each_device: whether each device works on a piece of its own; else a process has one piece at a time,
            which `work` spreads over the process's devices if it likes.

    Yields:
        The results in the order of `items`, NumPy arrays, on every process.
    """
    count, processes = len(items), jax.process_count()
    devices = jax.local_devices()[: max(1, -(-count // processes))] if on_each_device else [None]
    width = len(devices)

    def on(device: Any, item: Item) -> Any:
        with contextlib.nullcontext() if device is None else jax.default_device(device):
            return jax.tree.map(np.asarray, work(item))

    with ThreadPoolExecutor(width) as pool:
        for start in range(0, count, width * processes):
            # Every process takes part in every round; a place beyond the end repeats the last piece.
            places = start + width * jax.process_index() + np.arange(width)
            results = list(pool.map(on, devices, [items[place] for place in places.clip(max=count - 1)]))
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *results)
            leaves, structure = jax.tree.flatten(multihost_utils.process_allgather(stacked))
            for place in range(min(width * processes, count - start)):
                yield structure.unflatten([leaf[divmod(place, width)] for leaf in leaves])


def in_shares(work: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    """Divide the rows of one computation among the processes.

    Args:
        work: from arrays of some rows to an array of as many.
        arrays: of as many rows each.

    Returns:
        What `work` makes of all rows, on every process.
    """
    count, processes = len(arrays[0]), jax.process_count()
    # The last shares are filled up with rows from the front: all have the same shape.
    shares = np.resize(np.arange(count), (processes, -(-count // processes)))
    results = in_turns(lambda rows: work(*(array[rows] for array in arrays)), list(shares))
    return np.concatenate(list(results))[:count]
