"""One training a folder at a time."""

import contextlib
import errno
import os
import platform
from pathlib import Path

_NAME = ".in_use"
# File systems without locks, as some of networks are.
_NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)


class Claim:
    """A lock on a folder; the system gives it back when the process ends, however that comes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._held = folder, contextlib.ExitStack()
        self._taken = False

    def take(self) -> bool:
        """Takes the lock, or keeps it.

        Returns:
            Whether it was not held before.

        Raises:
            BlockingIOError: somebody else has it.
            OSError: nothing can be written there.
        """
        if self._taken:
            return False
        try:
            import fcntl
        except ImportError:  # Windows
            return True
        path = self._folder / _NAME
        with contextlib.ExitStack() as stack:
            # Not truncated before it is held: it says who holds it.
            file = stack.enter_context(path.open("a+", encoding="utf-8"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"expected a folder that no other training writes, got {self._folder}, in use by "
                    f"{path.read_text(encoding='utf-8') or 'another'}: wait for its end, or give another folder"
                ) from None
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
