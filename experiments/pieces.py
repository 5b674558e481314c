"""What long experiments share: pieces that are logged when they are done, so that a stopped run goes on, and results.

A piece has a name and a function without arguments that measures it: the dictionary it gives is the log's record.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from jxai.cli.running import folders, made_with
from jxai.errors import InputError
from jxai.progress import Bar
from jxai.results_log import ResultsLog


def check_names(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Refuse names that are none of the known ones.

    Args:
        kind: what they are names of, in the plural.
        names: what was given.
        known: what there is.

    Raises:
        ValueError: another name, or none.
    """
    names = tuple(names)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        got = ", ".join(unknown) or "none"
        raise InputError(f"expected {kind} among {', '.join(known)}, got {got}: name such ones")


def finish(
    log: ResultsLog, pieces: Mapping[str, Callable[[], Mapping[str, Any]]], *, unit: str, progress: bool
) -> None:
    """Measure the pieces that a log lacks, one after another.

    Args:
        log: where records are, and go.
        pieces: by key, what gives its record.
        unit: what a piece is called where progress is shown.
        progress: a bar; else lines.
    """
    done = sum(map(log.done, pieces))
    with Bar(len(pieces), initial=done, unit=unit, progress=True if progress else "lines") as bar:
        for key, measure in pieces.items():
            if not log.done(key):
                bar.name(key)
                log.append({"key": key, **measure()})
                bar.update()


def leave(path: Path, text: str, numbers: Mapping[str, Any], *, as_json: bool = False) -> None:
    """Write a table beside its numbers, and print one of them.

    Args:
        path: of both, without suffix.
        text: the table, to `.md`.
        numbers: to `.json`, with the software that made them.
        as_json: print the numbers.
    """
    stored = {"made_with": made_with.start(), **numbers}
    written = json.dumps(stored, ensure_ascii=False, indent=1) + "\n"
    folders.write_whole(path.with_suffix(".md"), text)
    folders.write_whole(path.with_suffix(".json"), written)
    print(written if as_json else text, end="")
