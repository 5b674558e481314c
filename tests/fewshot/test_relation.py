"""RelationNet's head: prototypes, statistics, loss, relevance; its values stand in test_relation_golden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import fewshot


def scores_of(tiny, head, support, labels, query, train=False):
    variables = fewshot.part(tiny.variables, "head")
    result, updates = head.apply(variables, support, labels, query, tiny.way, train, mutable=["batch_stats"])
    return np.asarray(result), updates


def test_prototypes_are_means_by_label_in_any_order(tiny):
    support, labels, query, _ = tiny.features()
    order = np.random.default_rng(0).permutation(len(labels))
    pairs = tiny.head.apply({}, support[order], labels[order], query, tiny.way, method="explained")
    expected = support.reshape(tiny.way, tiny.shot, *support.shape[1:]).mean(1)
    np.testing.assert_allclose(pairs.prototype, expected, rtol=1e-6)
    np.testing.assert_array_equal(pairs.query, query)


def test_scores_are_the_same_of_halves_and_of_pairs_written_out(tiny):
    support, labels, query, _ = tiny.features()
    variables = fewshot.part(tiny.variables, "head")
    pairs = tiny.head.apply(variables, support, labels, query, tiny.way, method="explained")
    halves, dense = (
        tiny.head.apply(variables, x, method="scores", mutable=["batch_stats"])[0]
        for x in (pairs, pairs.dense())
    )
    np.testing.assert_allclose(halves, dense, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(halves, scores_of(tiny, tiny.head, support, labels, query)[0], rtol=1e-5)


@pytest.mark.parametrize("running", [True, False])
def test_a_query_depends_on_the_others_by_batch_statistics_alone(tiny, running):
    support, labels, query, _ = tiny.features()
    head = tiny.head.clone(running_statistics=running)
    together, _ = scores_of(tiny, head, support, labels, query)
    changed = np.concatenate([query[:1], query[1:] + 1])
    apart, _ = scores_of(tiny, head, support, labels, changed)
    assert np.allclose(together[0], apart[0], rtol=1e-5, atol=1e-6) == running


def test_running_statistics_are_for_evaluation_alone(tiny):
    support, labels, query, _ = tiny.features()
    results = [
        scores_of(tiny, tiny.head.clone(running_statistics=running), support, labels, query, train=True)
        for running in (True, False)
    ]
    jax.tree.map(np.testing.assert_array_equal, *results)
    # flax: running ← 0.9 running + 0.1 batch, biased variance.
    before = fewshot.part(tiny.variables, "head")["batch_stats"]["bn1"]
    params = fewshot.part(tiny.variables, "head")["params"]["conv1"]
    pairs = tiny.head.apply({}, support, labels, query, tiny.way, method="explained")
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
    support, labels, query, _ = tiny.features()
    support, query = support - 0.5, query - 0.5  # features of either sign
    variables = fewshot.part(tiny.variables, "head")
    head = tiny.head.clone(nonnegative=False)
    pairs = head.apply(variables, support, labels, query, tiny.way, method="explained")
    start = np.random.default_rng(0).normal(size=pairs.shape[:2]).astype(np.float32)
    ours = jax.jit(head.relevance)(variables, pairs, start)
    expected = np.asarray(jax.jit(super(type(head), head).relevance)(variables, pairs.dense(), start))
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
