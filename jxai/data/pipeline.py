"""What the datasets share: host shards, random streams, and iterators whose state goes into a checkpoint."""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

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
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(f"expected `{name}` as an integer of at least {least}, got {value!r}: give one")
    return number


def shard_positions(batch_size: int, *, shard_index: int, shard_count: int) -> range:
    """Returns which positions of every global batch a host makes.

    Shards are neighbouring positions, in the order of the hosts: put together they are the batch that a
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
    if not 0 <= shard_index < shard_count:
        raise ValueError(
            f"expected `shard_index` in [0, {shard_count}), got {shard_index}: number the hosts from 0"
        )
    if batch_size % shard_count:
        raise ValueError(
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


def iterate(
    dataset: grain.MapDataset[Any], *, num_threads: int = 2, buffer_size: int = 4
) -> grain.DatasetIterator[Any]:
    """Returns an iterator over a dataset that makes the next batches in threads while one is used.

    `get_state()` gives a dict for JSON: the number of batches taken. After `set_state` a fresh iterator
    goes on from there.

    Args:
        dataset: what `episode_dataset` or `classification_dataset` returned.
        num_threads: threads that make batches; 0 makes them when they are asked for.
        buffer_size: batches made ahead. Grain's own default of 500 would fill the memory with images.

    Returns:
        The iterator.
    """
    import grain

    check_count("num_threads", num_threads, least=0)
    check_count("buffer_size", buffer_size)
    options = grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=buffer_size if num_threads else 0
    )
    return iter(dataset.to_iter_dataset(options))
