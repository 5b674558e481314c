"""The loop around the step: batches in, metrics out, validation, checkpoints, and a way back after a stop."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jxai.checks import check_count, shown
from jxai.errors import InputError, InputTypeError
from jxai.progress import Progress
from jxai.training.checkpoints import Checkpoints
from jxai.training.devices import PmappedStep, replicate, shard, unreplicate
from jxai.training.interruption import Abandoned, interruption
from jxai.training.log import MetricsWriter
from jxai.training.meter import Meter, Reported
from jxai.training.runs import Run, common_step
from jxai.training.seeds import SeedsStep, bounded
from jxai.training.state import TrainState
from jxai.training.types import DataIterator, PyTree


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
    progress: Progress = True,
    name: str = "training",
) -> FitResult:
    """Trains until `state.step` is `num_steps`.

    With `checkpoints`, training goes on from the latest one in the folder, data included, and ends with the
    same parameters and metrics as without the stop (to the bit on a CPU where XLA has as many threads: its cores,
    or `PJRT_NPROC`). It saves every `eval_every` steps and at the end, with the validation accuracy that decides on
    the best. On SIGTERM, and with `checkpoints` on Ctrl-C, it saves and ends the process, see `Interrupted`; a
    validation that is going on is given up, and made after the resumption.

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
        progress: True for a progress bar on a terminal and a line a minute elsewhere; "lines" for lines anywhere;
            False for nothing.
        name: what the progress bar calls this.

    Returns:
        The last state, and validation accuracies.

    Raises:
        TypeError: no step of `pmap_step`, no state, no iterator, or other things than checkpoints and a writer.
        ValueError: a number is below 1, the batches end too early, or a batch does not divide among the
            devices; or processes see different checkpoints.
        BlockingIOError: another process is training in the folder of `checkpoints`.
        OSError: nothing can be written there.
        DivergedError: the loss or its gradient became NaN or infinite. Nothing is saved after that.
        Interrupted: SIGTERM or Ctrl-C came; everything is saved.
    """
    if not isinstance(step, PmappedStep):
        raise InputTypeError(f"expected a step on devices, got {shown(step)}: make one with pmap_step")
    run = Run(state, batches, checkpoints, writer)
    (result,) = _fit(
        _OneRun(step),
        [run],
        num_steps=num_steps,
        evaluate=evaluate,
        eval_every=eval_every,
        log_every=log_every,
        prepare=prepare,
        progress=progress,
        name=name,
    )
    return result


def fit_seeds(
    step: SeedsStep,
    states: Sequence[TrainState],
    batches: Sequence[DataIterator],
    *,
    num_steps: int,
    evaluate: Callable[[TrainState], float] | None = None,
    eval_every: int = 100,
    log_every: int = 10,
    prepare: Callable[[PyTree], PyTree] | None = None,
    checkpoints: Sequence[Checkpoints] = (),
    writers: Sequence[MetricsWriter] = (),
    progress: Progress = True,
    name: str = "training",
) -> list[FitResult]:
    """Trains one network a seed, all of them together, as `fit` trains one.

    Each has its own folder of checkpoints and its own file of metrics, which are those that it would have alone:
    what reads them cannot tell, and either kind of training goes on with the other's. All go on from the latest
    step of which every one that is not finished has a checkpoint.

    Args:
        step: what `seeds_step` returned.
        states: the state of each to start from; left intact.
        batches: an iterator for each, as `fit` takes it.
        num_steps: updates of each in all, those before a resumption included.
        evaluate: as in `fit`, called for each in turn.
        eval_every: as in `fit`.
        log_every: as in `fit`.
        prepare: as in `fit`, applied to each one's batch.
        checkpoints: where each saves and resumes from; () for nowhere.
        writers: where each one's metrics go; () for nowhere.
        progress: as in `fit`, of all together.
        name: what it calls this.

    Returns:
        A result for each, in the order of `states`.

    Raises:
        TypeError: no step of many seeds, other things than lists, or than states, iterators, checkpoints and
            writers in them.
        ValueError: as `fit`; or not as many of all, more than `step` is for, states of different steps, or several
            processes.
        MemoryError: so many at once do not fit into memory.
        BlockingIOError: as `fit`.
        OSError: as `fit`.
        DivergedError: as `fit`, of any of them.
        Interrupted: as `fit`.
    """
    if jax.process_count() > 1:
        raise InputError(
            f"expected a single process for many seeds, got {jax.process_count()}: train them alone, or start one"
        )
    if not isinstance(step, SeedsStep):
        raise InputTypeError(f"expected a step of many seeds, got {shown(step)}: make one with seeds_step")
    for given in (states, batches, checkpoints, writers):
        if not isinstance(given, Sequence):
            raise InputTypeError(f"expected lists with one entry a seed, got {shown(given)}: give a list")
    count = step.check_number(len(states))
    if len(batches) != count or not {len(checkpoints), len(writers)} <= {0, count}:
        raise InputError(
            f"expected as many iterators, checkpoints and writers as the {count} states, got {len(batches)}, "
            f"{len(checkpoints)} and {len(writers)}: give one for each"
        )
    runs = [
        Run(*of_run)
        for of_run in zip(
            states, batches, checkpoints or [None] * count, writers or [None] * count, strict=True
        )
    ]
    fit_runs = functools.partial(
        _fit,
        step,
        num_steps=num_steps,
        evaluate=evaluate,
        eval_every=eval_every,
        log_every=log_every,
        prepare=prepare,
        progress=progress,
        name=name,
    )
    done = [run.is_done(num_steps, validates=evaluate is not None) for run in runs]
    with bounded(step):
        if all(done) or common_step(runs) is not None:
            return fit_runs(runs)
        # Those that were finished at another time are only read.
        rest = iter(fit_runs([run for run, ends in zip(runs, done, strict=True) if not ends]))
        return [fit_runs([run])[0] if ends else next(rest) for run, ends in zip(runs, done, strict=True)]


class _OneRun:
    """A pmapped step in the form in which `_fit` drives it: of lists with one entry a run."""

    def __init__(self, step: PmappedStep) -> None:
        self.num_processes, self._step = step.num_processes, step

    def place(self, states: Sequence[TrainState]) -> TrainState:
        (state,) = states
        return replicate(state, devices=self._step.devices)

    def __call__(
        self, placed: TrainState, batches: Sequence[PyTree]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        (batch,) = batches
        return self._step(placed, shard(batch, len(self._step.devices)))

    def take(self, placed: TrainState) -> list[TrainState]:
        return [unreplicate(placed)]

    def numbers(self, metrics: dict[str, jax.Array]) -> list[dict[str, float]]:
        # All devices hold the same numbers: this process's first one is read.
        return [
            {
                name: float(np.asarray(value.addressable_data(0)).reshape(()))
                for name, value in metrics.items()
            }
        ]


def _fit(
    step: Any,  # a step of `SeedsStep`'s methods
    runs: Sequence[Run],
    *,
    num_steps: int,
    evaluate: Callable[[TrainState], float] | None,
    eval_every: int,
    log_every: int,
    prepare: Callable[[PyTree], PyTree] | None,
    progress: Progress,
    name: str,
) -> list[FitResult]:
    """Trains all runs, which stand at one step, together; see `fit`."""
    for option, value in (("num_steps", num_steps), ("eval_every", eval_every), ("log_every", log_every)):
        check_count(option, value)
    if not all([run.is_done(num_steps, validates=evaluate is not None) for run in runs]):
        for run in runs:
            if run.checkpoints is not None:
                run.checkpoints.claim()
    start = common_step(runs)
    accuracies = [run.resume(start) for run in runs]
    # Of the current states, a number each; None if not all are validated yet.
    measured: list[Any] | None = None if None in accuracies else accuracies
    numbers = {int(run.state.step) for run in runs}
    if len(numbers) > 1:
        raise InputError(f"expected states of one step, got steps {sorted(numbers)}: train those alone")
    (number,) = numbers
    meter = Meter(
        name,
        [Reported(run.writer, run.checkpoints, run.pending) for run in runs],
        numbers=step.numbers,
        start=number,
        end=num_steps,
        progress=progress,
    )
    placed = step.place([run.state for run in runs])

    def save(measured: Sequence[float] | None) -> None:
        if runs[0].checkpoints is None:  # nor have the others any
            return
        for run in runs:
            run.wait()  # so that a kill finds no run more than one checkpoint ahead of another
        for run, state, accuracy, pending in zip(
            runs, step.take(placed), measured or [None] * len(runs), meter.pending(number), strict=True
        ):
            run.save(state, accuracy, pending)

    with interruption(saves=runs[0].checkpoints is not None) as interrupted:
        try:
            while True:
                if interrupted(number):
                    if runs[0].checkpoints is None:
                        meter.flush(number)
                    save(measured)
                    raise interrupted.ended(number)
                due = number >= num_steps or (number > 0 and number % eval_every == 0)
                if due and measured is None:
                    meter.flush(number)  # before anything is saved: it raises if training has diverged
                    if evaluate is not None:
                        try:
                            with interrupted.give_up():
                                measured = [float(evaluate(state)) for state in step.take(placed)]
                        except Abandoned:
                            measured = None  # even if it had just been: what is resumed validates anew
                            continue
                        for run, accuracy in zip(runs, measured, strict=True):
                            run.validated(number, accuracy)
                        meter.validated(number, measured)
                    save(measured)
                if number >= num_steps:
                    break
                batches = [_next(run.batches, number, num_steps) for run in runs]
                batches = batches if prepare is None else [prepare(batch) for batch in batches]
                placed, metrics = step(placed, batches)
                number, measured = number + 1, None
                meter.add(metrics, episodes=len(jax.tree.leaves(batches[0])[0]) * step.num_processes)
                if number % log_every == 0:
                    meter.flush(number)
        finally:
            meter.close()
            for run in runs:
                run.wait()
        if interrupted(number):  # while the last checkpoint was written
            raise interrupted.ended(number)
    final = measured or [None] * len(runs)
    return [
        FitResult(state, accuracy, run.best_accuracy, run.best_step)
        for run, state, accuracy in zip(runs, step.take(placed), final, strict=True)
    ]


def _next(batches: DataIterator, number: int, num_steps: int) -> PyTree:
    try:
        return next(batches)
    except StopIteration:
        raise InputError(
            f"expected batches for {num_steps} steps, got {number}: give an endless iterator, or fewer steps"
        ) from None
