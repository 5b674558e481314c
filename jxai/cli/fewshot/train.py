"""Train a few-shot system: the encoder as a classifier first, then episodes, plain or guided.

    jxai train letters/relation-guided --folder runs/guided
    jxai train letters/relation --folder runs/plain

Called again with the same folder and configuration, a run goes on where it stopped. More steps make a finished one
longer (`--config.steps 400`), unless its learning rate depends on how many there are. In the folder: `config.json`,
`run.json` (versions, commit, data and commands), `metrics.jsonl`, `encoder/` (the pretrained encoder) and `episodes/`
(checkpoints).
"""

import contextlib
import dataclasses
import functools
import json
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jxai import data, fewshot, training
from jxai.checks import printable
from jxai.cli.fewshot import run_record
from jxai.cli.fewshot.configs import TABLES, Config, configs
from jxai.cli.fewshot.fitting import Pictures, Run, Together, augmented, fingerprints, fit, iterate
from jxai.cli.fewshot.pretraining import pretrain
from jxai.cli.fewshot.system import build, episode_loss, load_sources
from jxai.cli.running import command_line, folders
from jxai.cli.running.hosts import in_shares, is_first
from jxai.cli.running.hosts import together as joined
from jxai.cli.running.seeds import key_of
from jxai.errors import InputError

# Of a learned transformation, as released.
_TRANSFORMATION_ADAM = training.OptimizerConfig("adam", 1e-3, weight_decay=1e-8)


def train(run: Run) -> training.FitResult:
    """Train a few-shot system, or go on with it.

    Args:
        run: what to train and where it goes.

    Returns:
        The last state and the validation accuracies; the best checkpoint is in the folder.
    """
    (result,) = _train([run], None)
    return result


def train_together(runs: Sequence[Run], *, at_once: int | None = None) -> list[training.FitResult]:
    """Train one few-shot system with several seeds at once, or go on with it; all cost one compilation.

    Args:
        runs: of configurations that differ in their seeds alone; each has its own folder, as if trained alone.
        at_once: how many seeds a device computes together, at most; see `training.seeds_step`.

    Returns:
        What `train` returns, for each run.

    Raises:
        ValueError: configurations that differ in more than their seeds, or seeds that do not differ.
    """
    first, *others = (dataclasses.replace(run.config, seed=0) for run in runs)
    if any(other != first for other in others) or len({run.config.seed for run in runs}) < len(runs):
        raise InputError(
            "expected configurations that differ in their seeds alone, got others, or a seed twice: "
            "train the others by themselves"
        )
    return _train(runs, Together(at_once))


def _train(runs: Sequence[Run], together: Together | None) -> list[training.FitResult]:
    """Train runs of one configuration but for the seed: together, or the only one there is alone."""
    config = runs[0].config
    base, validation = (
        load_sources(config.sources, split, short_side=config.short_side) for split in ("base", "validation")
    )
    num_classes = sum(len(source.class_names) for source in base)
    encoder, head = build(config, num_classes=num_classes)
    devices = _devices(config)
    if together is None and config.episodes_per_step % len(devices):
        raise InputError(
            f"expected episodes_per_step divisible by {len(devices)} devices, got {config.episodes_per_step}: "
            "give every device as many"
        )
    if not config.train_encoder and (config.transformation != "none" or config.auxiliary):
        raise InputError(
            "expected train_encoder with a transformation or an auxiliary classifier, got train_encoder=False: "
            "both teach the encoder"
        )
    if config.optimizer.weight_decay and not config.train_encoder:
        raise InputError(
            "expected no weight_decay with train_encoder=False, got one: it would shrink the encoder"
        )
    # Both the training episodes and those of validation are checked against the data before any work is done.
    shards: dict[str, Any] = {"shard_index": jax.process_index(), "shard_count": jax.process_count()}
    learned = config.transformation == "learned"
    pictures = Pictures.of(config, base, together)
    episodes = [
        (data.episode_pairs_dataset if learned else data.episode_dataset)(
            base,
            way=config.way,
            shot=config.shot,
            num_query=config.queries,
            seed=run.config.seed,
            batch_size=config.episodes_per_step,
            **pictures.options,
            epoch=config.domain_epoch,
            repeat=config.repeat,
            **shards,
        )
        for run in runs
    ]
    evaluate = _validation(config, encoder, head, validation)
    keys = [key_of(run.config.seed) for run in runs]
    for run in runs:
        with folders.writing(run.folder):
            run.folder.mkdir(parents=True, exist_ok=True)
    transformation = {}
    if config.transformation != "none":
        transformation = fewshot.init_transformation(encoder, image_size=config.image_size)
    variables = [
        fewshot.init_multi_domain(
            encoder,
            head,
            key,
            image_size=config.image_size,
            num_classes=num_classes if config.auxiliary else None,
            transformation=transformation if learned else None,
        )
        for key in keys
    ]
    if config.pretraining.steps:
        for own, pretrained in zip(
            variables, pretrain(runs, encoder, variables, base, together), strict=True
        ):
            _use_encoder(own, pretrained)
    parts = {"transformation": _TRANSFORMATION_ADAM} if learned else None
    optimizer = training.make_optimizer(config.optimizer, num_steps=config.steps, parts=parts)
    loss = augmented(config, episode_loss(config, encoder, head, transformation))
    step = training.make_step(loss, optimizer, deterministic=config.deterministic)
    states = [
        training.TrainState.create(jax.random.fold_in(key, 1), own, optimizer=optimizer)
        for key, own in zip(keys, variables, strict=True)
    ]
    # What falls until the last step would have fallen otherwise in a longer training.
    falls = config.optimizer.schedule == "cosine" or config.auxiliary
    with contextlib.ExitStack() as opened:
        checkpoints = [
            opened.enter_context(
                training.Checkpoints(
                    run.folder / "episodes",
                    config=run.config,
                    fingerprints=fingerprints(base),
                    may_differ=() if falls else ("steps",),
                )
            )
            for run in runs
        ]
        writers = [
            opened.enter_context(
                training.MetricsWriter(
                    run.folder / "metrics.jsonl",
                    tensorboard=run.folder / "tensorboard" if run.tensorboard else None,
                )
            )
            for run in runs
        ]
        # Now that the folders have turned out to be these configurations', and nobody else's.
        for run, of_run in zip(runs, checkpoints, strict=True):
            if (there := of_run.latest_step() or 0) > config.steps:
                raise InputError(
                    f"expected at least the {there} steps that {printable(run.folder)} has, got {config.steps}: "
                    "raise --config.steps, or take another folder"
                )
            of_run.claim()
            if is_first():
                run_record.keep(run.folder, run.config)
                text = json.dumps(dataclasses.asdict(run.config), indent=1)
                folders.write_whole(run.folder / "config.json", text + "\n")
        return fit(
            step,
            states,
            [iterate(run, dataset) for run, dataset in zip(runs, episodes, strict=True)],
            checkpoints,
            writers,
            together=together,
            pictures=pictures,
            devices=devices,
            num_steps=config.steps,
            evaluate=evaluate,
            eval_every=config.eval_every,
            progress=runs[0].progress or "lines",
            name=_common_name([run.folder.name for run in runs]),
        )


def _common_name(names: Sequence[str]) -> str:
    """The only name, or the first one and how many there are beside it."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _devices(config: Config) -> Sequence[Any]:
    """All devices of all processes, unless one episode a step leaves work for a single one; says which are idle."""
    if not config.episodes_per_step == jax.process_count() == 1:
        return jax.devices()
    if (count := jax.device_count()) > 1:
        print(
            f"note: {count} devices, 1 episode a step: {count - 1} idle; --config.episodes-per-step {count} uses all",
            file=sys.stderr,
        )
    return jax.devices()[:1]


def _use_encoder(variables: dict[str, Any], pretrained: dict[str, Any]) -> None:
    for kind, tree in pretrained.items():
        variables[kind]["encoder"] = tree


def _validation(config: Config, encoder: Any, head: Any, sources: list[data.Source]) -> Any:
    """A function of the state: accuracy of the plain head on the same episodes of the validation classes."""
    count = max(1, config.validation_episodes // len(sources))
    tables = [
        data.episode_table(
            source,
            way=config.way,
            shot=config.shot,
            num_query=config.queries,
            seed=zlib.crc32(b"validation"),
            repeat=config.repeat,
            num_episodes=count,
        )
        for source in sources
    ]
    images = [source.normalized(config.image_size) for source in sources]

    def evaluate(state: training.TrainState) -> float:
        accuracies = []
        for (support, query), pictures in zip(tables, images, strict=True):
            features = fewshot.encode(encoder, state.variables, pictures, head=head)
            accuracy = functools.partial(
                fewshot.episode_accuracies, head, state.variables, features, way=config.way
            )
            accuracies.append(in_shares(accuracy, support, query))
        return float(np.mean(accuracies))

    return evaluate


def main() -> None:
    """Read the command line and train."""
    import tyro  # here, so that `train` can be called without

    titles = {name: table().title for name, table in TABLES.items()}
    runs = {
        name: (f"{titles[name.split('/')[0]]}: {name.split('/')[1]}", Run(config, Path("runs") / name))
        for name, config in configs().items()
    }
    run = tyro.extras.overridable_config_cli(runs)
    with joined(run.hosts):
        result = train(run)
        if is_first():
            print(_told(run, result))


def _told(run: Run, result: training.FitResult) -> str:
    """How it ended, and what comes next."""
    where = f"{printable(run.folder)}: {int(result.state.step)} steps"
    if result.best_accuracy is None:
        return where
    return (
        f"{where}, best validation accuracy {100 * result.best_accuracy:.1f} % at step {result.best_step}; "
        f"judge it by `jxai evaluate {printable(run.folder)}`"
    )


def command() -> None:
    """Read the command line and train; see `command_line.guarded`."""
    command_line.guarded(main)
