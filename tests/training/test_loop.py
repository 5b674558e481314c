import functools
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jxai import training


def pmapped(toy: Any) -> training.PmappedStep:
    step = training.make_step(toy.loss, toy.optimizer)
    return training.pmap_step(step, devices=jax.local_devices()[:2])


# Compiled once for most tests; keyed by the toy, of which there is one a session.
compiled = functools.cache(pmapped)


def fit(toy: Any, batches: Any, **options: Any) -> training.FitResult:
    options = {"num_steps": 6, "eval_every": 2, "log_every": 1, "progress": False} | options
    return training.fit(compiled(toy), toy.state(), batches, **options)


def assert_identical(a: training.TrainState, b: training.TrainState) -> None:
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)


def test_resuming_continues_to_bit_identical_parameters(toy: Any, tmp_path: Path) -> None:
    straight = fit(toy, toy.batches())
    with training.Checkpoints(tmp_path / "run") as checkpoints:
        fit(toy, toy.batches(), num_steps=3, checkpoints=checkpoints)
    # Fresh objects, as a new process has them: another initial state, data from the start.
    with training.Checkpoints(tmp_path / "run") as checkpoints:
        step, state = pmapped(toy), toy.state(seed=9)
        resumed = training.fit(
            step, state, toy.batches(), num_steps=6, eval_every=2, checkpoints=checkpoints, progress=False
        )
    assert_identical(straight.state, resumed.state)
    assert int(resumed.state.step) == 6


def test_a_finished_training_is_not_trained_further(toy: Any, tmp_path: Path) -> None:
    with training.Checkpoints(tmp_path) as checkpoints:
        done = fit(toy, toy.batches(), checkpoints=checkpoints, evaluate=lambda state: 0.5)
        again = fit(toy, toy.batches(end=0), checkpoints=checkpoints, evaluate=lambda state: 1 / 0)
    assert_identical(done.state, again.state)
    assert again.accuracy == again.best_accuracy == 0.5


def test_the_callers_state_stays(toy: Any) -> None:
    state = toy.state()
    training.fit(compiled(toy), state, toy.batches(), num_steps=2, progress=False)
    assert_identical(state, toy.state())


def test_validation_decides_on_the_best_checkpoint(toy: Any, tmp_path: Path) -> None:
    accuracies = {2: 0.3, 4: 0.8, 6: 0.4, 8: 0.5, 9: 0.1}
    seen = []

    def evaluate(state: training.TrainState) -> float:
        seen.append(int(state.step))
        return accuracies[int(state.step)]

    writer = training.MetricsWriter(tmp_path / "metrics.jsonl")
    with training.Checkpoints(tmp_path / "run") as checkpoints:
        result = fit(
            toy, toy.batches(), num_steps=9, evaluate=evaluate, checkpoints=checkpoints, writer=writer
        )
        assert checkpoints.best_step() == 4
        assert int(checkpoints.restore(toy.state(), which="best").state.step) == 4
        assert checkpoints.latest_step() == 9
    assert seen == [2, 4, 6, 8, 9]
    assert (result.accuracy, result.best_accuracy, result.best_step) == (0.1, 0.8, 4)
    validation = training.read_metrics(writer.path, phase="validation")
    assert {line["step"]: line["accuracy"] for line in validation} == accuracies


def test_metrics_are_means_since_the_last_line(toy: Any, tmp_path: Path) -> None:
    each = training.MetricsWriter(tmp_path / "each.jsonl")
    every_three = training.MetricsWriter(tmp_path / "three.jsonl")
    fit(toy, toy.batches(), eval_every=100, writer=each)
    fit(toy, toy.batches(), eval_every=100, log_every=3, writer=every_three)
    losses = [line["loss"] for line in training.read_metrics(each.path)]
    lines = training.read_metrics(every_three.path)
    assert [line["step"] for line in lines] == [3, 6]
    assert lines[1]["episodes_per_second"] > 0
    assert set(lines[0]) >= {"loss", "accuracy", "grad_norm"}
    np.testing.assert_allclose(
        [line["loss"] for line in lines], np.reshape(losses, (2, 3)).mean(1), rtol=1e-6
    )


def test_metrics_continue_where_the_checkpoint_stands(toy: Any, tmp_path: Path) -> None:
    writer = training.MetricsWriter(tmp_path / "metrics.jsonl")
    with training.Checkpoints(tmp_path / "run") as checkpoints:
        with pytest.raises(ValueError, match="expected batches for 6 steps, got 3"):
            fit(toy, toy.batches(end=3), checkpoints=checkpoints, writer=writer)
        assert checkpoints.latest_step() == 2
        fit(toy, toy.batches(), checkpoints=checkpoints, writer=writer)
    assert [line["step"] for line in training.read_metrics(writer.path)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("log_every", [1, 100])
def test_nan_stops_and_the_last_good_checkpoint_stands(toy: Any, tmp_path: Path, log_every: int) -> None:
    with training.Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(
            training.DivergedError, match=r"loss nan .* at step 4: .* checkpoint is step 2 in"
        ):
            fit(toy, toy.batches(poison=3), checkpoints=checkpoints, log_every=log_every)
        assert checkpoints.latest_step() == 2
        restored = checkpoints.restore(toy.state()).state
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(restored.params))
    assert issubclass(training.DivergedError, FloatingPointError)


class Terminating:
    """Toy batches; while one is being made, somebody sends SIGTERM."""

    def __init__(self, inner: Any, at: int) -> None:
        self.inner, self.at = inner, at
        self.get_state, self.set_state = inner.get_state, inner.set_state

    def __next__(self) -> Any:
        if self.inner.next_index == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
        return next(self.inner)


@pytest.mark.parametrize("at", [2, 3])
def test_sigterm_saves_and_ends_and_can_be_resumed(toy: Any, tmp_path: Path, at: int) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def evaluate(state: training.TrainState) -> float:
        return 1.0 if int(state.step) == 4 else 0.5

    with training.Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(training.Interrupted) as stop:
            fit(toy, Terminating(toy.batches(), at), checkpoints=checkpoints, evaluate=evaluate)
        assert stop.value.code == 143
        assert checkpoints.latest_step() == at + 1
        assert signal.getsignal(signal.SIGTERM) is before
    with training.Checkpoints(tmp_path) as checkpoints:
        resumed = fit(toy, toy.batches(), checkpoints=checkpoints, evaluate=evaluate)
        # The validation of step 4 that SIGTERM came before is made up for.
        assert checkpoints.best_step() == 4
    assert (resumed.best_step, resumed.accuracy) == (4, 0.5)
    assert_identical(resumed.state, fit(toy, toy.batches()).state)


def test_a_batch_that_does_not_divide_among_the_devices(toy: Any) -> None:
    with pytest.raises(ValueError, match="divisible by 2 devices"):
        fit(toy, toy.batches(count=3))


@pytest.mark.parametrize("option", ["num_steps", "eval_every", "log_every"])
def test_numbers_below_one(toy: Any, option: str) -> None:
    with pytest.raises(ValueError, match=f"expected {option} of at least 1, got 0"):
        fit(toy, toy.batches(), **{option: 0})


def test_prepare_is_applied_to_each_batch(toy: Any) -> None:
    halve = lambda batch: jax.tree.map(lambda leaf: leaf[:2], batch)  # noqa: E731
    prepared = fit(toy, toy.batches(), num_steps=2, prepare=halve)
    assert not np.array_equal(
        prepared.state.params["Dense_0"]["kernel"],
        fit(toy, toy.batches(), num_steps=2).state.params["Dense_0"]["kernel"],
    )


def test_progress_bar_shows_loss_accuracy_and_rate(
    toy: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")  # else the bar ends where the caller's terminal does
    fit(toy, toy.batches(), num_steps=4, progress=True, name="toy", evaluate=lambda state: 0.25)
    shown = capfd.readouterr().err
    for part in ("toy", "4/4", "loss=", "accuracy=", "episodes/s=", "val. accuracy=0.25"):
        assert part in shown


def run_processes(count: int, folder: Path, *stop_at: str) -> list[int]:
    """Exit codes of `two_processes.py` on `count` processes at once."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    script = Path(__file__).with_name("two_processes.py")
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    folder.mkdir(exist_ok=True)
    running = [
        subprocess.Popen(
            [sys.executable, script, port, str(process), str(count), folder, *stop_at], env=environment
        )
        for process in range(count)
    ]
    try:
        return [process.wait(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()


@pytest.mark.slow
@pytest.mark.alone
def test_two_processes_equal_one_and_stop_and_resume_together(tmp_path: Path) -> None:
    assert run_processes(1, tmp_path / "one") == [0]
    # SIGTERM to one of them: both stop at the same step, and exit as after the signal.
    assert run_processes(2, tmp_path / "two", "5") == [143, 143]
    (stopped,) = [path.name for path in (tmp_path / "two" / "run").iterdir() if path.name.isdigit()]
    assert 5 < int(stopped) < 40
    assert run_processes(2, tmp_path / "two") == [0, 0]
    with np.load(tmp_path / "one" / "params-0.npz") as straight:
        for process in range(2):
            with np.load(tmp_path / "two" / f"params-{process}.npz") as resumed:
                for name in straight.files:
                    np.testing.assert_array_equal(resumed[name], straight[name])
    lines = [len(training.read_metrics(tmp_path / name / "metrics.jsonl")) for name in ("one", "two")]
    assert lines[1] >= lines[0] == 6
