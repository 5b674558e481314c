"""Episodes as a function of (seed, index), and datasets of them with random access."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jxai.data import pipeline, preprocess
from jxai.data.source import Source
from jxai.fewshot.episode import Episode

if TYPE_CHECKING:
    import grain

# Streams of one (seed, index): what is drawn, from which domain, and how it is augmented.
_DRAW, _DOMAIN, _AUGMENT = 0, 1, 2

# Draws of classes until each has enough pictures of its own: the first will do unless classes are near-copies.
_ATTEMPTS = 100


def episode_indices(
    source: Source | Sequence[int] | np.ndarray, *, way: int, shot: int, num_query: int, seed: int, index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws an episode: `way` classes, and for each `shot` pictures and `num_query` other ones.

    No picture stands in an episode twice, also where a domain has identical pictures in two classes.

    Args:
        source: the pictures, or their labels alone, (n,); then every picture counts as different.
        way: number of classes.
        shot: support pictures a class.
        num_query: query pictures a class.
        seed: the dataset's seed, at least 0.
        index: the episode's number, at least 0.

    Returns:
        Numbers of the support pictures, (way·shot,), and of the query pictures, (way·num_query,), int64, both
        class by class. They depend on the arguments alone; `episode_dataset` of one source has this episode
        at this index.

    Raises:
        ValueError: a number below its least value, too few classes, or too few different pictures of one.
    """
    pipeline.check_count("seed", seed, least=0)
    pipeline.check_count("index", index, least=0)
    return _Sampler.create(source, way=way, shot=shot, num_query=num_query).draw(seed, index)


def episode_table(
    source: Source, *, way: int, shot: int, num_query: int, seed: int, num_episodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws many episodes of one source as indices, to evaluate on pictures that are encoded once.

    Args:
        source: the pictures.
        way: number of classes.
        shot: support pictures a class.
        num_query: query pictures a class.
        seed: the dataset's seed, at least 0.
        num_episodes: how many episodes.

    Returns:
        Support (num_episodes, way·shot) and queries (num_episodes, way·num_query); row i is what
        `episode_indices` draws at index i.

    Raises:
        ValueError: as `episode_indices` does.
    """
    pipeline.check_count("seed", seed, least=0)
    pipeline.check_count("num_episodes", num_episodes)
    sampler = _Sampler.create(source, way=way, shot=shot, num_query=num_query)
    support, query = zip(*(sampler.draw(seed, index) for index in range(num_episodes)), strict=True)
    return np.stack(support), np.stack(query)


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
    augment: bool = False,
    shard_index: int = 0,
    shard_count: int = 1,
) -> grain.MapDataset[Episode]:
    """Makes a dataset of batches of episodes.

    Element `step` holds the episodes step·batch_size to (step + 1)·batch_size - 1, of which each host makes
    its share: the shares of all hosts in order are the batch of a single one. Iterate with `data.iterate`.

    Args:
        sources: a source, or several, of which each episode draws one.
        way: number of classes.
        shot: support pictures a class.
        num_query: query pictures a class.
        seed: episodes of another seed are others.
        num_episodes: total number of episodes, a multiple of `batch_size`; without end by default.
        batch_size: episodes a step, over all hosts.
        image_size: side of the pictures in pixels.
        augment: whether pictures are augmented as in the releases' training.
        shard_index: this host's number, from 0.
        shard_count: number of hosts.

    Returns:
        Random access to Episodes of NumPy arrays with a leading axis of batch_size / shard_count.

    Raises:
        ValueError: a number below its least value, no source, too few classes or different pictures for the
            episode, or numbers that do not divide.
    """
    import grain

    pipeline.check_count("seed", seed, least=0)
    pipeline.check_count("image_size", image_size)
    positions = pipeline.shard_positions(batch_size, shard_index=shard_index, shard_count=shard_count)
    num_steps = pipeline.ENDLESS
    if num_episodes is not None:
        num_steps, rest = divmod(pipeline.check_count("num_episodes", num_episodes), batch_size)
        if rest:
            raise ValueError(
                f"expected `num_episodes` as a multiple of the batch size {batch_size}, got {num_episodes}: "
                "every batch has the same shape"
            )
    sources = (sources,) if isinstance(sources, Source) else tuple(sources)
    if not sources:
        raise ValueError("expected at least one source, got none: load one")
    batches = _EpisodeBatches(
        sources=sources,
        samplers=tuple(_Sampler.create(s, way=way, shot=shot, num_query=num_query) for s in sources),
        seed=seed,
        batch_size=batch_size,
        positions=positions,
        image_size=image_size,
        augment=augment,
    )
    return grain.MapDataset.range(num_steps).map(batches)


@dataclasses.dataclass(frozen=True, eq=False)
class _Sampler:
    """Draws episodes from the labels of one source."""

    # Pictures of each class, of identical ones the first alone.
    members: tuple[np.ndarray, ...]
    digests: np.ndarray
    # Whether any picture stands in two classes.
    shared: bool
    way: int
    shot: int
    num_query: int
    name: str

    @classmethod
    def create(
        cls, source: Source | Sequence[int] | np.ndarray, *, way: int, shot: int, num_query: int
    ) -> _Sampler:
        """Sorts the pictures by class and checks that every episode asked for can be drawn."""
        for name, value in (("way", way), ("shot", shot), ("num_query", num_query)):
            pipeline.check_count(name, value)
        if isinstance(source, Source):
            labels, digests = source.labels, source.digests
            class_names, name = source.class_names, f"{source.name!r} (split {source.split!r})"
        else:
            labels = np.asarray(source)
            if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
                raise ValueError(
                    f"expected labels of shape (n,) and an integer type, got {labels.dtype} {labels.shape}: "
                    "one class index a picture"
                )
            digests = np.arange(len(labels))
            class_names, name = tuple(str(c) for c in range(int(labels.max(initial=-1)) + 1)), "the labels"
        if len(class_names) < way:
            raise ValueError(
                f"expected at least {way} classes for {way}-way episodes, got {len(class_names)} in {name}: "
                "ask for fewer ways"
            )
        members = tuple(
            _first_of_identical(np.flatnonzero(labels == c), digests) for c in range(len(class_names))
        )
        sizes = np.asarray([len(of_class) for of_class in members])
        needed, smallest = shot + num_query, int(sizes.argmin())
        if sizes[smallest] < needed:
            raise ValueError(
                f"expected at least {needed} different pictures a class ({shot} shots, {num_query} queries), "
                f"got {sizes[smallest]} of class {class_names[smallest]!r} in {name} "
                f"({int((sizes < needed).sum())} of {len(sizes)} classes have too few): "
                "ask for fewer shots or queries"
            )
        kept = digests[np.concatenate(members)]
        shared = len(np.unique(kept)) < len(kept)
        return cls(members, digests, shared, way=way, shot=shot, num_query=num_query, name=name)

    def draw(self, seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the support's and the query's picture numbers of episode `index`."""
        rng = pipeline.stream(seed, index, purpose=_DRAW)
        for _ in range(_ATTEMPTS):
            classes = rng.choice(len(self.members), self.way, replace=False)
            if (drawn := self._pictures(rng, classes)) is not None:
                return drawn[:, : self.shot].reshape(-1), drawn[:, self.shot :].reshape(-1)
        raise ValueError(
            f"expected classes with pictures of their own, got classes that share too many of {self.name} "
            f"in each of {_ATTEMPTS} draws of episode {index}: remove the copies"
        )

    def _pictures(self, rng: np.random.Generator, classes: np.ndarray) -> np.ndarray | None:
        """Returns pictures of the classes, (way, shot + num_query), or None if one has too few of its own."""
        drawn = np.empty((self.way, self.shot + self.num_query), np.int64)
        for row, c in enumerate(classes):
            members = self.members[c]
            if self.shared:
                members = members[~np.isin(self.digests[members], self.digests[drawn[:row]])]
                if len(members) < drawn.shape[1]:
                    return None
            drawn[row] = rng.choice(members, drawn.shape[1], replace=False)
        return drawn


def _first_of_identical(indices: np.ndarray, digests: np.ndarray) -> np.ndarray:
    _, first = np.unique(digests[indices], return_index=True)
    return indices[np.sort(first)]


@dataclasses.dataclass(frozen=True, eq=False)
class _EpisodeBatches:
    """The function from a step to this host's share of its batch."""

    sources: tuple[Source, ...]
    samplers: tuple[_Sampler, ...]
    seed: int
    batch_size: int
    positions: range
    image_size: int
    augment: bool

    def __call__(self, step: int) -> Episode:
        """Returns this host's episodes of a step."""
        images = np.stack(
            [self._episode(int(step) * self.batch_size + position) for position in self.positions]
        )
        sampler = self.samplers[0]
        num_support = sampler.way * sampler.shot
        normalised = preprocess.normalise(images)
        # NumPy leaves: they become device arrays when a step function takes them.
        leaves: dict[str, Any] = {
            "support": normalised[:, :num_support],
            "support_labels": self._labels(sampler.shot),
            "query": normalised[:, num_support:],
            "query_labels": self._labels(sampler.num_query),
        }
        return Episode(**leaves, way=sampler.way)

    def _episode(self, index: int) -> np.ndarray:
        """Returns the bytes of episode `index`, support and then query."""
        domain = 0
        if len(self.sources) > 1:
            domain = int(pipeline.stream(self.seed, index, purpose=_DOMAIN).integers(len(self.sources)))
        source = self.sources[domain]
        indices = np.concatenate(self.samplers[domain].draw(self.seed, index))
        if not self.augment:
            return source.images(indices, self.image_size)
        rng = pipeline.stream(self.seed, index, purpose=_AUGMENT)
        return np.stack([preprocess.augment(source.image(i), rng, size=self.image_size) for i in indices])

    def _labels(self, per_class: int) -> np.ndarray:
        labels = np.repeat(np.arange(self.samplers[0].way, dtype=np.int32), per_class)
        return np.tile(labels, (len(self.positions), 1))
