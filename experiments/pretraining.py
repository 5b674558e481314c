"""Pretraining of the encoder as a classifier of the base classes, before episodes begin."""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fitting import Pictures, Run, Together, augmented, fingerprints, fit, iterate
from jxai import data, models, training
from system import load_sources


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
            batches.append(iterate(run, dataset))
            about = {name: getattr(run.config, name) for name in what} | {
                # Named by the run or by its pretraining, the same sources give the same encoder.
                "sources": pretraining.sources or config.sources,
                "pretraining": dataclasses.replace(pretraining, sources=()),
            }
            folder = run.encoder_folder or run.folder / "encoder"
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
            progress=runs[0].progress,
            name="encoder",
        )
    return [{kind: tree["encoder"] for kind, tree in result.state.variables.items()} for result in results]
