import numpy as np
import pytest

from jxai import fewshot


@pytest.mark.parametrize(("count", "batch_size"), [(7, 3), (7, 7), (7, 200), (6, 3), (1, 4)])
def test_encode_equals_the_encoder_whatever_the_batch_size(tiny, count, batch_size):
    images = np.random.default_rng(0).normal(size=(count, tiny.side, tiny.side, 3)).astype(np.float32)
    ours = fewshot.encode(tiny.encoder, tiny.variables, images, batch_size=batch_size)
    expected = tiny.encoder.apply(fewshot.part(tiny.variables, "encoder"), images, train=False)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def domain(tiny):
    """Features of 12 images, 4 a class, and 5 episodes of 3 ways, 2 shots, 2 queries drawn from them."""
    random = np.random.default_rng(0)
    classes = np.maximum(random.normal(size=(tiny.way, 1, 4, 4, 4)), 0)
    features = classes + random.random(size=(tiny.way, 4, 4, 4, 4))
    features = features.reshape(-1, 4, 4, 4).astype(np.float32)
    rows = np.stack([[4 * way + random.permutation(4) for way in range(tiny.way)] for _ in range(5)])
    return features, rows[:, :, :2].reshape(5, -1), rows[:, :, 2:].reshape(5, -1)


# 5 episodes: a last batch of one, of two, and more room than episodes.
@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_accuracies_equal_a_loop_over_episodes(tiny, domain, batch_size):
    features, support, query = domain
    ours = fewshot.episode_accuracies(
        tiny.head, tiny.variables, features, support, query, way=tiny.way, batch_size=batch_size
    )
    labels = np.repeat(np.arange(tiny.way), 2)
    expected = []
    for of_support, of_query in zip(support, query, strict=True):
        scores, _ = tiny.head.apply(
            fewshot.part(tiny.variables, "head"),
            features[of_support],
            labels,
            features[of_query],
            tiny.way,
            mutable=["batch_stats"],
        )
        expected.append(np.mean(np.argmax(scores, -1) == labels))
    assert ours.shape == (5,)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize(("supports", "queries"), [(5, 6), (6, 7)])
def test_episodes_that_are_no_multiple_of_the_ways_are_refused(tiny, supports, queries):
    with pytest.raises(ValueError, match=f"multiples of 3 images.*got {supports} and {queries}"):
        fewshot.episode_accuracies(
            tiny.head,
            tiny.variables,
            np.zeros((8, 4, 4, 4), np.float32),
            np.zeros((1, supports), int),
            np.zeros((1, queries), int),
            way=3,
        )


def test_mean_and_interval():
    values = np.random.default_rng(0).random(50)
    mean, half = fewshot.mean_and_interval(values)
    np.testing.assert_allclose(mean, values.mean())
    np.testing.assert_allclose(half, 1.96 * np.sqrt(((values - values.mean()) ** 2).sum() / 49) / np.sqrt(50))
    assert fewshot.mean_and_interval(np.array([0.5])) == (0.5, 0.0)
    assert isinstance(mean, float) and isinstance(half, float)


def test_no_images_is_an_error(tiny):
    with pytest.raises(ValueError, match="expected at least one image"):
        fewshot.encode(tiny.encoder, tiny.variables, np.zeros((0, tiny.side, tiny.side, 3), np.float32))
