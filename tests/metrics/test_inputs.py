"""Metrics of tables and of embeddings: what they say of pictures with as many pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

RANDOM = np.random.default_rng(11)
TABLE = jnp.asarray(RANDOM.normal(size=(3, 7)), jnp.float32)
TOKENS = jnp.asarray(RANDOM.normal(size=(3, 7, 4)), jnp.float32)
HEATMAP = jnp.asarray(RANDOM.normal(size=(3, 7)), jnp.float32)
KERNEL = jnp.asarray(RANDOM.normal(size=(28, 3)), jnp.float32)
TARGET = jnp.array([2, 0, 1])


def f(x):
    flat = x.reshape(len(x), -1)
    return jnp.tanh(flat @ KERNEL[: flat.shape[1]])


def as_picture(x):
    return x.reshape(3, 7, 1, -1)


REMOVALS = {
    "pixel flipping": lambda x, h: metrics.pixel_flipping(f, x, h, TARGET, num_steps=4),
    "of a mean": lambda x, h: metrics.pixel_flipping(
        f, x, h, TARGET, num_steps=7, baseline=lambda x, mask, key: jnp.broadcast_to(x.mean(), x.shape)
    ),
    "deletion": lambda x, h: metrics.deletion(f, x, h, TARGET, num_steps=3, baseline=0.5, chunk_size=2),
    "insertion": lambda x, h: metrics.insertion(f, x, h, TARGET, num_steps=7, baseline=0.0),
    "effective complexity": lambda x, h: metrics.effective_complexity(
        f, jax.random.key(0), x, h, TARGET, references=x[:2] * 0.5, tolerance=0.3, num_steps=7, num_samples=2
    ),
}


@pytest.mark.parametrize("name", REMOVALS)
@pytest.mark.parametrize("x", [TABLE, TOKENS], ids=["table", "tokens"])
def test_removal_of_columns_and_of_tokens(name, x):
    found = REMOVALS[name](x, HEATMAP)
    expected = REMOVALS[name](as_picture(x), HEATMAP[..., None])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "metric",
    [
        metrics.sparseness,
        metrics.complexity,
        metrics.effective_pixels,
        lambda h: metrics.rank_correlation(h, h[::-1]),
    ],
)
def test_heatmaps_of_columns(metric):
    np.testing.assert_allclose(metric(HEATMAP), metric(HEATMAP[..., None]), rtol=1e-6)


def test_consistency_of_columns_goes_by_the_most_relevant():
    heatmap = jnp.eye(4)[jnp.array([0, 0, 2, 0])] + 0.1
    found = metrics.consistency(heatmap, jnp.array([1, 1, 0, 0]))
    np.testing.assert_allclose(found, [0.5, 0.5, np.nan, 0.0])


@pytest.mark.parametrize(
    ("x", "heatmap", "message"),
    [
        (TABLE, HEATMAP[:, :3], "one heatmap an image"),
        (TABLE, HEATMAP[..., None], "one heatmap an image"),
        (TOKENS, HEATMAP[:, :3], "one heatmap an image"),
        (as_picture(TABLE), HEATMAP, "one heatmap an image"),
        (as_picture(TABLE), as_picture(TABLE), r"give attributions.sum\(axis=-1\)"),
        (TABLE, HEATMAP[0], "add the axis of images"),
    ],
)
def test_heatmaps_of_another_shape(x, heatmap, message):
    with pytest.raises(ValueError, match=message):
        metrics.pixel_flipping(f, x, heatmap, TARGET)


def test_insertion_needs_a_baseline_where_there_is_nothing_to_blur():
    with pytest.raises(ValueError, match="expected a baseline for inputs that are no images"):
        metrics.insertion(f, TABLE, HEATMAP, TARGET)


def test_one_number_an_image_is_to_be_a_column_of_scores():
    x = jnp.ones((2, 4, 4, 3))
    with pytest.raises(ValueError, match=r"got an array of shape \(2,\): give `lambda x: f\(x\)\[:, None\]`"):
        metrics.pixel_flipping(lambda x: x.mean(axis=(1, 2, 3)), x, x[..., 0], jnp.array([0, 0]))
