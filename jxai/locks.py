"""A file that one process at a time holds; the system gives it back when the process ends, however that comes."""

import contextlib
import errno
import os
import platform
from pathlib import Path
from types import TracebackType
from typing import Self

# File systems without locks, as some of networks are.
_NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)


class FileLock:
    """A lock. On Windows, and on file systems without locks, everybody holds it."""

    def __init__(self, path: Path) -> None:
        self._path, self._held = path, contextlib.ExitStack()
        self._taken = False

    def take(self, *, wait: bool = False) -> bool:
        """Takes the lock, or keeps it.

        Args:
            wait: for whoever has it, as long as that takes.

        Returns:
            Whether it was not held before.

        Raises:
            BlockingIOError: somebody else has it; the message says who.
            OSError: the file cannot be written.
        """
        if self._taken:
            return False
        try:
            import fcntl
        except ImportError:  # Windows
            return True
        with contextlib.ExitStack() as stack:
            # Not truncated before it is held: it says who holds it. Nor through a link, to what may be anybody's.
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
            try:
                opened = os.open(self._path, flags, 0o666)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                raise OSError(
                    error.errno, "expected a lock of our own, got a symbolic link: remove it", str(self._path)
                ) from None
            file = stack.enter_context(os.fdopen(opened, "a+", encoding="utf-8"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                holder = self._path.read_text(encoding="utf-8", errors="replace")
                raise BlockingIOError(holder or "another process") from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            self._held, self._taken = stack.pop_all(), True
        return True

    def release(self) -> None:
        """Gives the lock back."""
        self._held.close()
        self._taken = False

    def __enter__(self) -> Self:
        self.take(wait=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
