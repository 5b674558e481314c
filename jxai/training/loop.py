"""The loop around the step: batches in, metrics out, validation, checkpoints, and a way back after a stop."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jxai.checks import check_count
from jxai.training._types import DataIterator, PyTree
from jxai.training.checkpoints import Checkpoints
from jxai.training.devices import PmappedStep, replicate, shard, unreplicate
from jxai.training.interruption import Abandoned, Interrupted, interruption
from jxai.training.metrics import MetricsWriter
from jxai.training.state import TrainState

# Steps handed to the devices before the oldest is waited for: enough to keep them busy, few enough that
# batches do not pile up in memory.
_IN_FLIGHT = 2


class DivergedError(FloatingPointError):
    """The loss or its gradient became NaN or infinite."""


class FitResult(NamedTuple):
    """What `fit` returns.

    Attributes:
        state: the last state, not replicated.
        accuracy: the last validation accuracy; None without validation.
        best_accuracy: the best validation accuracy, of this run and of the checkpoints it went on from.
        best_step: its step.
    """

    state: TrainState
    accuracy: float | None
    best_accuracy: float | None
    best_step: int | None


def fit(
    step: PmappedStep,
    state: TrainState,
    batches: DataIterator,
    *,
    num_steps: int,
    evaluate: Callable[[TrainState], float] | None = None,
    eval_every: int = 100,
    log_every: int = 10,
    prepare: Callable[[PyTree], PyTree] | None = None,
    checkpoints: Checkpoints | None = None,
    writer: MetricsWriter | None = None,
    progress: bool = True,
    name: str = "training",
) -> FitResult:
    """Trains until `state.step` is `num_steps`.

    With `checkpoints`, training goes on from the latest one in the folder, data included, and ends with the
    same parameters and metrics as without the stop (to the bit on a CPU where XLA has as many threads: its cores,
    or `PJRT_NPROC`). It saves every `eval_every` steps and at the end, with the validation accuracy that decides on
    the best. On SIGTERM it saves and ends the process, see `Interrupted`; a validation that is going on is given up,
    and made after the resumption.

    Args:
        step: what `pmap_step` returned.
        state: the state to start from, not replicated; left intact.
        batches: an iterator of this process's share of the batches, arrays (episodes, ...), with `get_state`
            and `set_state`. The share is the episodes of this process's devices, one after another.
        num_steps: updates in all, those before a resumption included.
        evaluate: `evaluate(state) -> accuracy` on validation data; each process must get the same number.
            None for no validation.
        eval_every: steps between validations and checkpoints, >= 1; the last step always has one.
        log_every: steps between lines of metrics, which are means since the line before, >= 1. Metrics wait
            on the devices until then.
        prepare: applied to each batch on the host, as `functools.partial(group, size=16)`.
        checkpoints: where to save and to resume from; None for nowhere.
        writer: where metrics go; None for nowhere.
        progress: whether to show a progress bar.
        name: what the progress bar calls this.

    Returns:
        The last state, and validation accuracies.

    Raises:
        ValueError: a number is below 1, the batches end too early, or a batch does not divide among the
            devices; or processes see different checkpoints.
        BlockingIOError: another process is training in the folder of `checkpoints`.
        OSError: nothing can be written there.
        DivergedError: the loss or its gradient became NaN or infinite. Nothing is saved after that.
        Interrupted: SIGTERM came; everything is saved.
    """
    for option, value in (("num_steps", num_steps), ("eval_every", eval_every), ("log_every", log_every)):
        check_count(option, value)
    if checkpoints is not None and not _is_done(checkpoints, num_steps, evaluate is not None):
        checkpoints.claim()
    best, pending = _Best(), []
    measured: float | None = None  # validation accuracy of the current state, None if not validated yet
    if checkpoints is not None and checkpoints.latest_step() is not None:
        state, data_state, measured, pending = checkpoints.restore(state)
        batches.set_state(data_state)
        best_step = checkpoints.best_step()
        if best_step is not None:
            best.update(best_step, checkpoints.accuracy(best_step))
    if writer is not None:
        # Lines after the last checkpoint will be written again; without a checkpoint that is all of them.
        writer.resume(int(state.step))

    number = int(state.step)
    meter = _Meter(
        name,
        start=number,
        end=num_steps,
        writer=writer,
        progress=progress,
        checkpoints=checkpoints,
        pending=pending,
    )
    replicated = replicate(state, devices=step.devices)

    def save(accuracy: float | None, overwrite: bool = False) -> None:
        if checkpoints is not None:
            now, data = unreplicate(replicated), batches.get_state()
            checkpoints.save(
                now, data_state=data, accuracy=accuracy, pending=meter.pending(number), overwrite=overwrite
            )

    with interruption() as interrupted:
        try:
            while True:
                if interrupted(number):
                    if checkpoints is None:
                        meter.flush(number)
                    save(measured)
                    raise Interrupted(number)
                due = number >= num_steps or (number > 0 and number % eval_every == 0)
                if due and measured is None:
                    meter.flush(number)  # before anything is saved: it raises if training has diverged
                    if evaluate is not None:
                        try:
                            with interrupted.give_up():
                                measured = float(evaluate(unreplicate(replicated)))
                        except Abandoned:
                            measured = None  # even if it had just been: what is resumed validates anew
                            continue
                        best.update(number, measured)
                        meter.validated(number, measured)
                    # An interruption before the validation left a checkpoint of this step without accuracy.
                    save(measured, overwrite=measured is not None)
                if number >= num_steps:
                    break
                batch = _next(batches, number, num_steps)
                batch = batch if prepare is None else prepare(batch)
                replicated, metrics = step(replicated, shard(batch, len(step.devices)))
                number, measured = number + 1, None
                meter.add(metrics, episodes=jax.tree.leaves(batch)[0].shape[0] * step.num_processes)
                if number % log_every == 0:
                    meter.flush(number)
        finally:
            meter.close()
            if checkpoints is not None:
                checkpoints.wait()
        if interrupted(number):  # while the last checkpoint was written
            raise Interrupted(number)
    return FitResult(unreplicate(replicated), measured, best.accuracy, best.step)


def _is_done(checkpoints: Checkpoints, num_steps: int, validates: bool) -> bool:
    """Whether nothing is left to be written; an error where not every process sees the same checkpoints."""
    latest = checkpoints.latest_step()
    if jax.process_count() > 1 and len(seen := _of_all_processes(-1 if latest is None else latest)) > 1:
        raise ValueError(
            f"expected checkpoints that every process sees in {checkpoints.directory}, got latest steps "
            f"{', '.join(map(str, seen))} (-1 for none): give a folder that they share"
        )
    if latest is None or latest < num_steps:
        return False
    return not validates or checkpoints.accuracy(latest) is not None


def _of_all_processes(number: int) -> np.ndarray:
    """The different numbers that the processes have."""
    from jax.experimental import multihost_utils

    return np.unique(multihost_utils.process_allgather(np.int32(number)))


def _next(batches: DataIterator, number: int, num_steps: int) -> PyTree:
    try:
        return next(batches)
    except StopIteration:
        raise ValueError(
            f"expected batches for {num_steps} steps, got {number}: give an endless iterator, or fewer steps"
        ) from None


class _Best:
    """The best validation so far; of equals the later one, as `Checkpoints` has it."""

    def __init__(self) -> None:
        self.step: int | None = None
        self.accuracy: float | None = None

    def update(self, step: int, accuracy: float | None) -> None:
        if accuracy is not None and (self.accuracy is None or accuracy >= self.accuracy):
            self.step, self.accuracy = step, accuracy


class _Meter:
    """Keeps the metrics of the last steps on the devices, and writes and shows their means when flushed."""

    def __init__(
        self,
        name: str,
        *,
        start: int,
        end: int,
        writer: MetricsWriter | None,
        progress: bool,
        checkpoints: Checkpoints | None,
        pending: list[dict[str, float]],
    ) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=end,
            initial=start,
            desc=name,
            unit="step",
            disable=not progress or jax.process_index() != 0,
            dynamic_ncols=True,
        )
        self._writer, self._checkpoints, self._shown = writer, checkpoints, {}
        self._read, self._pending = list(pending), list[dict[str, jax.Array]]()
        self._steps_seen, self._episodes, self._since = 0, 0, time.perf_counter()

    def add(self, metrics: dict[str, jax.Array], *, episodes: int) -> None:
        """Takes a step's metrics, (devices,) each, without waiting for that step."""
        self._pending.append(metrics)
        self._steps_seen += 1
        if self._steps_seen == 1:
            # The first step compiles: its time would spoil the rate.
            jax.block_until_ready(metrics)
            self._since = time.perf_counter()
        else:
            self._episodes += episodes
        if len(self._pending) > _IN_FLIGHT:
            jax.block_until_ready(self._pending[-1 - _IN_FLIGHT])
        self._bar.update()

    def pending(self, step: int) -> list[dict[str, float]]:
        """The metrics of each step since the last flush; raises if one of the losses is not finite."""
        # All devices hold the same numbers: this process's first one is read.
        new = [
            {
                name: float(np.asarray(value.addressable_data(0)).reshape(()))
                for name, value in metrics.items()
            }
            for metrics in self._pending
        ]
        for offset, metrics in enumerate(new):
            self._check(step - len(new) + 1 + offset, metrics)
        self._read, self._pending = self._read + new, []
        return self._read

    def flush(self, step: int) -> None:
        """Writes the means of the metrics since the last flush; raises if one of the losses is not finite."""
        steps = self.pending(step)
        if not steps:
            return
        self._read = []
        means = {name: float(np.mean([metrics[name] for metrics in steps])) for name in steps[0]}
        elapsed = time.perf_counter() - self._since
        if self._episodes:
            means["episodes_per_second"] = self._episodes / elapsed
        self._episodes, self._since = 0, time.perf_counter()
        if self._writer is not None:
            self._writer.write(means, step=step)
        self._show(loss=means["loss"], accuracy=means.get("accuracy"), rate=means.get("episodes_per_second"))

    def validated(self, step: int, accuracy: float) -> None:
        """Writes and shows a validation's accuracy; its time does not count for the rate."""
        if self._writer is not None:
            self._writer.write({"accuracy": accuracy}, step=step, phase="validation")
        self._show(validation=accuracy)
        self._since = time.perf_counter()

    def close(self) -> None:
        """Leaves the bar as it is on the screen."""
        self._bar.close()

    def _show(self, **values: float | None) -> None:
        names = {"rate": "episodes/s", "validation": "val. accuracy"}
        self._shown |= {names.get(name, name): f"{v:.3g}" for name, v in values.items() if v is not None}
        self._bar.set_postfix(self._shown)

    def _check(self, step: int, metrics: dict[str, float]) -> None:
        wrong = {name: metrics[name] for name in ("loss", "grad_norm") if not np.isfinite(metrics[name])}
        if not wrong:
            return
        where = "no checkpoint was kept"
        if self._checkpoints is not None and self._checkpoints.latest_step() is not None:
            latest, folder = self._checkpoints.latest_step(), self._checkpoints.directory
            where = f"the last good checkpoint is step {latest} in {folder}"
        found = " and ".join(f"{name} {value}" for name, value in wrong.items())
        raise DivergedError(
            f"expected a finite loss, got {found} at step {step}: training stopped, {where}; "
            "lower the learning rate, clip gradients or look at that step's data"
        )
