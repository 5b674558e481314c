"""MatchingNet's head: attention, and relevance through it, written a second time in NumPy with loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import fewshot


def draw(way=3, shot=2, queries=2, channels=4):
    random = np.random.default_rng(way)
    support, query = (random.normal(size=(way * n, channels)).astype(np.float32) for n in (shot, queries))
    return support, np.repeat(np.arange(way), shot), query


def run(head, support, labels, query, way):
    @jax.jit
    def both(support, query):
        explained, scores = head.apply({}, support, labels, query, way, method="forward")
        return explained, scores, head.explain({}, explained, scores)

    return both(support, query)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def attention(support, query, temperature):
    """Attention of every query to every support."""
    e = np.array([[np.exp(unit(s) @ unit(q) / temperature) for s in support] for q in query])
    return e / e.sum(-1, keepdims=True)


SIZES = pytest.mark.parametrize(("way", "shot", "temperature"), [(3, 2, 0.1), (3, 5, 1.0), (20, 1, 0.2)])


@SIZES
def test_probabilities_are_the_summed_attention(way, shot, temperature):
    support, labels, query = draw(way, shot)
    _, scores, _ = run(fewshot.MatchingHead(temperature=temperature), support, labels, query, way)
    a = attention(support, query, temperature)
    expected = np.stack([a[:, labels == k].sum(-1) for k in range(way)], -1)
    np.testing.assert_allclose(jax.nn.softmax(scores), expected, rtol=1e-4, atol=1e-6)


@SIZES
def test_relevance_goes_to_the_supports_by_attention_and_on_by_their_cosines(way, shot, temperature):
    support, labels, query = draw(way, shot)
    head = fewshot.MatchingHead(temperature=temperature)
    explained, scores, explanation = run(head, support, labels, query, way)
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
        explanation.weights, fewshot.relevance_weights(explanation.relevance), rtol=1e-5, atol=1e-6
    )


def test_one_support_a_class_gets_all_of_its_relevance():
    # Supports on the axes: the cosines are the query's own entries, each of which gets what its class starts with.
    query = unit(np.array([[3.0, 2.0, 1.0]], np.float32))
    _, _, explanation = run(fewshot.MatchingHead(), np.eye(3, dtype=np.float32), np.arange(3), query, 3)
    z = np.asarray(query)
    np.testing.assert_allclose(explanation.relevance, explanation.start * z / (z + 0.01), rtol=1e-4)


def test_guided_scores_are_cosines_of_the_weighted_query_whose_length_stays():
    support, labels, query = draw()
    head = fewshot.MatchingHead(temperature=1.0)
    explained, _, explanation = run(head, support, labels, query, 3)
    ours = head.apply({}, explained * explanation.weights, method="scores")
    cosines = (np.asarray(explanation.weights) * unit(query)) @ unit(support).T
    expected = np.stack([np.log(np.exp(cosines[:, labels == k]).sum(-1)) for k in range(3)], -1)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_features_of_zero_length_stay_finite():
    support, labels, query = draw()
    head = fewshot.MatchingHead()

    def loss(support, query):
        return fewshot.head_loss(head, {}, support, labels, query, np.repeat(np.arange(3), 2), way=3, shot=2)[
            0
        ]

    zeros = jnp.zeros_like(query).at[1:].set(query[1:]), jnp.zeros_like(support).at[1:].set(support[1:])
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(zeros[1], zeros[0])
    assert all(np.isfinite(leaf).all() for leaf in (value, *gradients))
