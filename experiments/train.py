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
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import command_line
import record
from configs import TABLES, Config, configs
from hosts import Hosts, HostsOption, from_first, in_shares, is_first, together
from jxai import data, fewshot, models, training
from jxai.data import preprocess
from jxai.locks import FileLock
from seeds import key_of
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
    config = run.config
    base, validation = (
        load_sources(config.sources, split, short_side=config.short_side) for split in ("base", "validation")
    )
    num_classes = sum(len(source.class_names) for source in base)
    encoder, head = build(config, num_classes=num_classes)
    devices = _devices(config)
    if config.episodes_per_step % len(devices):
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
    episodes = (data.episode_pairs_dataset if learned else data.episode_dataset)(
        base,
        way=config.way,
        shot=config.shot,
        num_query=config.queries,
        seed=config.seed,
        batch_size=config.episodes_per_step,
        **_pictures(config),
        epoch=config.domain_epoch,
        repeat=config.repeat,
        **shards,
    )
    evaluate = _validation(config, encoder, head, validation)
    key = key_of(config.seed)
    with record.writing(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
    transformation = {}
    if config.transformation != "none":
        transformation = fewshot.init_transformation(encoder, image_size=config.image_size)
    variables = fewshot.init_multi_domain(
        encoder,
        head,
        key,
        image_size=config.image_size,
        num_classes=num_classes if config.auxiliary else None,
        transformation=transformation if learned else None,
    )
    if config.pretraining.steps:
        _use_encoder(variables, _pretrain(run, encoder, variables, base))
    parts = {"transformation": _TRANSFORMATION_ADAM} if learned else None
    optimizer = training.make_optimizer(config.optimizer, num_steps=config.steps, parts=parts)
    loss = _augmented(config, _loss(config, encoder, head, transformation))
    step = training.make_step(loss, optimizer, deterministic=config.deterministic)
    state = training.TrainState.create(jax.random.fold_in(key, 1), variables, optimizer=optimizer)
    tensorboard = run.folder / "tensorboard" if run.tensorboard else None
    with (
        training.Checkpoints(
            run.folder / "episodes", config=config, fingerprints=_fingerprints(base)
        ) as checkpoints,
        training.MetricsWriter(run.folder / "metrics.jsonl", tensorboard=tensorboard) as writer,
    ):
        # Now that the folder has turned out to be this configuration's, and nobody else's.
        checkpoints.claim()
        if is_first():
            record.keep(run.folder, config)
            text = json.dumps(dataclasses.asdict(config), indent=1)
            record.write_whole(run.folder / "config.json", text + "\n")
        return training.fit(
            training.pmap_step(step, devices=devices),
            state,
            _iterate(run, episodes),
            num_steps=config.steps,
            evaluate=evaluate,
            eval_every=config.eval_every,
            checkpoints=checkpoints,
            writer=writer,
            progress=run.progress,
            name=run.folder.name,
        )


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


def _pictures(config: Config) -> dict[str, Any]:
    """How a data set prepares pictures: those that the device augments stay plain, and larger, for its crops."""
    if config.augment is None or not config.augment_on_device:
        return {"image_size": config.image_size, "augment": config.augment}
    return {"image_size": int(preprocess.RESIZE_FACTOR * config.image_size), "augment": None}


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


def _pretrain(run: Run, encoder: Any, variables: Any, base: list[data.Source]) -> dict[str, Any]:
    """Variables of the encoder after training as a classifier of all base classes."""
    config, pretraining = run.config, run.config.pretraining
    if pretraining.sources:
        base = load_sources(pretraining.sources, "base", short_side=config.short_side)
    images = data.merge(base)
    classifier = models.Classifier(encoder, num_classes=len(images.class_names))
    key = key_of(config.seed)
    blank = np.zeros((1, config.image_size, config.image_size, 3), np.float32)
    start = dict(classifier.init(key, blank, train=False))
    start = {kind: {**start[kind], "encoder": variables[kind]["encoder"]} for kind in start}
    optimizer = training.make_optimizer(pretraining.optimizer, num_steps=pretraining.steps)
    loss = _augmented(config, training.classification_loss(classifier))
    step = training.make_step(loss, optimizer, deterministic=config.deterministic)
    batches = data.classification_dataset(
        images,
        batch_size=pretraining.batch_size,
        seed=config.seed,
        **_pictures(config),
    )
    what = ("encoder", "width", "image_size", "short_side", "augment", "augment_on_device", "seed")
    about = {name: getattr(config, name) for name in what} | {
        # Named by the run or by its pretraining, the same sources give the same encoder.
        "sources": pretraining.sources or config.sources,
        "pretraining": dataclasses.replace(pretraining, sources=()),
    }
    folder = run.encoder_folder or run.folder / "encoder"
    with (
        _alone(folder),
        training.Checkpoints(folder, config=about, fingerprints=_fingerprints(base)) as checkpoints,
        training.MetricsWriter(folder / "metrics.jsonl") as writer,
    ):
        result = training.fit(
            # Its batches are small, every device would wait for the others: each host computes the same on one.
            training.pmap_step(step, devices=jax.local_devices()[:1]),
            training.TrainState.create(jax.random.fold_in(key, 2), start, optimizer=optimizer),
            _iterate(run, batches),
            num_steps=pretraining.steps,
            eval_every=pretraining.save_every,
            prepare=functools.partial(training.group, size=pretraining.batch_size),
            checkpoints=checkpoints,
            writer=writer,
            progress=run.progress,
            name="encoder",
        )
    return {kind: tree["encoder"] for kind, tree in result.state.variables.items()}


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits for another run that trains the encoder which both want, and then finds it there."""
    lock = FileLock(folder / ".in_training")
    if is_first():
        with record.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.take()
        except BlockingIOError as error:
            print(f"note: waiting for the encoder in {folder}, which {error} trains", file=sys.stderr)
            lock.take(wait=True)
    from_first(np.zeros(1))  # the other processes look there no earlier
    try:
        yield
    finally:
        lock.release()


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
    with together(run.hosts):
        train(run)


if __name__ == "__main__":
    command_line.guarded(main)
