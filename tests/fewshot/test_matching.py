"""MatchingNet's head: attention, and relevance through it, written a second time in NumPy with loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import fewshot, guidance


def draw(way=3, shot=2, queries=2, channels=4):
    random = np.random.default_rng(way)
    support, query = (random.normal(size=(way * n, channels)).astype(np.float32) for n in (shot, queries))
    labels = [np.repeat(np.arange(way), n) for n in (shot, queries)]
    return fewshot.Episode(support, labels[0], query, labels[1], way=way)


def run(head, episode):
    @jax.jit
    def both(episode):
        explained, scores = head.apply({}, episode, method="forward")
        return explained, scores, head.explain({}, explained, scores)

    return both(episode)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def attention(support, query, temperature):
    """Attention of every query to every support."""
    e = np.array([[np.exp(unit(s) @ unit(q) / temperature) for s in support] for q in query])
    return e / e.sum(-1, keepdims=True)


SIZES = pytest.mark.parametrize(("way", "shot", "temperature"), [(3, 2, 0.1), (3, 5, 1.0), (20, 1, 0.2)])


@SIZES
def test_probabilities_are_the_summed_attention(way, shot, temperature):
    episode = draw(way, shot)
    _, scores, _ = run(fewshot.MatchingHead(temperature=temperature), episode)
    a = attention(episode.support, episode.query, temperature)
    expected = np.stack([a[:, episode.support_labels == k].sum(-1) for k in range(way)], -1)
    np.testing.assert_allclose(jax.nn.softmax(scores), expected, rtol=1e-4, atol=1e-6)


@SIZES
def test_relevance_goes_to_the_supports_by_attention_and_on_by_their_cosines(way, shot, temperature):
    episode = draw(way, shot)
    support, labels, query = episode.support, episode.support_labels, episode.query
    explained, scores, explanation = run(fewshot.MatchingHead(temperature=temperature), episode)
    start, a = np.asarray(fewshot.log_odds(scores)), attention(support, query, temperature)
    expected, absorbed = np.zeros_like(query), np.zeros(len(query))
    for i, q in enumerate(unit(query)):
        for j, s in enumerate(unit(support)):
            of_support = start[i, labels[j]] * a[i, j] / a[i, labels == labels[j]].sum()
            z = s @ q
            denominator = z + (0.01 if z >= 0 else -0.01)
            expected[i] += s * q * of_support / denominator
            absorbed[i] += of_support * (1 - z / denominator)
    np.testing.assert_allclose(explained.features, unit(query), rtol=1e-5)
    np.testing.assert_allclose(explanation.relevance, expected, rtol=1e-2, atol=1e-4 * np.abs(expected).max())
    # Conserved but for what the stabilizer takes.
    np.testing.assert_allclose(
        explanation.relevance.sum(-1),
        start.sum(-1) - absorbed,
        rtol=1e-3,
        atol=1e-4 * np.abs(expected).max(),
    )
    np.testing.assert_allclose(
        explanation.weights, guidance.relevance_weights(explanation.relevance), rtol=1e-5, atol=1e-6
    )


def test_one_support_a_class_gets_all_of_its_relevance():
    # Supports on the axes: the cosines are the query's own entries, each of which gets what its class starts with.
    query = unit(np.array([[3.0, 2.0, 1.0]], np.float32))
    episode = fewshot.Episode(np.eye(3, dtype=np.float32), np.arange(3), query, way=3)
    _, _, explanation = run(fewshot.MatchingHead(), episode)
    z = np.asarray(query)
    np.testing.assert_allclose(explanation.relevance, explanation.start * z / (z + 0.01), rtol=1e-4)


def test_guided_scores_are_cosines_of_the_weighted_query_whose_length_stays():
    episode, head = draw(), fewshot.MatchingHead(temperature=1.0)
    explained, _, explanation = run(head, episode)
    ours = head.apply({}, explained * explanation.weights, method="scores")
    cosines = (np.asarray(explanation.weights) * unit(episode.query)) @ unit(episode.support).T
    labels = episode.support_labels
    expected = np.stack([np.log(np.exp(cosines[:, labels == k]).sum(-1)) for k in range(3)], -1)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_features_of_zero_length_stay_finite():
    episode = draw()

    def loss(support, query):
        given = episode.replace(support=support, query=query)
        return fewshot.head_loss(fewshot.MatchingHead(), {}, given)[0]

    zeros = [jnp.asarray(x).at[0].set(0) for x in (episode.support, episode.query)]
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*zeros)
    assert all(np.isfinite(leaf).all() for leaf in (value, *gradients))
