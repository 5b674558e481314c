"""Cost of explanation-guided training: RelationNet's update, plain and guided, at the paper's full size.

    python -m experiments.benchmarks.guided_step --json results.json

The rival is the original PyTorch program. It is not ours to ship, so its times on two cores whose 2048³ float32
product ran at 205 GFLOP/s under JAX (3.2 s plain, 20.6 s guided) are scaled by this machine's rate, measured in the
same run. About two minutes on two cores; `--encoder` adds ResNet10 at 224x224 and takes about five more.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from experiments.benchmarks.measure import matmul_gflops, report, seconds
from experiments.benchmarks.steps import Task, head_step, system_step, with_adam
from jxai import fewshot, models
from jxai.fewshot.heads.winograd import multiplications

RIVAL_SECONDS = {"plain": 3.2, "guided": 20.6}
RIVAL_MATMUL_GFLOPS = 205.0


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes of the update; the defaults are the paper's."""

    task: Task = Task()
    side: int = 7
    channels: int = 512
    repeats: int = 3
    encoder: bool = False
    """Time the update with the ResNet10 encoder at 224x224 too."""
    json: Path | None = None
    """Where the results go as JSON."""


def least_work(options: Options) -> dict[str, float]:
    """TFLOP of the update, counted: convolutions as this program rearranges them on a CPU, and direct.

    A direct 3x3 convolution multiplies 9 times a position and pair of channels; each is counted once for the
    forward pass and once for each gradient that is taken.
    """
    task = options.task
    pairs = task.way**2 * task.queries
    halves = task.way + task.way * task.queries
    channels, pooled = options.channels**2, options.side // 2

    def convolution(maps: int, side: int, pairs_of_channels: int, fast: bool) -> float:
        per_map = multiplications(side) if fast else 9 * side**2
        return 2e-12 * maps * per_map * pairs_of_channels

    def total(fast: bool) -> dict[str, float]:
        shared = convolution(halves, options.side, channels, fast)
        every = convolution(pairs, options.side, 2 * channels, fast)
        second = convolution(pairs, pooled, channels, False)
        plain = 3 * shared + 3 * second
        # z+ of the halves and of the second block, their way back, then the weighted pass and its gradients.
        guided = plain + shared + every + 2 * second + 3 * every + 3 * second
        return {"plain": plain, "guided": guided}

    direct, ours = total(fast=False), total(fast=True)
    return {f"{kind}_direct": value for kind, value in direct.items()} | ours


def measure(update: Any, arguments: tuple, repeats: int) -> tuple[float, int]:
    """(seconds an update, bytes at its peak beyond its arguments)."""
    compiled = jax.jit(update).lower(*arguments).compile()
    memory = compiled.memory_analysis()
    assert memory is not None, "this backend does not say how much memory a program needs"
    # Results are new arrays here; a training loop donates its state and needs that much less.
    beyond = memory.temp_size_in_bytes + memory.output_size_in_bytes
    return seconds(compiled, *arguments, repeats=repeats), beyond


def main(options: Options) -> None:
    """Measure and report."""
    rate = matmul_gflops()
    head = fewshot.RelationHead(features=options.channels, nonnegative=True)
    shape = (options.side, options.side, options.channels)
    guidances = {"plain": fewshot.PLAIN, "guided": fewshot.Guidance()}
    times, peaks = {}, {}
    for kind, guidance in guidances.items():
        step = with_adam(*head_step(head, shape, options.task, guidance))
        times[kind], peaks[kind] = measure(*step, options.repeats)
        print(f"{kind} head: {times[kind]:.3f} s")
    work = least_work(options)
    results = []

    def add(name: str, value: float, unit: str, goal: str | None = None) -> None:
        results.append({"name": name, "value": float(value), "unit": unit, "goal": goal})

    rate = max(rate, matmul_gflops())
    for kind, goal in (("plain", "at least 3"), ("guided", "at least 3.2")):
        rival = RIVAL_SECONDS[kind] * RIVAL_MATMUL_GFLOPS / rate
        add(f"{kind}_seconds", times[kind], "s")
        add(f"{kind}_rival_seconds", rival, "s")
        add(f"{kind}_speedup", rival / times[kind], "times", goal)
    add("guided_over_plain", times["guided"] / times["plain"], "times")
    add("matmul_gflops", rate, "GFLOP/s")
    for kind in guidances:
        add(f"{kind}_tflop", work[kind], "TFLOP")
        add(f"{kind}_tflop_direct", work[f"{kind}_direct"], "TFLOP")
    for kind in guidances:
        add("peak_bytes" if kind == "guided" else "plain_peak_bytes", peaks[kind], "bytes", "at most 2.5e9")
    if options.encoder:
        whole, encoder = {}, models.encoder("resnet10", image_size=224)
        for kind, guidance in guidances.items():
            step = with_adam(*system_step(encoder, head, 224, options.task, guidance))
            whole[kind], _ = measure(*step, options.repeats)
            print(f"{kind} with ResNet10 at 224: {whole[kind]:.3f} s")
            add(f"system_{kind}_seconds", whole[kind], "s")
        add("system_guided_over_plain", whole["guided"] / whole["plain"], "times", "at most 1.8")
    report(results, options.json)


if __name__ == "__main__":
    import tyro  # gpu.py takes this file's parts where there is no tyro

    main(tyro.cli(Options))
