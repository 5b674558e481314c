"""Checkpoints of a training: the latest and the best on validation, written by Orbax in the background."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jxai.training._types import PyTree
from jxai.training.state import TrainState

Which = Literal["latest", "best"] | int


class Restored(NamedTuple):
    """A checkpoint read back.

    Attributes:
        state: the training state, bit-identical to the saved one.
        data_state: the data iterator's state, for its `set_state`; None if none was saved.
        accuracy: validation accuracy at that step; None if it was not measured.
    """

    state: TrainState
    data_state: Any
    accuracy: float | None


class Checkpoints:
    """The checkpoints of one training in one folder; kept are the latest ones and the best on validation.

    A save copies the state to the host and returns; writing happens in the background, into a temporary
    folder that is renamed when complete, so a killed process leaves no half-written checkpoint. With several
    processes each calls every method alike; the first one's `data_state` is kept, so the iterators must stand
    alike too.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        config: Any = None,
        fingerprints: Mapping[str, str] | None = None,
        may_differ: tuple[str, ...] = (),
        keep_latest: int = 2,
    ) -> None:
        """Opens a folder, which is made if it does not exist.

        Args:
            directory: the folder of this training alone.
            config: the training's configuration, a dataclass or anything JSON can hold; stored with every
                checkpoint. None stores nothing and checks nothing.
            fingerprints: {name: hash} of what else decides the result (data archives, pretrained weights).
            may_differ: dotted names of fields that a resumed training may change, as "num_steps".
            keep_latest: how many of the latest checkpoints stay beside the best one.

        Raises:
            ValueError: the folder holds checkpoints of another configuration or other fingerprints; the
                message names the fields.
        """
        # Here, because it is slow to import and training without checkpoints does not need it.
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers as managers

        self.directory = Path(directory).absolute()
        self._ocp = ocp
        self._about = {
            "config": _plain(config),
            "fingerprints": None if fingerprints is None else dict(fingerprints),
        }
        # `max_to_keep` with `best_fn` would delete the latest checkpoint when it is not among the best.
        self._manager = managers.CheckpointManager(
            self.directory,
            options=managers.CheckpointManagerOptions(
                best_fn=_rank,
                preservation_policy=managers.AnyPreservationPolicy(
                    [managers.LatestN(keep_latest), managers.BestN(get_metric_fn=_rank, n=1)]
                ),
            ),
        )
        try:
            self._check(may_differ)
        except ValueError:
            self.close()
            raise

    def latest_step(self) -> int | None:
        """Step of the newest checkpoint.

        Returns:
            The number of updates made before it, None if there is no checkpoint.
        """
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Step of the checkpoint with the highest validation accuracy, the later one of equals.

        Returns:
            The number of updates made before it, None if no checkpoint has an accuracy.
        """
        step = self._manager.best_step()
        return None if step is None or self.accuracy(step) is None else step

    def accuracy(self, step: int) -> float | None:
        """Validation accuracy of a checkpoint.

        Args:
            step: one that `latest_step` or `best_step` returned.

        Returns:
            The accuracy given to `save`; None if there was none.
        """
        metrics = self._manager.metrics(step)
        return None if metrics is None else metrics["accuracy"]

    def save(
        self,
        state: TrainState,
        *,
        data_state: Any = None,
        accuracy: float | None = None,
        overwrite: bool = False,
    ) -> None:
        """Writes a checkpoint of `state.step`, in the background.

        Args:
            state: the state, not replicated.
            data_state: the data iterator's `get_state()`, anything JSON can hold.
            accuracy: validation accuracy in [0, 1]; None or NaN if not measured, and then never the best.
            overwrite: whether a checkpoint of this step that exists is replaced (else it stays and nothing is
                written).

        Raises:
            ValueError: a newer checkpoint exists: this state is not the folder's training going on.
        """
        step, latest = int(state.step), self.latest_step()
        if latest is not None and step < latest:
            raise ValueError(
                f"expected a step after {latest}, the latest checkpoint in {self.directory}, got {step}: "
                "resume from the latest checkpoint or use another folder"
            )
        if step == latest:
            if not overwrite:
                return
            self.wait()
            self._manager.delete(step)
        args = self._ocp.args
        about = {**self._about, "data_state": data_state, "arrays": _arrays(state)}
        finite = accuracy is not None and np.isfinite(accuracy)
        self._manager.save(
            step,
            args=args.Composite(state=args.StandardSave(_to_host(state)), about=args.JsonSave(about)),
            metrics={"accuracy": float(accuracy) if finite and accuracy is not None else None},
            force=True,
        )

    def restore(self, state: TrainState, *, which: Which = "latest") -> Restored:
        """Reads a checkpoint back.

        Args:
            state: a state of the same structure, as `TrainState.create` makes it; its values are not used.
            which: "latest", "best", or a step.

        Returns:
            State, data iterator's state and accuracy.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            ValueError: the checkpoint's arrays have other names, shapes or dtypes than those of `state`.
        """
        self.wait()
        step = _find(self, which)
        about = self._read_about(step)
        differing = _differences(about["arrays"], _arrays(state))
        if differing:
            raise ValueError(
                f"expected a checkpoint with the arrays of `state`, got differences in {self.directory}, "
                f"step {step}: {'; '.join(differing[:8])}: build the model and optimiser it was saved with"
            )
        args = self._ocp.args
        template = _to_host(state)
        host = self._manager.restore(step, args=args.Composite(state=args.StandardRestore(template)))["state"]
        key = jax.random.wrap_key_data(jnp.asarray(host["key"]), impl=jax.random.key_impl(state.key))
        restored = jax.tree.map(jnp.asarray, {name: value for name, value in host.items() if name != "key"})
        return Restored(TrainState(**restored, key=key), about["data_state"], self.accuracy(step))

    def wait(self) -> None:
        """Returns when everything saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and ends the background threads."""
        self._manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_about(self, step: int) -> dict[str, Any]:
        args = self._ocp.args
        return self._manager.restore(step, args=args.Composite(about=args.JsonRestore()))["about"]

    def _check(self, may_differ: tuple[str, ...]) -> None:
        """Compares what the newest checkpoint was made with to what this training is."""
        step = self.latest_step()
        if step is None:
            return
        saved = self._read_about(step)
        differing = []
        for part, mine in self._about.items():
            if mine is not None:
                prefix = "" if part == "config" else part
                differing += _differences(saved[part] or {}, mine, name=prefix, ignore=may_differ)
        if differing:
            raise ValueError(
                f"expected checkpoints of this configuration in {self.directory}, got others "
                f"(step {step}): {'; '.join(differing)}: "
                "use another folder, or the configuration it was made with"
            )


def read_config(directory: str | Path, *, which: Which = "latest") -> Any:
    """The configuration a training was started with, to build its model again.

    Args:
        directory: a folder of `Checkpoints`.
        which: "latest", "best", or a step.

    Returns:
        What JSON made of the configuration: dicts, lists, numbers, strings; None if none was saved.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    with _existing(directory) as checkpoints:
        return checkpoints._read_about(_find(checkpoints, which))["config"]


def load_variables(directory: str | Path, *, which: Which = "best") -> dict[str, PyTree]:
    """The model alone out of a checkpoint, for evaluation or as a pretrained start.

    Args:
        directory: a folder of `Checkpoints`.
        which: "best", "latest", or a step.

    Returns:
        {"params": ..., "batch_stats": ...} as nested dicts of arrays.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    with _existing(directory) as checkpoints:
        args = checkpoints._ocp.args
        step = _find(checkpoints, which)
        host = checkpoints._manager.restore(step, args=args.Composite(state=args.StandardRestore()))["state"]
    return jax.tree.map(jnp.asarray, {"params": host["params"], "batch_stats": host["batch_stats"]})


def _existing(directory: str | Path) -> Checkpoints:
    if not Path(directory).is_dir():
        raise FileNotFoundError(f"expected a folder of checkpoints, got {directory}, which does not exist")
    return Checkpoints(directory)


def _find(checkpoints: Checkpoints, which: Which) -> int:
    steps = list(checkpoints._manager.all_steps())
    if which == "latest":
        step = checkpoints.latest_step()
    elif which == "best":
        step = checkpoints.best_step()
    else:
        step = which if which in steps else None
    if step is None:
        raise FileNotFoundError(
            f"expected 'latest', 'best' or one of the steps {steps} in {checkpoints.directory}, "
            f"got {which!r}: train first, or give the folder of a training that has such a checkpoint"
        )
    return step


def _rank(metrics: Mapping[str, float | None]) -> float:
    accuracy = metrics["accuracy"]
    return float("-inf") if accuracy is None else accuracy


def _to_host(state: TrainState) -> dict[str, PyTree]:
    """A state as numpy arrays in a dict; the key as its data, since not every format can hold typed keys."""
    tree = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return jax.tree.map(np.asarray, jax.device_get({**tree, "key": jax.random.key_data(state.key)}))


def _arrays(state: TrainState) -> dict[str, str]:
    """{path of an array: "dtype(shape)"}."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{leaf.shape}"
        for path, leaf in leaves
    }


def _plain(config: Any) -> Any:
    """A configuration as JSON would read it back, so that tuples equal lists and paths equal strings."""

    def other(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        return str(value)

    return json.loads(json.dumps(config, default=other))


def _differences(saved: Any, mine: Any, *, name: str = "", ignore: tuple[str, ...] = ()) -> list[str]:
    """One line for each field that differs, by dotted name."""
    if name in ignore and name:
        return []
    if isinstance(saved, dict) and isinstance(mine, dict):
        lines = []
        for field in sorted(saved.keys() | mine.keys()):
            inner = f"{name}.{field}" if name else field
            lines += _differences(saved.get(field), mine.get(field), name=inner, ignore=ignore)
        return lines
    return [] if saved == mine else [f"{name or 'all of it'} is {saved!r} there and {mine!r} here"]
