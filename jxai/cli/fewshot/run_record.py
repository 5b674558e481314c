"""What a few-shot run was made with: each start, and the data's fingerprints, in `run.json` of its folder."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jxai import sealing
from jxai.checks import printable
from jxai.cli.fewshot.configs import Config
from jxai.cli.fewshot.system import load_domain
from jxai.cli.running import made_with
from jxai.cli.running.folders import write_whole
from jxai.data import DOMAINS
from jxai.errors import InputError

_NAME = "run.json"


def keep(folder: Path, config: Config) -> None:
    """Add this start to what the folder says of its run, unless the last one was the same.

    Args:
        folder: the run's.
        config: its configuration, the folder's.

    Raises:
        ValueError: the run began with other data.
    """
    data = fingerprints(config)
    before = _read(folder) or {"fingerprints": data, "starts": []}
    _compare(folder, before["fingerprints"], data)
    starts, now = before["starts"], made_with.start()
    if now not in starts[-1:]:
        text = json.dumps(sealing.seal({"fingerprints": data, "starts": [*starts, now]}), indent=1)
        write_whole(folder / _NAME, text + "\n")


def verify(folder: Path, config: Config, *, named: Sequence[str] = ()) -> None:
    """Compare a run with what it is to be evaluated with now.

    Prints a line for each start of the run with other versions, at another commit, with other flags or threads of
    XLA, or on another processor.

    Args:
        folder: the run's.
        config: its configuration, as its checkpoints have it.
        named: folders and data sets that the person named. On the word of the run alone none is read (the package's
            own domains are): it may be anybody's, and name any path, or a data set that would be downloaded.

    Raises:
        ValueError: one of the domains that it was trained on has other data now.
    """
    there = _read(folder)
    if there is None:
        _say(f"{folder} has no {_NAME}: what it was trained with is not known")
        return
    sources = dict.fromkeys((*config.sources, *config.pretraining.sources))
    allowed = {os.path.abspath(name) for name in (*DOMAINS, *named)}
    if left := [name for name in sources if os.path.abspath(name) not in allowed]:
        _say(
            f"the data that {folder} was trained on are not compared where nobody here named them: "
            f"{', '.join(left)} (--data NAME reads one)"
        )
    try:
        data = _fingerprints([name for name in sources if name not in left], config)
    except (ValueError, FileNotFoundError) as error:
        _say(f"the data that {folder} was trained on cannot be compared: {error}")
    else:
        _compare(folder, there["fingerprints"], data)
    now = made_with.start()
    for number, then in enumerate(there["starts"], 1):
        if differing := made_with.differences(then, now):
            _say(f"{folder}, start {number}: {'; '.join(differing)}")


def fingerprints(config: Config, targets: Sequence[str] = ()) -> dict[str, str]:
    """What tells other data of the same names apart.

    Args:
        config: a run's configuration.
        targets: names of domains that it is judged on.

    Returns:
        {name of a domain that it is trained on, or of a target: fingerprint of all of it}.
    """
    return _fingerprints(dict.fromkeys((*config.sources, *config.pretraining.sources, *targets)), config)


def _fingerprints(names: Iterable[str], config: Config) -> dict[str, str]:
    return {name: load_domain(name, "all", short_side=config.short_side).fingerprint for name in names}


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / _NAME
    if not path.exists():
        return None
    try:
        read = sealing.unseal(json.loads(path.read_text(encoding="utf-8")))
        starts = [
            {"commit": None, "changed": None, **start, "versions": dict(start["versions"])}
            for start in read["starts"]
        ]
        return {"fingerprints": dict(read["fingerprints"]), "starts": starts}
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"expected the record of a run in {path}, got {error!r}: remove the file") from error


def _compare(folder: Path, then: Mapping[str, str], now: Mapping[str, str]) -> None:
    differing = [name for name in now if now[name] != then.get(name)]
    if differing:
        raise InputError(
            f"expected the data that {folder} was trained on, got others in {', '.join(differing)} "
            f"({_NAME} has {then.get(differing[0])}, here is {now[differing[0]]}): "
            "get the same data again, or train in another folder"
        )


def _say(line: str) -> None:
    print(f"note: {printable(line, 2000)}", file=sys.stderr)
