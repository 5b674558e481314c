"""Compiled programs are kept on disk: a second start of a script compiles only what is new."""

import os
import sys
from pathlib import Path

import jax


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
    """Turn JAX's persistent cache on, unless its folder is set already (`JAX_COMPILATION_CACHE_DIR`).

    It holds what took over a second to compile. The folder may be removed at any time;
    `JAX_ENABLE_COMPILATION_CACHE=false` does without it. Where there is no place for it, nothing is kept.
    """
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        try:
            place = folder()
        except RuntimeError as error:
            print(f"compiled programs are not kept ({error}): set JXAI_CACHE to a folder", file=sys.stderr)
        else:
            jax.config.update("jax_compilation_cache_dir", str(place))
