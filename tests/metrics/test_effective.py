"""Effective complexity against a loop over numbers of pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics
from jxai.batches.draws import row_keys

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4, 2)).astype(np.float32)
WEIGHTS = RNG.normal(size=(24, 3)).astype(np.float32)
HEATMAP = RNG.normal(size=(2, 3, 4)).astype(np.float32)
REFERENCES = RNG.normal(size=(5, 3, 4, 2)).astype(np.float32)
TARGET, KEY, NUM = np.array([2, 0]), jax.random.key(1), 3


def f(x):
    return jnp.tanh(x.reshape(len(x), -1) @ WEIGHTS / 3) + 2


def run(heatmap=HEATMAP, x=X, references=REFERENCES, function=f, **options):
    call = lambda x: metrics.effective_complexity(  # noqa: E731
        function, KEY, x, heatmap, TARGET, references, num_samples=NUM, **options
    )
    return np.asarray(jax.jit(call)(x))


def slow(tolerance, num_steps):
    counts = []
    for n in range(2):
        keys = row_keys(KEY, jnp.full(NUM, n), jnp.arange(NUM))
        drawn = [int(jax.random.randint(key, (), 0, len(REFERENCES))) for key in keys]
        order, score = np.argsort(-np.abs(HEATMAP[n]), axis=None), f(X[n : n + 1])[0, TARGET[n]]
        for step in range(num_steps + 1):
            count, losses = step * 12 // num_steps, []
            for one in drawn:
                mixed = REFERENCES[one].reshape(12, 2).copy()
                mixed[order[:count]] = X[n].reshape(12, 2)[order[:count]]
                losses.append(((f(mixed[None])[0, TARGET[n]] - score) / score) ** 2)
            if np.mean(losses) < tolerance**2:
                counts.append(count)
                break
    return counts


@pytest.mark.parametrize(
    ("tolerance", "num_steps"), [(0.2, 5), pytest.param(0.05, 12, marks=pytest.mark.slow)]
)
def test_it_is_its_definition(tolerance, num_steps):
    found = run(tolerance=tolerance, num_steps=num_steps)
    np.testing.assert_array_equal(found, slow(tolerance, num_steps))
    np.testing.assert_array_equal(run(tolerance=tolerance, num_steps=num_steps, chunk_size=4), found)


@pytest.mark.slow
def test_a_network_that_reads_three_pixels():
    mask = np.zeros((3, 4, 1), np.float32)
    mask[0, :3] = 1
    reads = lambda x: (x * mask).sum(axis=(1, 2, 3))[:, None] * jnp.ones(3) + 10  # noqa: E731
    right = np.broadcast_to(mask[..., 0], (2, 3, 4)) + 0.01 * HEATMAP / np.abs(HEATMAP).max()
    assert (run(right, function=reads, tolerance=1e-3, num_steps=12) == 3).all()
    assert (run(1 - right, function=reads, tolerance=1e-3, num_steps=12) > 9).all()
    assert not run(function=lambda x: jnp.ones((len(x), 3)), num_steps=12).any()  # nothing is needed
    assert (run(references=X[:1] + 1e3, tolerance=1e-6, num_steps=1) == 12).all()  # all is


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"references": X[..., :1]}, "images like `x`"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"num_steps": 0}, "num_steps"),
        ({"heatmap": HEATMAP[:, :2]}, "one heatmap an image"),
    ],
)
def test_errors(options, match):
    with pytest.raises(ValueError, match=match):
        run(**options)
