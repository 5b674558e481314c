"""Simpson's rule against SciPy's, polynomials and its own short cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from jxai import metrics


@pytest.mark.parametrize("points", [1, 2, 3, 4, 5, 8])
def test_as_scipy(points):
    values = np.random.default_rng(points).normal(size=(2, 3, points)).astype(np.float32)
    ours = metrics.simpson(values)
    assert ours.shape == (2, 3) and ours.dtype == jnp.float32
    expected = scipy.integrate.simpson(values.astype(np.float64), axis=-1) if points > 1 else np.zeros((2, 3))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("points", [3, 4, 7, 8])
def test_exact_for_parabolas(points):
    t = np.arange(points)
    area = (points - 1) ** 3 - (points - 1) ** 2 / 2
    np.testing.assert_allclose(metrics.simpson(3.0 * t**2 - t), area, rtol=1e-6)


def test_one_point_has_no_area_and_two_are_the_trapezoid():
    assert metrics.simpson(jnp.array([7.0])) == 0
    assert metrics.simpson(jnp.array([1.0, 4.0])) == 2.5


def test_low_precision_is_summed_in_float32():
    values = jnp.linspace(0, 1, 8, dtype=jnp.bfloat16)
    area = metrics.simpson(values)
    assert area.dtype == jnp.float32
    assert area == metrics.simpson(values.astype(jnp.float32))
    assert metrics.simpson([1, 2, 3]).dtype == jnp.float32


def test_areas_of_curves_are_simpson():
    curve = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    for area in (metrics.aupc, metrics.autvc):
        np.testing.assert_array_equal(area(curve), metrics.simpson(curve))
    assert metrics.aupc(jnp.ones((1, 31)))[0] == pytest.approx(30)


def test_its_gradient_is_the_weights():
    weights = jax.grad(metrics.simpson)(jnp.zeros(4))
    np.testing.assert_allclose(weights, np.array([4, 15, 12, 5]) / 12, rtol=1e-6)


@pytest.mark.parametrize("values", [3.0, np.zeros((2, 0))])
def test_no_points_are_an_error(values):
    with pytest.raises(ValueError, match=r"expected values of shape \(\.\.\., P\)"):
        metrics.simpson(values)
