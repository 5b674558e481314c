"""What a training shows of itself while it runs: a progress bar, lines of metrics, and that its loss is finite."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jxai.progress import Bar, Progress
from jxai.training.checkpoints import Checkpoints
from jxai.training.log import MetricsWriter

# Steps handed to the devices before the oldest is waited for: enough to keep them busy, few enough that
# batches do not pile up in memory.
_IN_FLIGHT = 2


class DivergedError(FloatingPointError):
    """The loss or its gradient became NaN or infinite."""


class Reported(NamedTuple):
    """Where one run's metrics go.

    Attributes:
        writer: of its lines; None for none.
        checkpoints: what an error names as the way back; None for none.
        pending: metrics of the steps before that no line was written of yet, {name: number} each.
    """

    writer: MetricsWriter | None
    checkpoints: Checkpoints | None
    pending: Sequence[dict[str, float]] = ()


class Meter:
    """Keeps the metrics of the last steps on the devices, and writes and shows their means when flushed.

    The bar shows the mean over the runs.
    """

    def __init__(
        self,
        name: str,
        runs: Sequence[Reported],
        *,
        numbers: Callable[[Any], list[dict[str, float]]],
        start: int,
        end: int,
        progress: Progress,
    ) -> None:
        """Begins at a step.

        Args:
            name: what the bar calls this.
            runs: what is trained.
            numbers: a step's metrics, as its devices hold them, to numbers by name for each run.
            start: steps made before.
            end: steps in all.
            progress: how the bar is shown.
        """
        shown: Progress = progress if jax.process_index() == 0 else False
        self._bar = Bar(end, initial=start, name=name, unit="step", progress=shown)
        self._runs, self._numbers, self._shown = tuple(runs), numbers, {}
        self._pending: list[Any] = []  # of the last steps, on the devices
        self._read = [list(run.pending) for run in runs]  # of each run, those before
        self._steps_seen, self._episodes, self._since = 0, 0, time.perf_counter()

    def add(self, metrics: Any, *, episodes: int) -> None:
        """Takes a step's metrics, without waiting for that step; `episodes` are those of each run."""
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

    def pending(self, step: int) -> list[list[dict[str, float]]]:
        """Each run's metrics of each step since the last flush; raises if one of the losses is not finite."""
        new = [self._numbers(metrics) for metrics in self._pending]
        for offset, of_step in enumerate(new):
            for run, metrics in enumerate(of_step):
                self._check(run, step - len(new) + 1 + offset, metrics)
        self._read = [[*read, *of_run] for read, *of_run in zip(self._read, *new, strict=True)]
        self._pending = []
        return self._read

    def flush(self, step: int) -> None:
        """Writes the means of the metrics since the last flush; raises if one of the losses is not finite."""
        steps = self.pending(step)
        if not any(steps):
            return
        self._read = [[] for _ in steps]
        elapsed = time.perf_counter() - self._since
        rate = {"episodes_per_second": self._episodes / elapsed} if self._episodes else {}
        self._episodes, self._since = 0, time.perf_counter()
        lines = [(run, _means(of_run)) for run, of_run in zip(self._runs, steps, strict=True) if of_run]
        for run, line in lines:
            if run.writer is not None:
                run.writer.write(line | rate, step=step)
        overall = _means([line for _, line in lines])
        self._show(
            loss=overall["loss"],
            accuracy=overall.get("accuracy"),
            rate=len(self._runs) * rate["episodes_per_second"] if rate else None,
        )

    def validated(self, step: int, accuracies: Sequence[float]) -> None:
        """Writes and shows each run's validation accuracy; the time that took does not count for the rate."""
        for run, accuracy in zip(self._runs, accuracies, strict=True):
            if run.writer is not None:
                run.writer.write({"accuracy": accuracy}, step=step, phase="validation")
        self._show(validation=float(np.mean(accuracies)))
        self._since = time.perf_counter()

    def close(self) -> None:
        """Leaves the bar as it is on the screen."""
        self._bar.close()

    def _show(self, **values: float | None) -> None:
        names = {"rate": "episodes/s", "validation": "val. accuracy"}
        self._shown |= {names.get(name, name): f"{v:.3g}" for name, v in values.items() if v is not None}
        self._bar.show(self._shown)

    def _check(self, run: int, step: int, metrics: dict[str, float]) -> None:
        wrong = {name: metrics[name] for name in ("loss", "grad_norm") if not np.isfinite(metrics[name])}
        if not wrong:
            return
        where, checkpoints = "no checkpoint was kept", self._runs[run].checkpoints
        if checkpoints is not None and checkpoints.latest_step() is not None:
            where = f"the last good checkpoint is step {checkpoints.latest_step()} in {checkpoints.directory}"
        found = " and ".join(f"{name} {value}" for name, value in wrong.items())
        which = f" of run {run} of {len(self._runs)}" if len(self._runs) > 1 else ""
        raise DivergedError(
            f"expected a finite loss, got {found} at step {step}{which}: training stopped, {where}; "
            "lower the learning rate, clip gradients or look at that step's data"
        )


def _means(lines: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([line[name] for line in lines])) for name in lines[0]}
