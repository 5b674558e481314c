import jax
import jax.numpy as jnp
import optax
import pytest

from jxai import training


def test_create_starts_at_step_zero() -> None:
    params = {"w": jnp.ones(3)}
    state = training.TrainState.create(jax.random.key(0), {"params": params}, optimizer=optax.sgd(0.1))
    assert state.step.dtype == jnp.int32
    assert int(state.step) == 0
    assert state.variables == {"params": params, "batch_stats": {}}


def test_create_needs_params() -> None:
    with pytest.raises(ValueError, match='expected `variables` with "params"'):
        training.TrainState.create(jax.random.key(0), {"batch_stats": {}}, optimizer=optax.sgd(0.1))


def test_create_refuses_collections_that_would_be_lost() -> None:
    with pytest.raises(ValueError, match="cache"):
        training.TrainState.create(jax.random.key(0), {"params": {}, "cache": {}}, optimizer=optax.sgd(0.1))
