"""Guided IG, Blur IG and RISE: against their procedures in NumPy, and linear functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution
from jxai.batches.draws import row_keys

KEY = jax.random.key(1)
RANDOM = np.random.default_rng(8)
X, BASELINE = (jnp.asarray(RANDOM.normal(size=(2, 12)), jnp.float32) for _ in range(2))
TARGET = jnp.array([1, 0])
WEIGHTS = jnp.asarray(RANDOM.normal(size=(12, 3)), jnp.float32)
IMAGES = jnp.asarray(RANDOM.normal(size=(2, 9, 7, 2)), jnp.float32)


def bent(x):
    return jnp.tanh(x @ WEIGHTS) + (x**2 @ jnp.abs(WEIGHTS)) / 4


def slow_guided(slope, x, start, num_steps, fraction, max_distance):
    """The release's procedure, one image in float64."""
    at, total = start.copy(), np.zeros_like(start)
    whole = np.abs(x - start).sum()
    for step in range(num_steps):
        slopes = slope(at)
        before, share = at.copy(), (step + 1) / num_steps
        low = start + (x - start) * max(share - max_distance, 0)
        high = start + (x - start) * min(share + max_distance, 1)
        remains, magnitudes = whole * (1 - share), np.abs(slopes)
        while True:
            at = np.where((at - start) / (x - start) < (low - start) / (x - start), low, at)
            current = np.abs(x - at).sum()
            if np.isclose(current, remains, rtol=1e-9, atol=1e-9) or current < remains:
                break
            magnitudes = np.where(at == high, np.inf, magnitudes)
            threshold = np.quantile(magnitudes, fraction, method="lower")
            chosen = (magnitudes <= threshold) & (magnitudes != np.inf)
            way = np.abs(at - high)[chosen].sum()
            gamma = (current - remains) / way
            at = np.where(chosen, high if gamma > 1 else at + gamma * (high - at), at)
            if gamma <= 1:
                break
        total += (at - before) * slopes
    return total


@pytest.mark.parametrize(
    ("num_steps", "fraction", "max_distance"), [(7, 0.25, 0.1), (5, 0.1, 1.0), (4, 1.0, 0.02)]
)
def test_guided_ig_against_the_procedure(num_steps, fraction, max_distance):
    options = {"num_steps": num_steps, "fraction": fraction, "max_distance": max_distance}
    with jax.enable_x64(True):
        x, start, weights = (np.asarray(one, np.float64) for one in (X, BASELINE, WEIGHTS))

        def f(x):
            return jnp.tanh(x @ weights) + (x**2 @ np.abs(weights)) / 4

        found = attribution.guided_ig(f, jnp.asarray(x), TARGET, baseline=start, **options)
        for image in range(2):
            column = weights[:, int(TARGET[image])]
            expected = slow_guided(
                lambda at, column=column: (1 - np.tanh(at @ column) ** 2) * column + at * np.abs(column) / 2,
                x[image],
                start[image],
                **options,
            )
            np.testing.assert_allclose(found[image], expected, rtol=1e-3, atol=1e-4)


def test_guided_ig_goes_all_the_way():
    """Of a linear function exact; of others complete with many steps; nothing where nothing changes."""
    start = BASELINE.at[:, 3].set(X[:, 3])
    found = jax.jit(
        lambda x: attribution.guided_ig(lambda x: x @ WEIGHTS, x, TARGET, baseline=start, num_steps=9)
    )(X)
    np.testing.assert_allclose(found, (X - start) * WEIGHTS.T[TARGET], rtol=1e-4, atol=1e-5)
    assert (found[:, 3] == 0).all()
    found = jax.jit(
        lambda x: attribution.guided_ig(bent, x, TARGET, baseline=start, num_steps=1600, max_distance=0.5)
    )(X)
    change = (bent(X) - bent(start))[jnp.arange(2), TARGET]
    np.testing.assert_allclose(found.sum(axis=1), change, atol=0.03)
    straight = jax.jit(
        lambda x: attribution.guided_ig(bent, x, TARGET, baseline=start, num_steps=400, max_distance=0.0)
    )(X)
    expected = attribution.integrated_gradients(bent, X, TARGET, baseline=start, num_steps=400)
    np.testing.assert_allclose(straight, expected, atol=0.02)


def squashed(x):
    return jnp.tanh(x).sum(axis=(1, 2)) @ jnp.array([[1.0, 0.5], [-2.0, 1.0]]) + (x**2).sum(axis=(1, 2))


def test_blur_ig_is_complete_and_of_blurs():
    found = jax.jit(lambda x: attribution.blur_ig(squashed, x, TARGET, max_sigma=1.5, num_steps=60))(IMAGES)
    blurred = attribution.blurred_baseline(IMAGES, sigma=1.5)
    change = (squashed(IMAGES) - squashed(blurred))[jnp.arange(2), TARGET]
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), change, rtol=1e-2, atol=2e-2)
    # Of a linear function: weights times the difference from the blurred picture.
    weights = jnp.asarray(RANDOM.normal(size=IMAGES.shape[1:]), jnp.float32)

    def linear(x):
        return jnp.stack([(x * weights[None]).sum(axis=(1, 2, 3))] * 2, axis=1)

    found = attribution.blur_ig(linear, IMAGES, TARGET, max_sigma=1.5, num_steps=3)
    np.testing.assert_allclose(found, (IMAGES - blurred) * weights[None], atol=2e-3)


@pytest.mark.parametrize("sigma", [0.7, 30.0])
def test_blurs_along_the_path_repeat_the_edges(sigma):
    image = jnp.zeros((1, 9, 7, 1)).at[0, 0, 0, 0].set(1.0)
    found = attribution.blur_ig(lambda x: x.sum(axis=(1, 2)), image, [0], max_sigma=sigma, num_steps=1)
    np.testing.assert_allclose(image - found, attribution.blurred_baseline(image, sigma=sigma), atol=2e-4)


def test_rise_against_the_sum_over_its_masks():
    cells, p, count = 3, 0.4, 6
    found = attribution.rise(
        squashed, KEY, IMAGES, TARGET, num_masks=count, cells=cells, probability=p, baseline=0.2
    )
    for image in range(2):
        total = np.zeros((9, 7))
        for root in range(count):
            (key,) = row_keys(KEY, jnp.array([image]), jnp.array([root]))
            of_cells, of_shift = jax.random.split(key)
            kept = jax.random.bernoulli(of_cells, p, (cells, cells)).astype(jnp.float32)
            large = np.asarray(jax.image.resize(kept, (12, 12), "bilinear"))
            down, right = np.asarray(jax.random.randint(of_shift, (2,), 0, jnp.array([3, 3])))
            mask = large[down : down + 9, right : right + 7]
            assert mask.min() >= 0 and mask.max() <= 1
            z = mask[..., None] * np.asarray(IMAGES[image]) + (1 - mask[..., None]) * np.float32(0.2)
            total += mask * float(squashed(jnp.asarray(z)[None])[0, TARGET[image]])
        np.testing.assert_allclose(found[image].sum(axis=-1), total / (p * count), rtol=1e-4, atol=1e-4)


def test_rise_finds_the_pixel_that_counts():
    x = jnp.ones((1, 12, 12, 1))
    found = jax.jit(
        lambda key: attribution.rise(
            lambda x: x[:, 8:10, 3:5].mean(axis=(1, 2)), key, x, [0], num_masks=600, cells=4
        )
    )(KEY)
    row, column = np.unravel_index(np.argmax(found[0, ..., 0]), (12, 12))
    assert 7 <= row <= 10 and 2 <= column <= 5


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda x: attribution.guided_ig(squashed, x, TARGET, num_steps=0), "num_steps of at least 1"),
        (lambda x: attribution.guided_ig(squashed, x, TARGET, fraction=0.0), r"fraction in \(0, 1\]"),
        (lambda x: attribution.guided_ig(squashed, x, TARGET, max_distance=2), r"max_distance in \[0, 1\]"),
        (lambda x: attribution.blur_ig(squashed, x, TARGET, max_sigma=0.0), r"max_sigma in \(0, 900\]"),
        (lambda x: attribution.blur_ig(bent, X, TARGET), r"images of shape \(N, H, W, C\), got \(2, 12\)"),
        (lambda x: attribution.rise(bent, KEY, X, TARGET), r"images of shape \(N, H, W, C\), got \(2, 12\)"),
        (lambda x: attribution.rise(squashed, KEY, x, TARGET, cells=8), "at most 7 cells, got 8"),
        (lambda x: attribution.rise(squashed, KEY, x, TARGET, probability=1.0), r"probability in \(0, 1\)"),
        (lambda x: attribution.rise(squashed, KEY, x, TARGET, num_masks=0), "num_masks of at least 1"),
    ],
)
def test_wrong_options_are_named(run, message):
    with pytest.raises(ValueError, match=message):
        run(IMAGES)
