"""What a process computes with: versions, commit, machine, threads and the command that began it."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

import jxai
from jxai.cli.running.threads import cores, threads

# Of what a start records, besides versions and commit.
_CHANGING_BITS = {"xla_flags": "XLA_FLAGS", "xla_threads": "XLA's threads", "processor": "processor"}
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def start() -> dict[str, Any]:
    """What this process computes with.

    Returns:
        Versions, commit (None outside a repository) and whether Python files differ from it, platform, processor,
        cores that this process may use, devices, flags and threads of XLA, and the command.
    """
    of_ours = _git("ls-files", "--error-unmatch", os.path.realpath(__file__)) is not None
    commit = _git("rev-parse", "HEAD") if of_ours else None  # an environment may lie in anybody's repository
    changes = _git("status", "--porcelain", "--", ":/*.py") if of_ours else None
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


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What may change bits between two starts.

    Args:
        then: what `start` gave.
        now: what it gives.

    Returns:
        A phrase for each version, commit, flag, number of threads or processor that is another.
    """
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
    return differing


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
