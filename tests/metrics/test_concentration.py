"""Gini index and entropy against their definitions and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

sparseness, complexity = jax.jit(metrics.sparseness), jax.jit(metrics.complexity)

HEATMAP = np.random.default_rng(0).normal(size=(3, 6, 5)).astype(np.float32)


def slow_gini(values):
    """Half the relative mean absolute difference over all pairs."""
    values = np.abs(values.astype(np.float64)).ravel()
    return np.abs(values[:, None] - values).mean() / (2 * values.mean())


def slow_entropy(values):
    share = np.abs(values.astype(np.float64)).ravel()
    share = share[share > 0] / share.sum()
    return -(share * np.log(share)).sum()


def test_they_are_their_definitions():
    np.testing.assert_allclose(sparseness(HEATMAP), [slow_gini(one) for one in HEATMAP], rtol=1e-5)
    np.testing.assert_allclose(complexity(HEATMAP), [slow_entropy(one) for one in HEATMAP], rtol=1e-5)


def test_one_pixel_all_pixels_none():
    one = np.zeros((6, 5), np.float32)
    one[2, 3] = -4.0
    heatmap = np.stack([one, np.full((6, 5), 0.3, np.float32), np.zeros((6, 5), np.float32)])
    np.testing.assert_allclose(sparseness(heatmap), [1 - 1 / 30, 0, 0], atol=1e-6)
    np.testing.assert_allclose(complexity(heatmap), [0, np.log(30), np.log(30)], rtol=1e-6)


def test_pixels_above_a_threshold():
    for threshold in (0.0, 0.5, 9.0):
        found = jax.jit(lambda h, t=threshold: metrics.effective_pixels(h, threshold=t))(HEATMAP)
        np.testing.assert_array_equal(found, (np.abs(HEATMAP) > threshold).sum(axis=(1, 2)))
    assert not metrics.effective_pixels(jnp.zeros((2, 3, 3)), threshold=0.0).any()
    with pytest.raises(ValueError, match="threshold"):
        metrics.effective_pixels(HEATMAP, threshold=-1.0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("metric", [sparseness, complexity])
def test_scale_does_not_matter(metric, scale):
    np.testing.assert_allclose(metric(scale * HEATMAP), metric(HEATMAP), rtol=1e-5)


@pytest.mark.parametrize("metric", [metrics.sparseness, metrics.complexity, metrics.effective_pixels])
def test_errors(metric):
    with pytest.raises(ValueError, match=r"attributions\.sum"):
        metric(jnp.ones((1, 4, 4, 3)))
    with pytest.raises(ValueError, match="finite"):
        metric(jnp.full((1, 4, 4), jnp.nan))
