from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import training


def test_shard_deals_out_in_order() -> None:
    batch = {"x": np.arange(24).reshape(8, 3), "label": np.arange(8)}
    dealt = training.shard(batch, 4)
    assert dealt["x"].shape == (4, 2, 3)
    np.testing.assert_array_equal(dealt["label"], [[0, 1], [2, 3], [4, 5], [6, 7]])


@pytest.mark.parametrize("episodes", [0, 6, 9])
def test_shard_refuses_a_batch_not_divisible_by_the_devices(episodes: int) -> None:
    with pytest.raises(ValueError, match=rf"divisible by 4 devices, got an array of shape \({episodes}, 3\)"):
        training.shard({"x": np.zeros((episodes, 3))}, 4)


@pytest.mark.parametrize("num_devices", [1, 8])
def test_unreplicate_undoes_replicate(toy: Any, num_devices: int) -> None:
    devices = jax.local_devices()[:num_devices]
    state = toy.state()
    replicated = training.replicate(state, devices=devices)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(replicated)} == {num_devices}
    chex.assert_trees_all_equal(training.unreplicate(replicated), state)


def test_donation_leaves_the_callers_arrays_alone(toy: Any) -> None:
    devices = jax.local_devices()[:1]
    state = toy.state()
    before = jax.tree.map(lambda leaf: np.array(leaf), state.params)
    pmapped = training.pmap_step(training.make_step(toy.loss, toy.optimizer), devices=devices)
    replicated = training.replicate(state, devices=devices)
    copy = training.unreplicate(replicated)
    pmapped(replicated, training.shard(toy.episodes(0, 2), 1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(replicated.params))
    chex.assert_trees_all_equal(before, jax.device_get(state.params), jax.device_get(copy.params))


def test_replicated_metrics_are_equal_on_all_devices(toy: Any) -> None:
    pmapped = training.pmap_step(training.make_step(toy.loss, toy.optimizer))
    assert pmapped.devices == tuple(jax.local_devices()) and pmapped.num_processes == 1
    _, metrics = pmapped(training.replicate(toy.state()), training.shard(toy.episodes(0, 8), 8))
    losses = jnp.asarray(metrics["loss"])
    np.testing.assert_array_equal(losses, np.full(8, losses[0]))
