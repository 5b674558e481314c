"""ProtoNet's head: scores, and relevance by LRP-ε of the layer 2p·q − ‖p‖², written a second time in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import fewshot, guidance


def draw(way=3, shot=2, queries=2, shape=(4,)):
    random = np.random.default_rng(way)
    support, query = (random.normal(size=(way * n, *shape)).astype(np.float32) + 0.5 for n in (shot, queries))
    labels = [np.repeat(np.arange(way), n) for n in (shot, queries)]
    return fewshot.Episode(support, labels[0], query, labels[1], way=way)


def run(head, episode):
    @jax.jit
    def both(episode):
        explained, scores = head.apply({}, episode, method="forward")
        return explained, scores, head.explain({}, explained, scores)

    return both(episode)


@pytest.mark.parametrize(("way", "shot"), [(3, 2), (20, 1)])
def test_scores_are_negative_squared_distances_up_to_the_querys_norm(way, shot):
    episode = draw(way, shot)
    support, labels, query = episode.support, episode.support_labels, episode.query
    _, scores, _ = run(fewshot.PrototypeHead(), episode)
    means = [support[labels == k].mean(0) for k in range(way)]
    distances = np.array([[np.sum((q - p) ** 2) for p in means] for q in query])
    np.testing.assert_allclose(scores - np.sum(query**2, -1)[:, None], -distances, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(jax.nn.softmax(scores), jax.nn.softmax(-distances), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("way", "shot"), [(3, 2), (20, 1)])
def test_relevance_is_the_epsilon_rule_of_the_dense_layer(way, shot):
    episode = draw(way, shot)
    support, labels, query = episode.support, episode.support_labels, episode.query
    explained, scores, explanation = run(fewshot.PrototypeHead(), episode)
    start = np.asarray(fewshot.log_odds(scores))
    expected, absorbed = np.zeros_like(query), np.zeros(len(query))
    for i, q in enumerate(query):
        for k in range(way):
            contributions = 2 * support[labels == k].mean(0) * q
            z = contributions.sum()
            denominator = z + (0.01 if z >= 0 else -0.01)
            expected[i] += contributions * start[i, k] / denominator
            absorbed[i] += start[i, k] * (1 - z / denominator)
    assert explained.shape == explanation.relevance.shape == query.shape
    np.testing.assert_allclose(explanation.start, start, rtol=1e-6)
    np.testing.assert_allclose(explanation.relevance, expected, rtol=1e-3, atol=1e-4)
    # Conserved but for what the stabilizer takes.
    np.testing.assert_allclose(
        explanation.relevance.sum(-1), start.sum(-1) - absorbed, rtol=1e-3, atol=1e-4 * np.abs(start).max()
    )
    np.testing.assert_allclose(
        explanation.weights, guidance.relevance_weights(explanation.relevance), rtol=1e-5, atol=1e-6
    )


def test_relevance_on_one_axis_is_the_class_that_lies_there():
    """Prototypes on the axes: each channel gets what its own class starts with."""
    support, query = 10 * np.eye(3, dtype=np.float32), np.full((1, 3), 5, np.float32)
    episode = fewshot.Episode(support, np.arange(3), query, way=3)
    _, _, explanation = run(fewshot.PrototypeHead(), episode)
    # z = 2·10·5 = 100 for every class, of which the stabilizer takes 1e-4.
    np.testing.assert_allclose(explanation.relevance[0], explanation.start[0], rtol=2e-4)


def test_guided_scores_are_those_of_weighted_queries():
    episode, head = draw(), fewshot.PrototypeHead()
    explained, _, explanation = run(head, episode)
    weighted = head.apply({}, explained * explanation.weights, method="scores")
    again = head.apply({}, episode.replace(query=episode.query * np.asarray(explanation.weights)))
    np.testing.assert_allclose(weighted, again, rtol=1e-5)


@pytest.mark.parametrize("pool", [True, False])
def test_maps_are_pooled_or_flattened(pool):
    episode = draw(shape=(2, 3, 4))
    ours = fewshot.PrototypeHead(pool=pool).apply({}, episode)
    support, query = (
        x.mean((1, 2)) if pool else x.reshape(len(x), 24) for x in (episode.support, episode.query)
    )
    expected = fewshot.PrototypeHead().apply({}, episode.replace(support=support, query=query))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_it_learns_nothing_itself():
    assert not fewshot.PrototypeHead().init(jax.random.key(0), jax.tree.map(jnp.asarray, draw()))
