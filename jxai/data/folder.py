"""A folder of class folders as a source, such as miniImageNet on a disk."""

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jxai.checks import as_path, printable
from jxai.data.decode import LazyPictures, image_shape, opened, read_bytes
from jxai.data.source import Pictures, Source, digest, from_pictures
from jxai.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

# Decoded pictures up to this many bytes together are kept in memory.
_MEMORY_LIMIT = 2**29


def load_folder(path: str | os.PathLike[str], *, split: str = "all") -> Source:
    """Loads a folder with one folder of pictures for each class.

    Classes are the folders in sorted order, pictures the files in sorted order; hidden files are left out,
    and so are files beside the class folders. Pictures of at most 512 MiB, decoded, are kept in memory; more
    are decoded anew each time, from files that must stay.

    Args:
        path: the folder; its last part names the source.
        split: classes by their place i in sorted order: "all", "base" (i % 2 = 0), "validation" (i % 4 = 1)
            or "novel" (i % 4 = 3).

    Returns:
        The source; its labels are numbered within the split.

    Raises:
        TypeError: no path.
        ValueError: no such folder, no class folders, an empty one, unknown split, or a file that is no
            readable image (named; of pictures not kept in memory, damage beyond the header is found in use).
    """
    folder = as_path("a folder of class folders", path)
    if not os.path.isdir(folder):  # False too where a path cannot be
        raise InputError(f"expected a folder of class folders, got {printable(folder, 200)}: no such folder")
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise InputError(
            f"expected a folder of class folders, got {printable(folder)} without any: make one a class"
        )
    files, labels = [], []
    for label, of_class in enumerate(classes):
        found = sorted(entry for entry in of_class.iterdir() if not entry.name.startswith("."))
        if not found:
            raise InputError(
                f"expected pictures in every class folder, got none in {printable(of_class)}: add some or remove it"
            )
        files += found
        labels += [label] * len(found)
    digests, num_bytes = [], 0
    for file in files:
        data = read_bytes(file)
        digests.append(digest(data))
        num_bytes += 3 * int(np.prod(image_shape(data, name=str(file))))
    pictures: Pictures = _Files(tuple(files))
    if num_bytes <= _MEMORY_LIMIT:
        pictures = _in_memory(pictures)
    names = [of_class.name for of_class in classes]
    name = folder.resolve().name
    return from_pictures(name, pictures, np.asarray(labels), digests=digests, class_names=names).restrict(
        split
    )


@dataclasses.dataclass(frozen=True)
class _Files(LazyPictures):
    """Pictures read from their files when they are asked for."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def opened(self, i: int) -> "contextlib.AbstractContextManager[Image.Image]":
        return opened(read_bytes(self.paths[i]), str(self.paths[i]))


def _in_memory(files: _Files) -> Pictures:
    images = [files[i] for i in range(len(files))]
    if len({image.shape for image in images}) > 1:
        return images
    # One array gives a batch of pictures at once.
    stacked = np.stack(images)
    stacked.flags.writeable = False
    return stacked
