"""Completeness of attributions whose sum is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

WEIGHTS = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
X = jnp.asarray(np.random.default_rng(1).normal(size=(2, 2, 3, 2)), jnp.float32)
TARGET = jnp.asarray([2, 0])
ROWS = jnp.asarray(WEIGHTS.T[np.asarray(TARGET)].reshape(X.shape))


def linear(x):
    return x.reshape(len(x), -1) @ WEIGHTS + 0.5


@functools.partial(jax.jit, static_argnames="relevance")
def check(attributions, baseline=0.0, tolerance=1e-2, relevance=False):
    baseline = None if relevance else baseline
    return metrics.completeness(linear, X, attributions, TARGET, baseline=baseline, tolerance=tolerance)


def test_integrated_gradients_of_a_linear_function_are_complete():
    baseline = jnp.asarray([0.3, -0.7])
    for attributions in (ROWS * (X - baseline), (ROWS * (X - baseline)).sum(axis=-1)):
        residual, complete = check(attributions, baseline)
        np.testing.assert_allclose(residual, 0, atol=1e-4)
        assert complete.all()


def test_what_is_missing_is_measured_against_the_change():
    attributions = ROWS * X * jnp.asarray([1.05, 0.8]).reshape(2, 1, 1, 1)
    residual, complete = check(attributions, tolerance=0.1)
    np.testing.assert_allclose(residual, [0.05, 0.2], rtol=1e-3)
    np.testing.assert_array_equal(complete, [True, False])


def test_relevance_adds_up_to_the_score_itself():
    score = linear(X)[jnp.arange(2), TARGET]
    relevance = jnp.ones(X.shape) * score.reshape(2, 1, 1, 1) / 12
    assert check(relevance, relevance=True).complete.all()
    assert not check(relevance).complete.any()  # from a black image the bias of 0.5 is no change


def test_no_change():
    one = np.zeros(X.shape, np.float32)
    one[0, 0, 0, 0] = 1
    nothing = lambda x: jnp.zeros((len(x), 3))  # noqa: E731
    residual, complete = jax.jit(lambda one: metrics.completeness(nothing, X, one, TARGET))(one)
    np.testing.assert_array_equal(residual, [np.inf, 0])
    np.testing.assert_array_equal(complete, [False, True])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"attributions": jnp.ones((3, 2))}, "explain every input"),
        ({"attributions": jnp.full(X.shape, jnp.inf)}, "finite"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"baseline": jnp.zeros(5)}, "broadcasts"),
        ({"target": jnp.asarray([0, -1])}, r"\[0, 3\)"),
    ],
)
def test_errors(options, match):
    arguments = {"x": X, "attributions": ROWS, "target": TARGET, **options}
    with pytest.raises(ValueError, match=match):
        metrics.completeness(linear, **arguments)


def test_scores_that_are_not_finite_are_refused_and_under_jit_not_complete():
    arguments = (jnp.ones((1, 3)), jnp.ones((1, 3)), jnp.array([0]))

    def judge(*arguments):
        return metrics.completeness(lambda x: x.sum(axis=1, keepdims=True) * jnp.nan, *arguments)

    with pytest.raises(ValueError, match="expected finite scores, got 1 of 1"):
        judge(*arguments)
    found = jax.jit(judge)(*arguments)
    assert jnp.isnan(found.residual).all() and not found[1].any()
