"""The metrics of neighbors against loops in NumPy, and closed forms of linear models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics
from jxai.batches.draws import normal_draws, row_keys

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4)).astype(np.float32) + 2
TARGET = np.array([1, 0, 2])
WEIGHTS = RNG.normal(size=(4, 3)).astype(np.float32)
HIDDEN = RNG.normal(size=(4, 5)).astype(np.float32)
KEY = jax.random.key(3)
NUM = 6


def f(x):
    return x @ WEIGHTS


def explain(x, target):
    """Curved, and with the target."""
    return x**2 * jnp.asarray(WEIGHTS.T)[target] + 1


def slow_explain(x, target):
    return x.astype(np.float64) ** 2 * WEIGHTS.T[target] + 1


def box(radius):
    """The neighbors that the metrics draw: (NUM, N, D)."""

    def draw(number):
        keys = row_keys(KEY, jnp.arange(3), jnp.full(3, number))
        return jax.vmap(lambda one: jax.random.uniform(one, (4,), minval=-1, maxval=1))(keys)

    return np.stack([np.asarray(X + radius * draw(number)) for number in range(1, NUM + 1)])


def cloud(scale):
    draws = [normal_draws(KEY, jnp.arange(3), jnp.full(3, number), (4,)) for number in range(1, NUM + 1)]
    return np.stack([np.asarray(X + scale * draw) for draw in draws])


def run(metric, *functions, **options):
    call = lambda x: metric(*functions, KEY, x, TARGET, num_samples=NUM, **options)  # noqa: E731
    return np.asarray(jax.jit(call)(X))


def slow(neighbors, ratio):
    """(NUM, N): the ratio of every neighbor."""
    return np.array([[ratio(X[n], near[n], n) for n in range(3)] for near in neighbors])


def moved(a, b, n):
    return np.linalg.norm(slow_explain(a, TARGET[n]) - slow_explain(b, TARGET[n]))


def relative(a, b):
    return np.linalg.norm((a - b) / a)


def relative_explanation(a, b, n):
    return relative(slow_explain(a, TARGET[n]), slow_explain(b, TARGET[n]))


def test_sensitivities_are_their_definitions():
    ratios = slow(box(0.3), lambda a, b, n: moved(a, b, n) / np.linalg.norm(slow_explain(a, TARGET[n])))
    found = run(metrics.maximum_sensitivity, explain, radius=0.3)
    np.testing.assert_allclose(found, ratios.max(axis=0), rtol=1e-4)
    found = run(metrics.average_sensitivity, explain, radius=0.3, chunk_size=2)
    np.testing.assert_allclose(found[:2], ratios.mean(axis=0)[:2], rtol=1e-4)


def test_the_lipschitz_estimate_is_its_definition():
    ratios = slow(box(0.3), lambda a, b, n: moved(a, b, n) / np.linalg.norm(a.astype(np.float64) - b))
    found = run(metrics.local_lipschitz_estimate, explain, radius=0.3)
    np.testing.assert_allclose(found, ratios.max(axis=0), rtol=1e-4)


@pytest.mark.slow
def test_lipschitz_constants_of_a_linear_model():
    rows = jnp.asarray(WEIGHTS.T)
    product = run(metrics.local_lipschitz_estimate, lambda x, target: x * rows[target], radius=0.5)
    largest = np.abs(WEIGHTS.T[TARGET]).max(axis=1)  # of input times gradient: the largest weight
    assert (product <= largest * (1 + 1e-4)).all() and (product > 0.5 * largest).all()
    for metric in (
        metrics.local_lipschitz_estimate,
        metrics.maximum_sensitivity,
        metrics.average_sensitivity,
    ):
        np.testing.assert_array_equal(run(metric, lambda x, target: rows[target]), 0)  # the gradient


@pytest.mark.slow
def test_huge_and_tiny_explanations():
    plain = run(metrics.maximum_sensitivity, explain)
    for scale in (1e-30, 1e30):  # whose squares leave float32
        found = run(metrics.maximum_sensitivity, lambda x, target, s=scale: s * explain(x, target))
        np.testing.assert_allclose(found, plain, rtol=1e-3)


def same_class(a, b):
    return (a @ WEIGHTS).argmax() == (b @ WEIGHTS).argmax()


@pytest.mark.parametrize("scale", [0.7, pytest.param(0.05, marks=pytest.mark.slow)])
def test_stabilities_are_their_definitions(scale):
    near = cloud(scale)
    counted = slow(near, lambda a, b, n: same_class(a, b))
    assert counted.any(axis=0).all()
    if scale > 0.5:
        assert not counted.all()

    def expected(against):
        ratios = slow(near, lambda a, b, n: relative_explanation(a, b, n) / against(a, b))
        return np.where(counted, ratios, -np.inf).max(axis=0)

    options = {"noise_scale": scale}
    found = run(metrics.relative_input_stability, f, explain, **options)
    np.testing.assert_allclose(found, expected(relative), rtol=1e-3)
    found = run(metrics.relative_output_stability, f, explain, **options)
    np.testing.assert_allclose(
        found, expected(lambda a, b: np.linalg.norm(a @ WEIGHTS - b @ WEIGHTS)), rtol=1e-3
    )
    represent = lambda x: x @ HIDDEN  # noqa: E731
    found = run(metrics.relative_representation_stability, f, explain, represent, **options)
    np.testing.assert_allclose(found, expected(lambda a, b: relative(a @ HIDDEN, b @ HIDDEN)), rtol=1e-3)


def test_stabilities_of_a_linear_model():
    rows = jnp.asarray(WEIGHTS.T)
    product = lambda x, target: x * rows[target]  # noqa: E731
    for represent in (None, lambda x: 3 * x):  # input times gradient changes by what the input does
        functions = (f, product) if represent is None else (f, product, represent)
        metric = (
            metrics.relative_input_stability
            if represent is None
            else metrics.relative_representation_stability
        )
        np.testing.assert_allclose(run(metric, *functions), 1, rtol=1e-3)
    gradient = lambda x, target: rows[target]  # noqa: E731
    np.testing.assert_array_equal(run(metrics.relative_output_stability, f, gradient), 0)


def test_no_neighbor_of_the_same_class_and_entries_of_zero():
    def swaps(x):
        """A class at X alone, another elsewhere."""
        there = (x == jnp.asarray(X)[: len(x)]).all(axis=1)
        return jnp.stack([there, ~there, ~there], axis=1).astype(jnp.float32)

    assert np.isnan(run(metrics.relative_input_stability, swaps, explain)).all()
    # 0 becomes the smallest: |0 − 1e-3| / 1e-4 = 10 against a denominator that has it, too.
    step = lambda x, target: jnp.where(x == jnp.asarray(X)[: len(x)], 0.0, 1e-3)  # noqa: E731
    found = run(metrics.relative_output_stability, lambda x: 0 * x, step, smallest=1e-4)
    np.testing.assert_allclose(found, 10 * 2 / 1e-4, rtol=1e-4)  # four entries, and scores that do not move
    # So does what is smaller than rounding of the largest, as LRP's relevance of an input of 0: |1e-9 − 2e-3| / 1e-4.
    scale = jnp.array([1.0, 1e-9, 1e-9, 1e-9])
    tiny = lambda x, target: jnp.where(x == jnp.asarray(X)[: len(x)], scale, 2e-3)  # noqa: E731
    found = run(metrics.relative_output_stability, lambda x: 0 * x, tiny, smallest=1e-4)
    np.testing.assert_allclose(found, np.sqrt(3 * 20**2 + 0.998**2) / 1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("metric", "functions", "options", "match"),
    [
        (metrics.average_sensitivity, (lambda x, target: x.sum(),), {}, "an array"),
        (metrics.local_lipschitz_estimate, (explain,), {"radius": -1.0}, "radius"),
        (metrics.relative_input_stability, (f, explain), {"smallest": 0.0}, "smallest"),
        (metrics.relative_output_stability, (f, explain), {"noise_scale": 0.0}, "noise_scale"),
        (metrics.relative_representation_stability, (f, explain, lambda x: x.sum()), {}, "`represent`"),
    ],
)
def test_errors(metric, functions, options, match):
    with pytest.raises(ValueError, match=match):
        run(metric, *functions, **options)


def test_explanations_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="expected finite explanations, got 3 of 3"):
        metrics.relative_input_stability(f, lambda x, target: x / 0, KEY, X, TARGET)
