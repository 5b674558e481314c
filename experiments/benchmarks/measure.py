"""What all benchmarks share: timing, the machine's name and rate, and the JSON that they leave."""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


def seconds(function: Callable, *arguments: Any, repeats: int = 3) -> float:
    """The shortest of several runs after a first one that compiles, in seconds."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return min(times)


def matmul_gflops(size: int = 2048, repeats: int = 10) -> float:
    """The machine's rate in a float32 matrix product of this size."""
    x = jax.random.normal(jax.random.key(0), (size, size))
    return 2 * size**3 / seconds(jax.jit(jnp.matmul), x, x, repeats=repeats) / 1e9


def machine() -> str:
    """The processor or accelerator, its count, and JAX's version, in words."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return f"{os.cpu_count()} cores of {_processor()}, jax {jax.__version__}"
    return f"{jax.device_count()} x {device.device_kind}, jax {jax.__version__}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [
        line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
    ]
    return names[0] if names else platform.processor() or platform.machine()


def report(results: list[dict[str, Any]], path: Path | None) -> None:
    """Print the results with their goals, and write them as JSON if asked.

    Args:
        results: dictionaries of name, value, unit and goal (words, or None).
        path: where the JSON goes, or None.
    """
    print(f"\n{machine()}")
    for result in results:
        goal = "" if result["goal"] is None else f"   goal: {result['goal']}"
        print(f"  {result['name']:<56}{result['value']:>16.4g} {result['unit']:<10}{goal}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")
