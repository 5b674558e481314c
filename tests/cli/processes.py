"""Starts a command of jxai as several processes of one run, each with simulated CPU devices."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HEARTBEAT = 10  # seconds


def start(
    command: str | Path, options: Sequence[str], *, processes: int, devices: int
) -> list[subprocess.Popen]:
    """The processes of a command of jxai or of a script, numbered from 0; each has its standard error in a pipe."""
    run = [str(command)] if isinstance(command, Path) else ["-P", "-m", "jxai.cli", command]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    found = []
    for process in range(processes):
        joining = ["--coordinator", coordinator, "--num-processes", str(processes)]
        joining += ["--process-id", str(process), "--heartbeat", str(HEARTBEAT)]
        whole = [
            sys.executable,
            *run,
            *options,
            *(joining if processes > 1 else []),
        ]
        found.append(
            subprocess.Popen(
                whole, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    return found


def finish(running: Sequence[subprocess.Popen], *, timeout: float) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each; kills what takes longer."""
    try:
        return [
            (process.returncode, *texts)
            for process, texts in [(process, process.communicate(timeout=timeout)) for process in running]
        ]
    finally:
        for process in running:
            process.kill()
