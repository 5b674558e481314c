"""Correlations of attributions and the score's drops: against loops in NumPy, and 1 on linear functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jxai import metrics
from jxai.metrics.correlation import pearson, spearman

SHAPE = (3, 5, 4, 2)
RNG = np.random.default_rng(0)
X = RNG.normal(size=SHAPE).astype(np.float32)
ATTRIBUTIONS = RNG.normal(size=SHAPE).astype(np.float32)
HEATMAP = ATTRIBUTIONS.sum(axis=-1)
TARGET = np.array([1, 0, 2])
WEIGHTS = RNG.normal(size=(40, 3)).astype(np.float32)
KEY = jax.random.key(0)
GRADIENT = WEIGHTS.T[TARGET].reshape(SHAPE)
BASELINE = np.array([0.3, -0.2], np.float32)


def f(x):
    return jnp.tanh(x.reshape(len(x), -1) @ WEIGHTS / 4)


def linear(x):
    return x.reshape(len(x), -1) @ WEIGHTS + 1


@functools.partial(jax.jit, static_argnames=("metric", "f", "options"))
def run(metric, f, attributions, options=(), key=(), x=X):
    """Compiled as one program: much quicker than one operation at a time."""
    return metric(f, *key, x, attributions, TARGET, baseline=BASELINE, **dict(options))


def score(n, image):
    return np.tanh(image.reshape(-1) @ WEIGHTS / 4)[TARGET[n]]


def groups(n, attributions, size, *, magnitude=False):
    """Sets of features as lists of their places, the largest first, of equal ones the first in reading order."""
    line = attributions[n].astype(np.float64)
    line = abs(line) if magnitude else line
    order = sorted(np.ndindex(line.shape), key=lambda place: (-line[place], place))
    return [order[start : start + size] for start in range(0, len(order), size)]


def put(image, places, values):
    image = image.copy()
    for place in places:
        image[place] = values[place]
    return image


@pytest.mark.parametrize(("attributions", "size"), [(ATTRIBUTIONS, 7), (HEATMAP, 1), (HEATMAP, 6)])
def test_estimate_is_the_slow_loop(attributions, size):
    found = run(metrics.faithfulness_estimate, f, attributions, (("group_size", size),))
    whole = np.broadcast_to(BASELINE, SHAPE[1:])
    for n, value in enumerate(found):
        sets = groups(n, attributions, size)
        sums = [sum(attributions[n][place] for place in places) for places in sets]
        drops = [score(n, X[n]) - score(n, put(X[n], places, whole)) for places in sets]
        np.testing.assert_allclose(value, stats.pearsonr(sums, drops)[0], atol=1e-5)


def test_input_times_gradient_of_a_linear_function_foretells_all():
    contributions = GRADIENT * (X - BASELINE)
    for attributions in (contributions, contributions.sum(axis=-1)):
        options = (("group_size", 3),)
        np.testing.assert_allclose(
            run(metrics.faithfulness_estimate, linear, attributions, options), 1, atol=1e-5
        )
        options = (("sizes", (1, 5, 12)), ("num_samples", 30))
        found = run(metrics.sensitivity_n, linear, attributions, options, (KEY,))
        assert found.shape == (3, 3)
        np.testing.assert_allclose(found, 1, atol=1e-5)
        np.testing.assert_allclose(
            run(metrics.sensitivity_n, linear, -2 * attributions, options, (KEY,)), -1, atol=1e-5
        )


def test_correlation_is_that_of_the_sets_it_drew():
    """The sets are read off the function's inputs: a hundred ones a call, then NumPy's correlation."""
    seen = []

    def watched(x):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), x)
        return f(x)

    found = jax.jit(
        lambda: metrics.faithfulness_correlation(
            watched, KEY, X, HEATMAP, TARGET, subset_size=6, num_samples=25, baseline=9.0, chunk_size=100
        )
    )()
    found = np.asarray(found)
    jax.effects_barrier()
    (inputs,) = seen
    inputs = inputs[: 3 * 26].reshape(3, 26, *SHAPE[1:])
    gone = (inputs == 9).all(axis=-1)
    assert (gone.sum(axis=(2, 3)) == [0] + [6] * 25).all()
    assert len({one.tobytes() for one in gone.reshape(78, -1)}) > 70  # of C(20, 6) = 38760
    assert (inputs[~gone] == np.broadcast_to(X[:, None], inputs.shape)[~gone]).all()
    for n in range(3):
        sums = [HEATMAP[n][one].sum() for one in gone[n, 1:]]
        drops = [score(n, X[n]) - score(n, image) for image in inputs[n, 1:]]
        np.testing.assert_allclose(found[n], stats.pearsonr(sums, drops)[0], atol=1e-5)


def test_correlation_is_sensitivity_at_one_size():
    # By default a tenth of 20 places or of 40 elements, and sizes from 1 to 80 %.
    @jax.jit
    def all_of():
        given = {"target": TARGET, "num_samples": 9, "baseline": BASELINE}
        correlation = functools.partial(metrics.faithfulness_correlation, f, KEY, X, **given)
        curve = functools.partial(metrics.sensitivity_n, f, KEY, X, HEATMAP, **given)
        sizes = sorted({int(size) for size in np.geomspace(1, 16, 8)})
        return (
            (correlation(HEATMAP), curve(sizes=(2,))[:, 0]),
            (correlation(ATTRIBUTIONS), correlation(ATTRIBUTIONS, subset_size=4)),
            (curve(), curve(sizes=sizes)),
        )

    for found, expected in all_of():
        np.testing.assert_array_equal(found, expected)


def test_constant_maps_foretell_nothing():
    for value in (0.0, 0.1, -3e7):
        constant = np.full(SHAPE[:3], value, np.float32)
        assert (run(metrics.faithfulness_estimate, f, constant, (("group_size", 4),)) == 0).all()
        assert (run(metrics.faithfulness_correlation, f, constant, (("num_samples", 9),), (KEY,)) == 0).all()
        assert (run(metrics.monotonicity_correlation, f, constant, (), (KEY,)) == 0).all()


def test_all_features_have_no_correlation_and_a_constant_score_neither():
    found = run(metrics.sensitivity_n, f, HEATMAP, (("sizes", (20,)), ("num_samples", 3)), (KEY,))
    assert (found == 0).all()
    zero = lambda x: jnp.ones((len(x), 3))  # noqa: E731
    assert (run(metrics.faithfulness_estimate, zero, HEATMAP) == 0).all()
    assert (run(metrics.monotonicity, zero, HEATMAP) == 1).all()


@pytest.mark.parametrize("size", [1, 3])
def test_monotonicity_is_the_slow_loop(size):
    # Attributions that are the score's own steps now and then: both answers come up.
    contributions = np.abs(GRADIENT * (X - BASELINE)).sum(axis=-1)
    signs = np.sign((GRADIENT * (X - BASELINE)).sum(axis=-1, keepdims=True))
    x = np.where((np.arange(3) < 2).reshape(3, 1, 1, 1) & (signs < 0), BASELINE, X).astype(np.float32)
    found = np.asarray(run(metrics.monotonicity, linear, contributions, (("group_size", size),), (), x))
    for n, value in enumerate(found):
        sets = groups(n, contributions, size)[::-1]
        count = contributions[n].size  # the last to enter are whole groups counted from the smallest
        order = [place for places in groups(n, contributions, 1)[::-1] for place in places]
        sets = [order[start : start + size] for start in range(0, count, size)]
        current, curve = np.broadcast_to(BASELINE, SHAPE[1:]).astype(np.float64), []
        curve.append(current.reshape(-1) @ WEIGHTS[:, TARGET[n]])
        for places in sets:
            current = put(current, places, x[n])
            curve.append(current.reshape(-1) @ WEIGHTS[:, TARGET[n]])
        assert value == (np.diff(curve) >= -1e-6).all()
    assert found.tolist() == [1, 1, 0]


def test_monotonicity_correlation_is_the_slow_loop():
    options = (("group_size", 3), ("num_samples", 1))
    found = run(metrics.monotonicity_correlation, f, ATTRIBUTIONS, options, (KEY,))
    whole = np.broadcast_to(BASELINE, SHAPE[1:])
    for n, value in enumerate(found):
        sets = groups(n, ATTRIBUTIONS, 3, magnitude=True)
        sums = [sum(abs(ATTRIBUTIONS[n][place]) for place in places) for places in sets]
        effects = [(score(n, X[n]) - score(n, put(X[n], places, whole))) ** 2 for places in sets]
        np.testing.assert_allclose(value, stats.spearmanr(sums, effects)[0], atol=1e-5)


def test_magnitudes_of_a_linear_functions_contributions_rank_its_variations():
    contributions = GRADIENT * (X - BASELINE)
    found = run(metrics.monotonicity_correlation, linear, contributions, (("group_size", 1),), (KEY,))
    np.testing.assert_allclose(found, 1, atol=1e-3)  # of effects that are nearly equal


def test_correlations_are_scipys():
    first, second = np.random.default_rng(1).normal(size=(2, 5, 30)).astype(np.float32)
    first[:, :7] = 0.5  # ties
    for ours, theirs in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        expected = [theirs(a, b)[0] for a, b in zip(first, second, strict=True)]
        np.testing.assert_allclose(ours(jnp.asarray(first), jnp.asarray(second)), expected, atol=1e-6)
    big = jnp.asarray(first) * 1e37
    np.testing.assert_allclose(pearson(big, second), pearson(jnp.asarray(first), second), atol=1e-5)


@pytest.mark.parametrize(
    ("metric", "options", "match"),
    [
        ("faithfulness_estimate", {"attributions": jnp.zeros((3, 4))}, "of shape"),
        ("faithfulness_estimate", {"group_size": 21}, "at most 20"),
        (
            "faithfulness_estimate",
            {"baseline": lambda x, mask, key: x[0]},
            "`baseline` to give floats of shape",
        ),
        ("faithfulness_estimate", {"baseline": lambda x, mask, key: None}, "`baseline` to give floats"),
        ("monotonicity", {"group_size": 0}, "group_size"),
        ("monotonicity_correlation", {"num_samples": 0}, "num_samples"),
        ("monotonicity_correlation", {"key": 3}, "random key"),
        ("sensitivity_n", {"sizes": ()}, "sizes"),
        ("sensitivity_n", {"sizes": (21,)}, "at most 20"),
        ("sensitivity_n", {"sizes": (0,)}, "sizes of at least 1"),
        ("sensitivity_n", {"num_samples": 1}, "at least 2"),
        ("faithfulness_correlation", {"subset_size": 21}, "at most 20"),
    ],
)
def test_errors(metric, options, match):
    random = {"key": KEY} if metric not in ("faithfulness_estimate", "monotonicity") else {}
    given = {"x": jnp.asarray(X), "attributions": jnp.asarray(HEATMAP), "target": jnp.asarray(TARGET)}
    with pytest.raises(ValueError, match=match):
        getattr(metrics, metric)(f, **{**random, **given, **options})
