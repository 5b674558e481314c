"""Consistency against a loop over pairs of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

RNG = np.random.default_rng(0)


def test_consistency_is_its_definition():
    heatmap = RNG.normal(size=(20, 6, 7)).astype(np.float32)
    prediction = RNG.integers(0, 2, 20)
    code = [tuple(np.array(np.unravel_index(one.argmax(), one.shape)) * 3 // (6, 7)) for one in heatmap]
    expected = []
    for i in range(20):
        peers = [j for j in range(20) if j != i and code[j] == code[i]]
        expected.append(np.mean([prediction[j] == prediction[i] for j in peers]) if peers else np.nan)
    assert 0 < np.isnan(expected).sum() < 20
    np.testing.assert_allclose(jax.jit(metrics.consistency)(heatmap, prediction), expected, rtol=1e-6)
    found = metrics.consistency(heatmap, prediction, discretize=lambda h: h[:, 0, :2] > 0)
    signs = heatmap[:, 0, :2] > 0
    peers = (signs[:, None] == signs).all(axis=-1) & ~np.eye(20, dtype=bool)
    agreed = peers & (prediction[:, None] == prediction)
    with np.errstate(invalid="ignore"):  # some are alone
        np.testing.assert_allclose(found, agreed.sum(axis=1) / peers.sum(axis=1), rtol=1e-6)


def test_errors_of_consistency():
    heatmap = jnp.ones((2, 3, 3))
    with pytest.raises(TypeError, match="`prediction` of integers"):
        metrics.consistency(heatmap, jnp.ones(2))
    with pytest.raises(ValueError, match="one class an image"):
        metrics.consistency(heatmap, jnp.ones(3, int))
    with pytest.raises(TypeError, match="round its values"):
        metrics.consistency(heatmap, jnp.ones(2, int), discretize=lambda h: h)
    with pytest.raises(ValueError, match="one code an image"):
        metrics.consistency(heatmap, jnp.ones(2, int), discretize=lambda h: h > 0 if h is None else None)


def test_sufficiency_against_a_loop():
    rng = np.random.default_rng(3)
    heatmap = rng.normal(size=(12, 3, 4)).astype(np.float32)
    heatmap[:, 0, 0] = 5  # a pixel without any deviation
    prediction = rng.integers(0, 3, 12)
    deviation = heatmap.std(axis=0)
    deviation[0, 0] = 1
    scaled = (heatmap / deviation).reshape(12, -1)
    distance = np.linalg.norm(scaled[:, None] - scaled[None], axis=-1)
    for threshold in (0.5, 0.8, 1.0):
        near = (distance <= threshold * distance.max()) & ~np.eye(12, dtype=bool)
        with np.errstate(invalid="ignore"):
            right = (near & (prediction[:, None] == prediction)).sum(axis=1) / near.sum(axis=1)
        found = metrics.local_sufficiency(heatmap, prediction, threshold=threshold)
        np.testing.assert_allclose(found, right, rtol=1e-6)
        # Of another unit it is the same.
        np.testing.assert_allclose(
            metrics.local_sufficiency(heatmap * 1e30, prediction, threshold=threshold), right, rtol=1e-6
        )


def test_sufficiency_of_equal_explanations_is_the_share_of_the_class():
    found = metrics.local_sufficiency(np.ones((4, 2, 2)), np.array([0, 0, 0, 1]), threshold=0.0)
    np.testing.assert_allclose(found, [2 / 3, 2 / 3, 2 / 3, 0], rtol=1e-6)
