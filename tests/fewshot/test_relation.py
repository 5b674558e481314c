"""RelationNet's head: prototypes, statistics, loss, relevance; its values stand in test_relation_golden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import fewshot


def scores_of(tiny, head, episode, train=False):
    variables = fewshot.part(tiny.variables, "head")
    result, updates = head.apply(variables, episode, train, mutable=["batch_stats"])
    return np.asarray(result), updates


def test_prototypes_are_means_by_label_in_any_order(tiny):
    episode = tiny.features()
    support, labels = episode.support, episode.support_labels
    order = np.random.default_rng(0).permutation(len(labels))
    permuted = episode.replace(support=support[order], support_labels=labels[order])
    pairs = tiny.head.apply({}, permuted, method="explained")
    expected = support.reshape(tiny.way, tiny.shot, *support.shape[1:]).mean(1)
    np.testing.assert_allclose(pairs.prototype, expected, rtol=1e-6)
    np.testing.assert_array_equal(pairs.query, episode.query)


def test_scores_are_the_same_of_halves_and_of_pairs_written_out(tiny):
    episode = tiny.features()
    variables = fewshot.part(tiny.variables, "head")
    pairs = tiny.head.apply(variables, episode, method="explained")
    halves, dense = (
        tiny.head.apply(variables, x, method="scores", mutable=["batch_stats"])[0]
        for x in (pairs, pairs.dense())
    )
    np.testing.assert_allclose(halves, dense, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(halves, scores_of(tiny, tiny.head, episode)[0], rtol=1e-5)


@pytest.mark.parametrize("running", [True, False])
def test_a_query_depends_on_the_others_by_batch_statistics_alone(tiny, running):
    episode = tiny.features()
    head = tiny.head.clone(running_statistics=running)
    together, _ = scores_of(tiny, head, episode)
    changed = np.concatenate([episode.query[:1], episode.query[1:] + 1])
    apart, _ = scores_of(tiny, head, episode.replace(query=changed))
    assert np.allclose(together[0], apart[0], rtol=1e-5, atol=1e-6) == running


def test_running_statistics_are_for_evaluation_alone(tiny):
    episode = tiny.features()
    results = [
        scores_of(tiny, tiny.head.clone(running_statistics=running), episode, train=True)
        for running in (True, False)
    ]
    jax.tree.map(np.testing.assert_array_equal, *results)
    # flax: running ← 0.9 running + 0.1 batch, biased variance.
    before = fewshot.part(tiny.variables, "head")["batch_stats"]["bn1"]
    params = fewshot.part(tiny.variables, "head")["params"]["conv1"]
    pairs = tiny.head.apply({}, episode, method="explained")
    numbers = ("NHWC", "HWIO", "NHWC")
    z = jax.lax.conv_general_dilated(
        pairs.dense().reshape(-1, 4, 4, 8),
        params["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=numbers,
    )
    z = np.asarray(z + params["bias"]).reshape(-1, 4)
    after = results[0][1]["batch_stats"]["bn1"]
    np.testing.assert_allclose(after["mean"], 0.9 * before["mean"] + 0.1 * z.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after["var"], 0.9 * before["var"] + 0.1 * z.var(0), rtol=1e-4)


def test_loss_is_squared_error_of_the_sigmoid():
    scores = jnp.array([[0.0, 2.0], [-1.0, 1.0]])
    sigmoid = 1 / (1 + np.exp(-np.asarray(scores)))
    expected = np.mean((sigmoid - np.array([[1, 0], [0, 1]])) ** 2)
    np.testing.assert_allclose(fewshot.RelationHead().loss(scores, np.array([0, 1])), expected, rtol=1e-6)


def test_cheap_relevance_equals_interception_on_all_pairs(tiny):
    episode = tiny.features()
    # Features of either sign.
    episode = episode.replace(support=episode.support - 0.5, query=episode.query - 0.5)
    variables = fewshot.part(tiny.variables, "head")
    head = tiny.head.clone(nonnegative=False)
    pairs = head.apply(variables, episode, method="explained")
    start = np.random.default_rng(0).normal(size=pairs.shape[:2]).astype(np.float32)
    ours = jax.jit(head.relevance)(variables, pairs, start)
    expected = np.asarray(jax.jit(super(type(head), head).relevance)(variables, pairs.dense(), start))
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
