"""Localization with a mask, against loops over pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

RNG = np.random.default_rng(0)
HEATMAP = RNG.normal(size=(4, 6, 5)).astype(np.float32)
MASK = RNG.random((4, 6, 5)) < 0.3


def test_mass_and_rank_are_their_definitions():
    mass, rank = [], []
    for heat, mask in zip(HEATMAP, MASK, strict=True):
        pixels = list(np.ndindex(heat.shape))
        inside = sum(heat[p] for p in pixels if heat[p] > 0 and mask[p])
        mass.append(inside / sum(heat[p] for p in pixels if heat[p] > 0))
        top = sorted(pixels, key=lambda p, heat=heat: -heat[p])[: mask.sum()]
        rank.append(sum(mask[p] for p in top) / mask.sum())
    np.testing.assert_allclose(metrics.relevance_mass(HEATMAP, MASK), mass, rtol=1e-5)
    np.testing.assert_allclose(metrics.relevance_rank(HEATMAP, MASK), rank, rtol=1e-6)


def test_perfect_and_wrong_heatmaps():
    perfect = MASK.astype(np.float32)
    for metric in (metrics.relevance_mass, metrics.relevance_rank, metrics.pointing_game):
        compiled = jax.jit(metric)
        np.testing.assert_allclose(compiled(perfect, MASK), 1)
        np.testing.assert_allclose(compiled(-perfect, MASK), 0)


@pytest.mark.parametrize(("tolerance", "hit"), [(0.0, 0), (2.0, 0), (2.23, 0), (2.24, 1), (15.0, 1)])
def test_pointing_near_the_object(tolerance, hit):
    heatmap, mask = np.zeros((1, 6, 5), np.float32), np.zeros((1, 6, 5), bool)
    heatmap[0, 1, 1], mask[0, 3, 2] = 1.0, True  # sqrt(2² + 1²) = 2.236 pixels apart
    assert metrics.pointing_game(heatmap, mask, tolerance=tolerance).item() == hit


@pytest.mark.parametrize("metric", [metrics.relevance_mass, metrics.relevance_rank, metrics.pointing_game])
def test_errors(metric):
    with pytest.raises(ValueError, match=r"empty ones at \[1\]"):
        metric(HEATMAP, MASK & (np.arange(4) != 1)[:, None, None])
    with pytest.raises(ValueError, match="one value a pixel"):
        metric(HEATMAP, MASK[:1])
    with pytest.raises(TypeError, match="bool"):
        metric(HEATMAP, MASK.astype(np.float32))
    with pytest.raises(ValueError, match="finite"):
        metric(jnp.full(MASK.shape, jnp.nan), MASK)


def test_a_jitted_function_may_close_over_everything():
    heatmap, mask = jnp.asarray(HEATMAP), jnp.asarray(MASK)
    np.testing.assert_allclose(
        jax.jit(lambda: metrics.relevance_mass(heatmap, mask))(),
        metrics.relevance_mass(heatmap, mask),
        rtol=1e-6,
    )


def test_negative_tolerance():
    with pytest.raises(ValueError, match="tolerance"):
        metrics.pointing_game(HEATMAP, MASK, tolerance=-1.0)
