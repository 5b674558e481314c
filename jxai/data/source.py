"""A source: the labeled pictures of one domain, or of one class split of it."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from jxai import extras
from jxai.checks import as_numpy, check_count, shown
from jxai.data import augmentation, preprocess
from jxai.data.decode import LazyPictures
from jxai.data.splits import check_split, class_rule
from jxai.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from PIL import Image

# Where classes are named by their numbers alone: a label far off would take all memory.
_MOST_CLASSES = 2**20


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
    """The labeled pictures of a domain. Make one with `load`, `load_folder` or `from_arrays`.

    Attributes:
        name: the domain's name.
        class_names: one name a class.
        labels: class of each picture, (n,) int32 in [0, len(class_names)).
        digests: a number that two pictures share only if they are identical, (n,) uint64.
        pictures: pictures of the whole domain.
        rows: where in `pictures` those of this source are, (n,) int64.
        class_splits: the split that each class belongs to, "base", "validation" or "novel".
        split: the class split, one of "all", "base", "validation" and "novel".
    """

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    digests: np.ndarray
    pictures: Pictures
    rows: np.ndarray
    class_splits: tuple[str, ...]
    split: str = "all"

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of pictures, labels and class names: equal for equal data on every machine."""
        digest = hashlib.blake2b("\n".join(self.class_names).encode(errors="surrogateescape"), digest_size=16)
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
        return self.pictures[int(self._rows(i))]

    @contextlib.contextmanager
    def opened(self, i: int) -> "Iterator[Image.Image]":
        """Opens one picture; one that is stored encoded is decoded only when its pixels are asked for.

        Args:
            i: number of the picture in this source.

        Yields:
            The picture. Whatever fails inside the `with` over an encoded one is an error that names it.

        Raises:
            ValueError: the stored picture cannot be read, or is damaged.
        """
        row = int(self._rows(i))
        if isinstance(self.pictures, LazyPictures):
            with self.pictures.opened(row) as picture:
                yield picture
        else:
            with extras.named():
                from PIL import Image
            yield Image.fromarray(self.pictures[row])

    def images(self, indices: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
        """Returns pictures at one size, as a model sees them at test time but not yet normalized.

        Args:
            indices: numbers of the pictures, (k,).
            size: side in pixels; a picture of another size is resized to 1.15 times that and center cropped.

        Returns:
            uint8 (k, size, size, 3).
        """
        check_count("size", size)
        rows = self._rows(indices)
        if isinstance(self.pictures, np.ndarray) and self.pictures.shape[1:3] == (size, size):
            return self.pictures[rows]
        images = np.empty((len(rows), size, size, 3), np.uint8)
        for k, i in enumerate(indices):
            with self.opened(i) as picture:
                images[k] = preprocess.resize_and_crop(picture, size)
        return images

    def augmented(
        self, i: int, rng: np.random.Generator, *, size: int, kind: augmentation.Augmentation
    ) -> np.ndarray:
        """Returns one picture augmented as in training, not yet normalized.

        Args:
            i: number of the picture in this source.
            rng: the source of randomness.
            size: side in pixels.
            kind: which augmentation, see `augmentation.augment`.

        Returns:
            uint8 (size, size, 3).
        """
        with self.opened(i) as picture:
            return augmentation.augment(picture, rng, size=size, kind=kind)

    def _rows(self, numbers: Sequence[int] | np.ndarray | int) -> np.ndarray:
        """Where in `pictures` these of the source are."""
        array = as_numpy("numbers of pictures", numbers)
        if not array.size:
            array = array.astype(np.int64)
        if (
            array.dtype.kind not in "iu"
            or array.min(initial=0) < 0
            or array.max(initial=-1) >= len(self.rows)
        ):
            raise InputError(
                f"expected numbers of pictures in [0, {len(self.rows)}), got {shown(numbers)}: count from 0"
            )
        return self.rows[array]

    def normalized(self, size: int) -> "NormalisedPictures":
        """Returns the pictures as `array` does, made when a slice is asked for.

        Args:
            size: side in pixels.

        Returns:
            What has a length, and gives float32 (k, size, size, 3) by slices.
        """
        return NormalisedPictures(self, size)

    def array(self, size: int) -> np.ndarray:
        """Returns every picture, normalized, to encode a whole domain at once.

        Args:
            size: side in pixels.

        Returns:
            float32 (n, size, size, 3).
        """
        return self.normalized(size)[:]

    def restrict(self, split: str) -> "Source":
        """Returns the classes of one split, numbered anew from 0.

        Args:
            split: "all", "base", "validation" or "novel"; see `class_splits`.

        Returns:
            A source that shares this one's pictures.

        Raises:
            ValueError: unknown split, or this source is a split already.
        """
        check_split(split)
        if split == "all":
            return self
        if self.split != "all":
            raise InputError(
                f"expected a whole domain, got the split {self.split!r} of {self.name!r}: restrict that"
            )
        classes = [c for c, of in enumerate(self.class_splits) if of == split]
        new_label = np.full(len(self.class_names), -1, np.int32)
        new_label[classes] = np.arange(len(classes), dtype=np.int32)
        kept = np.flatnonzero(new_label[self.labels] >= 0)
        return dataclasses.replace(
            self,
            class_names=tuple(self.class_names[c] for c in classes),
            labels=frozen(new_label[self.labels[kept]]),
            digests=frozen(self.digests[kept]),
            rows=frozen(self.rows[kept]),
            class_splits=(split,) * len(classes),
            split=split,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class NormalisedPictures:
    """A source's pictures at one size, normalized, by slices: a large domain does not fit in memory.

    Attributes:
        source: the pictures.
        size: side in pixels.
    """

    source: Source
    size: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        indices = np.arange(len(self.source))[rows]
        return preprocess.normalize(self.source.images(indices, self.size))


def check_names(name: str, class_names: Sequence[str]) -> None:
    """Checks that classes can be told apart by their names.

    Args:
        name: the domain's name.
        class_names: one name a class.

    Raises:
        ValueError: two classes of one name (named).
    """
    twice = [class_name for class_name, count in collections.Counter(class_names).items() if count > 1]
    if twice:
        raise InputError(
            f"expected class names that differ, got {', '.join(map(shown, twice[:8]))} more than once in {name!r}: "
            "rename or join those classes"
        )


def from_arrays(
    name: str, images: np.ndarray, labels: np.ndarray, *, class_names: Sequence[str] | None = None
) -> Source:
    """Makes a source of pictures that are in memory.

    Args:
        name: the domain's name.
        images: uint8 (n, H, W), (n, H, W, 1) or (n, H, W, 3); gray ones get three equal channels.
        labels: class of each picture, (n,) integers from 0.
        class_names: one name a class; by default the class's number.

    Returns:
        The source, with a copy of the pictures.

    Raises:
        ValueError: pictures or labels of another kind or number, or a label without a class name.
    """
    try:
        images = np.asarray(images)
    except ValueError as error:
        raise InputError(f"expected images of one size, got others ({error}): resize them") from error
    if (
        images.dtype != np.uint8
        or images.ndim not in (3, 4)
        or (images.ndim == 4 and images.shape[3] not in (1, 3))
        or 0 in images.shape[1:]
    ):
        raise InputError(
            "expected images as uint8 (n, H, W), (n, H, W, 1) or (n, H, W, 3), "
            f"got {images.dtype} {images.shape}: convert them to bytes"
        )
    gray = images[..., None] if images.ndim == 3 else images
    return from_pictures(
        name,
        frozen(np.repeat(gray, 3 // gray.shape[3], axis=3)),
        labels,
        digests=[digest(image.tobytes()) for image in images],
        class_names=class_names,
    )


def from_pictures(
    name: str,
    pictures: Pictures,
    labels: np.ndarray,
    *,
    digests: Sequence[int] | np.ndarray,
    class_names: Sequence[str] | None = None,
    class_splits: Sequence[str] | None = None,
) -> Source:
    """Makes a source of pictures that are read when they are asked for.

    Args:
        name: the domain's name.
        pictures: the pictures by number; each uint8 (H, W, 3).
        labels: class of each picture, (n,) integers from 0.
        digests: a number of 64 bits a picture, equal for identical pictures; see `digest`.
        class_names: one name a class; by default the class's number.
        class_splits: the split of each class; by default the papers' rule, see `split_classes`.

    Returns:
        The source.

    Raises:
        ValueError: labels of another kind or number, a label without a class name, or two classes of one name.
    """
    labels = as_labels(labels)
    if labels.shape != (len(pictures),):
        raise InputError(
            f"expected labels of shape ({len(pictures)},), got {labels.shape}: one class index a picture"
        )
    if class_names is None:
        if labels.max(initial=0) >= _MOST_CLASSES:
            raise InputError(
                f"expected labels below {_MOST_CLASSES} where classes have no names, got {labels.max()}: "
                "number the classes from 0"
            )
        class_names = [str(c) for c in range(int(labels.max(initial=-1)) + 1)]
    if isinstance(class_names, str) or not isinstance(class_names, Sequence):
        raise InputTypeError(f"expected class names as a list of texts, got {shown(class_names)}: give one")
    if labels.size and not (labels.min() >= 0 and labels.max() < len(class_names)):
        raise InputError(
            f"expected labels in [0, {len(class_names)}), got {labels.min()} to {labels.max()}: "
            "number the classes from 0 and name each"
        )
    class_names = tuple(str(class_name) for class_name in class_names)
    check_names(name, class_names)
    if class_splits is None:
        class_splits = class_rule(len(class_names))
    return Source(
        name=name,
        class_names=class_names,
        labels=frozen(labels.astype(np.int32)),
        digests=frozen(np.asarray(digests, np.uint64)),
        pictures=pictures,
        rows=frozen(np.arange(len(pictures))),
        class_splits=tuple(class_splits),
    )


def as_labels(labels: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns labels as an array.

    Args:
        labels: class of each picture, (n,) integers.

    Returns:
        The array; of integers if it is empty.

    Raises:
        ValueError: another rank or type.
    """
    try:
        array = np.asarray(labels)
    except ValueError:  # lists of several lengths
        array = np.asarray(None)
    array = array.astype(np.int64) if array.shape == (0,) else array
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"expected labels of shape (n,) and an integer type, got {array.dtype} {array.shape}: "
            "one class index a picture"
        )
    return array


def digest(data: bytes) -> int:
    """Returns 64 bits that tell pictures apart.

    Args:
        data: the picture's bytes.

    Returns:
        A number in [0, 2^64), the same on every machine.
    """
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def frozen(array: np.ndarray) -> np.ndarray:
    """Returns the array itself, read-only: sources are shared between splits and threads.

    Args:
        array: an array that nobody else writes into.

    Returns:
        The same array.
    """
    array.flags.writeable = False
    return array
