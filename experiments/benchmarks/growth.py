"""How cost grows: seconds and bytes along one factor at a time, from a base point.

    python -m experiments.benchmarks.growth --json results.json --figure docs/pictures/growth.png

roots    SmoothTaylor of four images; a fixed number of them is in flight
classes  relevance of so many classes from one forward pass
side     of the image, in pixels: relevance and Integrated Gradients
ways, shots, queries  of the guided step of three heads, on features (base: 5-way 5-shot, 4 queries a class)
devices  SmoothTaylor's roots dealt out to simulated devices. They share this machine's cores, so no time can show
         what they gain: the work and the bytes of one device do

Bytes are those beyond the arguments, that is beyond weights and images or features. Every curve's end is fitted, cost
∝ factor^exponent between its last two points, and printed beside what is expected. The network is ResNet18 with drawn
weights. About six minutes on two idle cores.
"""

import dataclasses
import functools
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.benchmarks import heads
from experiments.benchmarks.measure import images, report, result, seconds
from experiments.benchmarks.networks import resnet18
from experiments.benchmarks.steps import Task, head_step
from jxai import attribution, fewshot, lrp
from jxai.cli.explaining.line_labels import line_styles
from jxai.errors import InputError
from jxai.viz.figure import new_figure, save

HEADS: dict[str, heads.Name] = {
    "RelationNet": "relation",
    "graph network": "graph",
    "cross attention": "cross_attention",
    "FEAT": "feat",
}
AXES = {
    "roots": "roots",
    "classes": "classes",
    "side": "side, pixels",
    "way": "ways",
    "shot": "shots",
    "queries": "queries a class",
    "devices": "devices",
}
TIME, WORK, MEMORY = "seconds", "GFLOP", "MB"
_HEIGHT = 1.95  # of a panel, in inches
_LEAST_SPAN = 20  # from bottom to top of a panel


class Curve(NamedTuple):
    """A factor, what it is of, and how its costs are expected to grow in the end.

    Attributes:
        factor: a key of `AXES`.
        subject: what is run.
        expected: exponents by quantity.
    """

    factor: str
    subject: str
    expected: dict[str, float]

    @property
    def name(self) -> str:
        """In reports."""
        return f"{self.subject}, {AXES[self.factor]}"


# A head compares all pairs of queries and classes, so ways count twice; a graph's pairs of nodes are its ways and its
# shots twice each, and FEAT's contrastive loss has pairs of all pictures. The estimators bound the pixels in flight.
# Where memory grows less than expected, copies of the weights, which depend on no factor and are whole on each
# device, are still the larger part.
CURVES = (
    Curve("roots", "SmoothTaylor", {TIME: 1, MEMORY: 0}),
    Curve("classes", "EpsilonPlus", {TIME: 1, MEMORY: 1}),
    Curve("side", "EpsilonPlus", {TIME: 2, MEMORY: 2}),
    Curve("side", "Integrated Gradients", {TIME: 2, MEMORY: 0}),
    *(Curve("way", head, {TIME: 2, MEMORY: 2}) for head in HEADS),
    Curve("shot", "RelationNet", {TIME: 0, MEMORY: 0}),
    Curve("shot", "graph network", {TIME: 2, MEMORY: 2}),
    Curve("shot", "cross attention", {TIME: 0, MEMORY: 0}),
    Curve("shot", "FEAT", {TIME: 2, MEMORY: 2}),
    *(Curve("queries", head, dict.fromkeys((TIME, MEMORY), 2 if head == "FEAT" else 1)) for head in HEADS),
    Curve("devices", "SmoothTaylor", {WORK: -1, MEMORY: -1}),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """The points of every factor, and the base point."""

    roots: tuple[int, ...] = (8, 16, 32, 64)
    classes: tuple[int, ...] = (1, 4, 16, 32)
    sides: tuple[int, ...] = (96, 128, 192, 256)
    """Below 96, ResNet18's last maps are 2x2, and XLA's 3x3 convolution of those takes a CPU thirty times as long."""
    ways: tuple[int, ...] = (2, 4, 8, 16)
    shots: tuple[int, ...] = (1, 4, 16)
    queries: tuple[int, ...] = (2, 4, 8, 16)
    devices: tuple[int, ...] = (1, 2, 4, 8)
    factors: tuple[str, ...] = tuple(AXES)
    images: int = 4
    side: int = 128
    """Of the images, where it does not vary."""
    num_steps: int = 8
    """Of Integrated Gradients."""
    in_flight: int = 32
    """Noisy images of SmoothTaylor at once; with devices, all there are."""
    task: Task = Task(queries=4)
    """Where it does not vary."""
    channels: int = 64
    """Of the heads' features."""
    repeats: int = 2
    figure: Path | None = None
    """Where the picture goes, if anywhere."""
    json: Path | None = None
    """Where the results go as JSON."""

    def points(self, factor: str) -> tuple[int, ...]:
        """A factor's values."""
        named = {"side": self.sides, "way": self.ways, "shot": self.shots}
        return tuple(sorted(set(named[factor] if factor in named else getattr(self, factor))))


def prepared(curve: Curve, value: int, options: Options) -> tuple[Callable, tuple[Any, ...]]:
    """What a point runs, to be jitted, and its arguments.

    Args:
        curve: factor and subject.
        value: of the factor.
        options: the base point.

    Returns:
        (function, arguments).
    """
    if curve.subject in HEADS:
        task = dataclasses.replace(options.task, **{curve.factor: value})
        base = heads.Options(task=task, channels=options.channels)
        return head_step(*heads.head_and_shape(HEADS[curve.subject], base), task, fewshot.Guidance())
    side = value if curve.factor == "side" else options.side
    network, x, target = resnet18(side), images(options.images, side), np.zeros(options.images, int)
    if curve.factor == "classes":
        explain = functools.partial(_of_classes, count=value)
    elif curve.subject == "EpsilonPlus":
        explain = functools.partial(lrp.relevance, composite=lrp.EpsilonPlus())
    elif curve.subject == "Integrated Gradients":
        explain = functools.partial(attribution.integrated_gradients, num_steps=options.num_steps)
    else:
        rows: dict[str, Any] = {"num_roots": value, "chunk_size": options.in_flight}
        if curve.factor == "devices":
            mesh = Mesh(np.array(jax.devices()[:value]), ("devices",))
            rows |= {"num_roots": options.in_flight // options.images, "mesh": mesh}
        explain = functools.partial(_smooth_taylor, **rows)

    def run(variables: Any, *arrays: Any) -> jax.Array:
        return explain(network.scores(variables), *arrays)

    return run, (network.variables, x, target)


def _of_classes(f: Any, x: jax.Array, target: jax.Array, *, count: int) -> jax.Array:
    """Relevance of the first classes, (count, *x.shape), from one forward pass."""
    scores, pullback = lrp.vjp(f, x, composite=lrp.EpsilonPlus())
    starts = jnp.eye(count, scores.shape[-1])[:, None] * scores
    return jax.vmap(lambda start: pullback(start)[0])(starts)


def _smooth_taylor(f: Any, x: jax.Array, target: jax.Array, **options: Any) -> jax.Array:
    return attribution.smooth_taylor(f, jax.random.key(0), x, target, **options)


def measure(curve: Curve, value: int, options: Options) -> dict[str, float]:
    """A point's costs.

    Args:
        curve: factor and subject.
        value: of the factor.
        options: the base point.

    Returns:
        By quantity, as in the curve's `expected`; of one device.
    """
    function, arguments = prepared(curve, value, options)
    program = jax.jit(function).lower(*arguments).compile()
    memory, analysis = program.memory_analysis(), program.cost_analysis()
    assert memory is not None and analysis is not None, "this backend does not say what a program needs"
    found = {MEMORY: (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 1e6}
    if WORK in curve.expected:
        found[WORK] = analysis["flops"] / 1e9
    else:
        found[TIME] = seconds(program, *arguments, repeats=options.repeats)
    return found


def exponent(values: Sequence[float], costs: Sequence[float]) -> float:
    """Of a curve's end: the slope between its last two points, both axes logarithmic; 0 of a single point.

    Args:
        values: of the factor, rising.
        costs: at each.

    Returns:
        p in cost ∝ value^p.
    """
    if len(values) < 2:
        return 0.0
    return float(np.log(costs[-1] / costs[-2]) / np.log(values[-1] / values[-2]))


Costs = dict[tuple[str, int], dict[str, float]]
"""By a curve's name and its factor's value: quantities."""


def measured(options: Options) -> Costs:
    """Every point, the devices in a process of their own where this one sees too few.

    Args:
        options: which points.

    Returns:
        Their costs.
    """
    found: Costs = {}
    for curve in chosen(options):
        points = options.points(curve.factor)
        if curve.factor == "devices" and jax.device_count() < max(points):
            found |= _in_simulation(options, max(points))
            continue
        for value in points:
            print(f"\r  {curve.name} {value:<40}", end="", file=sys.stderr, flush=True)
            found[curve.name, value] = measure(curve, value, options)
    print("\r" + " " * 80 + "\r", end="", file=sys.stderr)
    return found


def _simulate(count: int) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)


def _in_simulation(options: Options, count: int) -> Costs:
    """Measure the devices' curve in a process that sees so many of them."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit this one's devices
    with ProcessPoolExecutor(1, context, initializer=_simulate, initargs=(count,)) as pool:
        return pool.submit(measured, dataclasses.replace(options, factors=("devices",))).result()


def chosen(options: Options) -> list[Curve]:
    """The curves of the options' factors."""
    return [curve for curve in CURVES if curve.factor in options.factors]


def line(costs: Costs, curve: Curve, quantity: str, options: Options) -> list[float]:
    """A measured curve, in the order of its points."""
    return [costs[curve.name, value][quantity] for value in options.points(curve.factor)]


def results(costs: Costs, options: Options) -> list[dict[str, Any]]:
    """Every point, and the exponents of the curves' ends, as lines of a report."""
    lines = []
    for curve in chosen(options):
        points = options.points(curve.factor)
        for quantity, expected in curve.expected.items():
            found = line(costs, curve, quantity, options)
            unit = "s" if quantity == TIME else quantity
            lines += [
                result(f"{curve.name} {value}: {quantity}{_of(curve)}", cost, unit)
                for value, cost in zip(points, found, strict=True)
            ]
            end = exponent(points, found)
            lines.append(
                result(f"{curve.name}: exponent of {quantity}{_of(curve)}, expected {expected:g}", end, "")
            )
    return lines


def table(costs: Costs, options: Options) -> str:
    """A row a curve and measure, as Markdown: its costs and the exponent of its end beside the expected one."""
    lines = ["| factor | of | | costs | exponent | expected |", "| --- | --- | --- | --- | ---: | ---: |"]
    for curve in chosen(options):
        points = options.points(curve.factor)
        for quantity, expected in curve.expected.items():
            found = line(costs, curve, quantity, options)
            lines.append(
                f"| {AXES[curve.factor]} {', '.join(map(str, points))} | {curve.subject} | {quantity} | "
                f"{', '.join(f'{cost:.3g}' for cost in found)} | {exponent(points, found):.2f} | {expected:g} |"
            )
    return "\n".join(lines)


def draw(costs: Costs, options: Options, path: Path) -> Path:
    """Draw small multiples: a column a factor, time above and memory below, the end's exponent at each line.

    Args:
        costs: of all points.
        options: which curves.
        path: where the PNG goes.

    Returns:
        The path.
    """
    curves = chosen(options)
    factors = list(dict.fromkeys(curve.factor for curve in curves))
    subjects = list(dict.fromkeys(curve.subject for curve in curves))
    styles = dict(zip(subjects, line_styles(len(subjects)), strict=True))
    figure = new_figure(1.75 * len(factors), 2 * _HEIGHT + 0.5)
    axes = figure.subplots(2, len(factors), squeeze=False, sharex="col")
    lines = {}
    for curve in curves:
        points, style = options.points(curve.factor), styles[curve.subject]
        for axis, quantity in zip(axes[:, factors.index(curve.factor)], curve.expected, strict=True):
            found = line(costs, curve, quantity, options)
            (lines[curve.subject],) = axis.plot(points, found, marker=".", linewidth=1.4, **style)
            end = f" {exponent(points, found):.1f}"
            text: dict[str, Any] = {"fontsize": 7, "va": "center", "color": style["color"]}
            axis.annotate(end, (points[-1], found[-1]), annotation_clip=False, **text)
            axis.set_title(quantity + _of(curve), fontsize=8)
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(points, [str(value) for value in points])
            axis.minorticks_off()
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
        axes[1, factors.index(curve.factor)].set_xlabel(AXES[curve.factor], fontsize=8)
    for axis in axes.flat:
        low, high = axis.get_ylim()
        axis.set_ylim(min(low, high / _LEAST_SPAN), high)  # what hardly changes shall look so
    legend: dict[str, Any] = {"ncols": len(lines), "fontsize": 8, "frameon": False}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", **legend)
    return save(figure, path, dpi=110)


def _of(curve: Curve) -> str:
    return " of a device" if curve.factor == "devices" else ""


def main(options: Options) -> None:
    """Measure what is missing; print, draw and write all of it."""
    if unknown := set(options.factors) - AXES.keys():
        raise InputError(f"expected factors among {', '.join(AXES)}, got {', '.join(sorted(unknown))}")
    costs = measured(options)
    print(table(costs, options))
    if options.figure is not None:
        print(draw(costs, options, options.figure))
    report(results(costs, options), options.json)


if __name__ == "__main__":
    import tyro  # gpu.py takes this file's parts where there is no tyro

    main(tyro.cli(Options, description=__doc__))
