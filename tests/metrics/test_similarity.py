"""Rank correlation and SSIM against SciPy and a loop over windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jxai import metrics

rank_correlation = jax.jit(metrics.rank_correlation)
structural_similarity = jax.jit(metrics.structural_similarity)
RNG = np.random.default_rng(0)
A = RNG.normal(size=(3, 12, 9)).astype(np.float32)
B = (A + RNG.normal(size=A.shape)).astype(np.float32)


def test_rank_correlation_is_scipys_with_ties():
    rough, other = np.round(A, 1), np.round(B, 0)
    expected = [
        scipy.stats.spearmanr(np.abs(a).ravel(), np.abs(b).ravel()).statistic
        for a, b in zip(rough, other, strict=True)
    ]
    np.testing.assert_allclose(rank_correlation(rough, other), expected, atol=1e-5)


def slow_ssim(a, b):
    a, b = (np.pad((one - one.min()) / (one.max() - one.min()), 5, mode="edge") for one in (abs(a), abs(b)))
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for row, column in np.ndindex(a.shape[0] - 10, a.shape[1] - 10):
        one, two = (image[row : row + 11, column : column + 11] for image in (a, b))
        mean, other = (window * one).sum(), (window * two).sum()
        variance, second = (window * (one - mean) ** 2).sum(), (window * (two - other) ** 2).sum()
        covariance = (window * (one - mean) * (two - other)).sum()
        values.append(
            (2 * mean * other + 1e-4) * (2 * covariance + 9e-4)
            / ((mean**2 + other**2 + 1e-4) * (variance + second + 9e-4))
        )  # fmt: skip
    return np.mean(values)


def test_structural_similarity_is_the_slow_loop():
    expected = [slow_ssim(a, b) for a, b in zip(A, B, strict=True)]
    np.testing.assert_allclose(structural_similarity(A, B), expected, atol=1e-4)


@pytest.mark.parametrize("metric", [rank_correlation, structural_similarity])
def test_signs_and_scale_do_not_count_and_shapes_must_agree(metric):
    np.testing.assert_allclose(metric(A, -4 * A), 1, atol=1e-5)
    np.testing.assert_allclose(metric(A, B), metric(B, A), atol=1e-5)
    with pytest.raises(ValueError, match="same images"):
        metric(A, B[:, :, :4])


def test_constant_heatmaps_have_no_order():
    flat = np.ones_like(A)
    np.testing.assert_array_equal(rank_correlation(flat, flat), 0)
    np.testing.assert_allclose(structural_similarity(flat, flat), 1, rtol=1e-6)


def test_heatmaps_that_are_not_finite_are_like_nothing():
    bad = jnp.ones((1, 4, 4)).at[0, 1, 1].set(jnp.nan)
    assert jnp.isnan(jax.jit(metrics.rank_correlation)(bad, jnp.arange(16.0).reshape(1, 4, 4))).all()
