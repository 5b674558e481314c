"""What a data set holds before any picture is read: its classes, and the files of a folder or of a tar archive."""

import contextlib
import dataclasses
import gzip
import os
import tarfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from jxai.checks import printable, reason
from jxai.data.decode import read_bytes
from jxai.errors import InputError

# Errors name so many files and count the others.
_NAMED = 8


class Files(Protocol):
    """Files by name, wherever they are."""

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yields each of these files once with its content, in the order in which they are read fastest.

        Args:
            names: which files.

        Raises:
            ValueError: files are missing or cannot be read (named).
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """The pictures of a data set by name.

    Attributes:
        classes: of each class its name and what `files` calls its pictures, in the order that splits count; pictures
            become sorted.
        files: where the pictures are.
        class_splits: the split of each class where the data set says it; else the papers' rule holds.
    """

    classes: Sequence[tuple[str, Sequence[str]]]
    files: Files
    class_splits: Sequence[str] | None = None

    def __post_init__(self):
        in_order = tuple((name, tuple(sorted(pictures))) for name, pictures in self.classes)
        object.__setattr__(self, "classes", in_order)

    @property
    def class_names(self) -> list[str]:
        """One name a class."""
        return [name for name, _ in self.classes]

    @property
    def names(self) -> list[str]:
        """What `files` calls each picture, class by class."""
        return [picture for _, pictures in self.classes for picture in pictures]

    @property
    def sizes(self) -> np.ndarray:
        """Number of pictures of each class."""
        return np.asarray([len(pictures) for _, pictures in self.classes], np.int64)

    def largest(self, count: int) -> "Listing":
        """Returns the listing with its largest classes alone, of equal ones the first by name; the order stays."""
        by_size = sorted(
            range(len(self.classes)), key=lambda c: (-len(self.classes[c][1]), self.classes[c][0])
        )
        kept = sorted(by_size[:count])
        splits = None if self.class_splits is None else [self.class_splits[c] for c in kept]
        return Listing([self.classes[c] for c in kept], self.files, splits)

    def first(self, count: int | None) -> "Listing":
        """Returns the listing with the first pictures alone of each class, so many; None keeps all."""
        classes = [(name, pictures[:count]) for name, pictures in self.classes]
        return Listing(classes, self.files, self.class_splits)


@dataclasses.dataclass(frozen=True)
class Folder:
    """The files below a folder, by their paths relative to it."""

    root: Path

    def names(self, below: str) -> list[str]:
        """Returns the files below a folder within the root, sorted; hidden ones are left out."""
        found = []
        for directory, folders, files in os.walk(self.root / below):
            folders[:] = [name for name in folders if not name.startswith(".")]
            parent = Path(directory).relative_to(self.root)
            found += [(parent / name).as_posix() for name in files if not name.startswith(".")]
        return sorted(found)

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yields the files with their content; see `Files`."""
        check_missing(str(self.root), [name for name in names if not (self.root / name).is_file()])
        for name in names:
            yield name, read_bytes(self.root / name)


@dataclasses.dataclass(frozen=True)
class Archive:
    """The files within a tar archive, compressed or not; a name within is as if it were unpacked."""

    path: Path

    def names(self, below: str) -> list[str]:
        """Returns the files below a folder within the archive, sorted; hidden ones are left out."""
        with self._open() as archive:
            found = [name for name, _ in _members(archive) if name.startswith(f"{below}/")]
        return sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yields the files with their content, in the archive's order: it is read once, never backwards."""
        wanted = set(names)
        with self._open() as archive:
            for name, member in _members(archive):
                if name in wanted:
                    file = archive.extractfile(member)
                    assert file is not None  # a regular file
                    yield name, file.read()
                    wanted.remove(name)
                    if not wanted:
                        return
        check_missing(str(self.path), [name for name in names if name in wanted])

    @contextlib.contextmanager
    def _open(self) -> Iterator[tarfile.TarFile]:
        try:
            if self.path.suffix == ".tar":  # the files between can be passed over
                with tarfile.open(self.path, "r:") as archive:
                    yield archive
            else:  # as a stream: never backwards
                with gzip.open(self.path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
                    yield archive
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise InputError(
                f"expected a tar archive, got {printable(self.path)}, which is damaged or cut short "
                f"({reason(error)}): get it again"
            ) from error


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Yields the regular files and their names, and forgets them: an archive may hold millions."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
        if member.isfile():
            yield member.name.removeprefix("./"), member


def find(directory: Path, parts: dict[str, str], *, needs: str) -> tuple[str, Folder | Archive]:
    """Looks for the first of several parts of a data set, unpacked or as an archive.

    Args:
        directory: where somebody put it.
        parts: name of the unpacked file or folder, and the archive that holds it, or "" if none does.
        needs: what an error says of what belongs there.

    Returns:
        The first part that is there, and files whose names begin with it.

    Raises:
        ValueError: none of them is there.
    """
    for part, archive in parts.items():
        if (directory / part).exists():
            return part, Folder(directory)
        if (directory / archive).is_file():
            return part, Archive(directory / archive)
    missing = " or ".join(name for names in parts.items() for name in names if name)
    raise InputError(f"expected {missing} in {printable(directory)}, got none of them: {needs}")


def check_missing(place: str, missing: Sequence[str]) -> None:
    """Raises an error that names files, if there are any.

    Args:
        place: where they should be.
        missing: their names.

    Raises:
        ValueError: there are some.
    """
    if missing:
        raise InputError(f"expected in {printable(place)} also {some(missing)}: get the data set again")


def some(names: Sequence[str]) -> str:
    """Returns the first names of a list, and how many more there are.

    Args:
        names: the list.

    Returns:
        Words.
    """
    named = ", ".join(printable(name, 200) for name in names[:_NAMED])
    return named if len(names) <= _NAMED else f"{named} and {len(names) - _NAMED} more"
