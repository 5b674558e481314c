"""What a run was made with: versions, commit, machine, data and commands, in `run.json` of its folder."""

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import jax

import jxai
from configs import Config
from jxai import sealing
from jxai.checks import printable
from jxai.data import DOMAINS
from jxai.locks import FileLock
from system import load_domain
from threads import cores, threads

_NAME = "run.json"
_LOCK = ".in_use"
# Of what a start records, besides versions and commit.
_CHANGING_BITS = {"xla_flags": "XLA_FLAGS", "xla_threads": "XLA's threads", "processor": "processor"}
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def start() -> dict[str, Any]:
    """What this process computes with.

    Returns:
        Versions, commit (None outside a repository) and whether Python files differ from it, platform, processor,
        cores that this process may use, devices, flags and threads of XLA, and the command.
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", ":/*.py")
    return {
        "versions": {
            "python": platform.python_version(),
            "jxai": jxai.__version__,  # also of a checkout that is not installed
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "commit": commit,
        "changed": None if commit is None or changes is None else bool(changes),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores(),
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "xla_threads": threads(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


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
    starts, now = before["starts"], start()
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
    now = start()
    for number, then in enumerate(there["starts"], 1):
        versions = now["versions"] | then["versions"]
        differing = [
            f"{name} {then['versions'].get(name)} then and {now['versions'].get(name)} now"
            for name in versions
            if then["versions"].get(name) != now["versions"].get(name)
        ]
        if _code(then) != _code(now):
            differing.append(f"commit {_code(then)} then and {_code(now)} now")
        for name, called in _CHANGING_BITS.items():
            if name in then and then[name] != now[name]:
                differing.append(f"{called} {then[name]!r} then and {now[name]!r} now")
        if differing:
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


def write_whole(path: Path, content: str | Callable[[IO[bytes]], Any]) -> None:
    """Write a file beside its place and move it there, so that a kill leaves the old one or the new one.

    Args:
        path: the file.
        content: its text, or what writes it into an open file.

    Raises:
        OSError: it cannot be written.
    """
    with writing(path):
        sealing.write_whole(path, content)


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Make a folder of results, and keep other processes from writing in it meanwhile.

    Args:
        folder: the folder; of several processes the first has it.

    Raises:
        BlockingIOError: another process has it.
        OSError: it cannot be made.
    """
    if jax.process_index() != 0:
        yield
        return
    lock = FileLock(folder / _LOCK)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock.take()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line what cannot be written.

    Args:
        path: the file or folder that is written meanwhile.

    Raises:
        BlockingIOError: it is locked by another process.
        OSError: it cannot be.
    """
    try:
        yield
    except BlockingIOError as error:
        raise BlockingIOError(
            f"expected a folder that nobody writes, got {path}, in use by {error}: wait or take another"
        ) from None
    except OSError as error:
        raise OSError(
            f"expected to write {path}, got {error}: give a folder that can be written, with space, and start again"
        ) from error


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
        raise ValueError(f"expected the record of a run in {path}, got {error!r}: remove the file") from error


def _compare(folder: Path, then: Mapping[str, str], now: Mapping[str, str]) -> None:
    differing = [name for name in now if now[name] != then.get(name)]
    if differing:
        raise ValueError(
            f"expected the data that {folder} was trained on, got others in {', '.join(differing)} "
            f"({_NAME} has {then.get(differing[0])}, here is {now[differing[0]]}): "
            "get the same data again, or train in another folder"
        )


def _code(start: Mapping[str, Any]) -> str:
    return f"{start['commit'] or 'unknown'}{', changed' if start['changed'] else ''}"


def _processor() -> str | None:
    """The processor's name: others may have other instructions, which round otherwise. None where no CPU computes."""
    if jax.default_backend() != "cpu":
        return None
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _git(*arguments: str) -> str | None:
    """What git answers about the repository that this file is in; None where there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(Path(__file__).resolve().parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _say(line: str) -> None:
    print(f"note: {printable(line, 2000)}", file=sys.stderr)
