import dataclasses
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import training


@dataclasses.dataclass(frozen=True)
class Optimizer:
    learning_rate: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Config:
    way: int = 5
    widths: tuple[int, ...] = (64, 128)
    num_steps: int = 100
    optimizer: Optimizer = Optimizer()


def at(state: training.TrainState, step: int) -> training.TrainState:
    return dataclasses.replace(state, step=jnp.int32(step))


def test_round_trip_is_bit_identical(toy: Any, tmp_path: Path) -> None:
    state = at(toy.state(), 3)
    with training.Checkpoints(tmp_path / "run", config=Config()) as checkpoints:
        checkpoints.save(state, data_state={"next_index": 3}, accuracy=0.5)
    with training.Checkpoints(tmp_path / "run", config=Config()) as checkpoints:
        restored = checkpoints.restore(toy.state(seed=1))
    assert restored.data_state == {"next_index": 3}
    assert restored.accuracy == 0.5
    chex.assert_trees_all_equal(restored.state, state)
    chex.assert_trees_all_equal_dtypes(restored.state, state)


def test_keeps_the_latest_two_and_the_best(toy: Any, tmp_path: Path) -> None:
    with training.Checkpoints(tmp_path) as checkpoints:
        for step, accuracy in [(1, 0.5), (2, 0.9), (3, 0.7), (4, None), (5, float("nan")), (6, 0.6)]:
            checkpoints.save(at(toy.state(), step), accuracy=accuracy)
        checkpoints.wait()
        assert checkpoints.latest_step() == 6
        assert checkpoints.best_step() == 2
        assert checkpoints.accuracy(2) == 0.9
        assert checkpoints.accuracy(5) is None
        assert int(checkpoints.restore(toy.state(), which="best").state.step) == 2
        assert int(checkpoints.restore(toy.state(), which=5).state.step) == 5
    assert {path.name for path in tmp_path.iterdir() if path.name.isdigit()} == {"2", "5", "6"}


def test_without_accuracy_there_is_no_best(toy: Any, tmp_path: Path) -> None:
    with training.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None
        checkpoints.save(at(toy.state(), 1))
        assert checkpoints.best_step() is None
        with pytest.raises(FileNotFoundError, match=r"steps \[1\].*got 'best'"):
            checkpoints.restore(toy.state(), which="best")


def test_a_step_saved_twice(toy: Any, tmp_path: Path) -> None:
    with training.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at(toy.state(), 2))
        checkpoints.save(at(toy.state(), 2), accuracy=0.3)
        assert checkpoints.accuracy(2) is None
        checkpoints.save(at(toy.state(), 2), accuracy=0.4, overwrite=True)
        checkpoints.wait()
        assert checkpoints.accuracy(2) == 0.4
        with pytest.raises(ValueError, match="expected a step after 2"):
            checkpoints.save(at(toy.state(), 1))


def test_another_configuration_is_an_error_that_names_the_fields(toy: Any, tmp_path: Path) -> None:
    with training.Checkpoints(tmp_path, config=Config(), fingerprints={"latin": "a1"}) as checkpoints:
        checkpoints.save(at(toy.state(), 1))
    other = Config(way=10, optimizer=Optimizer(1e-2))
    with pytest.raises(
        ValueError, match=r"optimizer.learning_rate is 0.001 there and 0.01 here; way is 5"
    ) as error:
        training.Checkpoints(tmp_path, config=other, fingerprints={"latin": "a1"})
    assert "widths" not in str(error.value)
    with pytest.raises(ValueError, match=r"fingerprints.latin is 'a1' there and 'b2' here"):
        training.Checkpoints(tmp_path, config=Config(), fingerprints={"latin": "b2"})


def test_fields_that_may_differ(toy: Any, tmp_path: Path) -> None:
    with training.Checkpoints(tmp_path, config=Config()) as checkpoints:
        checkpoints.save(at(toy.state(), 1))
    longer = Config(num_steps=200)
    with pytest.raises(ValueError, match="num_steps"):
        training.Checkpoints(tmp_path, config=longer)
    with training.Checkpoints(tmp_path, config=longer, may_differ=("num_steps",)) as checkpoints:
        assert checkpoints.latest_step() == 1


def test_arrays_of_another_model_are_refused(toy: Any, tmp_path: Path) -> None:
    with training.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(toy.state())
        state = toy.state()
        wider = dataclasses.replace(state, params={**state.params, "Dense_0": {"kernel": jnp.zeros((4, 7))}})
        with pytest.raises(
            ValueError, match=r"params/Dense_0/kernel is 'float32\(4, 5\)' there and 'float32\(4, 7\)'"
        ):
            checkpoints.restore(wider)


def test_config_and_variables_are_read_without_the_training(toy: Any, tmp_path: Path) -> None:
    state = at(toy.state(), 1)
    with training.Checkpoints(tmp_path, config=Config()) as checkpoints:
        checkpoints.save(state, accuracy=0.2)
    config = training.read_config(tmp_path)
    assert config["optimizer"] == {"learning_rate": 1e-3}
    assert config["widths"] == [64, 128]
    chex.assert_trees_all_equal(training.load_variables(tmp_path), state.variables)


@pytest.mark.parametrize("read", [training.read_config, training.load_variables])
def test_reading_where_nothing_is(tmp_path: Path, read: Any) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(FileNotFoundError, match="train first"):
        read(tmp_path)


def test_the_saved_state_is_a_copy(toy: Any, tmp_path: Path) -> None:
    # Saving is asynchronous: a step that donates the state meanwhile must not change what is written.
    devices = jax.local_devices()[:1]
    pmapped = training.pmap_step(training.make_step(toy.loss, toy.optimizer), devices=devices)
    replicated = training.replicate(toy.state(), devices=devices)
    with training.Checkpoints(tmp_path) as checkpoints:
        state = training.unreplicate(replicated)
        checkpoints.save(state)
        pmapped(replicated, training.shard(toy.episodes(0, 2), 1))
        restored = checkpoints.restore(toy.state(seed=1)).state
    np.testing.assert_array_equal(
        restored.params["Dense_0"]["kernel"], toy.state().params["Dense_0"]["kernel"]
    )
