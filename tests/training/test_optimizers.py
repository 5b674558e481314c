import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jxai.training import OptimizerConfig, make_optimizer, make_schedule


def one_update(config: OptimizerConfig, gradient: float = 2.0) -> float:
    optimizer = make_optimizer(config, num_steps=10)
    params = {"w": jnp.float32(3.0)}
    updates, _ = optimizer.update({"w": jnp.float32(gradient)}, optimizer.init(params), params)
    return float(optax.apply_updates(params, updates)["w"])  # pyright: ignore


def test_default_is_adam() -> None:
    # Adam's first update has the size of the learning rate, whatever the gradient.
    np.testing.assert_allclose(one_update(OptimizerConfig()), 3.0 - 1e-3, rtol=1e-6)


def test_sgd_with_nesterov_and_weight_decay() -> None:
    config = OptimizerConfig("sgd", 0.1, momentum=0.9, nesterov=True, weight_decay=0.5)
    # Gradient 2 + 0.5·3 = 3.5; Nesterov's first update is (1 + 0.9) of it.
    np.testing.assert_allclose(one_update(config), 3.0 - 0.1 * 1.9 * 3.5, rtol=1e-6)


def test_clipping_comes_first() -> None:
    np.testing.assert_allclose(one_update(OptimizerConfig("sgd", 0.1, clip_norm=1.0)), 2.9, rtol=1e-6)


def test_steps_as_the_cross_attention_network_has_them() -> None:
    config = OptimizerConfig("sgd", 0.1, schedule="steps", boundaries=(60, 70), rates=(0.006, 0.0012))
    schedule = make_schedule(config, num_steps=80)
    rates = [schedule(step) for step in (0, 59, 60, 69, 70, 79)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.006, 0.006, 0.0012, 0.0012], rtol=1e-6)


def test_cosine_ends_at_zero_and_warm_up_rises() -> None:
    config = OptimizerConfig(learning_rate=1.0, schedule="cosine", warmup_steps=10)
    schedule = make_schedule(config, num_steps=110)
    np.testing.assert_allclose([schedule(s) for s in (0, 5, 10, 60, 110)], [0, 0.5, 1, 0.5, 0], atol=1e-6)


def test_boundaries_count_from_the_first_step_with_a_warm_up_too() -> None:
    config = OptimizerConfig(
        learning_rate=1.0, schedule="steps", warmup_steps=10, boundaries=(60,), rates=(0.1,)
    )
    schedule = make_schedule(config, num_steps=100)
    np.testing.assert_allclose([schedule(s) for s in (10, 59, 60)], [1, 1, 0.1], rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "lamb"},
        {"learning_rate": 0.0},
        {"momentum": 1.0, "name": "sgd"},
        {"weight_decay": -1.0},
        {"clip_norm": 0.0},
        {"schedule": "linear"},
        {"warmup_steps": 10},
        {"schedule": "steps"},
        {"schedule": "steps", "boundaries": (5, 3), "rates": (1.0, 1.0)},
        {"schedule": "steps", "boundaries": (5,), "rates": (1.0, 1.0)},
    ],
)
def test_fields_outside_their_range(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        make_optimizer(dataclasses.replace(OptimizerConfig(), **change), num_steps=10)


def test_a_part_of_the_parameters_has_its_own_optimizer() -> None:
    optimizer = make_optimizer(
        OptimizerConfig("sgd", 0.1), num_steps=10, parts={"b": OptimizerConfig(learning_rate=0.01)}
    )
    params = {"a": {"w": jnp.float32(3.0)}, "b": {"w": jnp.float32(3.0)}}
    gradients = {"a": {"w": jnp.float32(2.0)}, "b": {"w": jnp.float32(2.0)}}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    # SGD's update is the rate times the gradient; Adam's first is the rate alone.
    np.testing.assert_allclose([updates["a"]["w"], updates["b"]["w"]], [-0.2, -0.01], rtol=1e-5)


def test_a_part_that_the_parameters_do_not_have() -> None:
    optimizer = make_optimizer(OptimizerConfig(), num_steps=10, parts={"c": OptimizerConfig()})
    with pytest.raises(ValueError, match="expected parameters with c, got a, b"):
        optimizer.init({"a": jnp.zeros(()), "b": jnp.zeros(())})
