"""How runs of one system are trained: alone, or several seeds together, whose pictures lie on the devices."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jxai import data, training
from jxai.cli.fewshot.configs import Config
from jxai.cli.running.hosts import Hosts, HostsOption
from jxai.data import preprocess


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


@dataclasses.dataclass(frozen=True)
class Together:
    """That several seeds are trained together.

    Attributes:
        at_once: see `training.seeds_step`.
    """

    at_once: int | None


@dataclasses.dataclass(frozen=True)
class Pictures:
    """How data sets prepare pictures, and those that lie on the devices.

    Attributes:
        options: of a data set.
        shared: normalized pictures that batches of numbers are looked up in; None where batches hold pictures.
    """

    options: dict[str, Any]
    shared: np.ndarray | None

    @classmethod
    def of(cls, config: Config, sources: Sequence[data.Source], together: Together | None) -> "Pictures":
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


def augmented(config: Config, loss: Any) -> Any:
    """A loss of pictures that are augmented first, where that is the device's work; else `loss` itself."""
    if config.augment is None or not config.augment_on_device:
        return loss
    kind, size = config.augment, config.image_size

    def of_augmented(variables: Any, batch: Any, key: jax.Array, step: jax.Array) -> Any:
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
        return loss(variables, structure.unflatten(leaves), key, step)

    return of_augmented


def iterate(run: Run, dataset: Any) -> Any:
    """A run's batches."""
    return data.iterate(dataset, num_threads=run.threads, num_workers=run.workers)


def fingerprints(sources: Sequence[data.Source]) -> dict[str, str]:
    """What tells other pictures of the same names apart; two folders may have one name."""
    return {f"{number} {source.name}": source.fingerprint for number, source in enumerate(sources)}


def fit(
    step: Any,
    states: list[training.TrainState],
    batches: list[Any],
    checkpoints: list[training.Checkpoints],
    writers: list[training.MetricsWriter],
    *,
    together: Together | None,
    pictures: Pictures,
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
