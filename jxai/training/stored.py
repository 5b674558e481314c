"""What a checkpoint holds, read without its training."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jxai.checks import as_path
from jxai.training.checkpoints import Checkpoints, Which
from jxai.training.types import PyTree


def read_config(directory: str | Path, *, which: Which = "latest") -> Any:
    """The configuration a training was started with, to build its model again.

    Args:
        directory: a folder of `Checkpoints`.
        which: "latest", "best", or a step.

    Returns:
        What JSON made of the configuration: dicts, lists, numbers, strings; None if none was saved.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        DamagedCheckpointError: it is not as it was written.
    """
    with _existing(directory) as checkpoints:
        return checkpoints._read_about(checkpoints._find(which))["config"]


def load_variables(directory: str | Path, *, which: Which = "best") -> dict[str, PyTree]:
    """The model alone out of a checkpoint, for evaluation or as a pretrained start.

    Args:
        directory: a folder of `Checkpoints`.
        which: "best", "latest", or a step.

    Returns:
        {"params": ..., "batch_stats": ...} as nested dicts of arrays.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        DamagedCheckpointError: it is not as it was written.
    """
    with _existing(directory) as checkpoints:
        step = checkpoints._find(which)
        with checkpoints._damage_named(step):
            _, tree = checkpoints._read(step)
    return jax.tree.map(jnp.asarray, {"params": tree["params"], "batch_stats": tree["batch_stats"]})


def _existing(directory: str | Path) -> Checkpoints:
    folder = as_path("directory", directory)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise FileNotFoundError(
            f"expected a folder of checkpoints, got {folder}, which {what}: give the folder of a training, "
            "such as RUN/episodes"
        )
    return Checkpoints(folder)
