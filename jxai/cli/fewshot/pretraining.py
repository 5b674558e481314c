"""Pretraining of the encoder as a classifier of the base classes, before episodes begin."""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jxai import data, models, training
from jxai.cli.fewshot.fitting import Pictures, Run, Together, augmented, fingerprints, fit, iterate
from jxai.cli.fewshot.system import load_sources
from jxai.cli.running import folders
from jxai.cli.running.hosts import from_first, is_first
from jxai.cli.running.seeds import key_of
from jxai.locks import FileLock


def pretrain(
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
    loss = augmented(config, training.classification_loss(classifier))
    step = training.make_step(loss, optimizer, deterministic=config.deterministic)
    pictures = Pictures.of(config, [images], together)
    what = ("encoder", "width", "image_size", "short_side", "augment", "augment_on_device", "seed")
    blank = np.zeros((1, config.image_size, config.image_size, 3), np.float32)
    folders = [run.encoder_folder or run.folder / "encoder" for run in runs]
    states, batches, checkpoints, writers = [], [], [], []
    with contextlib.ExitStack() as opened:
        # In one order wherever they are trained, so that no two processes wait for each other.
        for folder in sorted(set(folders)):
            opened.enter_context(_alone(folder))
        for run, own, folder in zip(runs, variables, folders, strict=True):
            key = key_of(run.config.seed)
            start = dict(classifier.init(key, blank, train=False))
            start = {kind: {**start[kind], "encoder": own[kind]["encoder"]} for kind in start}
            states.append(training.TrainState.create(jax.random.fold_in(key, 2), start, optimizer=optimizer))
            dataset = data.classification_dataset(
                images, batch_size=pretraining.batch_size, seed=run.config.seed, **pictures.options
            )
            batches.append(iterate(run, dataset))
            about = {name: getattr(run.config, name) for name in what} | {
                # Named by the run or by its pretraining, the same sources give the same encoder.
                "sources": pretraining.sources or config.sources,
                "pretraining": dataclasses.replace(pretraining, sources=()),
            }
            checkpoints.append(
                opened.enter_context(
                    training.Checkpoints(folder, config=about, fingerprints=fingerprints(base))
                )
            )
            writers.append(opened.enter_context(training.MetricsWriter(folder / "metrics.jsonl")))
        results = fit(
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
            progress=runs[0].progress or "lines",
            name="encoder",
        )
    return [{kind: tree["encoder"] for kind, tree in result.state.variables.items()} for result in results]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits for another run that trains the encoder which both want, and then finds it there."""
    lock = FileLock(folder / ".in_training")
    if is_first():
        with folders.writing(folder):
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
