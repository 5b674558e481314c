"""LRP: three composites on ResNet18 and VGG16, against zennit and over the gradient; compile time, peak memory."""

import functools
from collections.abc import Iterable

import numpy as np

from experiments.benchmarks import lrp as benchmark
from experiments.benchmarks.lrp import COMPOSITES
from experiments.benchmarks.measure import alternate, draw, images
from experiments.benchmarks.sections import Parts, Row, row
from experiments.benchmarks.sections.frameworks import PRECISIONS, Precision, Program, apart, device_peak, use


def parts(dry: bool) -> Parts:
    """A part a network and precision."""
    if dry:
        tiny = {"side": 32, "batch": 2, "repeats": 1}
        return {"ResNet18": functools.partial(compare, "ResNet18", "float32", ("EpsilonGammaBox",), **tiny)}
    sizes = {"side": 224, "batch": 32, "repeats": 10}
    return {
        f"{name}, {precision}": functools.partial(compare, name, precision, COMPOSITES, **sizes)
        for precision in PRECISIONS
        for name in ("ResNet18", "VGG16")
    }


def compare(
    name: str, precision: Precision, composites: Iterable[str], *, side: int, batch: int, repeats: int
) -> Iterable[Row]:
    """One network in one precision."""
    from experiments.benchmarks import torch_models

    use(precision)
    model, load = benchmark.network(name)
    variables = draw(model, side)
    x, target = images(batch, side), np.arange(batch)
    theirs = benchmark.rivals(load, variables, x, target)
    gradient = Program(benchmark.ours(model, None), variables, x, target)
    times = alternate({"jax": gradient, "torch": theirs["gradient"]}, repeats)
    label = f"{name}, batch {batch} at {side}"
    yield row(f"{label}, gradient", times["jax"], "s", rival=("torch", times["torch"]), precision=precision)
    yield row(f"{label}, gradient: compiled in", gradient.compile_seconds, "s", precision=precision)
    for composite in composites:
        rules, _ = COMPOSITES[composite]
        explain = Program(benchmark.ours(model, rules), variables, x, target)
        functions = {"jxai": explain, "zennit": theirs[composite], "gradient": gradient}
        times, own = alternate(functions, repeats), f"{label}, {composite}"
        zennit, plain = ("zennit", times["zennit"]), ("jax's gradient", times["gradient"])
        yield row(own, times["jxai"], "s", rival=zennit, goal="at least 2", precision=precision)
        yield row(own, times["jxai"], "s", rival=plain, goal="at most 1.8", precision=precision)
        compiled = ("gradient", gradient.compile_seconds)
        yield row(f"{own}: compiled in", explain.compile_seconds, "s", rival=compiled, precision=precision)
        yield from memory(own, explain, gradient, theirs[composite], precision)
        found, reference = np.asarray(explain()), torch_models.to_numpy(theirs[composite]())
        # Not the largest error: a ReLU may round to the other side.
        yield row(
            f"{own}: 1 - cosine with zennit's",
            apart(found, reference),
            goal="at most 1e-3",
            precision=precision,
        )
    if (peak := device_peak()) is not None:
        yield row(f"{label}: JAX's peak so far, of the device", peak / 1e9, "GB", precision=precision)


def memory(label: str, explain: Program, gradient: Program, rival, precision: Precision) -> Iterable[Row]:
    """What a program holds at once over what the gradient's does, and over what PyTorch does."""
    from experiments.benchmarks import torch_device

    if explain.bytes is None or gradient.bytes is None:
        return
    base, label = ("jax's gradient", gradient.bytes / 1e9), f"{label}: memory"
    yield row(label, explain.bytes / 1e9, "GB", rival=base, goal="at most 1.5", precision=precision)
    if (theirs := torch_device.peak(rival)) is not None:
        other = ("zennit", theirs / 1e9)
        yield row(label, explain.bytes / 1e9, "GB", rival=other, precision=precision)
