"""What a table costs: its runs, the command of each, counted work and an estimate of hours on one H100."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jxai import fewshot, models, training
from jxai.cli.fewshot.configs import Config, Table
from jxai.cli.fewshot.system import build

if TYPE_CHECKING:
    from jxai.cli.fewshot.reproduce import Job

# Assumed, not measured: what small batches reach of an H100's 495 TFLOP/s in dense TensorFloat-32.
ASSUMED_TFLOPS = 60.0

# Of 224 pixels with the released augmentation (docs/data.md), and a host's cores.
PICTURES_PER_CORE, CORES = 330, 16


def plan(table: Table, jobs: "Sequence[Job]", name: str) -> str:
    """The runs of a table as Markdown.

    Work is that of the program lowered here, forward and backward (on a CPU, wide 3x3 convolutions of small maps
    count as the fewer multiplications that they are rearranged to). A run takes at least as long as its pictures.

    Args:
        table: the table.
        jobs: its runs.
        name: what `jxai reproduce` calls the table.

    Returns:
        A row for each system and setting: command, runs, work of a step, estimated hours a run, and the published
        accuracies by target where they are known.
    """
    lines = [
        f"Hours on one H100 are estimates: the larger of counted work over {ASSUMED_TFLOPS:g} TFLOP/s (assumed, not "
        f"measured) and of pictures over {PICTURES_PER_CORE} a second on each of {CORES} cores (docs/data.md).",
        "",
        "| system | shots | runs | TFLOP a step | steps | pretraining, hours (shared) | hours a run | command "
        "| published |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for system in table.systems:
        for shot in table.shots:
            of_row = [job for job in jobs if job.system == system and job.config.shot == shot]
            if not of_row:
                continue
            config = of_row[0].config
            work = _episode_work(config) * config.episodes_per_step
            before = _pretraining_work(config) * config.pretraining.steps
            episode = config.way * (config.shot + config.queries) * (1 + (config.transformation == "learned"))
            published = table.published.get(system, {}).get(shot, {})
            command = f"`jxai reproduce {name} --systems {system} --shots {shot}`"
            cells = [
                system,
                shot,
                len(of_row),
                f"{work:.2f}",
                config.steps,
                _hours(before, config.pretraining.steps * config.pretraining.batch_size),
                _hours(work * config.steps, config.steps * config.episodes_per_step * episode),
                command,
                ", ".join(f"{target} {text}" for target, text in published.items()),
            ]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _hours(tera: float, pictures: int) -> str:
    return f"{max(tera / ASSUMED_TFLOPS, pictures / (PICTURES_PER_CORE * CORES)) / 3600:.1f}"


def _tera(function: Callable, *shapes: Any) -> float:
    """TFLOP of a function, counted before the compiler has seen it."""
    costs: Any = jax.jit(function).lower(*shapes).cost_analysis()
    return costs["flops"] / 1e12


def _episode_work(config: Config) -> float:
    # Noise on features costs nothing beside the encoder; the learnt kind takes a second episode, and its gradient's.
    factor = 3.0 if config.transformation == "learned" else 1.0
    names = ("encoder", "width", "image_size", "head", "head_width", "way", "shot", "queries", "guidance")
    return factor * _counted(Config(**{name: getattr(config, name) for name in names}))


@functools.cache
def _counted(config: Config) -> float:
    """Of a configuration with nothing else set, so that rows which cost the same are counted once."""
    way, shot, queries = config.way, config.shot, config.queries
    encoder, head = build(config, num_classes=64)
    variables = jax.eval_shape(
        lambda key: fewshot.init_variables(encoder, head, key, image_size=config.image_size),
        jax.random.key(0),
    )

    def images(count: int) -> jax.Array:
        return jnp.zeros((count, config.image_size, config.image_size, 3), jnp.float32)

    def labels(each: int) -> jax.Array:
        return jnp.repeat(jnp.arange(way), each)

    episode = jax.eval_shape(
        lambda: fewshot.Episode(
            images(way * shot),
            labels(shot),
            images(way * queries),
            labels(queries),
            way=way,
            query_classes=labels(queries),
        )
    )

    def gradient(params, statistics, episode):
        def loss(params):
            return fewshot.guided_loss(
                encoder,
                head,
                {"params": params, "batch_stats": statistics},
                episode,
                guidance=config.guidance,
            )

        return jax.grad(loss, has_aux=True)(params)

    return _tera(gradient, variables["params"], variables["batch_stats"], episode)


def _pretraining_work(config: Config) -> float:
    names = ("encoder", "width", "image_size", "head_width", "pretraining")
    return _classifier_work(Config(**{name: getattr(config, name) for name in names}))


@functools.cache
def _classifier_work(config: Config) -> float:
    encoder, _ = build(config)
    batch_size, side = config.pretraining.batch_size, config.image_size
    classifier = models.Classifier(encoder, num_classes=64)
    batch = jax.eval_shape(
        lambda: {
            "image": jnp.zeros((batch_size, side, side, 3), jnp.float32),
            "label": jnp.zeros(batch_size, jnp.int32),
        }
    )
    variables = jax.eval_shape(lambda x: classifier.init(jax.random.key(0), x, train=False), batch["image"])
    loss = training.classification_loss(classifier)

    def gradient(params, rest, batch):
        return jax.grad(
            lambda params: loss(
                {**rest, "params": params}, batch, jax.random.key(0), jnp.zeros((), jnp.int32)
            ),
            has_aux=True,
        )(params)

    rest = {kind: tree for kind, tree in variables.items() if kind != "params"}
    return _tera(gradient, variables["params"], rest, batch)
