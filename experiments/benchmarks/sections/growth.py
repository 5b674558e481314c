"""A training step in bfloat16 beside float32's, and how cost grows with the batch, the image's side and the roots."""

import dataclasses
import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp

from experiments.benchmarks import growth as benchmark
from experiments.benchmarks.growth import TIME, Curve, exponent
from experiments.benchmarks.measure import alternate
from experiments.benchmarks.sections import Parts, Row, row
from experiments.benchmarks.sections.frameworks import Program, use
from experiments.benchmarks.steps import Task, system_step, with_adam
from jxai import fewshot, models

CURVES = {
    "side": Curve("side", "EpsilonPlus", {TIME: 2}),
    "roots": Curve("roots", "SmoothTaylor", {TIME: 1}),
}


def parts(dry: bool) -> Parts:
    """The step first."""
    options, batches, task, encoder, side = (
        benchmark.Options(
            images=32, side=224, sides=(112, 224, 448), roots=(32, 128), in_flight=256, repeats=5
        ),
        (8, 32, 128),
        Task(),
        "resnet10",
        224,
    )
    if dry:
        options = benchmark.Options(images=1, side=32, sides=(32,), roots=(2,), in_flight=2, repeats=1)
        batches, task, encoder, side = (1,), Task(way=2, shot=1, queries=1), "conv4np", 42
    return {
        "bfloat16": functools.partial(narrow, task, encoder, side, repeats=1 if dry else 10),
        "batch": functools.partial(of_batches, batches, options),
        **{
            factor: functools.partial(of_factor, curve, options)
            for factor, curve in CURVES.items()
            if not dry or factor == "roots"  # the same code
        },
    }


def narrow(task: Task, encoder: str, side: int, *, repeats: int) -> Iterable[Row]:
    """RelationNet's guided update behind its encoder, everything in bfloat16 but what guidance and LRP keep."""
    use("device's default")
    network = models.encoder(encoder, image_size=side)
    features = models.encoder(encoder, image_size=side).width if encoder.startswith("conv") else 512
    head = fewshot.RelationHead(features=features, nonnegative=True)
    step, (variables, images) = system_step(network, head, side, task, fewshot.Guidance())
    programs, losses = {}, {}
    for dtype in (jnp.float32, jnp.bfloat16):
        update, arguments = with_adam(
            step, jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), (variables, images))
        )
        name = jnp.dtype(dtype).name
        programs[name] = Program(update, *arguments)
        losses[name] = float(programs[name]()[3]["loss"])
    times = alternate(programs, repeats)
    label = f"RelationNet behind {encoder} at {side}, guided update"
    wide = ("float32", times["float32"])
    yield row(label, times["bfloat16"], "s", rival=wide, precision="bfloat16")
    held = {name: program.bytes for name, program in programs.items()}
    if held["bfloat16"] is not None and held["float32"] is not None:
        yield row(
            f"{label}: memory",
            held["bfloat16"] / 1e9,
            "GB",
            rival=("float32", held["float32"] / 1e9),
            precision="bfloat16",
        )
    difference = abs(losses["bfloat16"] / losses["float32"] - 1)
    yield row(f"{label}: loss, from float32's", difference, precision="bfloat16")


def of_batches(batches: tuple[int, ...], options: benchmark.Options) -> Iterable[Row]:
    """Relevance of a batch, image by image."""
    curve = CURVES["side"]
    use("float32")
    found = []
    for batch in batches:
        changed = dataclasses.replace(options, images=batch)
        found.append(benchmark.measure(curve, options.side, changed)[TIME])
        label = f"EpsilonPlus on ResNet18 at {options.side}, batch {batch}"
        yield row(label, found[-1] / batch, "s an image", precision="float32")
    yield row("EpsilonPlus: exponent of seconds by batch, expected 1", exponent(batches, found))


def of_factor(curve: Curve, options: benchmark.Options) -> Iterable[Row]:
    """Seconds at each point, and the exponent of the curve's end."""
    use("float32")
    points = options.points(curve.factor)
    found = []
    for value in points:
        found.append(benchmark.measure(curve, value, options)[TIME])
        yield row(f"{curve.name} {value}, {options.images} images", found[-1], "s", precision="float32")
    expected = curve.expected[TIME]
    yield row(f"{curve.name}: exponent of seconds, expected {expected:g}", exponent(points, found))
