"""Transduction: both variants against a slow NumPy loop, and a head whose scores are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import fewshot
from jxai.fewshot import Transduction

WAY, SUPPORTS, QUERIES, CHANNELS = 3, 6, 12, 5


class Nearest(fewshot.Head):
    """Cosine to the mean of a class's support; without parameters, so that NumPy can do the same."""

    def explained(self, episode, train=False):
        means = fewshot.prototypes(episode.support, episode.support_labels, episode.way)
        unit = [x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (means, episode.query)]
        return unit[0] * unit[1][:, None]

    def scores(self, explained, train=False):
        return explained.sum(-1)


class Supports(fewshot.Head):
    """Shows a query's features (queries, way) as its scores, plus how often each class stands in the support."""

    def explained(self, episode, train=False):
        return episode.query + 100 * jax.nn.one_hot(episode.support_labels, episode.way).sum(0)

    def scores(self, explained, train=False):
        return explained


def draw(seed):
    random = np.random.default_rng(seed)
    classes = random.normal(size=(WAY, CHANNELS))
    labels = np.repeat(np.arange(WAY), SUPPORTS // WAY)
    truth = np.repeat(np.arange(WAY), QUERIES // WAY)
    support, query = (classes[of] + 0.8 * random.normal(size=(len(of), CHANNELS)) for of in (labels, truth))
    return support.astype(np.float32), labels, query.astype(np.float32)


def slow_scores(support, labels, query):
    means = np.stack([support[labels == k].mean(0) for k in range(WAY)])
    return np.array([[q @ m / np.sqrt((q @ q) * (m @ m)) for m in means] for q in query])


def slow_transduction(support, labels, query, counts, restart, confidence="score"):
    """One query after the other, in the words of the two programs."""
    pool, pool_labels = list(support), list(labels)
    scores = slow_scores(support, labels, query)
    for count in counts:
        if restart:
            pool, pool_labels = list(support), list(labels)
        rows = [np.exp(row) / np.exp(row).sum() for row in scores] if confidence == "probability" else scores
        for index in sorted(range(len(query)), key=lambda i: -max(rows[i]))[:count]:
            pool.append(query[index])
            pool_labels.append(int(np.argmax(scores[index])))
        scores = slow_scores(np.array(pool), np.array(pool_labels), query)
    return scores


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="way")
def many(head, transduction, support, labels, query, way=WAY):
    def one(support, query):
        episode = fewshot.Episode(support, labels, query, way=way)
        return fewshot.transductive_scores(head, {}, episode, transduction=transduction)

    return jax.vmap(one)(support, query)


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("counts", [(5, 10), (2, 12, 7)])
def test_equals_a_slow_loop_over_queries(counts, restart):
    draws = [draw(seed) for seed in range(6)]
    support, query = (np.stack([one[k] for one in draws]) for k in (0, 2))
    labels = draws[0][1]
    ours = many(Nearest(), Transduction(counts, restart), support, labels, query)
    expected = [slow_transduction(*one, counts, restart) for one in draws]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    # The rounds change something: otherwise the test shows nothing.
    assert np.abs(expected - np.array([slow_scores(*one) for one in draws])).max() > 0.05


@pytest.mark.parametrize(
    ("restart", "joined"),
    # Of queries 0-4 by confidence 9, 8, 7, 6, 5: the two surest in round one, the three surest in round two.
    [(True, [2, 1]), (False, [3, 2])],
)
def test_what_joins_the_support(restart, joined):
    # Both classes have as many supports after round one, so that the queries keep their order of confidence.
    query = np.array([[9.0, 0], [0, 8], [7, 0], [6, 0], [0, 5]])
    transduction = Transduction((2, 3), restart=restart)
    (scores,) = many(Supports(), transduction, np.zeros((1, 2, 2)), np.array([1, 0]), query[None], way=2)
    counts = (scores - query) / 100
    np.testing.assert_array_equal(counts, np.broadcast_to([1 + joined[0], 1 + joined[1]], (5, 2)))


def test_the_release_is_the_default():
    assert Transduction() == Transduction(counts=(35, 70), restart=True)


def test_pseudo_labeled_queries_help():
    """With clear clusters and one shot, more accuracy on average: what transduction is for."""
    random = np.random.default_rng(0)
    classes = random.normal(size=(200, WAY, 1, CHANNELS))
    labels = np.repeat(np.arange(WAY), 10)
    support = classes[:, :, 0] + 0.9 * random.normal(size=(200, WAY, CHANNELS))
    query = (classes + 0.9 * random.normal(size=(200, WAY, 10, CHANNELS))).reshape(200, -1, CHANNELS)

    def scores(support, query):
        return Nearest().apply({}, fewshot.Episode(support, np.arange(WAY), query, way=WAY))

    plain = jax.jit(jax.vmap(scores))(support, query)
    transductive = many(Nearest(), Transduction((10, 20)), support, np.arange(WAY), query)
    accuracy = [np.mean(scores.argmax(-1) == labels, axis=1) for scores in (plain, transductive)]
    gain, half = fewshot.mean_and_interval(accuracy[1] - accuracy[0])
    assert gain > half > 0


def test_confidence_by_probability_is_another():
    support, labels, query = draw(3)
    found = {}
    for confidence in ("score", "probability"):
        transduction = Transduction((3, 6), confidence=confidence)
        (found[confidence],) = many(Nearest(), transduction, support[None], labels, query[None])
        expected = slow_transduction(support, labels, query, (3, 6), True, confidence)
        np.testing.assert_allclose(found[confidence], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found["score"] - found["probability"]).max() > 0.01
    with pytest.raises(ValueError, match="expected confidence among score, probability, got 'luck'"):
        Transduction(confidence="luck")


def test_more_queries_than_there_are():
    support, labels, query = draw(0)
    with pytest.raises(ValueError, match=r"at most the 12 queries.*got counts \(5, 13\)"):
        fewshot.transductive_scores(
            Nearest(),
            {},
            fewshot.Episode(support, labels, query, way=WAY),
            transduction=Transduction((5, 13)),
        )


@pytest.mark.parametrize("counts", [(), (0,), (3, -1)])
def test_counts_out_of_range(counts):
    with pytest.raises(ValueError, match="expected counts of at least 1"):
        Transduction(counts)
