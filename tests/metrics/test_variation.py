"""Total variation against slow NumPy, closed forms and its own symmetries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

normalized = jax.jit(metrics.normalized)
variation = jax.jit(metrics.average_total_variation, static_argnames="order")
MAPS = np.random.default_rng(0).normal(size=(3, 32, 31)).astype(np.float32)


def slow_normalized(heatmap):
    magnitude = np.abs(heatmap.astype(np.float64))
    low, high = magnitude.min(), np.percentile(magnitude, 99)
    return np.clip((magnitude - low) / (high - low), 0, 1)


def slow_variation(heatmap, order):
    m = slow_normalized(heatmap)
    height, width = m.shape
    down = sum(abs(m[i + 1, j] - m[i, j]) ** order for i in range(height - 1) for j in range(width))
    across = sum(abs(m[i, j + 1] - m[i, j]) ** order for i in range(height) for j in range(width - 1))
    return (down ** (1 / order) + across ** (1 / order)) / m.size


@pytest.mark.parametrize("size", [(1, 2), (5, 7), (101, 1), (60, 60)])
def test_normalized_is_numpy_s_percentile(size):
    heatmap = np.random.default_rng(1).normal(size=(2, *size)).astype(np.float32)
    expected = [slow_normalized(one) for one in heatmap]
    np.testing.assert_allclose(normalized(heatmap), expected, rtol=1e-5, atol=1e-6)


def test_normalized_without_a_range():
    spike = np.full((1, 20, 20), -2.0)
    np.testing.assert_array_equal(normalized(spike), 0)
    spike[0, 3, 4] = 5
    assert np.argwhere(np.asarray(normalized(spike)) == 1).tolist() == [[0, 3, 4]]
    assert normalized(spike).sum() == 1
    np.testing.assert_array_equal(normalized(np.ones((1, 1, 1))), 0)


@pytest.mark.parametrize("order", [1, 1.5, 2, 4])
def test_as_two_loops(order):
    expected = [slow_variation(heatmap, order) for heatmap in MAPS]
    np.testing.assert_allclose(variation(MAPS, order=order), expected, rtol=1e-5)


def test_stripes_and_constants_by_hand():
    stripes = np.tile([0.0, 1.0], (1, 6, 4))  # 7 steps in each of 6 rows, 48 pixels
    assert variation(stripes)[0] == pytest.approx(42 / 48)
    assert variation(stripes, order=2)[0] == pytest.approx(42**0.5 / 48)
    assert variation(np.full((1, 6, 8), 3.0))[0] == 0


def test_smoother_is_lower():
    smooth = np.add.outer(np.arange(32.0), np.arange(31.0)) - 20
    smooth, noise = variation(np.stack([smooth, MAPS[0], MAPS[1]]).astype(np.float32))[:2]
    assert smooth < noise


def test_levels_are_normalized_anew():
    options = {"factor": 2.0, "smallest": 8}

    @jax.jit
    def both(heatmap):
        curve = metrics.multiscale_total_variation(heatmap, order=2, **options)
        return metrics.gaussian_pyramid(heatmap, **options), curve

    levels, curve = both(MAPS)
    assert curve.shape == (3, len(levels)) == (3, 3)
    for column, level in zip(curve.T, levels, strict=True):
        expected = [slow_variation(np.asarray(one), 2) for one in level]
        np.testing.assert_allclose(column, expected, rtol=1e-5)


def test_neither_sign_nor_scale_matter():
    np.testing.assert_allclose(variation(-1e3 * MAPS), variation(MAPS), rtol=1e-5)


def test_jit_loop_and_precision():
    batch, alone = variation(MAPS), variation(MAPS[1:2])
    assert batch.dtype == alone.dtype == jnp.float32
    np.testing.assert_allclose(batch[1:2], alone, rtol=1e-5)
    half = MAPS.astype(jnp.bfloat16)
    assert variation(half).dtype == jnp.float32
    np.testing.assert_allclose(variation(half), variation(half.astype(np.float32)), rtol=1e-5)


@pytest.mark.parametrize("order", [1, 2])
def test_gradients_are_finite(order):
    maps = np.stack([MAPS[0, :10, :10], np.zeros((10, 10)), np.ones((10, 10))]).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda h: metrics.average_total_variation(h, order=order).sum()))(maps)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[0]).max() > 0


@pytest.mark.parametrize(
    ("heatmap", "message"),
    [
        (np.zeros((2, 40, 40, 3)), r"got \(2, 40, 40, 3\): give attributions\.sum\(axis=-1\)"),
        (np.zeros((40, 40)), r"expected `heatmap` of shape \(N, H, W\), got \(40, 40\): add the axis"),
        (np.full((1, 40, 40), np.nan), "expected finite `heatmap`, got 1600 of 1600"),
    ],
)
@pytest.mark.parametrize(
    "metric",
    [
        metrics.normalized,
        metrics.average_total_variation,
        metrics.multiscale_total_variation,
        metrics.gaussian_pyramid,
        metrics.perturbation_positions,
    ],
)
def test_wrong_heatmaps(metric, heatmap, message):
    with pytest.raises(ValueError, match=message):
        metric(heatmap)


@pytest.mark.parametrize("order", [0.5, float("inf"), float("nan")])
def test_wrong_orders(order):
    with pytest.raises(ValueError, match="expected order of at least 1, got"):
        metrics.average_total_variation(MAPS, order=order)


def test_a_known_heatmap_may_be_closed_over():
    heatmap = jnp.asarray(MAPS[:1])
    ours = jax.jit(lambda scale: scale * metrics.average_total_variation(heatmap))(2.0)
    np.testing.assert_allclose(ours, 2 * variation(MAPS)[:1], rtol=1e-5)


def test_a_single_level_has_no_area():
    with pytest.raises(ValueError, match="at least two levels, got 1"):
        metrics.autvc(metrics.multiscale_total_variation(jnp.ones((1, 32, 32))))
