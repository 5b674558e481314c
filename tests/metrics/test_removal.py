"""Pixel flipping, deletion and insertion against a loop over images, steps and pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics
from jxai.batches.blur import gaussian_blur as blur
from jxai.metrics.pixels import removal_ranks

SHAPE = (3, 5, 4, 2)


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=SHAPE).astype(np.float32)
    heatmap = rng.normal(size=SHAPE[:3]).astype(np.float32)
    heatmap[0, :2] = 0.5  # ties: reading order
    return x, heatmap, np.array([1, 0, 2])


WEIGHTS = np.random.default_rng(3).normal(size=(40, 3)).astype(np.float32)


def f(x):
    return jnp.tanh(x.reshape(len(x), -1) @ WEIGHTS)


@functools.partial(jax.jit, static_argnames=("metric", "num_steps"))
def run(metric, x, heatmap, target, *, num_steps, **options):
    """Compiled as one program: much quicker than one operation at a time."""
    return metric(f, x, heatmap, target, num_steps=num_steps, **options)


def slow_curve(start, end, heatmap, target, num_steps, read):
    """Python's own sort, one pixel at a time."""
    images, labels = [], []
    for first, last, heat, label in zip(*map(np.asarray, (start, end, heatmap, target)), strict=True):
        pixels = sorted(np.ndindex(heat.shape), key=lambda pixel, heat=heat: (-heat[pixel], pixel))
        current, done = first.copy(), 0
        for step in range(num_steps + 1):
            while done < step * len(pixels) // num_steps:
                current[pixels[done]] = last[pixels[done]]
                done += 1
            images.append(current.copy())
            labels.append(label)
    scores = read(np.tanh(np.stack(images).reshape(len(images), -1) @ WEIGHTS))
    return scores[np.arange(len(labels)), labels].reshape(len(start), -1)


def softmax(scores):
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("num_steps", [7, 20])
def test_pixel_flipping_is_the_slow_loop(num_steps):
    x, heatmap, target = arrays()
    baseline = np.array([0.3, -1.0], np.float32)
    curve = run(metrics.pixel_flipping, x, heatmap, target, baseline=baseline, num_steps=num_steps)
    expected = slow_curve(
        x, np.broadcast_to(baseline, SHAPE), heatmap, target, num_steps, lambda scores: scores
    )
    np.testing.assert_allclose(curve, expected, atol=1e-5)


def test_deletion_and_insertion_are_the_slow_loop_on_probabilities():
    x, heatmap, target = arrays(1)
    black = np.zeros(SHAPE, np.float32)
    curve = run(metrics.deletion, x, heatmap, target, num_steps=6)
    np.testing.assert_allclose(curve, slow_curve(x, black, heatmap, target, 6, softmax), atol=1e-5)
    curve = run(metrics.insertion, x, heatmap, target, num_steps=6, baseline=0.0)
    np.testing.assert_allclose(curve, slow_curve(black, x, heatmap, target, 6, softmax), atol=1e-5)
    blurred = np.asarray(blur(x, sigma=5.0, radius=5))
    curve = run(metrics.insertion, x, heatmap, target, num_steps=6)
    np.testing.assert_allclose(curve, slow_curve(blurred, x, heatmap, target, 6, softmax), atol=1e-5)


def test_ends_of_the_curves():
    x, heatmap, target = arrays()
    whole, empty = (
        softmax(np.tanh(image.reshape(3, -1) @ WEIGHTS))[[0, 1, 2], target] for image in (x, 0 * x)
    )
    deleted = np.asarray(run(metrics.deletion, x, heatmap, target, num_steps=6))
    inserted = np.asarray(run(metrics.insertion, x, heatmap, target, num_steps=6, baseline=0.0))
    np.testing.assert_allclose(deleted[:, [0, -1]], np.stack([whole, empty], axis=1), rtol=1e-5)
    np.testing.assert_allclose(inserted[:, [0, -1]], np.stack([empty, whole], axis=1), rtol=1e-5)


def test_the_true_heatmap_of_a_sum_is_best():
    # f is the image's sum: the k largest pixels take the largest k values with them.
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32)
    flip = jax.jit(
        lambda heatmap: metrics.pixel_flipping(
            lambda x: x.sum(axis=(1, 2)), x, heatmap, np.zeros(2, int), num_steps=16
        )
    )
    curve = flip(x[..., 0])
    ascending = np.sort(np.asarray(x).reshape(2, -1), axis=1)
    expected = np.cumsum(np.pad(ascending, ((0, 0), (1, 0))), axis=1)[:, ::-1]  # what the smallest ones leave
    np.testing.assert_allclose(curve, expected, atol=1e-5)
    other = flip(-x[..., 0])
    assert (metrics.curve_area(curve) < metrics.curve_area(other)).all()


def test_area_is_numpys_trapezoid():
    curve = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)
    expected = np.trapezoid(curve, np.linspace(0, 1, 9), axis=1)
    np.testing.assert_allclose(metrics.curve_area(jnp.asarray(curve)), expected, rtol=1e-5)


def test_ranks_are_places_of_a_stable_sort():
    heatmap = jnp.asarray([[[1.0, 3.0], [1.0, -2.0]]])
    np.testing.assert_array_equal(removal_ranks(heatmap), [[[1, 0], [2, 3]]])
    np.testing.assert_array_equal(removal_ranks(heatmap, most_relevant_first=False), [[[1, 3], [2, 0]]])


def test_blur_is_the_weighted_mean_over_a_padded_image():
    image = np.random.default_rng(0).normal(size=(2, 6, 3, 2))
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    weights = np.exp(-0.5 * (np.arange(-4, 5) / 2.0) ** 2)
    kernel = np.outer(weights, weights)[..., None] / weights.sum() ** 2
    expected = np.zeros_like(image)
    for n, row, column in np.ndindex(2, 6, 3):
        expected[n, row, column] = (padded[n, row : row + 9, column : column + 9] * kernel).sum(axis=(0, 1))
    np.testing.assert_allclose(blur(jnp.asarray(image), sigma=2.0, radius=4), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"heatmap": jnp.zeros(SHAPE)}, ValueError, r"attributions\.sum\(axis=-1\)"),
        ({"heatmap": jnp.full(SHAPE[:3], jnp.nan)}, ValueError, "finite"),
        ({"heatmap": jnp.zeros((3, 4, 4))}, ValueError, "one heatmap an image"),
        ({"x": jnp.zeros(SHAPE, int)}, TypeError, "floats"),
        ({"target": jnp.zeros(3)}, TypeError, "integers"),
        ({"target": jnp.zeros(2, int)}, ValueError, r"`target` of shape \(3,\), got \(2,\)"),
        ({"target": jnp.asarray([0, 1, 3])}, ValueError, r"in \[0, 3\)"),
        ({"baseline": jnp.zeros(5)}, ValueError, "broadcasts"),
        ({"baseline": jnp.full(2, jnp.nan)}, ValueError, "finite baseline"),
        ({"num_steps": 0}, ValueError, "num_steps"),
        ({"chunk_size": 0}, ValueError, "chunk_size"),
    ],
)
@pytest.mark.parametrize("metric", [metrics.pixel_flipping, metrics.deletion, metrics.insertion])
def test_errors(metric, change, error, match):
    x, heatmap, target = map(jnp.asarray, arrays())
    options = {"x": x, "heatmap": heatmap, "target": target, "num_steps": 2, **change}
    with pytest.raises(error, match=match):
        metric(f, **options)


@pytest.mark.parametrize("metric", [metrics.deletion, metrics.insertion])
def test_a_lone_score_has_no_probability(metric):
    x, heatmap, target = map(jnp.asarray, arrays())
    with pytest.raises(ValueError, match=r"of a lone logit z give f \[0, z\]"):
        metric(lambda x: f(x)[:, :1], x, heatmap, 0 * target, num_steps=2)


@pytest.mark.parametrize("curve", [jnp.zeros(3), jnp.zeros((2, 1)), jnp.full((1, 3), jnp.inf)])
def test_area_wants_curves(curve):
    with pytest.raises(ValueError, match="curve"):
        metrics.curve_area(curve)


def test_a_jitted_function_may_close_over_everything():
    x, heatmap, target = map(jnp.asarray, arrays())
    closed = jax.jit(lambda: metrics.insertion(f, x, heatmap, target, num_steps=6))()
    np.testing.assert_allclose(closed, run(metrics.insertion, x, heatmap, target, num_steps=6), atol=1e-6)
