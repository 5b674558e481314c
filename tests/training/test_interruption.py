"""SIGTERM within a validation, and while the last checkpoint is written."""

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jxai import training
from jxai.training.interruption import Abandoned, interruption


def terminate(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def step(toy: Any) -> training.PmappedStep:
    return training.pmap_step(training.make_step(toy.loss, toy.optimizer), devices=jax.local_devices()[:1])


def fit(toy: Any, step: training.PmappedStep, folder: Path, evaluate: Any = None) -> training.FitResult:
    with (
        training.Checkpoints(folder / "run") as checkpoints,
        training.MetricsWriter(folder / "metrics.jsonl") as writer,
    ):
        return training.fit(
            step,
            toy.state(),
            toy.batches(),
            num_steps=4,
            eval_every=2,
            evaluate=evaluate or (lambda state: float(state.step) / 10),
            checkpoints=checkpoints,
            writer=writer,
            progress=False,
        )


def state_and_metrics(result: training.FitResult, folder: Path) -> tuple[list[np.ndarray], list[dict]]:
    state = result.state.replace(key=jax.random.key_data(result.state.key))
    lines = training.read_metrics(folder / "metrics.jsonl")
    for line in lines:
        line.pop("episodes_per_second", None)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)], lines


@pytest.mark.parametrize(("at", "number"), [(2, signal.SIGTERM), (4, signal.SIGTERM), (2, signal.SIGINT)])
def test_a_validation_is_given_up_and_made_up_for(
    toy: Any, step: training.PmappedStep, tmp_path: Path, at: int, number: int
) -> None:
    def long(state: training.TrainState) -> float:
        if int(state.step) == at:
            terminate(number)
            time.sleep(60)
        return float(state.step) / 10

    began = time.monotonic()
    with pytest.raises(training.Interrupted) as stop:
        fit(toy, step, tmp_path / "stopped", long)
    assert time.monotonic() - began < 50
    assert (stop.value.code, stop.value.step) == (128 + number, at)
    assert str(stop.value) == f"interrupted by {signal.Signals(number).name} at step {at}"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with training.Checkpoints(tmp_path / "stopped" / "run") as checkpoints:
        assert checkpoints.latest_step() == at
        assert checkpoints.accuracy(at) is None
    resumed = fit(toy, step, tmp_path / "stopped")
    straight = fit(toy, step, tmp_path / "straight")
    assert (resumed.accuracy, resumed.best_step) == (straight.accuracy, straight.best_step) == (0.4, 4)
    arrays, lines = state_and_metrics(resumed, tmp_path / "stopped")
    expected, expected_lines = state_and_metrics(straight, tmp_path / "straight")
    for one, other in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert lines == expected_lines


def test_ctrl_c_again_does_not_wait_and_without_checkpoints_is_as_ever(
    toy: Any, step: training.PmappedStep, tmp_path: Path
) -> None:
    def impatient(state: training.TrainState) -> float:
        try:
            terminate(signal.SIGINT)
            time.sleep(60)
        finally:
            terminate(signal.SIGINT)
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        fit(toy, step, tmp_path, impatient)
    with pytest.raises(KeyboardInterrupt):
        training.fit(
            *(step, toy.state(), toy.batches()),
            num_steps=4,
            eval_every=2,
            evaluate=lambda state: terminate(signal.SIGINT) or 0.0,
            progress=False,
        )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_while_the_last_checkpoint_is_written(
    toy: Any, step: training.PmappedStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = training.Checkpoints.save

    def saving(self: training.Checkpoints, state: training.TrainState, **options: Any) -> None:
        save(self, state, **options)
        if int(state.step) == 4:
            terminate()

    monkeypatch.setattr(training.Checkpoints, "save", saving)
    with pytest.raises(training.Interrupted):
        fit(toy, step, tmp_path)
    monkeypatch.undo()
    with training.Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.latest_step() == 4
        assert checkpoints.accuracy(4) == 0.4


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_stop_between_two_lines_of_metrics_adds_none(
    toy: Any, step: training.PmappedStep, tmp_path: Path, at: int
) -> None:
    class Stopping(type(toy.batches())):
        def __next__(self) -> Any:
            if self.next_index == at:
                terminate()
            return super().__next__()

    with pytest.raises(training.Interrupted):
        fit(dataclasses.replace(toy, batches=Stopping), step, tmp_path / "stopped")
    resumed, straight = (fit(toy, step, tmp_path / name) for name in ("stopped", "straight"))
    _, lines = state_and_metrics(resumed, tmp_path / "stopped")
    _, expected = state_and_metrics(straight, tmp_path / "straight")
    assert lines == expected
    assert [line["step"] for line in lines] == [2, 2, 4, 4]


def test_what_began_after_the_signal_is_given_up_too() -> None:
    with interruption() as watch:
        assert not watch(1)
        terminate()
        with pytest.raises(Abandoned), watch.give_up():
            pytest.fail("begun")
        assert watch(1)
