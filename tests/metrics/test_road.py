"""ROAD: the imputation against a dense system, and the order of removal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics
from jxai.metrics.road import linear_imputation

impute = jax.jit(linear_imputation)


def dense_imputation(image, removed):
    """One equation a removed pixel, solved by NumPy in float64."""
    pixels = [tuple(pixel) for pixel in np.argwhere(removed)]
    matrix, right = np.zeros((len(pixels), len(pixels))), np.zeros((len(pixels), image.shape[-1]))
    for index, (row, column) in enumerate(pixels):
        for down, across in np.ndindex(3, 3):
            if (down, across) == (1, 1):
                continue
            place = (row + down - 1, column + across - 1)
            if not (0 <= place[0] < image.shape[0] and 0 <= place[1] < image.shape[1]):
                continue
            weight = 1 / 6 if 1 in (down, across) else 1 / 12
            matrix[index, index] += weight
            if removed[place]:
                matrix[index, pixels.index(place)] -= weight
            else:
                right[index] += weight * image[place]
    result = image.astype(np.float64)
    result[tuple(np.array(pixels).T)] = np.linalg.solve(matrix, right)
    return result


@pytest.mark.parametrize("kind", ["scattered", "block"])
def test_imputation_is_the_dense_solution(kind):
    rng = np.random.default_rng(0)
    images = (100 + rng.normal(size=(2, 12, 9, 3))).astype(np.float32)
    removed = rng.random((2, 12, 9)) < [[[0.5]], [[0.9]]]
    if kind == "block":
        removed = np.zeros((2, 12, 9), bool)
        removed[0, :8, :8] = removed[1, 1:, :] = True
    imputed = np.asarray(impute(images, removed))
    expected = np.stack([dense_imputation(*pair) for pair in zip(images, removed, strict=True)])
    np.testing.assert_allclose(imputed, expected, atol=1e-4)  # float32 at 100 is 8e-6 apart
    np.testing.assert_array_equal(imputed[~removed], images[~removed])


def test_a_ramp_is_imputed_as_it_was():
    # The weights are even, so what is linear is its own mean of neighbors.
    ramp = np.broadcast_to(np.linspace(0, 1, 12, dtype=np.float32)[:, None, None], (2, 12, 9, 3))
    removed = np.zeros((2, 12, 9), bool)
    removed[:, 2:11, 3:7] = True
    np.testing.assert_allclose(impute(ramp, removed), ramp, atol=1e-4)


def mean_of_center(x):
    """Two classes: how bright the middle is, and nothing."""
    score = 20 * x[:, 3:5, 3:5].mean(axis=(1, 2, 3))
    return jnp.stack([score, jnp.zeros_like(score)], axis=1)


def test_true_heatmaps_fall_first_and_stay_last():
    x = np.zeros((1, 8, 8, 1), np.float32)
    x[:, 3:5, 3:5] = 0.5
    target = np.zeros(1, int)

    @jax.jit
    def run(heatmap):
        options = {"shares": (0.0, 0.25, 0.5)}
        return metrics.road(mean_of_center, jax.random.key(0), x, heatmap, target, **options)

    most, least = run(x[..., 0]), run(-x[..., 0])
    whole = 1 / (1 + np.exp(-10.0))
    np.testing.assert_allclose(most[0, 0], whole, rtol=1e-5)
    # Imputed from a black surround, but for noise of 0.01: 20 · 0.01 moves a sigmoid at 0 by no more than 0.1.
    np.testing.assert_allclose(most[0, 1:], 0.5, atol=0.1)
    np.testing.assert_allclose(least[0], whole, rtol=1e-5)


def test_noise_is_on_removed_pixels_alone_and_of_its_scale():
    x = np.zeros((1, 20, 20, 1), np.float32)
    heatmap = np.arange(400, dtype=np.float32).reshape(1, 20, 20)  # the last rows go first

    def spread(x):
        return 100 * jnp.stack([x[:, :10].std((1, 2, 3)), x[:, 10:].std((1, 2, 3))], axis=1)

    target = np.ones(1, int)
    run = jax.jit(lambda x: metrics.road(spread, jax.random.key(1), x, heatmap, target, shares=(0.5,)))
    curve = np.asarray(run(x))
    # log-odds of the lower half: 100 · 0.01, from 200 draws
    np.testing.assert_allclose(np.log(curve / (1 - curve)), 1.0, rtol=0.2)


def test_the_least_relevant_first_is_the_order_of_the_negative():
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32)
    options = {"target": np.zeros(2, int), "shares": (0.5,)}
    total = lambda x: jnp.stack([x.sum((1, 2, 3)), x[:, 0].sum((1, 2))], axis=1)  # noqa: E731

    @jax.jit
    def both(x):
        first = metrics.road(total, jax.random.key(0), x, x[..., 0], most_relevant_first=False, **options)
        return first, metrics.road(total, jax.random.key(0), x, -x[..., 0], **options)

    np.testing.assert_allclose(*both(x))


@pytest.mark.parametrize("shares", [(), (1.0,), (-0.1, 0.5), (0.999,)])
def test_shares_out_of_range(shares):
    x = np.zeros((1, 8, 8, 1), np.float32)
    with pytest.raises(ValueError, match="shares"):
        metrics.road(mean_of_center, jax.random.key(0), x, x[..., 0], np.zeros(1, int), shares=shares)


def test_negative_noise():
    x = np.zeros((1, 8, 8, 1), np.float32)
    with pytest.raises(ValueError, match="noise"):
        metrics.road(mean_of_center, jax.random.key(0), x, x[..., 0], np.zeros(1, int), noise=-1.0)
