"""A source: the labelled pictures of one domain, or of one class split of it."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from jxai.data import preprocess

SPLITS = ("all", "base", "validation", "novel")


class Pictures(Protocol):
    """Pictures by number: an array (n, H, W, 3), or anything that reads picture i when asked."""

    def __len__(self) -> int:
        """Returns the number of pictures."""
        ...

    def __getitem__(self, i: int, /) -> np.ndarray:
        """Returns picture i, uint8 (H, W, 3)."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """The labelled pictures of a domain. Make one with `load`, `load_folder` or `from_arrays`.

    Attributes:
        name: the domain's name.
        class_names: one name a class.
        labels: class of each picture, (n,) int32 in [0, len(class_names)).
        digests: a number that two pictures share only if they are identical, (n,) uint64.
        pictures: pictures of the whole domain.
        rows: where in `pictures` those of this source are, (n,) int64.
        split: the class split, one of "all", "base", "validation" and "novel".
    """

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    digests: np.ndarray
    pictures: Pictures
    rows: np.ndarray
    split: str = "all"

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of pictures, labels and class names: equal for equal data on every machine."""
        digest = hashlib.blake2b("\n".join(self.class_names).encode(), digest_size=16)
        digest.update(self.labels.astype("<i4").tobytes())
        digest.update(self.digests.astype("<u8").tobytes())
        return digest.hexdigest()

    def image(self, i: int) -> np.ndarray:
        """Returns one picture as it is stored.

        Args:
            i: number of the picture in this source.

        Returns:
            uint8 (H, W, 3); read-only.
        """
        return self.pictures[int(self.rows[i])]

    def images(self, indices: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
        """Returns pictures at one size, as a model sees them at test time but not yet normalised.

        Args:
            indices: numbers of the pictures, (k,).
            size: side in pixels; a picture of another size is resized to 1.15 times that and centre cropped.

        Returns:
            uint8 (k, size, size, 3).
        """
        rows = self.rows[np.asarray(indices, np.int64)]
        if isinstance(self.pictures, np.ndarray) and self.pictures.shape[1:3] == (size, size):
            return self.pictures[rows]
        images = np.empty((len(rows), size, size, 3), np.uint8)
        for k, row in enumerate(rows):
            images[k] = preprocess.resize_and_crop(self.pictures[int(row)], size)
        return images

    def array(self, size: int) -> np.ndarray:
        """Returns every picture, normalised, to encode a whole domain at once.

        Args:
            size: side in pixels.

        Returns:
            float32 (n, size, size, 3).
        """
        return preprocess.normalise(self.images(np.arange(len(self)), size))

    def restrict(self, split: str) -> "Source":
        """Returns the classes of one split, numbered anew from 0.

        Args:
            split: "all", "base" (every second class), "validation" or "novel" (each every fourth).

        Returns:
            A source that shares this one's pictures.

        Raises:
            ValueError: unknown split, or this source is a split already.
        """
        classes = split_classes(len(self.class_names), split)
        if split == "all":
            return self
        if self.split != "all":
            raise ValueError(
                f"expected a whole domain, got the split {self.split!r} of {self.name!r}: "
                "restrict the whole one"
            )
        new_label = np.full(len(self.class_names), -1, np.int32)
        new_label[classes] = np.arange(len(classes), dtype=np.int32)
        kept = np.flatnonzero(new_label[self.labels] >= 0)
        return dataclasses.replace(
            self,
            class_names=tuple(self.class_names[c] for c in classes),
            labels=_frozen(new_label[self.labels[kept]]),
            digests=_frozen(self.digests[kept]),
            rows=_frozen(self.rows[kept]),
            split=split,
        )


def split_classes(num_classes: int, split: str) -> np.ndarray:
    """Returns the classes of a split, by the papers' rule on the class's place in the stored order.

    Args:
        num_classes: number of classes of the domain.
        split: "all"; "base", i % 2 = 0; "validation", i % 4 = 1; or "novel", i % 4 = 3.

    Returns:
        The class indices in increasing order.

    Raises:
        ValueError: unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"expected a split, one of {', '.join(SPLITS)}, got {split!r}: name one of these")
    start, step = {"all": (0, 1), "base": (0, 2), "validation": (1, 4), "novel": (3, 4)}[split]
    return np.arange(start, num_classes, step)


def from_arrays(
    name: str, images: np.ndarray, labels: np.ndarray, *, class_names: Sequence[str] | None = None
) -> Source:
    """Makes a source of pictures that are in memory.

    Args:
        name: the domain's name.
        images: uint8 (n, H, W), (n, H, W, 1) or (n, H, W, 3); grey ones get three equal channels.
        labels: class of each picture, (n,) integers from 0.
        class_names: one name a class; by default the class's number.

    Returns:
        The source, with a copy of the pictures.

    Raises:
        ValueError: pictures or labels of another kind or number, or a label without a class name.
    """
    images = np.asarray(images)
    if (
        images.dtype != np.uint8
        or images.ndim not in (3, 4)
        or (images.ndim == 4 and images.shape[3] not in (1, 3))
    ):
        raise ValueError(
            "expected images as uint8 (n, H, W), (n, H, W, 1) or (n, H, W, 3), "
            f"got {images.dtype} {images.shape}: convert them to bytes"
        )
    grey = images[..., None] if images.ndim == 3 else images
    return from_pictures(
        name,
        _frozen(np.repeat(grey, 3 // grey.shape[3], axis=3)),
        labels,
        digests=[digest(image.tobytes()) for image in images],
        class_names=class_names,
    )


def from_pictures(
    name: str,
    pictures: Pictures,
    labels: np.ndarray,
    *,
    digests: Sequence[int],
    class_names: Sequence[str] | None = None,
) -> Source:
    """Makes a source of pictures that are read when they are asked for.

    Args:
        name: the domain's name.
        pictures: the pictures by number; each uint8 (H, W, 3).
        labels: class of each picture, (n,) integers from 0.
        digests: a number of 64 bits a picture, equal for identical pictures; see `digest`.
        class_names: one name a class; by default the class's number.

    Returns:
        The source.

    Raises:
        ValueError: labels of another kind or number, or a label without a class name.
    """
    labels = np.asarray(labels)
    if labels.shape != (len(pictures),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"expected `labels` of shape ({len(pictures)},) and an integer type, "
            f"got {labels.dtype} {labels.shape}: one class index a picture"
        )
    if class_names is None:
        class_names = [str(c) for c in range(int(labels.max(initial=-1)) + 1)]
    if labels.size and not (labels.min() >= 0 and labels.max() < len(class_names)):
        raise ValueError(
            f"expected labels in [0, {len(class_names)}), got {labels.min()} to {labels.max()}: "
            "number the classes from 0 and name each"
        )
    return Source(
        name=name,
        class_names=tuple(str(class_name) for class_name in class_names),
        labels=_frozen(labels.astype(np.int32)),
        digests=_frozen(np.asarray(digests, np.uint64)),
        pictures=pictures,
        rows=_frozen(np.arange(len(pictures))),
    )


def merge(sources: Sequence[Source]) -> Source:
    """Makes one source of the classes of several, to train one classifier of them all.

    Args:
        sources: the sources, at least one; pictures of different sizes stay as they are.

    Returns:
        A source with the classes of all, numbered on; class names are "domain/class" where there are several.

    Raises:
        ValueError: no source.
    """
    if not sources:
        raise ValueError("expected at least one source, got none: load one")
    if len(sources) == 1:
        return sources[0]
    offsets = np.cumsum([0, *(len(source.class_names) for source in sources[:-1])])
    return Source(
        name="+".join(source.name for source in sources),
        class_names=tuple(f"{source.name}/{name}" for source in sources for name in source.class_names),
        labels=_frozen(
            np.concatenate([s.labels + offset for s, offset in zip(sources, offsets, strict=True)]).astype(
                np.int32
            )
        ),
        digests=_frozen(np.concatenate([source.digests for source in sources])),
        pictures=_Chained(tuple(sources)),
        rows=_frozen(np.arange(sum(len(source) for source in sources))),
        split=sources[0].split,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Chained:
    """The pictures of several sources, one after another."""

    sources: tuple[Source, ...]

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def __getitem__(self, i: int, /) -> np.ndarray:
        for source in self.sources:
            if i < len(source):
                return source.image(i)
            i -= len(source)
        raise IndexError(i)


def digest(data: bytes) -> int:
    """Returns 64 bits that tell pictures apart.

    Args:
        data: the picture's bytes.

    Returns:
        A number in [0, 2^64), the same on every machine.
    """
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _frozen(array: np.ndarray) -> np.ndarray:
    # Sources are shared between splits and threads, so nobody may write into them.
    array.flags.writeable = False
    return array
