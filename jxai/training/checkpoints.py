"""Checkpoints of a training: the latest and the best on validation, written by Orbax in the background."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jxai import extras
from jxai.checks import as_path, check_count, check_number, shown
from jxai.errors import InputError, InputTypeError
from jxai.locks import FileLock
from jxai.sealing import seal, unseal
from jxai.training import integrity
from jxai.training.differences import differences, plain
from jxai.training.integrity import DamagedCheckpointError
from jxai.training.retention import KeepBest
from jxai.training.state import TrainState, to_host
from jxai.training.types import PyTree

Which = Literal["latest", "best"] | int

# Where checkpoints go that are deleted: moved at once, so that a kill leaves no half of one in the old place.
_DELETED = ".deleted"
_UNFINISHED = ".orbax-checkpoint-tmp"
_LOCK = ".in_use"


class Restored(NamedTuple):
    """A checkpoint read back.

    Attributes:
        state: the training state, bit-identical to the saved one.
        data_state: the data iterator's state, for its `set_state`; None if none was saved.
        accuracy: validation accuracy at that step; None if it was not measured.
        pending: metrics of the steps before it that no line was written of yet, {name: number} each.
    """

    state: TrainState
    data_state: Any
    accuracy: float | None
    pending: list[dict[str, float]]


class Checkpoints:
    """The checkpoints of one training in one folder; kept are the latest ones and the best on validation.

    A save copies the state to the host and returns; writing happens in the background, into a temporary
    folder that is renamed when complete, so a killed process leaves no half-written checkpoint. Every array
    and everything said about it has a digest that is compared when it is read. What is damaged all the same
    is never used nor passed over: the error names it, and the newest checkpoint that is whole.

    With several processes each calls every method alike; the first one's `data_state` is kept, so the
    iterators must stand alike too.
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
            TypeError: `directory` is no path, or JSON cannot hold `config`.
            ValueError: the folder holds checkpoints of another configuration or other fingerprints; the
                message names the fields. Or `keep_latest` is below 1.
            DamagedCheckpointError: what one of them says about itself is damaged.
            OSError: the folder cannot be made.
        """
        with extras.named():
            import orbax.checkpoint as ocp
            from orbax.checkpoint import checkpoint_managers as managers

        self.directory = as_path("directory", directory).absolute()
        check_count("keep_latest", keep_latest)
        self._ocp = ocp
        known = None if fingerprints is None else dict(fingerprints)
        self._about = {"config": plain(config), "fingerprints": known}
        self._accuracies: dict[int, float | None] = {}
        self._lock = FileLock(self.directory / _LOCK)
        options = managers.CheckpointManagerOptions(
            preservation_policy=managers.AnyPreservationPolicy(
                [managers.LatestN(keep_latest), KeepBest(self.best_step)]
            ),
            todelete_subdir=_DELETED,
            # Else threads wait five minutes for a folder that cannot be made, and the process with them.
            async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
        )
        with self._writing():
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = managers.CheckpointManager(self.directory, options=options)
        try:
            self._check(may_differ)
        except ValueError:
            self.close()
            raise

    def claim(self) -> None:
        """Keeps other processes from training in this folder until `close`, or until this process ends; `fit` asks.

        Reading stays possible. Of several processes of one training the first has the folder. See `FileLock`.

        Raises:
            BlockingIOError: another process, or another `Checkpoints`, has it, or had it since this one was made.
            OSError: nothing can be written there.
        """
        if jax.process_index() != 0:
            return
        with self._writing():
            if not self._lock.take():
                return
        for path in self.directory.glob(f"*{_UNFINISHED}*"):  # of a process that was killed
            shutil.rmtree(path, ignore_errors=True)
        opened = self._steps()
        self._manager.reload()
        if self._steps() != opened:
            raise BlockingIOError(
                f"expected the checkpoints that were in {self.directory} when it was opened, {opened}, "
                f"got {self._steps()}: another training ended there, open it again"
            )

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
        measured = {step: accuracy for step, accuracy in self._accuracies.items() if accuracy is not None}
        return max(measured, key=lambda step: (measured[step], step), default=None)

    def accuracy(self, step: int) -> float | None:
        """Validation accuracy of a checkpoint.

        Args:
            step: one that `latest_step` or `best_step` returned.

        Returns:
            The accuracy given to `save`; None if there was none.
        """
        return self._accuracies[step]

    def save(
        self,
        state: TrainState,
        *,
        data_state: Any = None,
        accuracy: float | None = None,
        pending: Sequence[Mapping[str, float]] = (),
        overwrite: bool = False,
    ) -> None:
        """Writes a checkpoint of `state.step`, in the background.

        Args:
            state: the state, not replicated.
            data_state: the data iterator's `get_state()`, anything JSON can hold.
            accuracy: validation accuracy in [0, 1]; None or NaN if not measured, and then never the best.
            pending: metrics of steps that no line was written of yet, {name: number} each.
            overwrite: whether a checkpoint of this step that exists is replaced (else it stays and nothing is
                written).

        Raises:
            TypeError: `state` is no `TrainState`.
            ValueError: a newer checkpoint exists: this state is not the folder's training going on; or `accuracy`
                is no number.
            OSError: this checkpoint, or the one before it in the background, cannot be written.
        """
        if not isinstance(state, TrainState):
            raise InputTypeError(f"expected a TrainState, got {shown(state)}: see TrainState.create")
        measured = _measured(accuracy)
        step, latest = int(state.step), self.latest_step()
        if latest is not None and step < latest:
            raise InputError(
                f"expected a step after {latest}, the latest checkpoint in {self.directory}, got {step}: "
                "resume from the latest checkpoint or use another folder"
            )
        if step == latest and not overwrite:
            return
        self.wait()
        self._accuracies[step] = measured
        arrays, args = to_host(state), self._ocp.args
        about = seal(
            {
                **self._about,
                "step": step,
                "data_state": data_state,
                "accuracy": self._accuracies[step],
                "pending": list(pending),
                "arrays": integrity.forms(state),
                "digests": integrity.digests(arrays),
            }
        )
        with self._writing():
            if step == latest:
                self._manager.delete(step)
            self._manager.save(
                step,
                args=args.Composite(state=args.StandardSave(arrays), about=args.JsonSave(about)),
                force=True,
            )
        steps = set(self._manager.all_steps())
        self._accuracies = {step: value for step, value in self._accuracies.items() if step in steps}

    def restore(self, state: TrainState, *, which: Which = "latest") -> Restored:
        """Reads a checkpoint back.

        Args:
            state: a state of the same structure, as `TrainState.create` makes it; its values are not used.
            which: "latest", "best", or a step.

        Returns:
            State, data iterator's state, accuracy and pending metrics.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            ValueError: the checkpoint's arrays have other names, shapes or dtypes than those of `state`.
            DamagedCheckpointError: it is not as it was written.
        """
        self.wait()
        step = self._find(which)
        with self._damage_named(step):
            about, tree = self._read(step)
        differing = differences(about["arrays"], integrity.forms(state))
        if differing:
            raise InputError(
                f"expected a checkpoint with the arrays of `state`, got differences in {self.directory}, "
                f"step {step}: {'; '.join(differing[:8])}: build the model and optimizer it was saved with"
            )
        arrays = {name: jnp.asarray(array) for name, array in integrity.named(tree).items()}
        arrays["key"] = jax.random.wrap_key_data(arrays["key"], impl=jax.random.key_impl(state.key))
        leaves = [arrays[name] for name in integrity.named(state)]
        restored = jax.tree.unflatten(jax.tree.structure(state), leaves)
        return Restored(restored, about["data_state"], about["accuracy"], about["pending"])

    def wait(self) -> None:
        """Returns when everything saved is on disk.

        Raises:
            OSError: it cannot be written.
        """
        with self._writing():
            self._manager.wait_until_finished()
        if jax.process_index() == 0:
            for path in (self.directory / _DELETED).glob("*"):
                shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Waits, and ends the background threads.

        Raises:
            OSError: what was saved cannot be written.
        """
        try:
            self.wait()
        finally:
            self._lock.release()
            with self._writing():  # it may raise what was raised before
                self._manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _find(self, which: Which) -> int:
        steps = self._steps()
        if which == "latest":
            step = self.latest_step()
        elif which == "best":
            step = self.best_step()
        else:
            step = which if which in steps else None
        if step is None:
            raise FileNotFoundError(
                f"expected 'latest', 'best' or one of the steps {steps} in {self.directory}, "
                f"got {which!r}: train first, or give the folder of a training that has such a checkpoint"
            )
        return step

    def _steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def _read_about(self, step: int) -> dict[str, Any]:
        args = self._ocp.args
        sealed = self._manager.restore(step, args=args.Composite(about=args.JsonRestore()))["about"]
        about = unseal(sealed)
        if about.get("step") != step:
            raise ValueError(f"what was written as step {about.get('step')}, in the folder of another")
        return about

    def _read(self, step: int) -> tuple[dict[str, Any], dict[str, PyTree]]:
        """What is said about a checkpoint, and its arrays, compared with their digests."""
        args = self._ocp.args
        about = self._read_about(step)
        tree = self._manager.restore(step, args=args.Composite(state=args.StandardRestore()))["state"]
        integrity.verify(tree, about["digests"])
        return about, tree

    @contextlib.contextmanager
    def _damage_named(self, step: int) -> Iterator[None]:
        """Turns what reading a checkpoint raises into an error that names it and one that is whole."""
        try:
            yield
        except Exception as error:  # a damaged file may fail in many ways
            if not (self.directory / str(step)).exists():
                gone = f"expected step {step} in {self.directory}, got none any more: a training moved on, read again"
                raise FileNotFoundError(gone) from error
            others = (other for other in reversed(self._steps()) if other != step)
            whole = next((other for other in others if self._is_whole(other)), None)
            offer = (
                f"no other one there is whole, delete {self.directory} to start anew"
                if whole is None
                else f"step {whole} is whole, delete {self.directory / str(step)} to go on from it"
            )
            raise DamagedCheckpointError(
                f"expected the checkpoint as it was written in {self.directory / str(step)}, "
                f"got {type(error).__name__} ({str(error)[:300]}): {offer}"
            ) from error

    def _is_whole(self, step: int) -> bool:
        try:
            self._read(step)
        except Exception:  # as above
            return False
        return True

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what writing raises into an error that says what to do."""
        try:
            yield
        except BlockingIOError as error:
            raise BlockingIOError(
                f"expected a folder that nobody writes, got {self.directory}, in use by {error}: wait or take another"
            ) from None
        except (OSError, ValueError) as error:  # the second is TensorStore's
            raise OSError(
                f"expected to write checkpoints in {self.directory}, got {error}: give a folder that can be "
                "written, with space, and start again; a training goes on from its last checkpoint"
            ) from error

    def _check(self, may_differ: tuple[str, ...]) -> None:
        """Compares what the newest checkpoint was made with to what this training is."""
        saved: dict[str, Any] = {}
        for step in self._steps():
            try:
                with self._damage_named(step):
                    saved = self._read_about(step)
            except FileNotFoundError:  # a training that goes on there has removed it
                self._manager.reload()
            else:
                self._accuracies[step] = saved["accuracy"]
        differing = []
        for part, mine in self._about.items():
            if saved and mine is not None:
                prefix = "" if part == "config" else part
                differing += differences(saved[part] or {}, mine, name=prefix, ignore=may_differ)
        if differing:
            raise InputError(
                f"expected checkpoints of this configuration in {self.directory}, got others "
                f"(step {self.latest_step()}): {'; '.join(differing)}: "
                "use another folder, or the configuration it was made with"
            )


def _measured(accuracy: Any) -> float | None:
    """An accuracy as it is kept: None where there is none."""
    if accuracy is None or (np.ndim(accuracy) == 0 and jnp.isscalar(accuracy) and not np.isfinite(accuracy)):
        return None
    check_number("accuracy", accuracy)
    return float(accuracy)
