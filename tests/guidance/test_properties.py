"""What holds of every loss on explanations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from guidance_registry import LOSSES, SCALED, H, N, R, head

from jxai import guidance

EVERY = pytest.mark.parametrize("name", LOSSES)


def test_every_loss_is_in_the_registry():
    losses = set(guidance.__all__) - {
        "concept_vector",
        "drawn_classes",
        "relevance_weights",
        "without_concept",
    }
    assert losses == {name.split(",")[0] for name in LOSSES}


@EVERY
def test_compiled_alone_and_together(name):
    loss = LOSSES[name]
    found = loss(R)
    assert found.shape == (N,) and found.dtype == jnp.float32 and np.isfinite(found).all()
    np.testing.assert_allclose(jax.jit(loss)(R), found, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(
        jax.vmap(lambda one: loss(one[None])[0])(R[:1]), found[:1], rtol=2e-6, atol=1e-6
    )


@EVERY
def test_two_devices_take_the_step_of_one(name):
    """The gradient by a parameter of examples on two devices: their sum goes over both."""

    def step(scale, r):
        return scale - 0.1 * jax.grad(lambda scale: LOSSES[name](scale * r).mean())(scale)

    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    split = jax.NamedSharding(mesh, jax.P("data"))
    scale, r = jnp.asarray(1.5, jnp.float32), R[:2]
    found = jax.jit(step)(scale, jax.device_put(r, split))
    assert len(found.sharding.device_set) == 2
    np.testing.assert_allclose(found, jax.jit(step)(scale, r), rtol=1e-5, atol=1e-6)


@EVERY
def test_gradients_are_those_of_finite_differences(name):
    with jax.enable_x64(True):
        wide, way = (
            jnp.asarray(R, jnp.float64),
            jnp.cos(jnp.arange(R.size, dtype=jnp.float64)).reshape(R.shape),
        )
        step = 1e-5
        held = guidance.relevance_weights(jnp.sin(wide))

        def loss(r):
            # The gradient holds the weights.
            return head(r * held).sum() if name == "weighted_scores" else LOSSES[name](r).sum()

        moved = [loss(wide + sign * step * way) for sign in (1, -1)]
        slope = (moved[0] - moved[1]) / (2 * step)
        gradient = jax.grad(lambda r: LOSSES[name](r).sum())(wide)
        np.testing.assert_allclose((gradient * way).sum(), slope, rtol=1e-5, atol=1e-8)


@EVERY
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e18, "constant"])
def test_gradients_are_finite_where_explanations_say_nothing_or_are_extreme(name, scale):
    """What blows up elsewhere: norms and shares of maps that are 0, and squares that leave float32."""
    r = jnp.ones_like(R) if scale == "constant" else scale * R
    if scale == 1e18 and name in ("right_reasons", "foreground_range"):
        pytest.skip("squares in the unit of the relevance")
    value, slope = jax.jit(jax.value_and_grad(lambda r: LOSSES[name](r).sum()))(r)
    assert np.isfinite(value) and np.isfinite(slope).all()


@pytest.mark.parametrize("name", SCALED)
def test_a_multiple_has_the_same_loss(name):
    np.testing.assert_allclose(LOSSES[name](1000 * R), LOSSES[name](R), rtol=1e-5)


@EVERY
def test_nan_of_one_example_is_its_own(name):
    found = jax.jit(LOSSES[name])(R.at[1, H - 1, 0, 0].set(jnp.nan))
    assert np.isnan(found).tolist() == [False, True, False]


@EVERY
def test_bfloat16(name):
    found = LOSSES[name](R.astype(jnp.bfloat16))
    np.testing.assert_allclose(np.asarray(found, np.float32), LOSSES[name](R), rtol=0.1, atol=0.05)
