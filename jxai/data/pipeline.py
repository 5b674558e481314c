"""What the datasets share: host shards, random streams, and iterators whose state goes into a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from jxai import checks, extras
from jxai.data.workers import Workers
from jxai.errors import InputError, InputTypeError

if TYPE_CHECKING:
    import grain

# Length of a dataset without an end: the largest that Python's len() can say.
ENDLESS = sys.maxsize


def check_count(name: str, value: int, *, least: int = 1) -> int:
    """Checks a number that counts something.

    Args:
        name: what an error calls it.
        value: an integer.
        least: the smallest allowed value.

    Returns:
        The number, as an int.

    Raises:
        ValueError: not an integer, or below `least`.
    """
    return checks.check_count(f"`{name}` as an integer", value, least=least)


def shard_positions(batch_size: int, *, shard_index: int, shard_count: int) -> range:
    """Returns which positions of every global batch a host makes.

    Shards are neighboring positions, in the order of the hosts: put together they are the batch that a
    single host would make, in the same order, whatever their number.

    Args:
        batch_size: size of the global batch.
        shard_index: this host's number, from 0.
        shard_count: number of hosts.

    Returns:
        The positions, batch_size / shard_count of them.

    Raises:
        ValueError: a count below 1, an index outside, or a batch that does not divide by the shards.
    """
    check_count("batch_size", batch_size)
    check_count("shard_count", shard_count)
    if not isinstance(shard_index, int | np.integer) or not 0 <= shard_index < shard_count:
        raise InputError(
            f"expected `shard_index` in [0, {shard_count}), got {shard_index!r}: number the hosts from 0"
        )
    if batch_size % shard_count:
        raise InputError(
            f"expected `batch_size` divisible by {shard_count} shards, got {batch_size}: "
            "it is the size of the batch over all hosts"
        )
    share = batch_size // shard_count
    return range(shard_index * share, (shard_index + 1) * share)


def stream(seed: int, index: int, *, purpose: int = 0) -> np.random.Generator:
    """Returns the random stream of one episode, example or epoch.

    Args:
        seed: the dataset's seed, at least 0.
        index: number of the episode, example or epoch, at least 0.
        purpose: tells apart streams of the same (seed, index).

    Returns:
        A generator that depends on the three numbers alone.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index], spawn_key=(purpose,))))


class Numbered:
    """Batches of picture numbers by step: drawn so quickly that they need no threads, and no Grain."""

    def __init__(self, batches: Callable[[int], Any], num_steps: int) -> None:
        self._batches, self._num_steps = batches, num_steps

    def __len__(self) -> int:
        return self._num_steps

    def __getitem__(self, step: int) -> Any:
        if not 0 <= step < self._num_steps:
            raise IndexError(f"expected a step in [0, {self._num_steps}), got {step}: there are no more")
        return self._batches(step)


def by_step(batches: Callable[[int], Any], num_steps: int, *, numbers: bool) -> Any:
    """Returns random access to batches by step.

    Args:
        batches: the function from a step to its batch.
        num_steps: how many there are.
        numbers: whether they hold numbers of pictures, see `Numbered`; pictures are Grain's to make.

    Returns:
        What `iterate` takes.
    """
    if numbers:
        return Numbered(batches, num_steps)
    with extras.named():
        import grain

    return grain.MapDataset.range(num_steps).map(batches)


def iterate(
    dataset: grain.MapDataset[Any] | Numbered,
    *,
    num_threads: int = 2,
    num_workers: int = 0,
    buffer_size: int = 4,
) -> Batches:
    """Returns an iterator over a dataset that makes the next batches while one is used.

    In threads of this process by default, which share its cores well where decoding takes the time; with
    `num_workers`, in so many processes of `num_threads` threads each (at least one), which end with this one.

    Args:
        dataset: what `episode_dataset`, `episode_pairs_dataset` or `classification_dataset` returned.
        num_threads: threads that make batches; 0 makes them when they are asked for, as those of numbers always are.
        num_workers: processes that make batches; 0 for none but this one.
        buffer_size: batches made ahead, by each process. Grain's own default of 500 would fill the memory.

    Returns:
        The iterator. Its state, for a checkpoint, does not depend on the number of threads and workers.

    Raises:
        TypeError: no dataset.
        ValueError: a number below its least value.
        ChildProcessError: when a batch is asked for: a worker process was killed or could not start.
    """
    check_count("num_threads", num_threads, least=0)
    check_count("num_workers", num_workers, least=0)
    check_count("buffer_size", buffer_size)
    if not isinstance(dataset, Numbered) and not hasattr(dataset, "to_iter_dataset"):
        raise InputTypeError(f"expected a dataset of jxai.data's, got {checks.shown(dataset)}: make one")
    return Batches(dataset, num_threads, num_workers, buffer_size)


class Batches(Iterator[Any]):
    """An iterator over a dataset with random access, whose state is the number of batches taken."""

    def __init__(
        self, dataset: grain.MapDataset[Any] | Numbered, num_threads: int, num_workers: int, buffer_size: int
    ):
        self._dataset = dataset
        self._options = num_threads, num_workers, buffer_size
        self._taken = 0
        self._running: grain.DatasetIterator[Any] | Workers | Generator[Any] | None = None

    def __next__(self) -> Any:
        if self._running is None:
            self._running = self._start()
        batch = next(self._running)
        self._taken += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """Returns where the iterator stands, for JSON."""
        return {"next_index": self._taken}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to where `get_state` was called.

        Args:
            state: what it returned.
        """
        self.close()
        self._taken = int(state["next_index"])

    def close(self) -> None:
        """Ends threads and worker processes; the next batch asked for starts them anew."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def _start(self) -> grain.DatasetIterator[Any] | Workers | Generator[Any]:
        if isinstance(self._dataset, Numbered):
            return (self._dataset[step] for step in range(self._taken, len(self._dataset)))
        import grain

        num_threads, num_workers, buffer_size = self._options
        left = self._dataset[self._taken :]
        if num_workers:
            return Workers(
                left, num_workers=num_workers, num_threads=max(1, num_threads), buffer_size=buffer_size
            )
        reading = grain.ReadOptions(
            num_threads=num_threads, prefetch_buffer_size=buffer_size if num_threads else 0
        )
        return iter(left.to_iter_dataset(reading))
