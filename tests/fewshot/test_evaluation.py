import itertools

import jax
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


TRANSDUCTION = fewshot.Transduction((2, 5), restart=False)


# 5 episodes: a last batch of one, of two, and more room than episodes.
@pytest.mark.parametrize(("batch_size", "transduction"), [(2, None), (3, None), (8, None), (3, TRANSDUCTION)])
def test_accuracies_equal_a_loop_over_episodes(tiny, domain, batch_size, transduction):
    ours = fewshot.episode_accuracies(
        tiny.head,
        tiny.variables,
        *domain,
        way=tiny.way,
        batch_size=batch_size,
        transduction=transduction,
    )

    @jax.jit
    def scores(support, labels, query):
        given = fewshot.part(tiny.variables, "head"), fewshot.Episode(support, labels, query, way=tiny.way)
        if transduction is None:
            return tiny.head.apply(*given, mutable=["batch_stats"])[0]
        return fewshot.transductive_scores(tiny.head, *given, transduction=transduction)

    assert ours.shape == (5,)
    np.testing.assert_allclose(ours, slow_accuracies(domain, scores), rtol=1e-6)


def slow_accuracies(domain, scores):
    """One episode after the other."""
    features, support, query = domain
    labels = np.repeat(np.arange(3), 2)
    found = [scores(features[s], labels, features[q]) for s, q in zip(support, query, strict=True)]
    return [np.mean(np.argmax(one, -1) == labels) for one in found]


class Told(fewshot.Head):
    """Reads a support's class and a query's guess, each one-hot, off the features: as good as the guesses are."""

    def explained(self, episode, train=False):
        classes = fewshot.prototypes(episode.support[:, 0], episode.support_labels, episode.way)
        return episode.query[:, 1] @ classes.T

    def scores(self, explained, train=False):
        return explained


def test_a_classifier_of_known_accuracy():
    """Guesses that are right with probability 0.7: what is measured lies about their share in the domain."""
    random, num_classes, each = np.random.default_rng(0), 12, 300
    labels = np.repeat(np.arange(num_classes), each)
    right = random.random(labels.size) < 0.7
    truth = np.eye(num_classes, dtype=np.float32)[labels]
    # A wrong guess is anything but the truth: of the episode's other classes, the first one wins.
    features = np.stack([truth, np.where(right[:, None], truth, 1 - truth)], axis=1)
    rows = np.stack([draw_rows(random, num_classes, each) for _ in range(2000)])
    accuracies = fewshot.episode_accuracies(
        Told(),
        {"params": {}},
        features,
        rows[:, :, :1].reshape(2000, -1),
        rows[:, :, 1:].reshape(2000, -1),
        way=5,
        batch_size=50,
    )
    mean, half = fewshot.mean_and_interval(accuracies)
    known = right.mean()
    # The interval is 1.96 standard errors; 3.3 are exceeded once in a thousand seeds.
    assert abs(mean - known) < 3.3 / 1.96 * half
    # Queries are right or wrong on their own, so the interval is that of 75 coins an episode.
    np.testing.assert_allclose(half, 1.96 * np.sqrt(known * (1 - known) / 75 / 2000), rtol=0.1)


def draw_rows(random, num_classes, each):
    """Rows of 5 classes, 16 images each."""
    classes = random.choice(num_classes, 5, replace=False)
    return np.stack([c * each + random.choice(each, 16, replace=False) for c in classes])


@pytest.mark.parametrize("spread", [None, 20.0], ids=["alike", "easy and hard"])
def test_the_interval_covers_the_known_accuracy(spread):
    """In 93 to 97 of 100 repetitions, also where some episodes are easier: then queries are not independent."""
    random, accuracy, repetitions, episodes = np.random.default_rng(0), 0.6, 4000, 100
    p = np.full((repetitions, episodes), accuracy)
    if spread is not None:
        p = random.beta(spread * accuracy, spread * (1 - accuracy), p.shape)
    measured = random.binomial(75, p) / 75
    intervals = [fewshot.mean_and_interval(values) for values in measured]
    covered = np.mean([abs(mean - accuracy) <= half for mean, half in intervals])
    assert 0.93 < covered < 0.97


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


@pytest.mark.parametrize(("first", "last"), [(0, 8), (-1, 7)])
def test_an_index_outside_of_the_features_is_refused(tiny, first, last):
    rows = np.array([[first, 3, last]])
    with pytest.raises(ValueError, match=f"indices into 8 features, got indices from {first} to {last}"):
        fewshot.episode_accuracies(
            tiny.head, tiny.variables, np.zeros((8, 4, 4, 4), np.float32), rows, rows, way=3
        )


def test_mean_and_interval():
    values = np.random.default_rng(0).random(50)
    mean, half = fewshot.mean_and_interval(values)
    np.testing.assert_allclose(mean, values.mean())
    # Student's t of 49 degrees of freedom leaves 2.5 % above 2.0096, of 1 degree above 12.706 (any table).
    np.testing.assert_allclose(
        half, 2.0096 * np.sqrt(((values - values.mean()) ** 2).sum() / 49 / 50), rtol=1e-4
    )
    np.testing.assert_allclose(fewshot.mean_and_interval([0.0, 1.0])[1], 12.706 / 2, rtol=1e-4)
    assert fewshot.mean_and_interval(np.array([0.5]))[0] == 0.5
    assert np.isnan(fewshot.mean_and_interval([0.5])[1])
    assert isinstance(mean, float) and isinstance(half, float)


def test_no_images_is_an_error(tiny):
    with pytest.raises(ValueError, match="expected at least one image"):
        fewshot.encode(tiny.encoder, tiny.variables, np.zeros((0, tiny.side, tiny.side, 3), np.float32))


def test_hierarchical_interval_is_that_of_every_draw():
    """Two seeds of two episodes have 64 equally likely draws, whose quantiles are known."""
    values = np.array([[0.0, 0.2], [0.5, 1.0]])
    pairs = list(itertools.product((0, 1), repeat=2))
    means = [
        np.mean([[values[r, e] for e in of_one] for r, of_one in zip(rows, episodes, strict=True)])
        for rows in pairs
        for episodes in itertools.product(pairs, repeat=2)
    ]
    assert len(means) == 64
    few = np.sqrt(2) * 12.706 / 1.96
    expected = 0.425 + few * (np.quantile(np.repeat(means, 1000), [0.025, 0.975]) - 0.425)
    mean, low, high = fewshot.hierarchical_interval(values, num_draws=20000)
    np.testing.assert_allclose(mean, 0.425)
    np.testing.assert_allclose([low, high], expected, rtol=1e-3)


def test_hierarchical_interval_holds_what_the_mixed_model_s_holds():
    """Without noise of episodes only seeds are drawn: for many of them that is Student's interval of their means."""
    of_seeds = np.random.default_rng(0).normal(size=200)
    mean, low, high = fewshot.hierarchical_interval(np.repeat(of_seeds[:, None], 3, axis=1))
    expected, half = fewshot.mean_and_interval(of_seeds)
    np.testing.assert_allclose([mean, high - low], [expected, 2 * half], rtol=0.06)
    assert np.isnan(fewshot.hierarchical_interval([[0.1, 0.3]])[1:]).all()
    assert fewshot.hierarchical_interval([[0.1, 0.3]])[0] == pytest.approx(0.2)


@pytest.mark.parametrize("of_seeds", [0.0, 1.0, 3.0])
def test_the_hierarchical_interval_of_five_seeds_covers(of_seeds):
    """In 93 of 100 repetitions or more, whether seeds differ or not; quantiles as they come would do so in 82."""
    random, repetitions = np.random.default_rng(0), 400
    covered = []
    for _ in range(repetitions):
        values = of_seeds * random.normal(size=(5, 1)) + 3 * random.normal(size=(5, 10))
        _, low, high = fewshot.hierarchical_interval(values, num_draws=300)
        covered.append(low <= 0 <= high)
    print(np.mean(covered))
    assert np.mean(covered) > 0.92
