"""Rates of the input pipeline: episodes from array records, by image size, augmentation, threads and processes.

    python -m experiments.benchmarks.input_pipeline --json runs/benchmarks/input_pipeline.json
    python -m experiments.benchmarks.input_pipeline --step-seconds 0.1

Episodes are 5-way 5-shot with 16 queries a class: 105 pictures. The pictures are JPEG files of 500 x 375, as CUB's
are: parts of foolbox's twenty photographs (pip install 'jxai[demo]'), else smooth noise. What an accelerator needs is
arithmetic: processor seconds of an episode, times episodes a step, over the time of a step. A core's rate is pictures
over processor time; the others are by the clock, so nothing else should run. Last comes a guided step of a small
system at the first size, fed from the records and with one episode held in memory, in turns. Four minutes.
"""

import dataclasses
import importlib.resources
import io
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from experiments.benchmarks.measure import report, result
from experiments.benchmarks.steps import Task, system_step, with_adam
from jxai import data, fewshot, models
from jxai.data import prepared
from jxai.data.augmentation import Augmentation
from jxai.data.decode import decode
from jxai.data.listing import Listing

WAY, SHOT, QUERIES = 5, 5, 16
PICTURES = WAY * (SHOT + QUERIES)
WIDTH, HEIGHT = 500, 375


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure."""

    json: Path | None = None
    """Where the results go as JSON."""
    sizes: tuple[int, ...] = (84, 224)
    augment: tuple[Augmentation | None, ...] = (None, "resized-crop", "crop-erase")
    threads: tuple[int, ...] = (1, 2, 4)
    workers: tuple[int, ...] = (2,)
    """Numbers of worker processes, of one thread each."""
    seconds: float = 3.0
    """How long each setting is measured."""
    short_side: int | None = 256
    """Also measure pictures stored with the shorter side of this many pixels; None leaves that out."""
    step_seconds: float | None = None
    """Time of a training step on the accelerator, to say how many host cores keep it busy."""
    episodes_per_step: int = 1
    steps: int = 20
    """Of a small system, timed with fed and with held episodes; 0 leaves that out."""


@dataclasses.dataclass(frozen=True)
class _Held:
    """Encoded pictures in memory."""

    content: dict[str, bytes]

    def read(self, names: Any) -> Iterator[tuple[str, bytes]]:
        yield from ((name, self.content[name]) for name in names)


def photographs() -> tuple[list[np.ndarray], str]:
    """Pictures larger than 500 x 375 to cut from, and what they are."""
    from PIL import Image

    try:
        folder = importlib.resources.files("foolbox") / "data"
    except ModuleNotFoundError:
        rng = np.random.default_rng(0)
        noise = [Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8)) for _ in range(20)]
        return [np.asarray(one.resize((512, 512), Image.Resampling.BICUBIC)) for one in noise], "smooth noise"
    files = sorted(file.name for file in folder.iterdir() if file.name.startswith("imagenet_"))
    pictures = [decode((folder / name).read_bytes(), name=name) for name in files]
    return pictures, f"parts of {len(pictures)} photographs"


def listing(num_classes: int, per_class: int) -> tuple[Listing, str]:
    """A domain of JPEG files of 500 x 375."""
    from PIL import Image

    pictures, what = photographs()
    rng, content = np.random.default_rng(0), {}
    for number in range(num_classes * per_class):
        picture = pictures[number % len(pictures)]
        top, left = rng.integers(picture.shape[0] - HEIGHT), rng.integers(picture.shape[1] - WIDTH)
        file = io.BytesIO()
        Image.fromarray(picture[top : top + HEIGHT, left : left + WIDTH]).save(
            file, format="jpeg", quality=90
        )
        content[f"{number // per_class:02}/{number:04}"] = file.getvalue()
    size = sum(map(len, content.values())) / len(content) / 1000
    classes = [(f"{c:02}", [n for n in content if n.startswith(f"{c:02}/")]) for c in range(num_classes)]
    return Listing(classes, _Held(content)), f"{what}; {WIDTH} x {HEIGHT}, {size:.0f} kB each"


def rate(dataset: Any, seconds: float, **options: int) -> tuple[float, float]:
    """Episodes a second, and processor seconds of this process an episode, once the first ones are there."""
    batches = data.iterate(dataset, **options)
    ahead = 1 + 5 * options["num_threads"] * max(1, options.get("num_workers", 0))
    for _ in range(ahead):  # what was made before the clock starts
        next(batches)
    start, busy, made = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        next(batches)
        made += 1
    elapsed, busy = time.perf_counter() - start, time.process_time() - busy
    batches.close()
    return made / elapsed, busy / made


def measured(source: data.Source, stored: str, ways: list[dict[str, int]], options: Options) -> list[dict]:
    """The rates of every size and augmentation: of one core, and made in each of several ways."""
    results = []
    for size, augment in itertools.product(options.sizes, options.augment):
        name = f"{size} px{stored}, {augment or 'plain'}"
        dataset = data.episode_dataset(
            source, way=WAY, shot=SHOT, num_query=QUERIES, seed=0, image_size=size, augment=augment
        )
        print(f"\r  {name:<80}", end="", file=sys.stderr, flush=True)
        _, busy = rate(dataset, options.seconds, num_threads=0)
        results.append(result(f"{name}: a core", PICTURES / busy, "pictures/s"))
        if options.step_seconds is not None:
            cores = options.episodes_per_step * busy / options.step_seconds
            results.append(result(f"{name}: for steps of {options.step_seconds} s", cores, "cores"))
        for way in ways:
            by = ", ".join(f"{count} {kind.removeprefix('num_')}" for kind, count in way.items())
            print(f"\r  {f'{name}: {by}':<80}", end="", file=sys.stderr, flush=True)
            episodes, _ = rate(dataset, options.seconds, **way)
            results.append(result(f"{name}: {by}", episodes, "episodes/s"))
    return results


def fed(source: data.Source, options: Options) -> list[dict]:
    """Seconds of a step whose episodes are read and decoded beside it, and of one that has them."""
    size, task = options.sizes[0], Task(WAY, SHOT, QUERIES)
    encoder, head = models.encoder("conv4np", image_size=size), fewshot.GraphHead(way=WAY)
    update, (variables, state, _) = with_adam(*system_step(encoder, head, size, task, fewshot.Guidance()))
    update = jax.jit(update)
    dataset = data.episode_dataset(
        source,
        way=WAY,
        shot=SHOT,
        num_query=QUERIES,
        seed=0,
        image_size=size,
        augment=options.augment[-1],
    )
    batches = data.iterate(dataset, num_threads=2)

    def pictures() -> np.ndarray:
        batch = next(batches)
        return np.concatenate([batch.support[0], batch.query[0]])

    held, times = pictures(), {"held": [], "fed": []}
    jax.block_until_ready(update(variables, state, held))
    for turn in range(2 * options.steps):
        kind = (
            "fed" if turn // 5 % 2 else "held"
        )  # in runs of five, so that what is read ahead does not hide it
        print(f"\r  {f'step {turn} of {2 * options.steps}':<80}", end="", file=sys.stderr, flush=True)
        start = time.perf_counter()
        jax.block_until_ready(update(variables, state, pictures() if kind == "fed" else held))
        times[kind].append(time.perf_counter() - start)
    batches.close()
    mean = {kind: float(np.mean(of_kind)) for kind, of_kind in times.items()}
    return [
        result(f"{size} px: a guided step, its episode held in memory", mean["held"], "s"),
        result(f"{size} px: a guided step, its episode read and decoded beside it", mean["fed"], "s"),
        result(f"{size} px: fed over held", mean["fed"] / mean["held"], "", "at most 1.1"),
    ]


def main(options: Options) -> None:
    """Measure and report."""
    held, what = listing(num_classes=10, per_class=30)
    ways = [{"num_threads": n} for n in options.threads]
    ways += [{"num_threads": 1, "num_workers": n} for n in options.workers]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for short_side in dict.fromkeys((None, options.short_side)):
            done = prepared.prepare(
                Path(folder, str(short_side)),
                lambda: held,
                name="benchmark",
                short_side=short_side,
                skip_corrupt=False,
                progress=False,
            )
            source = prepared.read(done, "benchmark")
            stored = "" if short_side is None else f" (stored at {short_side})"
            results += measured(source, stored, ways if short_side is None else [], options)
            if short_side is None and options.steps:
                results += fed(source, options)
    print("\r" + " " * 90 + "\r", end="", file=sys.stderr)
    print(f"{what}; {os.cpu_count()} cores")
    report(results, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options))
