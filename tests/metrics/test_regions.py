"""Regions replaced in order, superpixels and what takes a pixel's place, against loops in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics
from jxai.batches.blur import gaussian_blur
from jxai.metrics.road import linear_imputation

SHAPE = (3, 5, 7, 2)
RNG = np.random.default_rng(0)
X = RNG.normal(size=SHAPE).astype(np.float32)
HEATMAP = RNG.normal(size=SHAPE[:3]).astype(np.float32)
TARGET = np.array([1, 0, 2])
WEIGHTS = RNG.normal(size=(70, 3)).astype(np.float32) / 3
KEY = jax.random.key(0)
# A label of no pixel, and one more of the second image alone.
LABELS = RNG.choice([0, 1, 3, 4], size=SHAPE[:3])
LABELS[1, 0, 0] = 5
GRID = np.broadcast_to(np.add.outer(np.arange(5) // 2 * 4, np.arange(7) // 2), SHAPE[:3])


def f(x):
    return jnp.tanh(x.reshape(len(x), -1) @ WEIGHTS)


@functools.partial(jax.jit, static_argnames=("metric", "f", "options"))
def run(metric, options=(), heatmap=HEATMAP, segments=None, key=None, f=f, baseline=0.5):
    return metric(
        f, X, heatmap, TARGET, segments=segments, key=key, **{"baseline": baseline, **dict(options)}
    )


def slow_curve(labels, order, steps, read=lambda scores: scores, fill=lambda image: 0.5):
    """The curve's points, of (labels in order of image n) and how many are taken, the last ones repeated."""
    curves = []
    for n, image in enumerate(X):
        current, curve = image.copy(), []
        for label in [None, *order(n)]:
            current[labels[n] == label] = np.broadcast_to(fill(image), image.shape)[labels[n] == label]
            curve.append(read(np.tanh(current.reshape(-1) @ WEIGHTS))[TARGET[n]])
        curves.append((curve + curve[-1:] * steps)[: steps + 1])
    return np.array(curves)


def ranked(labels, reduce=np.sum, sign=-1):
    def order(n):
        present = np.unique(labels[n])
        return sorted(present, key=lambda label: (sign * reduce(HEATMAP[n][labels[n] == label]), label))

    return order


def softmax(scores):
    return np.exp(scores) / np.exp(scores).sum()


@pytest.mark.parametrize(("order", "sign"), [("most_relevant", -1), ("least_relevant", 1)])
def test_region_perturbation_is_the_slow_loop(order, sign):
    found = run(metrics.region_perturbation, (("patch_size", 2), ("num_regions", 5), ("order", order)))
    curve = slow_curve(GRID, ranked(GRID, sign=sign), 5)
    np.testing.assert_allclose(found, curve[:, :1] - curve, atol=1e-5)


def test_a_random_order_is_a_fair_one():
    # One region in four of a linear score: each has the same drop on average.
    linear = lambda x: x.sum(axis=(1, 2))  # noqa: E731
    x = np.zeros((400, 2, 2, 1), np.float32) + np.array([[[1], [2]], [[3], [4]]])
    drop = metrics.region_perturbation(
        linear,
        x,
        x[..., 0],
        np.zeros(400, int),
        patch_size=1,
        num_regions=4,
        order="random",
        key=KEY,
    )
    first = np.asarray(drop)[:, 1]
    assert set(first.tolist()) == {1, 2, 3, 4}
    np.testing.assert_allclose(first.mean(), 2.5, atol=0.25)  # 4 standard errors of 0.056
    np.testing.assert_array_equal(drop[:, -1], 10)


def test_selectivity_is_the_slow_loop():
    curve = run(metrics.selectivity, (("patch_size", 2),))
    np.testing.assert_allclose(curve, slow_curve(GRID, ranked(GRID), 12), atol=1e-5)
    curve = run(metrics.selectivity, (("num_segments", 6),), segments=jnp.asarray(LABELS))
    assert curve.shape == (3, 7)
    np.testing.assert_allclose(curve, slow_curve(LABELS, ranked(LABELS), 6), atol=1e-5)


def test_irof_is_the_slow_loop():
    found = run(metrics.irof, (("num_segments", 6), ("baseline", None)), segments=jnp.asarray(LABELS))
    mean = lambda image: image.mean(axis=(0, 1))  # noqa: E731
    curve = slow_curve(LABELS, ranked(LABELS, np.mean), 6, softmax, mean)
    for n, value in enumerate(found):
        points = curve[n, : len(np.unique(LABELS[n])) + 1] / curve[n, 0]
        np.testing.assert_allclose(value, 1 - np.trapezoid(points, dx=1 / (len(points) - 1)), atol=1e-5)


def test_irof_by_default_is_that_of_its_superpixels():
    labels = metrics.slic_segments(X, num_segments=3)
    default = run(metrics.irof, (("num_segments", 3),))
    np.testing.assert_allclose(default, run(metrics.irof, (("num_segments", 3),), segments=labels), atol=1e-6)
    # A score that hears nothing of the image loses nothing.
    flat = run(metrics.irof, f=lambda x: jnp.zeros((len(x), 3)))
    np.testing.assert_allclose(flat, 0, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_constant_maps_go_in_reading_order(value):
    curve = run(metrics.selectivity, (("patch_size", 2),), heatmap=np.full_like(HEATMAP, value))
    constant = slow_curve(GRID, lambda n: range(12), 12)
    if value == 0:
        np.testing.assert_allclose(curve, constant, atol=1e-5)
    else:  # the sums of cut squares are smaller
        sizes = np.bincount(GRID[0].ravel())
        expected = slow_curve(GRID, lambda n: sorted(range(12), key=lambda label: -sizes[label]), 12)
        np.testing.assert_allclose(curve, expected, atol=1e-5)


def test_labels_out_of_range_have_no_score():
    for bad in (6, -1):
        labels = jnp.asarray(LABELS).at[1, 2, 2].set(bad)
        for metric in (metrics.selectivity, metrics.irof):
            found = np.asarray(run(metric, (("num_segments", 6),), segments=labels))
            assert np.isnan(found[1]).all() and np.isfinite(found[[0, 2]]).all()
            with pytest.raises(ValueError, match="labels in"):
                metric(f, X, HEATMAP, TARGET, segments=labels, num_segments=6)


def test_grid_numbers_squares_in_reading_order():
    np.testing.assert_array_equal(metrics.grid_segments(5, 7, patch_size=2), GRID[0])


def test_superpixels_keep_to_edges_of_color():
    # Two halves and a disk, with a little noise: a segment is of one of them.
    rows, columns = np.mgrid[:24, :30]
    regions = (columns > 16) + 2 * ((rows - 8) ** 2 + (columns - 8) ** 2 < 25)
    colors = np.array([[0, 0, 0], [4, 0, 1], [0, 5, 0]])[regions]
    x = jnp.asarray(colors + 0.05 * np.random.default_rng(0).normal(size=colors.shape), jnp.float32)[None]
    labels = np.asarray(metrics.slic_segments(x, num_segments=20, compactness=0.2))
    assert labels.shape == (1, 24, 30) and labels.dtype == np.int32
    assert labels.min() >= 0 and labels.max() < 20
    pure = [
        np.bincount(regions[labels[0] == label]).max() / (labels[0] == label).sum()
        for label in np.unique(labels)
    ]
    assert min(pure) > 0.95
    # Nearness alone: the grid's cells. Whatever the colors' unit, and an image by itself: the same.
    near = np.asarray(metrics.slic_segments(x, num_segments=20, compactness=1e4))
    cells = np.asarray(metrics.slic_segments(0 * x, num_segments=20))
    np.testing.assert_array_equal(near, cells)
    np.testing.assert_array_equal(metrics.slic_segments(64 * x + 0, num_segments=20, compactness=0.2), labels)
    pair = metrics.slic_segments(jnp.concatenate([0 * x, x]), num_segments=20, compactness=0.2)
    np.testing.assert_array_equal(pair, np.concatenate([cells, labels]))


def flipped(baseline):
    return metrics.pixel_flipping(f, X, HEATMAP, TARGET, baseline=baseline, key=KEY, num_steps=4)


def test_functions_replace_masked_pixels_alone():
    # A number, an array and a function of the same value, and one that puts its value everywhere: all the same.
    number = flipped(0.5)
    for baseline in (
        np.full(2, 0.5, np.float32),
        lambda x, mask, key: jnp.where(mask, 0.5, x),
        lambda x, mask, key: jnp.full_like(x, 0.5),
    ):
        np.testing.assert_allclose(flipped(baseline), number, atol=1e-6)


def test_baselines_are_what_they_say():
    x, mask = jnp.asarray(X[0]), jnp.asarray(HEATMAP[0] > 0)[..., None] & jnp.ones(2, bool)
    np.testing.assert_allclose(
        metrics.mean_baseline()(x, mask, None),
        np.broadcast_to(X[0].mean(axis=(0, 1)), X[0].shape),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        metrics.blur_baseline(sigma=1.5)(x, mask, None), gaussian_blur(x[None], sigma=1.5, radius=6)[0]
    )
    np.testing.assert_allclose(
        metrics.inpainting_baseline(noise=0.0)(x, mask, None),
        linear_imputation(x[None], mask[None, ..., 0])[0],
    )
    noisy = metrics.inpainting_baseline(noise=0.1)(x, mask, KEY)
    drawn = noisy - metrics.inpainting_baseline(noise=0.0)(x, mask, None)
    assert 0.05 < np.std(drawn) < 0.2
    big = jnp.zeros((40, 40, 2))
    noise = np.asarray(
        metrics.noise_baseline(low=np.array([0, -3.0]), high=np.array([1, 5.0]))(big, None, KEY)
    )
    for channel, (low, high) in enumerate(((0, 1), (-3, 5))):
        assert low <= noise[..., channel].min() and noise[..., channel].max() <= high
        np.testing.assert_allclose(noise[..., channel].mean(), (low + high) / 2, atol=0.05 * (high - low))
    with pytest.raises(TypeError, match="random key"):
        metrics.noise_baseline(low=0.0, high=1.0)(x, mask, None)
    with pytest.raises(ValueError, match="low <= high"):
        metrics.noise_baseline(low=1.0, high=0.0)
    with pytest.raises(ValueError, match="expected images"):
        metrics.blur_baseline(sigma=1.0)(jnp.zeros((4, 2)), None, None)


def test_noise_goes_by_the_key_and_not_by_chunks():
    noise = metrics.noise_baseline(low=-1.0, high=1.0)
    curve = lambda key, **o: metrics.pixel_flipping(  # noqa: E731
        f, X, HEATMAP, TARGET, baseline=noise, key=key, num_steps=4, **o
    )
    whole = np.asarray(curve(KEY))
    np.testing.assert_allclose(curve(KEY, chunk_size=4), whole, atol=1e-6)
    assert not np.allclose(curve(jax.random.key(1)), whole)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"order": "first"}, ValueError, "order among"),
        ({"order": "random"}, TypeError, "random key"),
        ({"num_regions": 99}, ValueError, "at most 12 regions"),
        ({"num_segments": 4}, ValueError, "no num_segments"),
        ({"patch_size": 0}, ValueError, "patch_size"),
        ({"segments": LABELS * 1.0}, TypeError, "integers"),
        ({"segments": LABELS[:, 1:]}, ValueError, "of shape"),
        ({"segments": LABELS - 1}, ValueError, "number them from 0"),
        ({"segments": LABELS * 20}, ValueError, "at most 35 segments"),
        ({"baseline": lambda x, mask, key: x[:2]}, ValueError, "of shape"),
    ],
)
def test_errors(options, error, match):
    with pytest.raises(error, match=match):
        metrics.region_perturbation(f, X, HEATMAP, TARGET, **{"patch_size": 2, **options})


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_segments": 36}, "at most 35"),
        ({"compactness": 0}, "compactness"),
        ({"num_iterations": 0}, "num_it"),
    ],
)
def test_superpixels_ask_for_possible_ones(options, match):
    with pytest.raises(ValueError, match=match):
        metrics.slic_segments(X, **options)


def test_labels_that_are_traced_need_their_number():
    with pytest.raises(ValueError, match="num_segments with labels that are traced"):
        run(metrics.irof, segments=jnp.asarray(LABELS))
