"""What tells one state of files on a disk from another, without reading them."""

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path


def stamp(directory: Path, parts: Iterable[str]) -> str | None:
    """A digest of the names, sizes and times of files, and of the place where they are.

    A file that is replaced or written into has another time of change (ctime), which no program sets: also where size
    and time of modification were kept. Renaming and new permissions change it too.

    Args:
        directory: where they are.
        parts: files and folders in it, each with all that is below; those that are not there do not count.

    Returns:
        Hexadecimal digits, or None where there is none of the parts.
    """
    digest = hashlib.blake2b(os.fsencode(os.path.realpath(directory)), digest_size=8)
    there = 0
    for part in parts:
        for name, about in _below(directory / part):
            there += 1
            entry = (name, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
            digest.update(repr(entry).encode(errors="surrogateescape"))
    return digest.hexdigest() if there else None


def _below(path: Path) -> Iterable[tuple[str, os.stat_result]]:
    try:
        about = path.stat()
    except (OSError, ValueError):  # of no file, or a link to nowhere
        return
    if not stat.S_ISDIR(about.st_mode):
        yield str(path), about
        return
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = os.path.join(folder, name)
            try:
                yield file, os.stat(file)
            except OSError:
                continue
