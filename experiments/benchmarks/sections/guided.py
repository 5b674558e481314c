"""The guided training step: heads against vectorized PyTorch, heads behind their encoders over the plain step."""

import functools
from collections.abc import Iterable
from typing import Any

from experiments.benchmarks import heads
from experiments.benchmarks.measure import alternate
from experiments.benchmarks.sections import Parts, Row, row
from experiments.benchmarks.sections.frameworks import Program, device_peak, use
from experiments.benchmarks.steps import Task, head_step, system_step, with_adam
from jxai import fewshot, models

HEADS: dict[heads.Name, str] = {
    "relation": "RelationNet",
    "cross_attention": "cross attention",
    "graph": "graph network",
}
# Encoder and side of the images.
SYSTEMS: dict[heads.Name, tuple[str, int]] = {
    "relation": ("resnet10", 224),
    "cross_attention": ("resnet12", 84),
    "graph": ("resnet10", 224),
}
PRECISION = "device's default"  # as trainings have it
KINDS = {"plain": fewshot.PLAIN, "guided": fewshot.Guidance()}


def parts(dry: bool) -> Parts:
    """RelationNet first, alone and behind its encoder."""
    options = heads.Options(repeats=30)
    if dry:
        options = heads.Options(task=Task(way=2, shot=1, queries=1), channels=8, repeats=1)
    found: Parts = {}
    for name, words in HEADS.items():
        encoder, side = ("conv4np", 42) if dry else SYSTEMS[name]
        found[f"{words}, head"] = functools.partial(head, name, options)
        if dry and name != "relation":  # the same code, and seconds of compilation
            continue
        found[f"{words}, behind {encoder}"] = functools.partial(system, name, encoder, side, options)
    return found


def head(name: heads.Name, options: heads.Options) -> Iterable[Row]:
    """Loss and gradients of a head on features, plain and guided, in JAX and PyTorch."""
    precision = use(PRECISION)
    module, shape = heads.head_and_shape(name, options)
    cases = {kind: head_step(module, shape, options.task, guidance) for kind, guidance in KINDS.items()}
    theirs, _ = heads.rival(name, cases["plain"][1], options.task)
    rivals = {kind: functools.partial(theirs, kind == "guided") for kind in KINDS}
    ours = {kind: Program(step, *arguments) for kind, (step, arguments) in cases.items()}
    functions = {f"jxai {kind}": program for kind, program in ours.items()}
    times = alternate(functions | {f"torch {kind}": rival for kind, rival in rivals.items()}, options.repeats)
    for kind, program in ours.items():
        label, goal = f"{HEADS[name]}, head, {kind} step", "at least 1.3" if kind == "guided" else None
        rival = ("torch", times[f"torch {kind}"])
        yield row(label, times[f"jxai {kind}"], "s", rival=rival, goal=goal, precision=precision)
        if kind == "guided":
            yield row(f"{label}: compiled in", program.compile_seconds, "s", precision=precision)
        yield from memory(label, program, rivals[kind])
        apart = abs(float(program()[2]["loss"]) / rivals[kind]().item() - 1)
        yield row(f"{label}: loss, from torch's", apart, goal="at most 0.01", precision=precision)


def system(name: heads.Name, encoder: str, side: int, options: heads.Options) -> Iterable[Row]:
    """An update by Adam of an encoder and a head, guided over plain."""
    precision = use(PRECISION)
    module, _ = heads.head_and_shape(name, options)
    found: dict[str, Program] = {}
    for kind, guidance in KINDS.items():
        network = models.encoder(encoder, image_size=side)
        update, arguments = with_adam(*system_step(network, module, side, options.task, guidance))
        found[kind] = Program(update, *arguments)
    times = alternate(found, min(options.repeats, 10))
    label = f"{HEADS[name]} behind {encoder} at {side}, Adam's"
    yield row(f"{label} plain step", times["plain"], "s", precision=precision)
    plain = ("plain", times["plain"])
    yield row(
        f"{label} guided step", times["guided"], "s", rival=plain, goal="at most 2", precision=precision
    )
    compiled = ("plain", found["plain"].compile_seconds)
    own = f"{label} guided step: compiled in"
    yield row(own, found["guided"].compile_seconds, "s", rival=compiled, precision=precision)
    yield from memory(f"{label} guided step", found["guided"], None, ("plain", found["plain"].bytes))
    if (peak := device_peak()) is not None:
        yield row(f"{label} steps: JAX's peak so far, of the device", peak / 1e9, "GB")


def memory(
    label: str, program: Program, theirs: Any, other: tuple[str, float | None] | None = None
) -> Iterable[Row]:
    """What a program holds at once, beside PyTorch's step or another program."""
    if program.bytes is None:
        return
    if theirs is not None:
        from experiments.benchmarks import torch_device

        other = ("torch", torch_device.peak(theirs))
    rival = None if other is None or other[1] is None else (other[0], other[1] / 1e9)
    yield row(f"{label}: memory", program.bytes / 1e9, "GB", rival=rival)
