"""Which files in a folder `jxai explain` wrote: it replaces and removes no others, nor takes its own for pictures.

The names are in the file `.written` there, from before the first is written.
"""

import json
import os
import re
from collections.abc import Collection
from pathlib import Path

from jxai.cli.running import folders
from jxai.errors import InputError

NOTE = ".written"
_NAMES = re.compile(r"index\.html|attributions\.npz|sheet-\d+\.png")


def written_files(folder: Path) -> set[str]:
    """Names of the files that it wrote.

    Args:
        folder: of its results, or any other.

    Returns:
        The names; none where it wrote nothing.

    Raises:
        ValueError: the note of them is damaged.
    """
    note = folder / NOTE
    try:
        names = json.loads(note.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except (ValueError, RecursionError):
        names = None
    # No note can have anything else removed.
    if not isinstance(names, list) or not all(
        isinstance(name, str) and _NAMES.fullmatch(name) for name in names
    ):
        raise InputError(f"expected names of files that jxai explain wrote in {note}, got others: remove it")
    return set(names)


def claim(folder: Path, names: Collection[str]) -> None:
    """Note what will be written.

    Args:
        folder: where.
        names: of the files.

    Raises:
        ValueError: files of others have these names.
        OSError: it cannot be written.
    """
    own = written_files(folder)
    if others := [name for name in names if name not in own and os.path.lexists(folder / name)]:
        raise InputError(
            f"expected a folder of results in {folder}, got files there that jxai explain did not write "
            f"({', '.join(others[:3])}): move them, or give another --out"
        )
    folders.write_whole(folder / NOTE, json.dumps(sorted(own | set(names))) + "\n")


def keep_only(folder: Path, names: Collection[str]) -> None:
    """Remove what earlier runs wrote under other names.

    Args:
        folder: where.
        names: of the files that stay.

    Raises:
        OSError: it cannot be.
    """
    with folders.writing(folder):
        for old in written_files(folder) - set(names):
            (folder / old).unlink(missing_ok=True)
    folders.write_whole(folder / NOTE, json.dumps(sorted(names)) + "\n")
