"""What holds for every estimator: a registry of all, and one test a property."""

import functools
import inspect

import estimators
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimators import ESTIMATORS, KEY
from jax.sharding import Mesh

from jxai import attribution

CHUNKED = [name for name in ESTIMATORS if name not in ("gradient", "input x gradient")]
# One of each way to make rows, for the compilations that take long; all where time is no matter.
SPREAD = ("IG trapezoid", "SmoothTaylor", "expected gradients", "occlusion")
# Rows made as others make theirs.
ALIKE = (
    "feature permutation",
    "KernelSHAP",
    "LIME",
    "DeepLIFT SHAP",
    "blur IG",
    "RISE",
    "internal influence",
    "neuron conductance",
)
# Gradients of 0 where nothing is near: squares need room.
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


@pytest.fixture(scope="session")
def expected(small):
    """All rows at once on one device, by name."""

    @functools.cache
    def of(name):
        run = jax.jit(lambda key, x, target: ESTIMATORS[name](small.f, key, x, target))
        return np.asarray(run(KEY, small.x, small.target))

    return of


def test_registry_is_complete():
    source = inspect.getsource(estimators)
    names = set(attribution.__all__) - {
        "AdaptiveNoise",
        "adaptive_noise",
        "contrast",
        "convergence_delta",
        *(name for name in attribution.__all__ if name.endswith("_cam") or "_cam_" in name),
    }
    assert all(f"attribution.{name}(" in source for name in names)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_finite_and_of_the_input_s_shape(name, small, expected):
    found = expected(name)
    assert found.shape == small.x.shape and found.dtype == small.x.dtype
    assert np.isfinite(found).all() and np.abs(found).max() > 0


@pytest.mark.parametrize("name", ["IG right", "SmoothTaylor"])
def test_jit_changes_nothing(name, small, expected):
    found = ESTIMATORS[name](small.f, KEY, small.x, small.target)
    np.testing.assert_allclose(found, expected(name), **CLOSE)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ()) for name in CHUNKED]
)
def test_chunks_change_nothing(name, small, expected):
    run = jax.jit(lambda x: ESTIMATORS[name](small.f, KEY, x, small.target, chunk_size=4))
    np.testing.assert_allclose(run(small.x), expected(name), **CLOSE)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SPREAD else pytest.mark.slow) for name in CHUNKED]
)
def test_devices_change_nothing(name, small, expected):
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    run = jax.jit(lambda x: ESTIMATORS[name](small.f, KEY, x, small.target, chunk_size=3, mesh=mesh))
    np.testing.assert_allclose(run(small.x), expected(name), **CLOSE)


def test_rows_are_spread_over_the_devices(small):
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
    run = jax.jit(
        lambda x: ESTIMATORS["SmoothTaylor"](small.f, KEY, x, small.target, chunk_size=8, mesh=mesh)
    )
    program = run.lower(small.x).compile().as_text()
    assert (
        "f32[1,5,4,4]" in program and "f32[8,5,4,4]" not in program
    )  # activations of 1 row a device, not of 8


@pytest.mark.parametrize("name", ["IG noise", "VarGrad", "SmoothTaylor"])
def test_one_image_alone_gets_the_same(name, small, expected):
    # The noise of image 0 depends on (key, 0, root).
    run = jax.jit(lambda x, target: ESTIMATORS[name](small.f, KEY, x, target))
    found = run(small.x[:1], small.target[:1])
    np.testing.assert_allclose(found, expected(name)[:1], **CLOSE)


@pytest.mark.parametrize("name", ["SmoothTaylor", "occlusion"])
def test_vmap_over_keys_and_images_is_a_loop(name, small):
    def run(key, x):
        return ESTIMATORS[name](small.f, key, x, small.target, chunk_size=4)

    keys, images = jax.random.split(KEY, 2), jnp.stack([small.x, small.x[::-1]])
    together = jax.jit(jax.vmap(run))(keys, images)
    alone = jax.jit(run)
    for found, key, x in zip(together, keys, images, strict=True):
        np.testing.assert_allclose(found, alone(key, x), **CLOSE)


@pytest.mark.parametrize("name", ["gradient", "IG right", "SmoothGrad", "SmoothTaylor", "occlusion"])
def test_bfloat16_keeps_its_type(name, small, expected):
    found = jax.jit(lambda x: ESTIMATORS[name](small.f, KEY, x, small.target))(small.x.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    assert np.isfinite(found.astype(np.float32)).all()
    if name in ("gradient", "IG right", "occlusion"):  # of the same inputs, without draws that differ
        scale = np.abs(expected(name)).max()
        np.testing.assert_allclose(found.astype(np.float32), expected(name), atol=0.1 * scale)


@pytest.mark.parametrize("name", ["IG right", "SmoothTaylor"])
def test_gradients_flow_through(name, small):
    """An attribution can be trained through: its derivative agrees with finite differences."""
    with jax.enable_x64(True):
        x = jnp.asarray(small.x, jnp.float64)
        weights = jnp.asarray(np.random.default_rng(5).normal(size=x.shape))

        def loss(scale):
            def f(x):
                return jnp.tanh(small.f(x) * scale)

            return (weights * ESTIMATORS[name](f, KEY, x, small.target, chunk_size=4)).sum()

        step, value = 1e-5, jax.jit(loss)
        numeric = (value(1 + step) - value(1 - step)) / (2 * step)
        np.testing.assert_allclose(jax.jit(jax.grad(loss))(1.0), numeric, rtol=1e-6)


def test_an_image_without_finite_gradients_leaves_the_others_alone(small, expected):
    def f(x):
        return (
            small.f(x)
            * jnp.where((x == x[0]).all(axis=(1, 2, 3)) & (x[0, 0, 0, 0] > 1e3), jnp.nan, 1)[:, None]
        )

    huge = small.x.at[0, 0, 0, 0].set(1e4)
    run = jax.jit(lambda x: ESTIMATORS["SmoothTaylor"](f, KEY, x, small.target, chunk_size=7))
    found = run(huge)
    assert np.isnan(found[0]).any()
    np.testing.assert_allclose(found[1:], expected("SmoothTaylor")[1:], **CLOSE)
