"""Train a few-shot system: the encoder as a classifier first, then episodes, plain or guided.

    python experiments/train.py letters/relation-guided --folder runs/guided
    python experiments/train.py letters/relation --folder runs/plain

Called again with the same folder and configuration, a run goes on where it stopped. In the folder: `config.json`,
`run.json` (versions, commit, data and commands), `metrics.jsonl`, `encoder/` (the pretrained encoder) and `episodes/`
(checkpoints).
"""

import contextlib
import dataclasses
import functools
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import command_line
import record
from configs import TABLES, Config, configs
from hosts import Hosts, HostsOption, in_shares, is_first
from hosts import together as joined
from jxai import data, fewshot, models, training
from jxai.data import preprocess
from system import build, load_sources

# Of a learned transformation, as released.
_TRANSFORMATION_ADAM = training.OptimizerConfig("adam", 1e-3, weight_decay=1e-8)


@dataclasses.dataclass(frozen=True)
class Run:
    """A configuration, and what does not decide the result."""

    config: Config
    folder: Path
    """Where checkpoints and metrics go."""
    encoder_folder: Path | None = None
    """Where the pretrained encoder is kept, to share it between runs; by default in `folder`."""
    threads: int = 2
    """That read, decode and augment pictures."""
    workers: int = 0
    """Processes that do, each with as many threads; 0 for none but this one."""
    tensorboard: bool = False
    """Write metrics for TensorBoard as well (pip install 'jxai[tensorboard]')."""
    progress: bool = True
    hosts: HostsOption = Hosts()


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
        raise ValueError(
            "expected configurations that differ in their seeds alone, got others, or a seed twice: "
            "train the others by themselves"
        )
    return _train(runs, Together(at_once))


@dataclasses.dataclass(frozen=True)
class Together:
    """That runs are trained together.

    Attributes:
        at_once: see `train_together`.
    """

    at_once: int | None


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
        raise ValueError(
            f"expected episodes_per_step divisible by {len(devices)} devices, got {config.episodes_per_step}: "
            "give every device as many"
        )
    if not config.train_encoder and (config.transformation != "none" or config.auxiliary):
        raise ValueError(
            "expected train_encoder with a transformation or an auxiliary classifier, got train_encoder=False: "
            "both teach the encoder"
        )
    if config.optimizer.weight_decay and not config.train_encoder:
        raise ValueError(
            "expected no weight_decay with train_encoder=False, got one: it would shrink the encoder"
        )
    # Both the training episodes and those of validation are checked against the data before any work is done.
    shards: dict[str, Any] = {"shard_index": jax.process_index(), "shard_count": jax.process_count()}
    learned = config.transformation == "learned"
    pictures = _Pictures.of(config, base, together)
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
    for run in runs:
        run.folder.mkdir(parents=True, exist_ok=True)
    transformation = {}
    if config.transformation != "none":
        transformation = fewshot.init_transformation(encoder, image_size=config.image_size)
    variables = [
        fewshot.init_multi_domain(
            encoder,
            head,
            jax.random.key(run.config.seed),
            image_size=config.image_size,
            num_classes=num_classes if config.auxiliary else None,
            transformation=transformation if learned else None,
        )
        for run in runs
    ]
    if config.pretraining.steps:
        for own, pretrained in zip(
            variables, _pretrain(runs, encoder, variables, base, together), strict=True
        ):
            _use_encoder(own, pretrained)
    parts = {"transformation": _TRANSFORMATION_ADAM} if learned else None
    optimizer = training.make_optimizer(config.optimizer, num_steps=config.steps, parts=parts)
    loss = _augmented(config, _loss(config, encoder, head, transformation))
    step = training.make_step(loss, optimizer, deterministic=config.deterministic)
    states = [
        training.TrainState.create(
            jax.random.fold_in(jax.random.key(run.config.seed), 1), own, optimizer=optimizer
        )
        for run, own in zip(runs, variables, strict=True)
    ]
    with contextlib.ExitStack() as opened:
        checkpoints = [
            opened.enter_context(
                training.Checkpoints(
                    run.folder / "episodes", config=run.config, fingerprints=_fingerprints(base)
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
            of_run.claim()
            if is_first():
                record.keep(run.folder, run.config)
                text = json.dumps(dataclasses.asdict(run.config), indent=1)
                record.write_whole(run.folder / "config.json", text + "\n")
        return _fit(
            step,
            states,
            [_iterate(run, dataset) for run, dataset in zip(runs, episodes, strict=True)],
            checkpoints,
            writers,
            together=together,
            pictures=pictures,
            devices=devices,
            num_steps=config.steps,
            evaluate=evaluate,
            eval_every=config.eval_every,
            progress=runs[0].progress,
            name=_common_name(run.folder.name for run in runs),
        )


def _fit(
    step: Any,
    states: list[training.TrainState],
    batches: list[Any],
    checkpoints: list[training.Checkpoints],
    writers: list[training.MetricsWriter],
    *,
    together: Together | None,
    pictures: "_Pictures",
    devices: Sequence[Any],
    **options: Any,
) -> list[training.FitResult]:
    """`training.fit_seeds`, or `training.fit` of the only run."""
    if together is None:
        (state,), (own,), (folder,), (writer,) = states, batches, checkpoints, writers
        pmapped = training.pmap_step(step, devices=devices)
        return [training.fit(pmapped, state, own, checkpoints=folder, writer=writer, **options)]
    seeds_step = training.seeds_step(
        step,
        num_seeds=len(states),
        at_once=together.at_once,
        prepare=None if pictures.shared is None else data.look_up,
        shared=pictures.shared,
    )
    return training.fit_seeds(
        seeds_step, states, batches, checkpoints=checkpoints, writers=writers, **options
    )


def _common_name(names: Iterable[str]) -> str:
    """What the names of runs begin with, or the only name."""
    first, *others = names
    return f"{os.path.commonprefix([first, *others])}*" if others else first


def _loss(config: Config, encoder: Any, head: Any, transformation: Any) -> Any:
    """The loss of an episode, or of a pair of them where a transformation is learned."""
    if config.transformation == "learned":
        return fewshot.learned_transformation_loss(
            encoder,
            head,
            learning_rate=config.optimizer.learning_rate,
            guidance=config.guidance,
            num_steps=config.steps,
        )
    if config.transformation == "fixed" or config.auxiliary:
        return fewshot.transformed_loss(
            encoder, head, transformation=transformation, guidance=config.guidance, num_steps=config.steps
        )

    def loss(variables: Any, episode: fewshot.Episode, key: jax.Array) -> Any:
        del key  # nothing is drawn
        return fewshot.guided_loss(
            encoder,
            head,
            variables,
            episode,
            guidance=config.guidance,
            train_encoder=config.train_encoder,
        )

    return loss


@dataclasses.dataclass(frozen=True)
class _Pictures:
    """How data sets prepare pictures, and those that lie on the devices.

    Attributes:
        options: of a data set.
        shared: normalised pictures that batches of numbers are looked up in; None where batches hold pictures.
    """

    options: dict[str, Any]
    shared: np.ndarray | None

    @classmethod
    def of(cls, config: Config, sources: Sequence[data.Source], together: Together | None) -> "_Pictures":
        """Of some sources: those that the device augments stay plain, and larger, for its crops."""
        options: dict[str, Any] = {"image_size": config.image_size, "augment": config.augment}
        if config.augment is not None and config.augment_on_device:
            options = {"image_size": int(preprocess.RESIZE_FACTOR * config.image_size), "augment": None}
        in_memory = all(isinstance(source.pictures, np.ndarray) for source in sources)
        if together is None or options["augment"] is not None or not in_memory:
            return cls(options, None)
        # What is in memory as it is fits on a device: a batch then is a few numbers.
        shared = np.concatenate([source.array(options["image_size"]) for source in sources])
        return cls(options | {"numbers": True}, shared)


def _augmented(config: Config, loss: Any) -> Any:
    """A loss of pictures that are augmented first, where that is the device's work; else `loss` itself."""
    if config.augment is None or not config.augment_on_device:
        return loss
    kind, size = config.augment, config.image_size

    def of_augmented(variables: Any, batch: Any, key: jax.Array) -> Any:
        own, key = jax.random.split(key)
        leaves, structure = jax.tree.flatten(batch)
        leaves = [
            data.augment_on_device(
                jax.random.fold_in(own, place), leaf, np.arange(len(leaf)), kind=kind, size=size
            )
            if leaf.ndim == 4
            else leaf
            for place, leaf in enumerate(leaves)
        ]
        return loss(variables, structure.unflatten(leaves), key)

    return of_augmented


def _iterate(run: Run, dataset: Any) -> Any:
    return data.iterate(dataset, num_threads=run.threads, num_workers=run.workers)


def _devices(config: Config) -> Sequence[Any]:
    """All devices of all processes, unless one episode a step leaves work for a single one."""
    return jax.devices()[:1] if config.episodes_per_step == jax.process_count() == 1 else jax.devices()


def _fingerprints(sources: Sequence[data.Source]) -> dict[str, str]:
    """What tells other pictures of the same names apart; two folders may have one name."""
    return {f"{number} {source.name}": source.fingerprint for number, source in enumerate(sources)}


def _pretrain(
    runs: Sequence[Run],
    encoder: Any,
    variables: Sequence[Any],
    base: list[data.Source],
    together: Together | None,
) -> list[dict[str, Any]]:
    """Variables of each run's encoder after training as a classifier of all base classes."""
    config = runs[0].config
    pretraining = config.pretraining
    if pretraining.sources:
        base = load_sources(pretraining.sources, "base", short_side=config.short_side)
    images = data.merge(base)
    classifier = models.Classifier(encoder, num_classes=len(images.class_names))
    optimizer = training.make_optimizer(pretraining.optimizer, num_steps=pretraining.steps)
    loss = _augmented(config, training.classification_loss(classifier))
    step = training.make_step(loss, optimizer, deterministic=config.deterministic)
    pictures = _Pictures.of(config, [images], together)
    what = ("encoder", "width", "image_size", "short_side", "augment", "augment_on_device", "seed")
    blank = np.zeros((1, config.image_size, config.image_size, 3), np.float32)
    states, batches, checkpoints, writers = [], [], [], []
    with contextlib.ExitStack() as opened:
        for run, own in zip(runs, variables, strict=True):
            key = jax.random.key(run.config.seed)
            start = dict(classifier.init(key, blank, train=False))
            start = {kind: {**start[kind], "encoder": own[kind]["encoder"]} for kind in start}
            states.append(training.TrainState.create(jax.random.fold_in(key, 2), start, optimizer=optimizer))
            dataset = data.classification_dataset(
                images, batch_size=pretraining.batch_size, seed=run.config.seed, **pictures.options
            )
            batches.append(_iterate(run, dataset))
            about = {name: getattr(run.config, name) for name in what} | {
                # Named by the run or by its pretraining, the same sources give the same encoder.
                "sources": pretraining.sources or config.sources,
                "pretraining": dataclasses.replace(pretraining, sources=()),
            }
            folder = run.encoder_folder or run.folder / "encoder"
            checkpoints.append(
                opened.enter_context(
                    training.Checkpoints(folder, config=about, fingerprints=_fingerprints(base))
                )
            )
            writers.append(opened.enter_context(training.MetricsWriter(folder / "metrics.jsonl")))
        results = _fit(
            step,
            states,
            batches,
            checkpoints,
            writers,
            together=together,
            pictures=pictures,
            # Its batches are small, every device would wait for the others: each host computes the same on one.
            devices=jax.local_devices()[:1],
            num_steps=pretraining.steps,
            eval_every=pretraining.save_every,
            prepare=functools.partial(training.group, size=pretraining.batch_size),
            progress=runs[0].progress,
            name="encoder",
        )
    return [{kind: tree["encoder"] for kind, tree in result.state.variables.items()} for result in results]


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
    images = [source.normalised(config.image_size) for source in sources]

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
    titles = {name: table().title for name, table in TABLES.items()}
    runs = {
        name: (f"{titles[name.split('/')[0]]}: {name.split('/')[1]}", Run(config, Path("runs") / name))
        for name, config in configs().items()
    }
    run = tyro.extras.overridable_config_cli(runs)
    with joined(run.hosts):
        train(run)


if __name__ == "__main__":
    command_line.guarded(main)
