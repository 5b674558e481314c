"""Shuffled epochs of single pictures, to pretrain an encoder as a classifier."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from jxai.data import pipeline, preprocess
from jxai.data.source import Source

if TYPE_CHECKING:
    import grain

# Streams of one seed: the order of an epoch, and the augmentation of an example.
_SHUFFLE, _AUGMENT = 0, 1


def classification_dataset(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    image_size: int = 32,
    augment: bool = False,
    num_epochs: int | None = None,
    shard_index: int = 0,
    shard_count: int = 1,
) -> grain.MapDataset[dict[str, np.ndarray]]:
    """Makes a dataset of batches of labelled pictures.

    An epoch has len(source) // batch_size steps, in an order that depends on (seed, epoch); what does not
    fill a batch is left out, in each epoch other pictures. Iterate with `data.iterate`.

    Args:
        source: the pictures.
        batch_size: pictures a step, over all hosts.
        seed: another seed gives another order and other augmentations.
        image_size: side of the pictures in pixels.
        augment: whether pictures are augmented as in the releases' training.
        num_epochs: number of epochs; without end by default.
        shard_index: this host's number, from 0.
        shard_count: number of hosts.

    Returns:
        Random access to batches {"image": float32 (k, size, size, 3) normalised, "label": int32 (k,)}, where
        k is batch_size / shard_count: this host's share, in the order of the hosts.

    Raises:
        ValueError: a number below its least value, a batch larger than the source, or one that the hosts do
            not divide.
    """
    import grain

    pipeline.check_count("seed", seed, least=0)
    pipeline.check_count("image_size", image_size)
    positions = pipeline.shard_positions(batch_size, shard_index=shard_index, shard_count=shard_count)
    if batch_size > len(source):
        raise ValueError(
            f"expected `batch_size` of at most {len(source)}, the pictures of {source.name!r} "
            f"(split {source.split!r}), got {batch_size}: make it smaller"
        )
    num_steps = pipeline.ENDLESS
    if num_epochs is not None:
        num_steps = pipeline.check_count("num_epochs", num_epochs) * (len(source) // batch_size)
    batches = _Batches(source, seed, batch_size, positions, image_size, augment)
    return grain.MapDataset.range(num_steps).map(batches)


@dataclasses.dataclass(frozen=True, eq=False)
class _Batches:
    """The function from a step to this host's share of its batch."""

    source: Source
    seed: int
    batch_size: int
    positions: range
    image_size: int
    augment: bool

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """Returns this host's pictures of a step."""
        epoch, step_of_epoch = divmod(int(step), len(self.source) // self.batch_size)
        order = pipeline.stream(self.seed, epoch, purpose=_SHUFFLE).permutation(len(self.source))
        first = step_of_epoch * self.batch_size
        indices = order[first + self.positions.start : first + self.positions.stop]
        if self.augment:
            images = np.stack(
                [
                    self._augmented(i, int(step) * self.batch_size + p)
                    for i, p in zip(indices, self.positions, strict=True)
                ]
            )
        else:
            images = self.source.images(indices, self.image_size)
        return {"image": preprocess.normalise(images), "label": self.source.labels[indices]}

    def _augmented(self, i: int, example: int) -> np.ndarray:
        rng = pipeline.stream(self.seed, example, purpose=_AUGMENT)
        return preprocess.augment(self.source.image(i), rng, size=self.image_size)
