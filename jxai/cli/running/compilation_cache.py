"""Compiled programs are kept on disk: a second start of a script compiles only what is new.

JAX's own files would do but for three things: they are written in place, so that a kill leaves half of one; a damaged
one is never replaced; and other bits in one may go unseen, in a program that is then run. So the cache is filled and
read by a class of our own, over an interface of JAX that is not public: a version without it keeps JAX's.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jxai import sealing
from jxai.cli.running.threads import threads

_DIGEST_BYTES = 16
_OF_JAX = "get_file_cache"


def folder() -> Path:
    """Where they are kept.

    Returns:
        `$JXAI_CACHE` if set, else `jxai/compiled` in the user's cache (`$XDG_CACHE_HOME`, or `~/.cache`).

    Raises:
        RuntimeError: the user has no home, as in a container without `$HOME` and entry in /etc/passwd.
    """
    if chosen := os.environ.get("JXAI_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jxai" / "compiled"


def keep_compiled_programs() -> None:
    """Turn JAX's persistent cache on, in its folder if that is set already (`JAX_COMPILATION_CACHE_DIR`).

    It holds what took over a second to compile. The folder may be removed at any time;
    `JAX_ENABLE_COMPILATION_CACHE=false` does without it. Where there is no place for it, nothing is kept.
    """
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        try:
            place = folder()
        except RuntimeError as error:
            print(f"compiled programs are not kept ({error}): set JXAI_CACHE to a folder", file=sys.stderr)
            return
        jax.config.update("jax_compilation_cache_dir", str(place))
    _verify_what_is_read()


class Programs:
    """Compiled programs in a folder, each in a file that begins with a digest of the rest.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: str) -> None:
        self.path = self._path = Path(path)

    def get(self, key: str) -> bytes | None:
        """What was put under a key; None where nothing was, or it is damaged and will be put anew."""
        path = self._place(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, value = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if digest == sealing.digest_of(path.name.encode(), value):
            return value
        print(f"note: {path} is damaged: this program is compiled anew", file=sys.stderr)
        return None

    def put(self, key: str, value: bytes) -> None:
        """Keep a program; what is there already is replaced."""
        self.path.mkdir(parents=True, exist_ok=True)
        path = self._place(key)
        sealing.write_whole(path, sealing.digest_of(path.name.encode(), value) + value)

    def _place(self, key: str) -> Path:
        # How a program splits its work is compiled into it, and JAX's key does not say it.
        return self.path / f"{key}-{threads()}-threads"


def _verify_what_is_read() -> None:
    from jax._src import compilation_cache

    of_jax: Callable[[str], Any] | None = getattr(compilation_cache, _OF_JAX, None)

    def file_cache(path: str) -> Any:
        # What this class does not do stays JAX's: another place than a local folder, and a largest size.
        others = "://" in path or jax.config.jax_compilation_cache_max_size != -1  # pyright: ignore[reportAttributeAccessIssue]
        return of_jax(path) if others and of_jax is not None else (Programs(path), path)

    if of_jax is not None and of_jax.__module__ != __name__:
        setattr(compilation_cache, _OF_JAX, file_cache)
