"""Any image-classification data set of TensorFlow Datasets by its name, without TensorFlow.

Importing this file loads TensorFlow Datasets; `jxai.data.loading` does so on first use.
"""

import contextlib
import dataclasses
import io
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jxai.checks import printable
from jxai.data.listing import Listing
from jxai.errors import InputError
from jxai.progress import Progress


def place_of(name: str) -> tuple[Path, str]:
    """Where TensorFlow Datasets keeps a data set.

    Args:
        name: as in `list_pictures`.

    Returns:
        Its folder for all data sets, and the name of this one's in it.
    """
    folder = tfds.core.constants.DATA_DIR  # pyright: ignore[reportAttributeAccessIssue]
    return Path(folder).expanduser(), name.partition(":")[0].partition("/")[0]


def list_pictures(
    name: str,
    *,
    manual_dir: str | os.PathLike[str] | None,
    progress: Progress,
    data_dir: str | os.PathLike[str] | None = None,
) -> Listing:
    """Lists a data set, prepared by TensorFlow Datasets first where that is not done and needs no TensorFlow.

    Its splits are put together: ours are by class.

    Args:
        name: as TensorFlow Datasets calls it, such as "oxford_flowers102" or "cifar10:3.0.2".
        manual_dir: where its files are that cannot be downloaded; by default TensorFlow Datasets's place for them.
        progress: whether its builder may show what it downloads and prepares.
        data_dir: where it is prepared; by default TensorFlow Datasets's folder.

    Returns:
        The classes in the order of their numbers; pictures are called "train 12".

    Raises:
        ValueError: unknown name, no picture or class among its features, or it cannot be prepared without
            TensorFlow.
    """
    try:
        builder: Any = tfds.builder(
            name, file_format="array_record", data_dir=None if data_dir is None else os.fspath(data_dir)
        )
    except Exception as error:  # of many kinds
        raise InputError(
            f"expected a data set of TensorFlow Datasets, got {name!r} ({_first_line(error)}): "
            "see https://www.tensorflow.org/datasets/catalog"
        ) from error
    image, label = _features(builder, name)
    try:
        place = None if manual_dir is None else os.fspath(manual_dir)
        config = tfds.download.DownloadConfig(manual_dir=place)
        with contextlib.ExitStack() as quiet:
            for redirect in () if progress else (contextlib.redirect_stdout, contextlib.redirect_stderr):
                quiet.enter_context(redirect(io.StringIO()))
            builder.download_and_prepare(download_config=config)
        # Encoded bytes, also of masks and the like beside the picture.
        pictures = [
            key for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)
        ]
        splits = builder.as_data_source(decoders={key: tfds.decode.SkipDecoding() for key in pictures})
        labels = {split: _labels(records, label) for split, records in splits.items()}
    except Exception as error:
        raise InputError(
            f"expected {name} prepared by TensorFlow Datasets as array_record, got {_first_line(error)}: where "
            f"TensorFlow is installed, run `tfds build {name} --file_format=array_record --data_dir=DIR`, "
            "copy DIR here and set TFDS_DATA_DIR to it"
        ) from error
    classes = [
        (class_name, [f"{split} {i:09}" for split in labels for i in np.flatnonzero(labels[split] == c)])
        for c, class_name in enumerate(_class_names(builder.info.features[label]))
    ]
    return Listing(classes, _Records(splits, image))


def _features(builder: Any, name: str) -> tuple[str, str]:
    """Which features are the picture and its class: those it supervises, else the only ones of their kind."""
    features = dict(builder.info.features)
    kinds = {"image": tfds.features.Image, "class": tfds.features.ClassLabel}
    keys = builder.info.supervised_keys or ()
    found = [
        [key for key in keys if isinstance(features.get(key), kind)]
        or [key for key in features if isinstance(features[key], kind)]
        for kind in kinds.values()
    ]
    for what, candidates in zip(kinds, found, strict=True):
        if len(candidates) != 1:
            raise InputError(
                f"expected a data set with one {what} a picture, got {name} with "
                f"{', '.join(candidates) or 'none'}: take one for image classification"
            )
    return found[0][0], found[1][0]


def _class_names(feature: Any) -> list[str]:
    return [feature.int2str(c) for c in range(feature.num_classes)]


def _labels(records: Sequence[Any], label: str) -> np.ndarray:
    """The class of each record, -1 where a split has none."""
    return np.asarray([records[i][label] for i in range(len(records))], np.int64)


def _first_line(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}".splitlines()[0])


@dataclasses.dataclass(frozen=True)
class _Records:
    """Encoded pictures of several splits; "train 12" is record 12 of the split train."""

    splits: dict[str, Sequence[Any]]
    image: str

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yields the pictures; see `Files`."""
        for name in sorted(names):
            split, number = name.rsplit(" ", 1)
            yield name, self.splits[split][int(number)][self.image]
