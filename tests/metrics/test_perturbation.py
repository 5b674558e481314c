"""The perturbation curve against a loop over images, regions and draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

positions = jax.jit(metrics.perturbation_positions, static_argnames=("window", "num_regions"))

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 11, 13, 2)).astype(np.float32)
HEATMAP = RANDOM.normal(size=X.shape[:3]).astype(np.float32)
TARGET = np.array([2, 0])
WEIGHTS = RANDOM.normal(size=(X[0].size, 3)).astype(np.float32)
LOW, HIGH = np.array([-1.0, 0.5], np.float32), np.array([2.0, 0.75], np.float32)
SIZE = {"window": 3, "num_regions": 5}


def f(x):
    return jnp.tanh(jnp.matmul(x.reshape(len(x), -1), WEIGHTS, precision="highest") / 8) + 1.5


def slow_positions(heatmap, window, num_regions):
    height, width = (
        heatmap.shape[0] - window,
        heatmap.shape[1] - window,
    )  # the last of each axis is never tried
    magnitude = np.abs(heatmap.astype(np.float64))
    means = {
        (i, j): magnitude[i : i + window, j : j + window].mean() for i in range(height) for j in range(width)
    }
    chosen = []
    for corner in sorted(means, key=lambda corner: -means[corner]):
        if len(chosen) < num_regions and all(
            abs(corner[0] - i) >= window or abs(corner[1] - j) >= window for i, j in chosen
        ):
            chosen.append(corner)
    return chosen + [(-1, -1)] * (num_regions - len(chosen))


def slow_curve(key, x, heatmap, target, window, num_regions, num_draws):
    key = jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl="threefry2x32")
    score = jax.jit(f)
    curves = []
    for n, image in enumerate(x):
        image, scores = image.copy(), [np.asarray(score(image[None]))[0, target[n]]]
        corners = slow_positions(heatmap[n], window, num_regions)
        for region, (row, column) in enumerate(corners, start=1):
            images, logits = [], []
            for draw in range(num_draws):
                images.append(image.copy())
                images[-1][row : row + window, column : column + window] = noise(key, n, region, draw)
                logits.append(np.asarray(score(images[-1][None]))[0, target[n]])
            scores.append(np.mean(logits))
            image = images[sorted(range(num_draws), key=logits.__getitem__)[(num_draws - 1) // 2]]
        curves.append(np.array(scores) / abs(scores[0]))
    return np.stack(curves)


@functools.partial(jax.jit, static_argnames="chunk_size")
def curve(key, x, heatmap, target, low, high, chunk_size=None):
    options = {"low": low, "high": high, "num_draws": 4, "chunk_size": chunk_size, **SIZE}
    return metrics.perturbation_curve(f, key, x, heatmap, target, **options)


@jax.jit
def noise(key, n, region, draw):
    fold = jax.random.fold_in
    shape = (SIZE["window"], SIZE["window"], X.shape[-1])
    return LOW + (HIGH - LOW) * jax.random.uniform(fold(fold(fold(key, n), region), draw), shape)


@pytest.mark.parametrize(
    ("size", "window", "num_regions"), [((20, 17), 4, 6), ((30, 30), 7, 12), ((9, 9), 1, 64)]
)
def test_positions_as_a_loop(size, window, num_regions):
    heatmaps = np.random.default_rng(1).normal(size=(3, *size)).astype(np.float32)
    ours = positions(heatmaps, window=window, num_regions=num_regions)
    assert ours.dtype == jnp.int32
    np.testing.assert_array_equal(
        ours, [slow_positions(heatmap, window, num_regions) for heatmap in heatmaps]
    )


def test_positions_without_room_are_minus_one():
    heatmap = np.zeros((1, 9, 9))
    heatmap[0, 2:6, 2:6] = 1  # corners lie in 0 to 4, and all of these are less than 4 from 2
    ours = positions(heatmap, window=4, num_regions=4)[0].tolist()
    assert ours == [[2, 2], [-1, -1], [-1, -1], [-1, -1]]


def test_positions_the_last_of_each_axis_is_never_tried_and_ties_go_in_reading_order():
    heatmap = np.zeros((1, 7, 7))
    heatmap[0, -1, -1] = 1
    ours = positions(heatmap, window=2, num_regions=3)[0].tolist()
    assert ours == [[0, 0], [0, 2], [0, 4]]


def test_curve_as_a_loop():
    key = jax.random.key(5)
    ours = curve(key, X, HEATMAP, TARGET, LOW, HIGH)
    assert ours.shape == (2, 6) and ours.dtype == jnp.float32
    expected = slow_curve(key, X, HEATMAP, TARGET, num_draws=4, **SIZE)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    np.testing.assert_array_equal(np.abs(ours[:, 0]), 1)
    assert not np.array_equal(ours, curve(jax.random.key(6), X, HEATMAP, TARGET, LOW, HIGH))


def test_curve_chunks_change_nothing():
    whole = curve(jax.random.key(5), X, HEATMAP, TARGET, LOW, HIGH)
    chunked = curve(jax.random.key(5), X, HEATMAP, TARGET, LOW, HIGH, chunk_size=3)
    np.testing.assert_allclose(chunked, whole, rtol=1e-5)


def test_curve_of_a_batch_is_a_loop_where_nothing_is_random():
    gray = np.array([0.25, -0.5], np.float32)
    batch = curve(jax.random.key(0), X, HEATMAP, TARGET, gray, gray)
    rows = (slice(0, 1), slice(1, 2))
    alone = [curve(jax.random.key(0), X[n], HEATMAP[n], TARGET[n], gray, gray) for n in rows]
    np.testing.assert_allclose(batch, np.concatenate(alone), rtol=1e-5)


def test_curve_of_an_additive_score_by_hand_without_jit():
    # The score is the sum of the pixels and the noise is -1: each window of 16 pixels takes away 3 a pixel. In the
    # second image the first window leaves no room for another. The third has a negative score.
    x = np.full((3, 9, 9, 1), 2.0, np.float32)
    heatmap = np.zeros((3, 9, 9), np.float32)
    heatmap[:, :4, :4], heatmap[:, :4, 4:8] = 3, 2
    heatmap[1, 2:6, 2:6] = 10
    x[2] *= -1
    ours = metrics.perturbation_curve(
        lambda x: x.sum(axis=(1, 2)),
        jax.random.key(0),
        x,
        heatmap,
        np.zeros(3, np.int32),
        low=-1.0,
        high=-1.0,
        window=4,
        num_regions=2,
        num_draws=3,
        chunk_size=2,
    )
    expected = np.array([[162, 162 - 48, 162 - 96], [162, 162 - 48, 162 - 48], [-162, -146, -130]]) / 162
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_curve_of_bfloat16_and_its_gradient():
    def mean(x):
        assert x.dtype == jnp.bfloat16
        return x.mean(axis=(1, 2))

    options = {"low": -1.0, "high": 1.0, "window": 3, "num_regions": 2, "num_draws": 3}

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def of(x):
        curve = metrics.perturbation_curve(mean, jax.random.key(0), x, HEATMAP, TARGET % 2, **options)
        return curve[:, 1:].sum(), curve

    (_, curve), gradient = of(jnp.asarray(X, jnp.bfloat16))
    assert curve.dtype == jnp.float32 and jnp.isfinite(curve).all()
    assert jnp.isfinite(gradient.astype(jnp.float32)).all() and (gradient != 0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "expected window of at least 1, got 0"),
        ({"num_regions": 0}, "expected num_regions of at least 1, got 0"),
        ({"window": 11}, r"expected a window smaller than the heatmap, got 11 for \(11, 13\)"),
        ({"window": 5, "num_regions": 5}, r"expected at most 4 windows of 5 x 5 .* got num_regions=5"),
        ({"num_draws": 0}, "expected num_draws of at least 1, got 0"),
        ({"chunk_size": 0}, "expected chunk_size of at least 1, got 0"),
        ({"low": 1.0, "high": 0.5}, r"expected low <= high, got 1\.0 and 0\.5"),
        ({"low": np.nan}, "expected low <= high, got nan"),
        ({"high": [1.0, 2.0, 3.0]}, r"expected high as a number or of shape \(2,\), got \(3,\)"),
        ({"x": X[:1]}, r"expected `x` of shape .* got \(1, 11, 13, 2\) and \(2, 11, 13\)"),
        ({"x": X[:, 1:]}, r"expected `x` of shape .* got \(2, 10, 13, 2\) and \(2, 11, 13\)"),
        ({"x": X * np.inf}, "expected finite `x`, got 572 of 572"),
        ({"heatmap": X}, r"got \(2, 11, 13, 2\): give attributions\.sum\(axis=-1\)"),
        ({"heatmap": HEATMAP * np.nan}, "expected finite `heatmap`"),
        ({"target": TARGET[:1]}, r"got \(1,\): give one class index an image"),
        ({"target": np.array([0, 3])}, r"expected `target` in \[0, 3\), got values from 0 to 3"),
        ({"target": np.array([-1, 0])}, r"expected `target` in \[0, 3\), got values from -1 to 0"),
        ({"f": lambda x: x}, r"expected `f` to give scores of shape .* got an array of shape"),
        ({"f": lambda x: (f(x), f(x))}, "expected `f` to give scores of shape .* got tuple"),
    ],
)
def test_wrong_arguments(options, message):
    known = {"low": 0.0, "high": 1.0, "num_draws": 4, **SIZE, **options}
    named = (("x", X), ("heatmap", HEATMAP), ("target", TARGET))
    # Of JAX, so that their values are known while the function is traced and nothing is compiled.
    arrays = [jnp.asarray(known.pop(name, value)) for name, value in named]
    with pytest.raises(ValueError, match=message):
        score = known.pop("f", f)
        jax.eval_shape(lambda: metrics.perturbation_curve(score, jax.random.key(0), *arrays, **known))


def test_wrong_types():
    with pytest.raises(TypeError, match="expected `x` of floats, got int32"):
        metrics.perturbation_curve(f, jax.random.key(0), X.astype(np.int32), HEATMAP, TARGET, low=0, high=1)
    with pytest.raises(TypeError, match="expected `target` of integers, got float32"):
        metrics.perturbation_curve(f, jax.random.key(0), X, HEATMAP, TARGET * 1.0, low=0, high=1)
