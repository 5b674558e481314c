import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jxai import training

# With plain SGD at rate 1 the parameters' change is the gradient; Adam's would not be comparable.
SGD = optax.sgd(1.0)


@functools.cache
def compiled(toy: Any, num_devices: int, deterministic: bool) -> training.PmappedStep:
    step = training.make_step(toy.loss, toy.optimizer, deterministic=deterministic)
    return training.pmap_step(step, devices=jax.local_devices()[:num_devices])


def run(toy: Any, *, num_devices: int, deterministic: bool, steps: int = 3) -> tuple[Any, dict[str, Any]]:
    """State and last metrics after some steps of 8 episodes dealt out to `num_devices`."""
    devices = jax.local_devices()[:num_devices]
    pmapped = compiled(toy, num_devices, deterministic)
    state = training.replicate(toy.state(), devices=devices)
    metrics = {}
    for number in range(steps):
        state, metrics = pmapped(state, training.shard(toy.episodes(number, 8), num_devices))
    return training.unreplicate(state), jax.device_get(training.unreplicate(metrics))


def assert_identical(a: Any, b: Any) -> None:
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_deterministic_is_bit_identical_on_one_two_and_eight_devices(toy: Any) -> None:
    state, metrics = run(toy, num_devices=1, deterministic=True)
    for num_devices in (2, 8):
        other, other_metrics = run(toy, num_devices=num_devices, deterministic=True)
        assert_identical(state, other)
        assert_identical(metrics, other_metrics)


@pytest.mark.slow
def test_without_an_axis_equals_one_pmapped_device(toy: Any) -> None:
    step = jax.jit(training.make_step(toy.loss, toy.optimizer, deterministic=True))
    state, _ = step(toy.state(), toy.episodes(0, 8))
    pmapped, _ = run(toy, num_devices=1, deterministic=True, steps=1)
    assert_identical(state, pmapped)


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 8])
def test_fast_gradients_agree_with_the_loop(toy: Any, num_devices: int) -> None:
    toy = dataclasses.replace(toy, optimizer=SGD)
    before = toy.state()
    fast, fast_metrics = run(toy, num_devices=num_devices, deterministic=False, steps=1)
    slow, slow_metrics = run(toy, num_devices=1, deterministic=True, steps=1)
    gradient = [jax.tree.map(lambda a, b: b - a, before.params, state.params) for state in (fast, slow)]
    chex.assert_trees_all_close(*gradient, atol=1e-5)
    chex.assert_trees_all_close(fast.batch_stats, slow.batch_stats, atol=1e-5)
    chex.assert_trees_all_close(fast_metrics, slow_metrics, atol=1e-5)


def test_step_is_the_mean_over_single_episodes(toy: Any) -> None:
    state, episodes = toy.state(), toy.episodes(0, 4)
    new_state, metrics = jax.jit(training.make_step(toy.loss, toy.optimizer))(state, episodes)

    @functools.partial(jax.jit, static_argnums=0)
    def by_hand(n: int) -> tuple[Any, Any]:
        episode = jax.tree.map(lambda leaf: jnp.asarray(leaf[n]), episodes)
        loss = lambda params: toy.loss(  # noqa: E731
            {"params": params, "batch_stats": state.batch_stats},
            episode,
            jax.random.fold_in(state.key, n),
            state.step,
        )
        (value, (stats, _)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        return (value, stats), gradient

    results = [by_hand(n) for n in range(4)]
    (loss, stats), gradient = jax.tree.map(lambda *leaves: sum(leaves) / 4, *results)
    updates, _ = toy.optimizer.update(gradient, state.opt_state, state.params)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    squares = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradient))
    np.testing.assert_allclose(metrics["grad_norm"], squares**0.5, rtol=1e-5)
    chex.assert_trees_all_close(new_state.batch_stats, stats, atol=1e-6)
    assert int(new_state.step) == 1
    chex.assert_trees_all_equal_shapes_and_dtypes(
        new_state.params, jax.tree.map(jnp.add, state.params, updates)
    )


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_loss_gets_the_step(toy: Any, deterministic: bool) -> None:
    """The number of updates before this one, in a number that decays."""

    def loss(variables: Any, episode: Any, key: jax.Array, step: jax.Array) -> Any:
        value, (statistics, metrics) = toy.loss(variables, episode, key, step)
        return 0.5**step * value, (statistics, {**metrics, "step": step, "alone": value})

    step = jax.jit(training.make_step(loss, toy.optimizer, deterministic=deterministic))
    state = toy.state()
    for number in range(3):
        state, metrics = step(state, toy.episodes(number, 2))
        assert metrics["step"] == number
        np.testing.assert_allclose(metrics["loss"], 0.5**number * metrics["alone"], rtol=1e-6)


def test_episode_keys_count_over_the_whole_training(toy: Any) -> None:
    state = toy.state()
    step = jax.jit(training.make_step(toy.loss, toy.optimizer))
    for number in range(2):
        first = number * 4
        draws = [jax.random.uniform(jax.random.fold_in(state.key, first + n)) for n in range(4)]
        state, metrics = step(state, toy.episodes(number, 4))
        np.testing.assert_allclose(metrics["noise"], sum(draws) / 4, rtol=1e-6)


def test_no_retracing_after_the_first_step(toy: Any) -> None:
    step = training.make_step(toy.loss, toy.optimizer)
    chex.clear_trace_counter()
    pmapped = training.pmap_step(chex.assert_max_traces(step, n=1))
    state = training.replicate(toy.state())
    for number in range(3):
        state, _ = pmapped(state, training.shard(toy.episodes(number, 8), 8))


def test_leaves_without_a_common_leading_axis_are_refused(toy: Any) -> None:
    step = training.make_step(toy.loss, toy.optimizer)
    episodes = toy.episodes(0, 4)
    with pytest.raises(ValueError, match="one leading axis"):
        step(toy.state(), episodes.replace(query=episodes.query[:3]))
