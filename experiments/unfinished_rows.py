"""A large array that is made row by row: in a file, so that memory need not hold it and a stopped run goes on."""

import math
from pathlib import Path

import numpy as np

import record
from hosts import is_first


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
        self._shape, self._dtype, self._size = shape, dtype, math.prod(shape) * dtype.itemsize
        self._parts: list[np.ndarray] = []

    @property
    def count(self) -> int:
        """How many are in the file; one that a killed process left cut off does not count."""
        if self._path is None or not self._path.exists():
            return 0
        return self._path.stat().st_size // self._size

    def cut(self, count: int) -> None:
        """Keep the first rows of the file alone.

        Args:
            count: how many, at most those that are there.

        Raises:
            OSError: the file cannot be written.
        """
        if self._path is not None:
            with record.writing(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("ab") as file:
                    file.truncate(count * self._size)

    def add(self, rows: np.ndarray) -> None:
        """Add rows at the end.

        Args:
            rows: (N, *shape).

        Raises:
            OSError: the file cannot be written.
        """
        if self._path is not None:
            with record.writing(self._path), self._path.open("ab") as file:
                file.write(rows.tobytes())
        elif is_first():
            self._parts.append(rows)

    def array(self) -> np.ndarray:
        """All of them, at least one; those of a file are read where they are used."""
        if self._path is None:
            return np.concatenate(self._parts)
        return np.memmap(self._path, self._dtype, "r", shape=(self.count, *self._shape))
