"""Training steps of the letters table: one seed, and many at once, of each head, plain and guided.

The updates that `jxai train` and `jxai reproduce --together` make, on pictures that lie on the device; without
validation and checkpoints. Needs neither Grain nor TensorFlow Datasets.
"""

import dataclasses
import functools
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.sections import Parts, Row, row
from experiments.benchmarks.sections.frameworks import use
from jxai import data, fewshot, training
from jxai.cli.fewshot.configs import TABLES, Config
from jxai.cli.fewshot.system import build, episode_loss, load_sources
from jxai.training.seeds import bounded

# Guided RelationNet, the papers' system, first; of each head what guidance costs.
_ORDER = ("relation", "cross-attention", "graph", "prototype", "matching")


def parts(dry: bool) -> Parts:
    """A part for each head."""
    systems = TABLES["letters"]().systems
    heads, counts, updates = (("prototype",), (1, 2), 2) if dry else (_ORDER, (1, 8, 32), 50)
    changes: dict[str, Any] = {"width": 4, "head_width": 4, "queries": 2} if dry else {}
    return {
        head: functools.partial(
            of_systems,
            {name: dataclasses.replace(systems[name], **changes) for name in (f"{head}-guided", head)},
            counts,
            updates,
        )
        for head in heads
    }


def of_systems(systems: dict[str, Config], counts: Sequence[int], updates: int) -> Iterable[Row]:
    """Seconds an update of one seed, of `counts` seeds at once: the first count is the others' rival."""
    precision = use("device's default")
    for name, config in systems.items():
        alone = None
        for count in counts:
            try:
                seconds, compiling = measured(config, count, updates)
            except MemoryError as error:
                yield row(f"{name}: {count} seeds at once, too little memory", 0.0, data=str(error))
                break
            yield row(
                f"{name}, 5-shot: an update of a seed, {count} at once",
                seconds / count,
                "s",
                rival=None if alone is None else ("one alone", alone),
                precision=precision,
                data={
                    "seeds": count,
                    "steps_per_second": count / seconds,
                    "episodes_per_second": count * config.episodes_per_step / seconds,
                    "compile_seconds": compiling,
                },
            )
            if alone is None:
                alone = seconds
            else:
                yield row(
                    f"{name}: seeds' steps a second of {count} at once over one's", alone * count / seconds
                )


def measured(config: Config, count: int, updates: int) -> tuple[float, float]:
    """Seconds an update of all seeds, which are computed at once, and seconds of the first, which compiles."""
    base = load_sources(config.sources, "base")
    encoder, head = build(config, num_classes=sum(len(source.class_names) for source in base))
    optimizer = training.make_optimizer(config.optimizer, num_steps=config.steps)
    variables = fewshot.init_multi_domain(encoder, head, jax.random.key(0), image_size=config.image_size)
    step = training.seeds_step(
        training.make_step(episode_loss(config, encoder, head, {}), optimizer),
        num_seeds=count,
        at_once=count,
        prepare=data.look_up,
        shared=np.concatenate([source.array(config.image_size) for source in base]),
        devices=jax.local_devices()[:1],
    )
    episodes = [
        data.iterate(
            data.episode_dataset(
                base, way=config.way, shot=config.shot, num_query=config.queries, seed=seed, numbers=True
            )
        )
        for seed in range(count)
    ]
    with bounded(step):
        # The seeds differ in their episodes; equal weights at the start cost as much as others.
        states = step.place(
            [
                training.TrainState.create(jax.random.key(seed), variables, optimizer=optimizer)
                for seed in range(count)
            ]
        )
        start = time.perf_counter()
        states, metrics = jax.block_until_ready(step(states, [next(own) for own in episodes]))
        compiling, start = time.perf_counter() - start, time.perf_counter()
        for _ in range(updates):
            states, metrics = step(states, [next(own) for own in episodes])
        jax.block_until_ready((states, metrics))
        return (time.perf_counter() - start) / updates, compiling
