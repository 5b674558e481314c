"""Localization with a mask, against loops over pixels."""

import functools

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


def test_area_and_top_k_are_their_definitions():
    for n, (heat, mask) in enumerate(zip(HEATMAP, MASK, strict=True)):
        pairs = [(heat[tuple(p)], heat[tuple(q)]) for p in np.argwhere(mask) for q in np.argwhere(~mask)]
        area = np.mean([(a > b) + (a == b) / 2 for a, b in pairs])
        np.testing.assert_allclose(metrics.localization_auc(HEATMAP, MASK)[n], area, rtol=1e-5)
        for k in (1, 7, 30):
            top = np.argsort(-heat, axis=None)[:k]
            share = mask.ravel()[top].mean()
            found = metrics.top_k_intersection(HEATMAP, MASK, num_pixels=k)
            np.testing.assert_allclose(found[n], share, rtol=1e-6)
            found = metrics.top_k_intersection(HEATMAP, MASK, num_pixels=k, weighted=True)
            np.testing.assert_allclose(found[n], share / mask.mean(), rtol=1e-5)


def test_area_under_the_curve_of_ties_and_large_maps():
    heatmap = np.round(HEATMAP)  # many equal values
    for n, (heat, mask) in enumerate(zip(heatmap, MASK, strict=True)):
        inside, outside = heat[mask][:, None], heat[~mask]
        area = ((inside > outside) + (inside == outside) / 2).mean()
        np.testing.assert_allclose(metrics.localization_auc(heatmap, MASK)[n], area, rtol=1e-5)
    np.testing.assert_allclose(metrics.localization_auc(np.zeros_like(HEATMAP), MASK), 0.5)
    mask = RNG.random((1, 224, 224)) < 0.5
    heatmap = mask + 0.01 * RNG.normal(size=mask.shape)
    np.testing.assert_allclose(metrics.localization_auc(heatmap.astype(np.float32), mask), 1, atol=1e-6)


def test_attribution_localization_is_mass_by_size():
    mass = metrics.relevance_mass(HEATMAP, MASK)
    np.testing.assert_array_equal(metrics.attribution_localization(HEATMAP, MASK), mass)
    weighted = metrics.attribution_localization(HEATMAP, MASK, weighted=True)
    np.testing.assert_allclose(weighted, mass / MASK.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(
        metrics.attribution_localization(np.ones_like(HEATMAP), MASK, weighted=True), 1, rtol=1e-5
    )


def test_full_masks():
    full = np.ones_like(MASK)
    for metric in (metrics.relevance_mass, metrics.attribution_localization, metrics.relevance_rank):
        np.testing.assert_allclose(metric(HEATMAP, full), 1, rtol=1e-6)
    with pytest.raises(ValueError, match=r"full ones at \[0, 1, 2, 3\]"):
        metrics.localization_auc(HEATMAP, full)
    assert np.isnan(jax.jit(metrics.localization_auc)(HEATMAP, full)).all()


def test_fewer_pixels_than_asked():
    with pytest.raises(ValueError, match="num_pixels of at most 30, got 31"):
        metrics.top_k_intersection(HEATMAP, MASK, num_pixels=31)


@pytest.mark.parametrize(("tolerance", "hit"), [(0.0, 0), (2.0, 0), (2.23, 0), (2.24, 1), (15.0, 1)])
def test_pointing_near_the_object(tolerance, hit):
    heatmap, mask = np.zeros((1, 6, 5), np.float32), np.zeros((1, 6, 5), bool)
    heatmap[0, 1, 1], mask[0, 3, 2] = 1.0, True  # sqrt(2² + 1²) = 2.236 pixels apart
    assert metrics.pointing_game(heatmap, mask, tolerance=tolerance).item() == hit


@pytest.mark.parametrize(
    "metric",
    [
        metrics.attribution_localization,
        metrics.focus,
        metrics.localization_auc,
        metrics.pointing_game,
        metrics.relevance_mass,
        metrics.relevance_rank,
        functools.partial(metrics.top_k_intersection, num_pixels=3),
    ],
)
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
