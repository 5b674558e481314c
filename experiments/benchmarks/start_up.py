"""Time to start: importing the library beside what it builds on, and compiling the guided step, in fresh processes.

    python -m experiments.benchmarks.start_up --json runs/benchmarks/start_up.json

Imports take turns, and the least processor time of several counts: that of other work on the machine is left out. The
compiled step is RelationNet's guided update with ResNet10 at 224x224, 5-way 5-shot with 16 queries a class, and Adam;
a second process finds it among the compiled programs, which the scripts keep too. About three minutes on two cores.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import tyro

import jxai
from experiments.benchmarks.measure import report, result
from experiments.benchmarks.steps import Task, system_step, with_adam
from jxai import fewshot, models

PACKAGES = sorted(path.parent.name for path in Path(jxai.__file__).parent.glob("*/__init__.py"))
IMPORTS = {
    "imports": "import jax, numpy",
    "imports_jxai": "import jax, numpy, jxai",
    "imports_linen": "import jax, flax.linen, optax",
    "imports_packages": f"import jax, flax.linen, optax; from jxai import {', '.join(PACKAGES)}",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured, and how often."""

    repeats: int = 7
    """Of the imports."""
    guided_step: bool = True
    """Compile the step too."""
    side: int = 224
    """Of its images."""
    compile_only: bool = False
    """Compile the step in this process and print the seconds, which is what the others are started for."""
    json: Path | None = None
    """Where the results go as JSON."""


def child_seconds(command: list[str]) -> float:
    """Processor time of a fresh process."""
    before = os.times()
    subprocess.run(command, check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def import_seconds(repeats: int) -> dict[str, float]:
    """The least processor time of each import, a fresh process each, in turns."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(repeats):
        for name, program in IMPORTS.items():
            times[name].append(child_seconds([sys.executable, "-c", program]))
    return {name: min(of) for name, of in times.items()}


def compile_step(side: int) -> dict[str, float]:
    """Seconds to trace and to compile the step; those of the compiler also as processor time."""
    head = fewshot.RelationHead(features=512, nonnegative=True)
    encoder = models.encoder("resnet10", image_size=side)
    update, arguments = with_adam(*system_step(encoder, head, side, Task(), fewshot.Guidance()))
    start = time.perf_counter()
    lowered = jax.jit(update).lower(*arguments)
    traced, busy = time.perf_counter(), time.process_time()
    lowered.compile()
    return {
        "trace": traced - start,
        "compile": time.perf_counter() - traced,
        "compile_processor": time.process_time() - busy,
    }


def fresh_compile(side: int, cache: str) -> dict[str, float]:
    """`compile_step` in a process of its own, with a folder for compiled programs."""
    command = [sys.executable, "-m", "experiments.benchmarks.start_up", "--compile-only", "--side", str(side)]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(options: Options) -> None:
    """Measure and report."""
    if options.compile_only:
        print(json.dumps(compile_step(options.side)))
        return
    imports = import_seconds(options.repeats)
    results: list[dict[str, Any]] = [result(f"{name}_seconds", value, "s") for name, value in imports.items()]
    ratios = {
        "import_ratio": imports["imports_jxai"] / imports["imports"],
        "import_ratio_packages": imports["imports_packages"] / imports["imports_linen"],
    }
    results += [result(name, value, "times", "at most 1.15") for name, value in ratios.items()]
    if options.guided_step:
        with tempfile.TemporaryDirectory() as cache:
            first, second = (fresh_compile(options.side, cache) for _ in range(2))
        goals = {"compile": "at most 30"}
        results += [result(f"{name}_seconds", value, "s", goals.get(name)) for name, value in first.items()]
        results += [result(f"second_{name}_seconds", value, "s") for name, value in second.items()]
    report(results, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options))
