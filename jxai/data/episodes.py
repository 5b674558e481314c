"""Datasets of episodes with random access: of one domain or several, single or in pairs of two domains."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jxai.data import augmentation, pipeline, preprocess
from jxai.data.augmentation import Augmentation
from jxai.data.merging import check_sources
from jxai.data.sampler import Sampler
from jxai.data.source import Source
from jxai.errors import InputError
from jxai.fewshot.episode import Episode

if TYPE_CHECKING:
    import grain

# Streams of one (seed, index), beside the sampler's 0: from which domain an episode is, and how it is augmented.
_DOMAIN, _AUGMENT = 1, 2


def episode_dataset(
    sources: Source | Sequence[Source],
    *,
    way: int,
    shot: int,
    num_query: int,
    seed: int,
    num_episodes: int | None = None,
    batch_size: int = 1,
    image_size: int = 32,
    augment: Augmentation | None = None,
    repeat: bool = False,
    epoch: int = 1,
    numbers: bool = False,
    shard_index: int = 0,
    shard_count: int = 1,
) -> grain.MapDataset[Episode]:
    """Makes a dataset of batches of episodes.

    Element `step` holds the episodes step·batch_size to (step + 1)·batch_size - 1, of which each host makes
    its share: the shares of all hosts in order are the batch of a single one. Iterate with `data.iterate`.

    Args:
        sources: a source, or several, of which each epoch draws one.
        way: number of classes.
        shot: support pictures a class.
        num_query: query pictures a class.
        seed: episodes of another seed are others.
        num_episodes: total number of episodes, a multiple of `batch_size`; without end by default.
        batch_size: episodes a step, over all hosts.
        image_size: side of the pictures in pixels.
        augment: None, or as the releases train: "resized-crop" (RelationNet and GNN: random resized crop, color
            jitter, flip) or "crop-erase" (cross attention: shifted crop, flip, random erasing).
        repeat: whether a class with too few pictures repeats them, as in `episode_indices`, or is an error.
        epoch: episodes in a row from one source; 1 draws a source for each episode.
        numbers: whether `support` and `query` hold numbers of pictures, int32, counted through all sources one after
            another, in place of the pictures: for `look_up`.
        shard_index: this host's number, from 0.
        shard_count: number of hosts.

    Returns:
        Random access to Episodes of NumPy arrays with a leading axis of batch_size / shard_count. Their
        `query_classes` number the classes of all sources on, as `merge(sources)` does. With `numbers` it is access
        by step alone, which needs no Grain.

    Raises:
        TypeError: something else than sources.
        ValueError: a number below its least value, no source, too few classes or different pictures for the
            episode, numbers that do not divide, an unknown augmentation, or one of pictures that are numbers.
    """
    sources = check_sources((sources,) if isinstance(sources, Source) else sources)
    return _dataset(
        _Batches,
        sources,
        task={"way": way, "shot": shot, "num_query": num_query, "repeat": repeat},
        making={
            "seed": seed,
            "image_size": image_size,
            "augment": augment,
            "epoch": epoch,
            "numbers": numbers,
        },
        num_episodes=num_episodes,
        batch_size=batch_size,
        shard={"shard_index": shard_index, "shard_count": shard_count},
    )


def episode_pairs_dataset(
    sources: Sequence[Source],
    *,
    way: int,
    shot: int,
    num_query: int,
    seed: int,
    num_episodes: int | None = None,
    batch_size: int = 1,
    image_size: int = 32,
    augment: Augmentation | None = None,
    repeat: bool = False,
    epoch: int = 100,
    numbers: bool = False,
    shard_index: int = 0,
    shard_count: int = 1,
) -> grain.MapDataset[tuple[Episode, Episode]]:
    """Makes a dataset of batches of pairs: an episode of a pseudo-seen domain and one of a pseudo-unseen domain.

    For multi-domain training, whose epochs each draw two different domains (100 episodes an epoch, as released).

    Args:
        sources: at least two sources.
        way: number of classes.
        shot: support pictures a class.
        num_query: query pictures a class.
        seed: episodes of another seed are others.
        num_episodes: total number of pairs, a multiple of `batch_size`; without end by default.
        batch_size: pairs a step, over all hosts.
        image_size: side of the pictures in pixels.
        augment: as in `episode_dataset`.
        repeat: as in `episode_dataset`.
        epoch: pairs in a row from the same two domains.
        numbers: as in `episode_dataset`.
        shard_index: this host's number, from 0.
        shard_count: number of hosts.

    Returns:
        Random access to pairs (seen, unseen) of what `episode_dataset` gives.

    Raises:
        TypeError: something else than sources.
        ValueError: as `episode_dataset`, or fewer than two sources.
    """
    sources = check_sources(sources, least=2)
    return _dataset(
        _PairBatches,
        sources,
        task={"way": way, "shot": shot, "num_query": num_query, "repeat": repeat},
        making={
            "seed": seed,
            "image_size": image_size,
            "augment": augment,
            "epoch": epoch,
            "numbers": numbers,
        },
        num_episodes=num_episodes,
        batch_size=batch_size,
        shard={"shard_index": shard_index, "shard_count": shard_count},
    )


def _dataset(
    kind: type[_Batches],
    sources: tuple[Source, ...],
    *,
    task: dict[str, Any],
    making: dict[str, Any],
    num_episodes: int | None,
    batch_size: int,
    shard: dict[str, int],
) -> grain.MapDataset[Any]:
    """Checks what both datasets are told, and makes them: `task` is the sampler's, `making` the batches'."""
    pipeline.check_count("seed", making["seed"], least=0)
    pipeline.check_count("image_size", making["image_size"])
    pipeline.check_count("epoch", making["epoch"])
    augmentation.check_augmentation(making["augment"], numbers=making["numbers"])
    positions = pipeline.shard_positions(batch_size, **shard)
    num_steps = pipeline.ENDLESS
    if num_episodes is not None:
        num_steps, rest = divmod(pipeline.check_count("num_episodes", num_episodes), batch_size)
        if rest:
            raise InputError(
                f"expected `num_episodes` as a multiple of the batch size {batch_size}, got {num_episodes}: "
                "every batch has the same shape"
            )
    samplers = tuple(Sampler.create(source, **task) for source in sources)
    batches = kind(sources, samplers, batch_size=batch_size, positions=positions, **making)
    return pipeline.by_step(batches, num_steps, numbers=making["numbers"])


@dataclasses.dataclass(frozen=True, eq=False)
class _Batches:
    """The function from a step to this host's share of its batch."""

    sources: tuple[Source, ...]
    samplers: tuple[Sampler, ...]
    batch_size: int
    positions: range
    seed: int
    image_size: int
    augment: Augmentation | None
    epoch: int
    numbers: bool

    def __call__(self, step: int) -> Any:
        """Returns this host's episodes of a step."""
        return self._stacked([(self._domain(index), index) for index in self._indices(step)])

    def _indices(self, step: int) -> list[int]:
        return [int(step) * self.batch_size + position for position in self.positions]

    def _domain(self, index: int) -> int:
        return int(self._stream(index).integers(len(self.sources))) if len(self.sources) > 1 else 0

    def _stream(self, index: int) -> np.random.Generator:
        """What the epoch of episode `index` draws its sources from."""
        return pipeline.stream(self.seed, index // self.epoch, purpose=_DOMAIN)

    def _stacked(self, drawn: Sequence[tuple[int, int]]) -> Episode:
        """Returns episodes, each of a domain and with its own index, as one with a leading axis."""
        images, classes = zip(*(self._episode(domain, index) for domain, index in drawn), strict=True)
        sampler = self.samplers[0]
        num_support = sampler.way * sampler.shot
        normalized = np.stack(images) if self.numbers else preprocess.normalize(np.stack(images))
        # NumPy leaves: they become device arrays when a step function takes them.
        leaves: dict[str, Any] = {
            "support": normalized[:, :num_support],
            "support_labels": self._labels(sampler.shot),
            "query": normalized[:, num_support:],
            "query_labels": self._labels(sampler.num_query),
            "query_classes": np.stack(classes),
        }
        return Episode(**leaves, way=sampler.way)

    def _episode(self, domain: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns an episode's bytes or numbers, support and then query, and its queries' classes among all."""
        source = self.sources[domain]
        support, query = self.samplers[domain].draw(self.seed, index)
        before = sum(len(other.class_names) for other in self.sources[:domain])
        classes = source.labels[query] + np.int32(before)
        indices = np.concatenate([support, query])
        if self.numbers:
            return np.int32(sum(len(other) for other in self.sources[:domain])) + indices.astype(
                np.int32
            ), classes
        if self.augment is None:
            return source.images(indices, self.image_size), classes
        rng = pipeline.stream(self.seed, index, purpose=_AUGMENT)
        augmented = [source.augmented(i, rng, size=self.image_size, kind=self.augment) for i in indices]
        return np.stack(augmented), classes

    def _labels(self, per_class: int) -> np.ndarray:
        labels = np.repeat(np.arange(self.samplers[0].way, dtype=np.int32), per_class)
        return np.tile(labels, (len(self.positions), 1))


class _PairBatches(_Batches):
    """The function from a step to this host's share of its batch of pairs."""

    def __call__(self, step: int) -> tuple[Episode, Episode]:
        """Returns this host's pairs of a step."""
        seen, unseen = [], []
        for index in self._indices(step):
            one, other = self._stream(index).choice(len(self.sources), 2, replace=False)
            # Twice as many indices: the two episodes of a pair draw from different streams.
            seen.append((one, 2 * index))
            unseen.append((other, 2 * index + 1))
        return self._stacked(seen), self._stacked(unseen)
