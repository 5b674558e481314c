"""A large array that is made row by row: in a file, so that memory need not hold it and a stopped run goes on.

In the file each row follows a digest of its place, the file's name and its bytes, so that only what is as it was
written is gone on from.
"""

import sys
from pathlib import Path

import numpy as np

from jxai import sealing
from jxai.cli.running import folders
from jxai.cli.running.hosts import is_first


class Rows:
    """Rows made one after another; the first process alone has them, whatever is added in others."""

    def __init__(self, path: Path | None, shape: tuple[int, ...], dtype: np.dtype):
        """Look at what is there.

        Args:
            path: the file, made with the folders above it by `cut`; None keeps the rows in memory.
            shape: a row's.
            dtype: theirs.
        """
        self._path = path if is_first() else None
        self._form = np.dtype([("digest", np.void, 16), ("row", dtype, shape)])
        self._parts: list[np.ndarray] = []
        self._count = 0 if self._path is None or not self._path.exists() else self._whole()

    @property
    def count(self) -> int:
        """How many are in the file, up to the first that is not as it was written."""
        return self._count

    def cut(self, count: int) -> None:
        """Keep the first rows of the file alone.

        Args:
            count: how many, at most those that are there.

        Raises:
            OSError: the file cannot be written.
        """
        if self._path is not None:
            with folders.writing(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("ab") as file:
                    file.truncate(count * self._form.itemsize)
        self._count = count

    def add(self, rows: np.ndarray) -> None:
        """Add rows at the end.

        Args:
            rows: (N, *shape).

        Raises:
            OSError: the file cannot be written.
        """
        if self._path is not None:
            sealed = np.empty(len(rows), self._form)
            sealed["row"] = rows
            for number, one in enumerate(sealed, self._count):
                one["digest"] = self._digest(number, one["row"])
            with folders.writing(self._path), self._path.open("ab") as file:
                file.write(sealed.tobytes())
            self._count += len(rows)
        elif is_first():
            self._parts.append(rows)

    def array(self) -> np.ndarray:
        """All of them, at least one; those of a file are read where they are used.

        Raises:
            OSError: somebody else changed the file.
        """
        if self._path is None:
            return np.concatenate(self._parts)
        count = self._whole()
        if count < self._count:
            raise OSError(
                f"expected {self._count} rows as they were written in {self._path}, got {count}: start again to make "
                "the others anew"
            )
        return self._on_disk()["row"]

    def _on_disk(self) -> np.ndarray:
        assert self._path is not None
        count = self._path.stat().st_size // self._form.itemsize
        return np.memmap(self._path, self._form, "r", shape=count) if count else np.empty(0, self._form)

    def _whole(self) -> int:
        """How many rows of the file are as they were written; says so where there are others."""
        there = self._on_disk()
        for number, one in enumerate(there):
            if one["digest"].tobytes() != self._digest(number, one["row"]):
                print(f"note: row {number} of {self._path} is damaged: made anew from there", file=sys.stderr)
                return number
        return len(there)

    def _digest(self, number: int, row: np.ndarray) -> bytes:
        assert self._path is not None
        place = f"{self._path.parent.name}/{self._path.name} {number}"
        return sealing.digest_of(place.encode(), np.ascontiguousarray(row).view(np.uint8).reshape(-1).data)
