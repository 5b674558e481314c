"""The Gaussian pyramid against scipy.ndimage, which is what scikit-image's calls."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jxai import metrics

pyramid = jax.jit(metrics.gaussian_pyramid, static_argnames=("factor", "smallest"))


def slow_pyramid(heatmap, factor, smallest):
    """As scikit-image: `gaussian_filter` (its "reflect" repeats the edge), then `zoom` on a grid of pixels."""
    levels = [heatmap.astype(np.float64)]
    while True:
        level = levels[-1]
        shape = [math.ceil(side / factor) for side in level.shape]
        if min(shape) < smallest:
            return levels
        blurred = ndimage.gaussian_filter(level, 2 * factor / 6, mode="reflect", truncate=4.0)
        zoom = [small / side for small, side in zip(shape, level.shape, strict=True)]
        levels.append(ndimage.zoom(blurred, zoom, order=1, mode="mirror", grid_mode=True))


@pytest.mark.parametrize(
    ("shape", "factor", "smallest"),
    [((64, 64), 1.5, 30), ((100, 71), 1.5, 10), ((5, 7), 3.0, 2), ((40, 40), 1.1, 30)],
)
def test_as_scikit_image(shape, factor, smallest):
    heatmaps = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    levels = pyramid(heatmaps, factor=factor, smallest=smallest)
    assert len(levels) > 1
    for n, heatmap in enumerate(heatmaps):
        for ours, reference in zip(levels, slow_pyramid(heatmap, factor, smallest), strict=True):
            assert ours.dtype == jnp.float32 and ours.shape == (2, *reference.shape)
            assert np.abs(ours[n] - reference).max() <= 1e-5 * np.abs(reference).max()


def test_the_first_level_is_the_heatmap_and_constants_stay():
    heatmap = np.full((1, 50, 70), -3.0, np.float32)
    first, *others = pyramid(heatmap)
    np.testing.assert_array_equal(first, heatmap)
    assert [level.shape for level in others] == [(1, 34, 47)]
    np.testing.assert_allclose(others[0], -3, rtol=1e-6)


def test_published_levels():
    sizes = jax.eval_shape(metrics.gaussian_pyramid, jnp.zeros((1, 224, 224)))
    assert [level.shape[1] for level in sizes] == [224, 150, 100, 67, 45, 30]


def test_it_ends_where_nothing_gets_smaller():
    levels = jax.eval_shape(functools.partial(metrics.gaussian_pyramid, smallest=1), jnp.ones((1, 4, 9)))
    assert [level.shape[1:] for level in levels] == [(4, 9), (3, 6), (2, 4), (2, 3), (2, 2)]


def test_linear_and_the_same_under_jit():
    a, b = np.random.default_rng(1).normal(size=(2, 1, 45, 48)).astype(np.float32)
    for ours, of_a, of_b in zip(pyramid(a + 2 * b), pyramid(a), metrics.gaussian_pyramid(b), strict=True):
        np.testing.assert_allclose(ours, of_a + 2 * of_b, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 1.0}, r"expected factor in \(1, 100\], got 1\.0"),
        ({"factor": float("nan")}, r"expected factor in \(1, 100\], got nan"),
        ({"factor": float("inf")}, r"expected factor in \(1, 100\], got inf"),
        ({"smallest": 0}, "expected smallest of at least 1, got 0"),
        ({"smallest": 41}, "expected `heatmap` with sides of at least 41, got 50 x 40: lower `smallest`"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        metrics.gaussian_pyramid(jnp.zeros((1, 50, 40)), **options)
