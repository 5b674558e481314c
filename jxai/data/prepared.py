"""A large domain prepared once: encoded pictures as array records that are read at random, and an index of them."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jxai import extras
from jxai.checks import printable, reason
from jxai.data.decode import LazyPictures, opened, to_rgb
from jxai.data.listing import Listing, some
from jxai.data.source import Source, check_names, digest, from_pictures
from jxai.errors import InputError
from jxai.locks import FileLock
from jxai.npz import read_npz
from jxai.progress import Bar, Progress

if TYPE_CHECKING:
    from PIL import Image

# Part of a prepared domain's path: another form of the files below would be another version.
_VERSION = "2"
_RECORDS, _INDEX, _LOCK = "pictures.array_record", "index.npz", ".lock"

# Quality of pictures that are stored smaller: losses are far below those of any resizing.
_JPEG_QUALITY = 95

# Pictures that may wait for a thread that checks them.
_AHEAD = 64


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A domain on the disk in its prepared form.

    Attributes:
        directory: where it is.
        skipped: names of the pictures that were left out because they could not be decoded.
    """

    directory: Path
    skipped: tuple[str, ...] = ()


def data_root() -> Path:
    """Returns where prepared data lives.

    Returns:
        `$JXAI_DATA` if set, else `jxai` in the user's cache (`$XDG_CACHE_HOME`, or `~/.cache`).
    """
    if root := os.environ.get("JXAI_DATA"):
        return Path(root).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "jxai"


def prepare(
    directory: Path,
    list_pictures: Callable[[], Listing],
    *,
    name: str,
    short_side: int | None,
    skip_corrupt: bool,
    progress: Progress,
    made_from: str = "",
    check: Callable[[], None] = lambda: None,
) -> Prepared:
    """Writes a domain as array records, unless that is done.

    One process writes at a time, into a directory beside that is moved into place whole: an interrupted preparation,
    killed ones too, leaves nothing that looks finished, and the next one removes what it left.

    Args:
        directory: where the prepared domain goes.
        list_pictures: gives the domain's pictures; called only where they are needed.
        name: the domain's name.
        short_side: pictures with both sides longer are stored with the shorter one of this many pixels, as JPEG; by
            default every file is stored as it is.
        skip_corrupt: whether pictures that cannot be decoded are left out, or are an error that names them.
        progress: how far it is, as it is shown.
        made_from: what `newest` finds it by.
        check: called when all is written; what it raises leaves nothing.

    Returns:
        Where it is, and which pictures were left out when it was prepared.

    Raises:
        ValueError: the directory cannot be written, or a picture cannot be decoded.
    """
    directory = directory / _VERSION
    if not _is_complete(directory):
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(directory.parent / _LOCK):
                if not _is_complete(directory):
                    with _moved_whole(directory) as building:
                        _write(building, list_pictures(), name, short_side, skip_corrupt, progress, made_from)
                        check()
        except OSError as error:
            raise InputError(
                f"expected to write prepared data below {printable(directory.parent)}, got {error}: "
                "set JXAI_DATA to a directory with space"
            ) from error
    return read_about(directory)


def read_about(directory: Path) -> Prepared:
    """What is known of a prepared domain.

    Args:
        directory: as `Prepared` has it.

    Returns:
        Where it is, and which pictures were left out when it was prepared.

    Raises:
        ValueError: the prepared copy is damaged.
    """
    with _index(directory) as index:
        return Prepared(directory, tuple(index["skipped"].tolist()))


def newest(below: Path, made_from: str) -> Path | None:
    """Looks for what `prepare` made earlier, whatever it was made of in detail.

    Args:
        below: the folder above the directories that it was given.
        made_from: as it was given.

    Returns:
        The directory of the last one, as `Prepared` has it, or None.

    Raises:
        ValueError: a prepared copy is damaged.
    """
    found = []
    for path in below.glob(f"*/{_VERSION}"):
        if _is_complete(path):
            with _index(path) as index:
                if index["made_from"].tolist() == [made_from]:
                    found.append(((path / _INDEX).stat().st_mtime_ns, path))
    return max(found)[1] if found else None


def read(prepared: Prepared, name: str) -> Source:
    """Opens a prepared domain; pictures are read and decoded when they are asked for.

    Args:
        prepared: what `prepare` returned.
        name: the domain's name.

    Returns:
        The whole domain as a source.

    Raises:
        ValueError: the prepared copy is damaged.
    """
    with extras.named():
        from array_record.python.array_record_data_source import ArrayRecordDataSource

    with _index(prepared.directory) as index:
        labels, digests, names = index["labels"], index["digests"], index["names"]
        records = ArrayRecordDataSource(os.fspath(prepared.directory / _RECORDS))
        if len(records) != len(labels):
            raise ValueError(f"{len(records)} records of {len(labels)}")
        pictures = _Pictures(records, index["rows"], names, digests, os.fspath(prepared.directory))
        return from_pictures(
            name,
            pictures,
            labels,
            digests=digests,
            class_names=index["class_names"].tolist(),
            class_splits=index["class_splits"].tolist() or None,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Pictures(LazyPictures):
    """Pictures of an array record file, in the order of the domain."""

    records: Any  # opens the file when it is first read, in each process anew
    rows: np.ndarray
    names: np.ndarray
    digests: np.ndarray
    directory: str

    def __len__(self) -> int:
        return len(self.rows)

    def opened(self, i: int) -> "contextlib.AbstractContextManager[Image.Image]":
        try:
            data = self.records[int(self.rows[i])]
        except Exception as error:  # of the reader's own kinds
            raise _damaged(self.directory, error) from error
        if digest(data) != self.digests[i]:
            raise _damaged(self.directory, ValueError(f"other bytes than were written of {self.names[i]}"))
        return opened(data, f"{self.names[i]} in {self.directory}")


def _write(
    directory: Path,
    listing: Listing,
    name: str,
    short_side: int | None,
    skip_corrupt: bool,
    progress: Progress,
    made_from: str,
) -> None:
    with extras.named():
        from array_record.python.array_record_module import ArrayRecordWriter

    check_names(name, listing.class_names)
    names = listing.names
    position = {picture: i for i, picture in enumerate(names)}
    if len(position) < len(names):
        twice = [picture for i, picture in enumerate(names) if position[picture] != i]
        raise InputError(
            f"expected every picture in one class, got {some(twice)} again: get the data set again"
        )
    rows = np.full(len(position), -1, np.int64)
    digests = np.zeros(len(position), np.uint64)
    corrupt, num_written = {}, 0
    # A record each: it is read alone. JPEG and PNG are compressed already.
    writer = ArrayRecordWriter(os.fspath(directory / _RECORDS), "group_size:1,uncompressed")
    try:
        for picture, stored in _checked(listing, short_side, progress, name):
            if isinstance(stored, ValueError):
                corrupt[picture] = stored
                continue
            writer.write(stored)
            rows[position[picture]], digests[position[picture]] = num_written, digest(stored)
            num_written += 1
    finally:
        writer.close()
    if corrupt and not skip_corrupt:
        raise InputError(
            f"expected readable images, got {len(corrupt)} of {len(position)} in {name} that are not: "
            f"{some([*corrupt])} ({next(iter(corrupt.values()))}): get them again, or leave them out with "
            "data.prepare(skip_corrupt=True)"
        )
    kept = rows >= 0
    np.savez_compressed(
        directory / _INDEX,
        labels=np.repeat(np.arange(len(listing.classes)), listing.sizes)[kept],
        rows=rows[kept],
        digests=digests[kept],
        names=np.asarray(names)[kept],
        skipped=np.asarray(names)[~kept],
        class_names=np.asarray(listing.class_names),
        class_splits=np.asarray(listing.class_splits or (), str),
        made_from=np.asarray([made_from]),
    )


def _checked(
    listing: Listing, short_side: int | None, progress: Progress, name: str
) -> Iterator[tuple[str, bytes | ValueError]]:
    """Yields every picture as it is to be stored, or why it cannot be decoded; checked in threads."""

    def check(picture: str, data: bytes) -> bytes | ValueError:
        try:
            return _stored(data, picture, short_side)
        except ValueError as error:
            return error

    names = listing.names
    bar = Bar(len(names), name=name, unit="picture", progress=progress)
    with bar, concurrent.futures.ThreadPoolExecutor() as threads:
        waiting = collections.deque()
        for picture, data in listing.files.read(names):
            waiting.append((picture, threads.submit(check, picture, data)))
            if len(waiting) > _AHEAD:
                picture, checked = waiting.popleft()
                bar.update()
                yield picture, checked.result()
        for picture, checked in waiting:
            bar.update()
            yield picture, checked.result()


def _stored(data: bytes, name: str, short_side: int | None) -> bytes:
    """The encoded picture as it is, or smaller; raises an error if it cannot be decoded."""
    from PIL import Image

    with opened(data, name) as picture:
        pixels = to_rgb(picture)
        pixels.load()
    if short_side is None or min(pixels.size) <= short_side:
        return data
    factor = short_side / min(pixels.size)
    width, height = (round(side * factor) for side in pixels.size)
    file = io.BytesIO()
    smaller = pixels.resize((width, height), Image.Resampling.BILINEAR)
    smaller.save(file, format="jpeg", quality=_JPEG_QUALITY)
    return file.getvalue()


@contextlib.contextmanager
def _moved_whole(directory: Path) -> Iterator[Path]:
    """Yields a directory to fill, which then becomes `directory`; what a killed process left goes first."""
    building = directory.with_name(f".preparing-{directory.name}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        yield building
        for path in building.iterdir():  # else a loss of power may leave empty ones below the new name
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        os.rename(building, directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextlib.contextmanager
def _index(directory: Path) -> Iterator[Any]:
    """Opens a prepared domain's index; what fails inside is an error that names the directory."""
    try:
        with (directory / _INDEX).open("rb") as file:
            index = read_npz(file)
        yield index
    except Exception as error:  # a damaged file may fail in many ways
        raise _damaged(os.fspath(directory), error) from error


def _is_complete(directory: Path) -> bool:
    return (directory / _INDEX).exists()


def _damaged(directory: str, error: Exception) -> InputError:
    return InputError(
        f"expected a prepared domain in {printable(directory)}, got a damaged one ({reason(error)}): "
        "delete that directory"
    )
