"""Non-sensitivity and input invariance of linear models, where both are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4, 2)).astype(np.float32)
WEIGHTS = RNG.normal(size=(3, 4, 2, 3)).astype(np.float32)
WEIGHTS[0] = 0  # no score depends on the first row
TARGET, KEY = np.array([2, 0]), jax.random.key(0)
ROWS = np.moveaxis(WEIGHTS[..., TARGET], -1, 0)  # the gradients


def f(x):
    return jnp.einsum("nhwc,hwck->nk", x, WEIGHTS, precision="highest") + 1


def count(attributions, function=f, **options):
    call = lambda x, a: metrics.non_sensitivity(function, KEY, x, a, TARGET, **options)  # noqa: E731
    return np.asarray(jax.jit(call)(X, attributions))


def test_the_gradient_of_a_linear_model_has_no_wrong_zero():
    np.testing.assert_array_equal(count(ROWS), 0)
    np.testing.assert_array_equal(count(ROWS.sum(axis=-1)), 0)  # pixels


@pytest.mark.parametrize(
    "options", [{"num_samples": 2, "chunk_size": 7}, pytest.param({}, marks=pytest.mark.slow)]
)
def test_it_counts_the_symmetric_difference(options):
    attributions = np.where(RNG.random(X.shape) < 0.4, 0, RNG.normal(size=X.shape)).astype(np.float32)
    expected = ((attributions == 0) ^ (ROWS == 0)).sum(axis=(1, 2, 3))
    assert (expected > 0).all()
    np.testing.assert_array_equal(count(attributions, **options), expected)


def test_constant_and_zero_attributions():
    np.testing.assert_array_equal(count(np.ones_like(X)), 8)  # the first row does not matter
    np.testing.assert_array_equal(count(np.zeros_like(X)), 16)  # all others do
    np.testing.assert_array_equal(count(np.ones_like(X), lambda x: 0 * f(x)), 24)
    np.testing.assert_array_equal(count(np.ones_like(X), tolerance=1e9), 0)


def test_other_inputs_than_images():
    x, weights = jnp.asarray(X.reshape(2, 24)), jnp.asarray(WEIGHTS.reshape(24, 3))
    linear = lambda x: x @ weights  # noqa: E731
    attributions = jnp.ones((2, 24))
    np.testing.assert_array_equal(metrics.non_sensitivity(linear, KEY, x, attributions, TARGET), 8)


def gradient(f, x, target):
    return jax.grad(lambda x: jnp.take_along_axis(f(x), target[:, None], axis=1).sum())(x)


@pytest.mark.parametrize("shift", [0.7, np.array([1.0, -2.0]), RNG.normal(size=(3, 4, 2))])
def test_gradients_are_invariant_and_products_with_the_input_are_not(shift):
    def run(explain, **options):
        call = lambda x: metrics.input_invariance(explain, f, x, TARGET, shift=shift, **options)  # noqa: E731
        return np.asarray(jax.jit(call)(X))

    np.testing.assert_allclose(run(gradient), 0, atol=1e-6)
    product = lambda f, x, target: x * gradient(f, x, target)  # noqa: E731
    axes = (1, 2, 3)
    expected = np.sqrt(((shift * ROWS) ** 2).sum(axis=axes) / ((X * ROWS) ** 2).sum(axis=axes))
    np.testing.assert_allclose(run(product), expected, rtol=1e-4)
    np.testing.assert_allclose(run(product, chunk_size=1), expected, rtol=1e-4)


def test_the_network_is_asked_for_the_same_scores():
    seen = lambda f, x, target: f(x)  # noqa: E731
    np.testing.assert_allclose(metrics.input_invariance(seen, f, X, TARGET, shift=3.0), 0, atol=1e-5)
    # An estimator that asks for other numbers of inputs.
    twice = lambda f, x, target: f(jnp.concatenate([x, x]))[: len(x)]  # noqa: E731
    np.testing.assert_allclose(metrics.input_invariance(twice, f, X, TARGET), 0, atol=1e-5)


def test_explanations_of_norm_zero():
    assert not metrics.input_invariance(lambda f, x, target: 0 * x, f, X, TARGET).any()
    moves = lambda f, x, target: (x - X[: len(x)]).round(3)  # noqa: E731
    assert np.isinf(metrics.input_invariance(moves, f, X, TARGET)).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"attributions": X[:, :2]}, "summed over channels"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"noise_scale": 0.0}, "noise_scale"),
    ],
)
def test_errors(options, match):
    given = {"attributions": X, **options}
    with pytest.raises(ValueError, match=match):
        count(given.pop("attributions"), **given)


def test_errors_of_invariance():
    with pytest.raises(ValueError, match="broadcasts"):
        metrics.input_invariance(gradient, f, X, TARGET, shift=X)
    with pytest.raises(ValueError, match="one explanation an input"):
        metrics.input_invariance(lambda f, x, target: x.sum(), f, X, TARGET)
