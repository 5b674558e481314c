"""Episodes as a function of (seed, index): which pictures, of which classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jxai.data import pipeline
from jxai.data.source import Source, as_labels
from jxai.errors import InputError

# The stream that decides which pictures an episode holds, of those of one (seed, index).
_DRAW = 0

# Draws of classes until each has enough pictures of its own: the first will do unless classes are near-copies.
_ATTEMPTS = 100


def episode_indices(
    source: Source | Sequence[int] | np.ndarray,
    *,
    way: int,
    shot: int,
    num_query: int,
    seed: int,
    index: int,
    repeat: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws an episode: `way` classes, and for each `shot` pictures and `num_query` other ones.

    No picture stands in an episode twice (unless `repeat` allows it), also where a domain has identical pictures in
    two classes.

    Args:
        source: the pictures, or their labels alone, (n,); then every picture counts as different.
        way: number of classes.
        shot: support pictures a class.
        num_query: query pictures a class.
        seed: the dataset's seed, at least 0.
        index: the episode's number, at least 0.
        repeat: whether pictures of a class with too few are repeated, as the releases do, instead of an error. The
            support has different ones as far as one is left for the queries, and none stands in both.

    Returns:
        Numbers of the support pictures, (way·shot,), and of the query pictures, (way·num_query,), int64, both
        class by class. They depend on the arguments alone; `episode_dataset` of one source has this episode
        at this index.

    Raises:
        ValueError: a number below its least value, too few classes, or too few different pictures of one.
    """
    pipeline.check_count("seed", seed, least=0)
    pipeline.check_count("index", index, least=0)
    return Sampler.create(source, way=way, shot=shot, num_query=num_query, repeat=repeat).draw(seed, index)


def episode_table(
    source: Source,
    *,
    way: int,
    shot: int,
    num_query: int,
    seed: int,
    num_episodes: int,
    repeat: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws many episodes of one source as indices, to evaluate on pictures that are encoded once.

    Args:
        source: the pictures.
        way: number of classes.
        shot: support pictures a class.
        num_query: query pictures a class.
        seed: the dataset's seed, at least 0.
        num_episodes: how many episodes.
        repeat: as in `episode_indices`.

    Returns:
        Support (num_episodes, way·shot) and queries (num_episodes, way·num_query); row i is what
        `episode_indices` draws at index i.

    Raises:
        ValueError: as `episode_indices` does.
    """
    pipeline.check_count("seed", seed, least=0)
    pipeline.check_count("num_episodes", num_episodes)
    sampler = Sampler.create(source, way=way, shot=shot, num_query=num_query, repeat=repeat)
    support, query = zip(*(sampler.draw(seed, index) for index in range(num_episodes)), strict=True)
    return np.stack(support), np.stack(query)


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """Draws episodes from the labels of one source.

    Attributes:
        members: pictures of each class, of identical ones the first alone.
        digests: equal for identical pictures, one a picture of the source.
        shared: whether any picture stands in two classes.
        way: number of classes.
        shot: support pictures a class.
        num_query: query pictures a class.
        least: different pictures that a class must have.
        name: what errors call the source.
    """

    members: tuple[np.ndarray, ...]
    digests: np.ndarray
    shared: bool
    way: int
    shot: int
    num_query: int
    least: int
    name: str

    @classmethod
    def create(
        cls,
        source: Source | Sequence[int] | np.ndarray,
        *,
        way: int,
        shot: int,
        num_query: int,
        repeat: bool,
    ) -> Sampler:
        """Sorts the pictures by class and checks that every episode asked for can be drawn."""
        for name, value in (("way", way), ("shot", shot), ("num_query", num_query)):
            pipeline.check_count(name, value)
        if isinstance(source, Source):
            labels, digests = source.labels, source.digests
            class_names, name = source.class_names, f"{source.name!r} (split {source.split!r})"
        else:
            labels = as_labels(source)
            if labels.min(initial=0) < 0 or labels.max(initial=0) > len(labels):
                raise InputError(
                    f"expected pictures of every class, got {len(labels)} in [{labels.min()}, {labels.max()}]: "
                    "number the classes from 0"
                )
            digests = np.arange(len(labels))
            class_names, name = tuple(str(c) for c in range(int(labels.max(initial=-1)) + 1)), "the labels"
        if len(class_names) < way:
            raise InputError(
                f"expected at least {way} classes for {way}-way episodes, got {len(class_names)} in {name}: "
                "ask for fewer ways"
            )
        members = tuple(
            _first_of_identical(of_class, digests) for of_class in _by_class(labels, len(class_names))
        )
        sizes = np.asarray([len(of_class) for of_class in members])
        least, advice = shot + num_query, "ask for fewer shots or queries, or say repeat=True"
        if repeat:
            least, advice = 2, "remove those classes"
        smallest = int(sizes.argmin())
        if sizes[smallest] < least:
            raise InputError(
                f"expected at least {least} different pictures a class ({shot} shots, {num_query} queries), "
                f"got {sizes[smallest]} of class {class_names[smallest]!r} in {name} "
                f"({int((sizes < least).sum())} of {len(sizes)} classes have too few): {advice}"
            )
        kept = digests[np.concatenate(members)]
        shared = len(np.unique(kept)) < len(kept)
        return cls(members, digests, shared, way=way, shot=shot, num_query=num_query, least=least, name=name)

    def draw(self, seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the support's and the query's picture numbers of episode `index`."""
        rng = pipeline.stream(seed, index, purpose=_DRAW)
        for _ in range(_ATTEMPTS):
            classes = rng.choice(len(self.members), self.way, replace=False)
            if (drawn := self._pictures(rng, classes)) is not None:
                return drawn[:, : self.shot].reshape(-1), drawn[:, self.shot :].reshape(-1)
        raise InputError(
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
                if len(members) < self.least:
                    return None
            different = rng.choice(members, min(len(members), drawn.shape[1]), replace=False)
            in_support = min(
                self.shot, len(different) - 1
            )  # fewer than `shot` only where pictures are repeated
            drawn[row, : self.shot] = np.resize(different[:in_support], self.shot)
            drawn[row, self.shot :] = np.resize(different[in_support:], self.num_query)
        return drawn


def _by_class(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Numbers of the pictures of each class, in increasing order."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, num_classes)))


def _first_of_identical(indices: np.ndarray, digests: np.ndarray) -> np.ndarray:
    _, first = np.unique(digests[indices], return_index=True)
    return indices[np.sort(first)]
