"""Infidelity: zero for the gradient of a linear function, a closed form for any other attribution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

WEIGHTS = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
X = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 4)), jnp.float32)
TARGET = jnp.asarray([2, 0])
GRADIENT = jnp.asarray(WEIGHTS.T[np.asarray(TARGET)].reshape(2, 3, 4))


def linear(x):
    return x.reshape(len(x), -1) @ WEIGHTS + 5.0


@functools.partial(jax.jit, static_argnames="scaled")
def infidelity(attributions, scaled=False):
    options = {"noise_scale": 0.5, "num_samples": 20000, "scaled": scaled}
    return metrics.infidelity(linear, jax.random.key(0), X, attributions, TARGET, **options)


def test_gradient_of_a_linear_function_is_faithful():
    np.testing.assert_allclose(infidelity(GRADIENT), 0, atol=1e-9)


def test_any_other_attribution_pays_its_distance():
    # E[(I·(A − w))²] = σ² ‖A − w‖² for I ~ N(0, σ²); 20000 draws estimate a χ² mean to sqrt(2/20000) = 1 %.
    other = GRADIENT + X
    value = infidelity(other)
    np.testing.assert_allclose(value, 0.25 * (np.asarray(X) ** 2).sum((1, 2)), rtol=0.05)


def test_the_best_scale_makes_units_irrelevant():
    assert (infidelity(7 * GRADIENT) > 1).all()
    np.testing.assert_allclose(infidelity(7 * GRADIENT, scaled=True), 0, atol=1e-8)
    rough = GRADIENT + 0.5 * X
    np.testing.assert_allclose(infidelity(rough, scaled=True), infidelity(-3 * rough, scaled=True), rtol=1e-4)
    assert (infidelity(rough, scaled=True) <= infidelity(rough)).all()


def test_no_attribution_pays_all_of_the_change():
    # Scaling nothing is nothing.
    np.testing.assert_allclose(infidelity(0 * X), infidelity(0 * X, scaled=True))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"attributions": jnp.zeros((2, 3))}, ValueError, "not summed over channels"),
        ({"attributions": jnp.full(X.shape, jnp.nan)}, ValueError, "finite `attributions`"),
        ({"noise_scale": 0.0}, ValueError, "noise_scale"),
        ({"num_samples": 0}, ValueError, "num_samples"),
    ],
)
def test_errors(options, error, match):
    arguments = {"x": X, "attributions": GRADIENT, "target": TARGET, "num_samples": 2, **options}
    with pytest.raises(error, match=match):
        metrics.infidelity(linear, jax.random.key(0), **arguments)
