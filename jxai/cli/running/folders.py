"""Folders of results: one process writes at a time, a kill leaves whole files, and what fails says so in a line."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import jax

from jxai import sealing
from jxai.locks import FileLock

_LOCK = ".in_use"


def write_whole(path: Path, content: str | Callable[[IO[bytes]], Any]) -> None:
    """Write a file beside its place and move it there, so that a kill leaves the old one or the new one.

    Args:
        path: the file.
        content: its text, or what writes it into an open file.

    Raises:
        OSError: it cannot be written.
    """
    with writing(path):
        sealing.write_whole(path, content)


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Make a folder of results, and keep other processes from writing in it meanwhile.

    Args:
        folder: the folder; of several processes the first has it.

    Raises:
        BlockingIOError: another process has it.
        OSError: it cannot be made.
    """
    if jax.process_index() != 0:
        yield
        return
    lock = FileLock(folder / _LOCK)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock.take()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line what cannot be written.

    Args:
        path: the file or folder that is written meanwhile.

    Raises:
        BlockingIOError: it is locked by another process.
        OSError: it cannot be.
    """
    try:
        yield
    except BlockingIOError as error:
        raise BlockingIOError(
            f"expected a folder that nobody writes, got {path}, in use by {error}: wait or take another"
        ) from None
    except OSError as error:
        raise OSError(
            f"expected to write {path}, got {error}: give a folder that can be written, with space, and start again"
        ) from error
