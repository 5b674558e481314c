"""Shuffled epochs of single pictures, to pretrain an encoder as a classifier."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from jxai.data import augmentation, pipeline, preprocess
from jxai.data.augmentation import Augmentation
from jxai.data.merging import check_sources
from jxai.data.source import Source
from jxai.errors import InputError

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
    augment: Augmentation | None = None,
    num_epochs: int | None = None,
    numbers: bool = False,
    shard_index: int = 0,
    shard_count: int = 1,
) -> grain.MapDataset[dict[str, np.ndarray]]:
    """Makes a dataset of batches of labeled pictures.

    An epoch has len(source) // batch_size steps, in an order that depends on (seed, epoch); what does not
    fill a batch is left out, in each epoch other pictures. Iterate with `data.iterate`.

    Args:
        source: the pictures.
        batch_size: pictures a step, over all hosts.
        seed: another seed gives another order and other augmentations.
        image_size: side of the pictures in pixels.
        augment: None, or as the releases train: "resized-crop" or "crop-erase", as in `episode_dataset`.
        num_epochs: number of epochs; without end by default.
        numbers: whether "image" holds numbers of pictures, int32 (k,), in place of the pictures: for `look_up`.
        shard_index: this host's number, from 0.
        shard_count: number of hosts.

    Returns:
        Random access to batches {"image": float32 (k, size, size, 3) normalized, "label": int32 (k,)}, where
        k is batch_size / shard_count: this host's share, in the order of the hosts. With `numbers` it is access by
        step alone, which needs no Grain.

    Raises:
        TypeError: no source.
        ValueError: a number below its least value, a batch larger than the source, one that the hosts do not
            divide, an unknown augmentation, or one of pictures that are numbers.
    """
    check_sources((source,))
    pipeline.check_count("seed", seed, least=0)
    pipeline.check_count("image_size", image_size)
    augmentation.check_augmentation(augment, numbers=numbers)
    positions = pipeline.shard_positions(batch_size, shard_index=shard_index, shard_count=shard_count)
    if batch_size > len(source):
        raise InputError(
            f"expected `batch_size` of at most {len(source)}, the pictures of {source.name!r} "
            f"(split {source.split!r}), got {batch_size}: make it smaller"
        )
    num_steps = pipeline.ENDLESS
    if num_epochs is not None:
        num_steps = pipeline.check_count("num_epochs", num_epochs) * (len(source) // batch_size)
    batches = _Batches(source, seed, batch_size, positions, image_size, augment, numbers)
    return pipeline.by_step(batches, num_steps, numbers=numbers)


@dataclasses.dataclass(frozen=True, eq=False)
class _Batches:
    """The function from a step to this host's share of its batch."""

    source: Source
    seed: int
    batch_size: int
    positions: range
    image_size: int
    augment: Augmentation | None
    numbers: bool

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """Returns this host's pictures of a step."""
        epoch, step_of_epoch = divmod(int(step), len(self.source) // self.batch_size)
        order = pipeline.stream(self.seed, epoch, purpose=_SHUFFLE).permutation(len(self.source))
        first = step_of_epoch * self.batch_size
        indices = order[first + self.positions.start : first + self.positions.stop]
        if self.numbers:
            return {"image": indices.astype(np.int32), "label": self.source.labels[indices]}
        if self.augment is None:
            images = self.source.images(indices, self.image_size)
        else:
            # Each picture's stream is that of its number in the whole run, whichever host makes it.
            numbers = [int(step) * self.batch_size + position for position in self.positions]
            streams = [pipeline.stream(self.seed, number, purpose=_AUGMENT) for number in numbers]
            images = np.stack(
                [
                    self.source.augmented(i, rng, size=self.image_size, kind=self.augment)
                    for i, rng in zip(indices, streams, strict=True)
                ]
            )
        return {"image": preprocess.normalize(images), "label": self.source.labels[indices]}
