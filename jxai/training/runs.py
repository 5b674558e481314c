"""One network's training as it stands on disk: checkpoints, metrics, and the best validation so far."""

from collections.abc import Sequence

import jax
import numpy as np

from jxai.checks import shown
from jxai.errors import InputError, InputTypeError
from jxai.training.checkpoints import Checkpoints
from jxai.training.log import MetricsWriter
from jxai.training.state import TrainState
from jxai.training.types import DataIterator


class Run:
    """One network's training: its data, its folder, and the best validation so far."""

    def __init__(
        self,
        state: TrainState,
        batches: DataIterator,
        checkpoints: Checkpoints | None,
        writer: MetricsWriter | None,
    ) -> None:
        for what, given, is_one in (
            ("a state of TrainState.create", state, isinstance(state, TrainState)),
            ("an iterator of batches, as data.iterate's", batches, hasattr(batches, "__next__")),
            ("Checkpoints or None", checkpoints, isinstance(checkpoints, Checkpoints | None)),
            ("a MetricsWriter or None", writer, isinstance(writer, MetricsWriter | None)),
        ):
            if not is_one:
                raise InputTypeError(f"expected {what}, got {shown(given)}: give one")
        self.state, self.batches, self.checkpoints, self.writer = state, batches, checkpoints, writer
        self.best_step: int | None = None
        self.best_accuracy: float | None = None
        self.pending: list[dict[str, float]] = []  # metrics of the steps before that no line was written of

    def is_done(self, num_steps: int, *, validates: bool) -> bool:
        """Whether nothing is left to be written; an error where not every process sees the same checkpoints."""
        if self.checkpoints is None:
            return False
        latest = self.checkpoints.latest_step()
        if jax.process_count() > 1 and len(seen := _of_all_processes(-1 if latest is None else latest)) > 1:
            raise InputError(
                f"expected checkpoints that every process sees in {self.checkpoints.directory}, got latest steps "
                f"{', '.join(map(str, seen))} (-1 for none): give a folder that they share"
            )
        if latest is None or latest < num_steps:
            return False
        return not validates or self.checkpoints.accuracy(latest) is not None

    def resume(self, step: int | None) -> float | None:
        """Goes back to a checkpoint, or begins; the accuracy measured there."""
        accuracy = None
        if self.checkpoints is not None and step is not None:
            self.state, data_state, accuracy, self.pending = self.checkpoints.restore(self.state, which=step)
            self.batches.set_state(data_state)
            best_step = self.checkpoints.best_step()
            if best_step is not None:
                self.validated(best_step, self.checkpoints.accuracy(best_step))
        if self.writer is not None:
            # Lines after the last checkpoint will be written again; without a checkpoint that is all of them.
            self.writer.resume(int(self.state.step))
        return accuracy

    def validated(self, step: int, accuracy: float | None) -> None:
        """Takes note; of equals the later one is the best, as `Checkpoints` has it."""
        if accuracy is not None and (self.best_accuracy is None or accuracy >= self.best_accuracy):
            self.best_step, self.best_accuracy = step, accuracy

    def save(self, state: TrainState, accuracy: float | None, pending: Sequence[dict[str, float]]) -> None:
        """Writes a checkpoint, unless one of this step or a later one is there."""
        if self.checkpoints is None:
            return
        step, latest = int(state.step), self.checkpoints.latest_step()
        if latest is not None and step < latest:  # of several runs, those that were ahead when all went on
            return
        # An interruption before the validation left a checkpoint of this step without accuracy.
        overwrite = accuracy is not None and step == latest and self.checkpoints.accuracy(step) is None
        self.checkpoints.save(
            state,
            data_state=self.batches.get_state(),
            accuracy=accuracy,
            pending=pending,
            overwrite=overwrite,
        )

    def wait(self) -> None:
        """Returns when all that was saved is on disk."""
        if self.checkpoints is not None:
            self.checkpoints.wait()


def common_step(runs: Sequence[Run]) -> int | None:
    """The latest step of which each run has a checkpoint; None if there is none."""
    steps = [set() if run.checkpoints is None else set(run.checkpoints._steps()) for run in runs]
    return max(set.intersection(*steps), default=None)


def _of_all_processes(number: int) -> np.ndarray:
    """The different numbers that the processes have."""
    from jax.experimental import multihost_utils

    return np.unique(multihost_utils.process_allgather(np.int32(number)))
