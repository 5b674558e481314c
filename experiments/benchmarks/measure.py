"""What the benchmarks share: timing, memory, drawn weights and images, the machine's name, and their JSON."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LOW, HIGH = -2.0, 2.0  # bounds of the drawn images


def seconds(function: Callable, *arguments: Any, repeats: int = 3) -> float:
    """The shortest of several runs after a first one that compiles, in seconds."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return min(times)


def alternate(functions: dict[str, Callable], repeats: int) -> dict[str, float]:
    """The shortest time of each of several functions, which take turns, after a first round."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            print(f"\r  round {turn} of {repeats}: {name:<60}", end="", file=sys.stderr, flush=True)
            start = time.perf_counter()
            jax.block_until_ready(function())
            if turn:
                times[name].append(time.perf_counter() - start)
    print("\r" + " " * 90 + "\r", end="", file=sys.stderr)
    return {name: min(values) for name, values in times.items()}


def peak(function: Any, *arguments: Any) -> float:
    """Bytes that a jitted function holds at once."""
    memory = function.lower(*arguments).compile().memory_analysis()
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes


def work(function: Any, *arguments: Any) -> tuple[float, float]:
    """(Operations on floats, bytes read and written) of a jitted function's program, as XLA counts them."""
    analysis = function.lower(*arguments).compile().cost_analysis()
    return analysis["flops"], analysis["bytes accessed"]


def draw(model: Any, side: int) -> Any:
    """Variables that keep activations' size, with running statistics and biases that are not trivial."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, side, side, 3)), train=False))
    random = np.random.default_rng(0)

    def leaf(path: Any, shape: Any) -> jax.Array:
        name = path[-1].key
        if name == "kernel":
            values = random.normal(size=shape.shape) * np.sqrt(2 / np.prod(shape.shape[:-1]))
        elif name in ("scale", "var"):
            values = random.random(shape.shape) + 0.5
        else:
            values = 0.1 * random.normal(size=shape.shape)
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def images(count: int, side: int) -> np.ndarray:
    """Images of noise within the bounds, (count, side, side, 3)."""
    return np.random.default_rng(1).uniform(LOW, HIGH, (count, side, side, 3)).astype(np.float32)


def matmul_gflops(size: int = 2048, repeats: int = 10) -> float:
    """The machine's rate in a float32 matrix product of this size."""
    x = jax.random.normal(jax.random.key(0), (size, size))
    return 2 * size**3 / seconds(jax.jit(jnp.matmul), x, x, repeats=repeats) / 1e9


def machine() -> str:
    """The processor or accelerator, its count, and the versions of JAX and of the rival's framework, in words."""
    device, versions = jax.devices()[0], f"jax {jax.__version__}"
    if "torch" in sys.modules:
        versions += f", torch {sys.modules['torch'].__version__}"
    if device.platform == "cpu":
        return f"{os.cpu_count()} cores of {_processor()}, {versions}"
    return f"{jax.device_count()} x {device.device_kind}, {versions}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [
        line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
    ]
    return names[0] if names else platform.processor() or platform.machine()


def result(name: str, value: float, unit: str, goal: str | None = None) -> dict[str, Any]:
    """One line of a report."""
    return {"name": name, "value": float(value), "unit": unit, "goal": goal}


def report(results: list[dict[str, Any]], path: Path | None, *, precision: str | None = None) -> None:
    """Print the results with their goals, and write them as JSON if asked.

    Args:
        results: dictionaries of name, value, unit and goal (words, or None), as `result` gives.
        path: where the JSON goes, or None.
        precision: that of products, in words; or None where it is the default.
    """
    where = machine() if precision is None else f"{machine()}, {precision}"
    print(f"\n{where}")
    width = max([56, *(len(result["name"]) for result in results)])
    for result in results:
        goal = "" if result["goal"] is None else f"   goal: {result['goal']}"
        print(f"  {result['name']:<{width}}{result['value']:>16.4g} {result['unit']:<10}{goal}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": where, "results": results}, indent=1) + "\n")
