"""Many seeds at once against each of them alone."""

import dataclasses
import functools
import shutil
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jxai import training

SEEDS = (3, 0, 7)
ONE = jax.local_devices()[:1]
OPTIMIZERS = {"adam": optax.adam(1e-2), "sgd": optax.sgd(0.05, momentum=0.9)}


@functools.cache
def steps(toy: Any, optimizer: str = "adam", at_once: int = 1) -> tuple[Any, Any, Any]:
    """The toy with this optimizer, its pmapped step and its step of three seeds; compiled once."""
    toy = dataclasses.replace(toy, optimizer=OPTIMIZERS[optimizer])
    step = training.make_step(toy.loss, toy.optimizer)
    of_seeds = training.seeds_step(step, num_seeds=3, at_once=at_once, devices=ONE)
    return toy, training.pmap_step(step, devices=ONE), of_seeds


class Batches:
    """Other toy batches for every seed."""

    def __init__(self, toy: Any, seed: int) -> None:
        self.inner = toy.batches(count=2)
        self.inner.next_index = self.first = 1000 * seed

    def __next__(self) -> Any:
        return next(self.inner)

    def get_state(self) -> Any:
        return {"next_index": self.inner.next_index - self.first}

    def set_state(self, state: Any) -> None:
        self.inner.next_index = self.first + state["next_index"]


def alone(toy: Any, pmapped: Any, seed: int, **options: Any) -> training.FitResult:
    options = {"num_steps": 6, "eval_every": 2, "log_every": 1, "progress": False} | options
    return training.fit(pmapped, toy.state(seed), Batches(toy, seed), **options)


def together(
    toy: Any, of_seeds: Any, *, seeds: Sequence[int] = SEEDS, **options: Any
) -> list[training.FitResult]:
    options = {"num_steps": 6, "eval_every": 2, "log_every": 1, "progress": False} | options
    states = [toy.state(seed) for seed in seeds]
    return training.fit_seeds(of_seeds, states, [Batches(toy, seed) for seed in seeds], **options)


def in_folder(toy: Any, of_seeds: Any, folder: Path, **options: Any) -> list[training.FitResult]:
    """Together, with checkpoints and metrics in a folder for each seed."""
    seeds = options.get("seeds", SEEDS)
    with ExitStack() as stack:
        return together(
            toy,
            of_seeds,
            checkpoints=[
                stack.enter_context(training.Checkpoints(folder / str(seed) / "run")) for seed in seeds
            ],
            writers=[training.MetricsWriter(folder / str(seed) / "metrics.jsonl") for seed in seeds],
            **options,
        )


def assert_identical(a: Any, b: Any) -> None:
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_after_another_is_each_alone_to_the_bit(toy: Any, optimizer: str) -> None:
    toy, pmapped, of_seeds = steps(toy, optimizer)
    for seed, result in zip(SEEDS, together(toy, of_seeds), strict=True):
        assert_identical(result.state, alone(toy, pmapped, seed).state)


def test_vmapped_is_each_alone_to_rounding(toy: Any) -> None:
    toy, pmapped, of_seeds = steps(toy, "sgd", at_once=3)
    for seed, result in zip(SEEDS, together(toy, of_seeds, num_steps=3), strict=True):
        expected = alone(toy, pmapped, seed, num_steps=3).state
        chex.assert_trees_all_close(result.state.params, expected.params, atol=1e-5)
        chex.assert_trees_all_close(result.state.batch_stats, expected.batch_stats, atol=1e-5)


@pytest.mark.slow
def test_vmapped_adam_is_each_alone_where_rounding_is_small(toy: Any) -> None:
    # In float32 Adam enlarges what rounding leaves of a gradient that is zero: the bias before the batch norm.
    with jax.enable_x64(True):
        toy = dataclasses.replace(toy, optimizer=OPTIMIZERS["adam"])
        step = training.make_step(toy.loss, toy.optimizer)

        def double(tree: Any) -> Any:
            return jax.tree.map(
                lambda leaf: leaf.astype(np.float64) if np.issubdtype(leaf.dtype, np.floating) else leaf, tree
            )

        def init(seed: int) -> training.TrainState:
            variables = double(toy.state(seed).variables)
            return training.TrainState.create(jax.random.key(seed), variables, optimizer=toy.optimizer)

        data = double([[toy.episodes(10 * seed + number, 2) for number in range(4)] for seed in SEEDS])
        stack = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)  # noqa: E731
        of_seeds = training.seeds_step(step, num_seeds=3, at_once=3, devices=ONE)
        stacked = training.train_seeds(of_seeds, init, SEEDS, stack([stack(own) for own in data]))
        assert stacked.params["Conv_0"]["kernel"].shape == (3, 3, 3, 3, 4)
        compiled = jax.jit(step)
        for place, (seed, own) in enumerate(zip(SEEDS, data, strict=True)):
            state = init(seed)
            for batch in own:
                state, _ = compiled(state, batch)
            found = jax.tree.map(lambda leaf, place=place: leaf[place], stacked)
            chex.assert_trees_all_close(found.params, state.params, atol=1e-8)
            chex.assert_trees_all_close(found.batch_stats, state.batch_stats, atol=1e-8)


@pytest.mark.parametrize(
    ("num_devices", "at_once"),
    [pytest.param(2, 1, marks=pytest.mark.slow), (2, 2), pytest.param(3, 1, marks=pytest.mark.slow)],
)
def test_seeds_are_spread_over_devices(toy: Any, num_devices: int, at_once: int) -> None:
    seeds = (5, 1, 2, 8, 4)
    toy, pmapped, _ = steps(toy, "sgd")
    step: Any = chex.assert_max_traces(training.make_step(toy.loss, toy.optimizer), n=1)
    chex.clear_trace_counter()
    of_seeds = training.seeds_step(
        step, num_seeds=5, at_once=at_once, devices=jax.local_devices()[:num_devices]
    )
    results = together(toy, of_seeds, seeds=seeds, num_steps=2)
    assert [int(result.state.step) for result in results] == [2] * 5
    for seed, result in zip(seeds, results, strict=True):
        expected = alone(toy, pmapped, seed, num_steps=2).state
        chex.assert_trees_all_close(result.state.params, expected.params, atol=1e-5)


@pytest.mark.parametrize(
    ("seeds", "devices", "asked", "at_once"),
    [(8, 1, 3, 3), (8, 1, 8, 8), (8, 3, 2, 2), (5, 1, 4, 3), (2, 8, 5, 1)],
)
def test_groups_are_equal_and_no_larger_than_asked(
    toy: Any, seeds: int, devices: int, asked: int, at_once: int
) -> None:
    step = training.seeds_step(
        toy.loss, num_seeds=seeds, at_once=asked, devices=jax.local_devices()[:devices]
    )
    assert step.at_once == at_once
    assert len(step.devices) == min(seeds, devices)


@pytest.mark.slow
def test_a_seed_in_the_middle_has_its_own_metrics_and_best(toy: Any, tmp_path: Path) -> None:
    toy, pmapped, of_seeds = steps(toy)

    def evaluate(state: training.TrainState) -> float:
        return float(jax.random.uniform(jax.random.fold_in(state.key, state.step)))

    results = in_folder(toy, of_seeds, tmp_path, evaluate=evaluate)
    for seed, result in zip(SEEDS, results, strict=True):
        with (
            training.MetricsWriter(tmp_path / "alone" / f"{seed}.jsonl") as writer,
            training.Checkpoints(tmp_path / "alone" / str(seed)) as checkpoints,
        ):
            expected = alone(toy, pmapped, seed, evaluate=evaluate, writer=writer, checkpoints=checkpoints)
        assert result[1:] == expected[1:]
        without_rate = [
            [{name: line[name] for name in line if name != "episodes_per_second"} for line in lines]
            for lines in map(training.read_metrics, (tmp_path / str(seed) / "metrics.jsonl", writer.path))
        ]
        assert without_rate[0] == without_rate[1]
        best, other = (
            training.load_variables(folder)
            for folder in (tmp_path / str(seed) / "run", checkpoints.directory)
        )
        assert_identical(best, other)


@pytest.mark.parametrize("lost", [(), (3,), (0, 7), (3, 0, 7)])
def test_a_kill_between_two_saves_changes_nothing(toy: Any, tmp_path: Path, lost: tuple[int, ...]) -> None:
    toy, _, of_seeds = steps(toy)
    in_folder(toy, of_seeds, tmp_path, num_steps=4)
    for seed in lost:  # killed before the checkpoint of step 4 was written for them
        shutil.rmtree(tmp_path / str(seed) / "run" / "4")
    resumed = in_folder(toy, of_seeds, tmp_path)
    for result, straight in zip(resumed, together(toy, of_seeds), strict=True):
        assert_identical(result.state, straight.state)
    for seed in SEEDS:
        lines = training.read_metrics(tmp_path / str(seed) / "metrics.jsonl")
        assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


class Terminating(Batches):
    """While the batch of a step is made, somebody sends SIGTERM."""

    def __next__(self) -> Any:
        if self.get_state()["next_index"] == 2:
            signal.raise_signal(signal.SIGTERM)
        return super().__next__()


def test_sigterm_saves_every_seed(toy: Any, tmp_path: Path) -> None:
    toy, _, of_seeds = steps(toy)
    with ExitStack() as stack, pytest.raises(training.Interrupted) as stop:
        folders = [stack.enter_context(training.Checkpoints(tmp_path / str(seed) / "run")) for seed in SEEDS]
        training.fit_seeds(
            of_seeds,
            [toy.state(seed) for seed in SEEDS],
            [Batches(toy, 3), Terminating(toy, 0), Batches(toy, 7)],
            num_steps=6,
            checkpoints=folders,
            progress=False,
        )
    assert stop.value.step == 3
    for result, straight in zip(in_folder(toy, of_seeds, tmp_path), together(toy, of_seeds), strict=True):
        assert_identical(result.state, straight.state)


@pytest.mark.parametrize("first", ["alone", "together"])
def test_either_way_goes_on_with_the_other(toy: Any, tmp_path: Path, first: str) -> None:
    toy, pmapped, of_seeds = steps(toy)

    def by_itself(seed: int, num_steps: int) -> training.TrainState:
        with training.Checkpoints(tmp_path / str(seed) / "run") as checkpoints:
            return alone(toy, pmapped, seed, num_steps=num_steps, checkpoints=checkpoints).state

    if first == "alone":
        for seed in SEEDS:
            by_itself(seed, 4)
        ends = [result.state for result in in_folder(toy, of_seeds, tmp_path)]
    else:
        in_folder(toy, of_seeds, tmp_path, num_steps=4)
        ends = [by_itself(seed, 6) for seed in SEEDS]
    for end, straight in zip(ends, together(toy, of_seeds), strict=True):
        assert_identical(end, straight.state)


def test_what_is_finished_is_only_read(toy: Any, tmp_path: Path) -> None:
    toy, pmapped, of_seeds = steps(toy)
    with training.Checkpoints(tmp_path / "0" / "run") as checkpoints:
        done = alone(toy, pmapped, 0, checkpoints=checkpoints).state
    calls: list[int] = []

    def counted(*given: Any) -> Any:
        calls.append(1)
        return of_seeds.call(*given)

    step = dataclasses.replace(of_seeds, call=counted)
    results = in_folder(toy, step, tmp_path)
    assert_identical(results[1].state, done)
    assert len(calls) == 2 * 6  # of the two others
    again = in_folder(toy, step, tmp_path)
    assert len(calls) == 2 * 6
    for result, straight in zip(again, together(toy, of_seeds), strict=True):
        assert_identical(result.state, straight.state)


@pytest.mark.slow
def test_a_batch_is_prepared_on_the_device_with_what_all_share(toy: Any) -> None:
    toy = dataclasses.replace(toy, optimizer=OPTIMIZERS["adam"])
    step = training.make_step(toy.loss, toy.optimizer)
    pool = toy.episodes(0, 8)
    of_seeds = training.seeds_step(
        step,
        num_seeds=2,
        devices=ONE,
        prepare=lambda numbers, pool: jax.tree.map(lambda leaf: leaf[numbers], pool),
        shared=pool,
    )
    chosen = np.array([[[1, 2], [3, 4]], [[5, 6], [7, 0]]])
    found = training.train_seeds(of_seeds, toy.state, (1, 2), chosen)
    for place, seed in enumerate((1, 2)):
        state = training.replicate(toy.state(seed), devices=ONE)
        for numbers in chosen[place]:
            batch = jax.tree.map(lambda leaf, numbers=numbers: leaf[numbers], pool)
            state, _ = training.pmap_step(step, devices=ONE)(state, training.shard(batch, 1))
        one = jax.tree.map(lambda leaf, place=place: leaf[place], found)
        assert_identical(one, training.unreplicate(state))


def test_a_loss_that_is_not_finite_is_named(toy: Any, tmp_path: Path) -> None:
    toy, _, of_seeds = steps(toy)
    poisoned = Batches(toy, 0)
    poisoned.inner.poison = 3
    with (
        ExitStack() as stack,
        pytest.raises(training.DivergedError, match=r"at step 4 of run 1 of 3.*step 2 in .*/0/"),
    ):
        folders = [stack.enter_context(training.Checkpoints(tmp_path / str(seed) / "run")) for seed in SEEDS]
        batches = [Batches(toy, 3), poisoned, Batches(toy, 7)]
        states = [toy.state(seed) for seed in SEEDS]
        training.fit_seeds(
            of_seeds, states, batches, num_steps=6, eval_every=2, checkpoints=folders, progress=False
        )


def test_too_little_memory_says_how_to_need_less(toy: Any) -> None:
    toy, _, of_seeds = steps(toy, at_once=3)

    def full(*given: Any) -> Any:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore")

    with pytest.raises(
        MemoryError,
        match=r"expected memory for 3 of 3 seeds at once .*: give `at_once` \(--at-once\) below 3",
    ):
        together(toy, dataclasses.replace(of_seeds, call=full))
    with pytest.raises(MemoryError, match="train fewer seeds"):
        together(toy, dataclasses.replace(of_seeds, call=full, at_once=1))


def test_too_little_memory_for_real(toy: Any) -> None:
    # A matrix of 2^36 numbers each.
    def greedy(state: Any, batch: Any, axis_name: Any) -> Any:
        wide = jnp.linspace(0, 1, 2**18) * state.step
        return state, {"loss": jnp.linalg.svd(wide[:, None] * wide)[1].sum()}

    step = training.seeds_step(greedy, num_seeds=4, at_once=4, devices=ONE)
    with pytest.raises(MemoryError, match="--at-once"):
        together(toy, step, seeds=(0, 1, 2, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"states": 2}, "expected as many iterators, checkpoints and writers as the 2 states, got 3"),
        (
            {"writers": 1},
            "expected as many iterators, checkpoints and writers as the 3 states, got 3, 0 and 1",
        ),
        ({"states": 0, "batches": 0}, "expected 1 to 3 seeds, got 0"),
        ({"states": 4, "batches": 4}, "expected 1 to 3 seeds, got 4"),
    ],
)
def test_not_as_many_of_all(toy: Any, tmp_path: Path, change: dict[str, int], message: str) -> None:
    toy, _, of_seeds = steps(toy)
    counts = {"states": 3, "batches": 3, "writers": 0} | change
    with pytest.raises(ValueError, match=message):
        training.fit_seeds(
            of_seeds,
            [toy.state(seed) for seed in range(counts["states"])],
            [Batches(toy, seed) for seed in range(counts["batches"])],
            writers=[training.MetricsWriter(tmp_path / str(n)) for n in range(counts["writers"])],
            num_steps=2,
            progress=False,
        )


@pytest.mark.parametrize(
    ("seeds", "error", "message"),
    [
        ((1, 2, 1), ValueError, "expected different seeds, got 1 more than once"),
        ((), ValueError, "expected at least one seed, got none"),
        ((-1,), ValueError, "expected seeds of at least 0, got -1"),
        ((0.5,), TypeError, "expected seeds as integers, got 0.5"),
        ((True,), TypeError, "expected seeds as integers, got True"),
        (3, TypeError, "expected seeds as a list of integers, got 3"),
        ("12", TypeError, "expected seeds as a list of integers"),
    ],
)
def test_seeds_that_are_none(toy: Any, seeds: Any, error: type[Exception], message: str) -> None:
    toy, _, of_seeds = steps(toy)
    with pytest.raises(error, match=message):
        training.train_seeds(of_seeds, toy.state, seeds, toy.episodes(0, 4))
