"""Features as players: against all coalitions written out, loops, and linear functions."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(4)
X = jnp.asarray(RANDOM.normal(size=(2, 6)), jnp.float32)
TARGET = jnp.array([1, 0])
WEIGHTS = jnp.asarray(RANDOM.normal(size=(6, 3)), jnp.float32)
PAIRS = jnp.asarray(RANDOM.normal(size=(6, 6, 3)), jnp.float32)
BASELINE = jnp.asarray(RANDOM.normal(size=(2, 6)), jnp.float32)
# Four features in the first image, three in the second.
MASK = np.array([[0, 0, 1, 2, 3, 1], [2, 2, 0, 1, 1, 0]])


def linear(x):
    return x @ WEIGHTS + 1.0


def coupled(x):
    return jnp.tanh(x @ WEIGHTS) + jnp.einsum("ni,ijk,nj->nk", x, PAIRS, x)


def values_of(f, image):
    """(score of every coalition by its features, features, members of each) of one image, by a loop."""
    labels, count = MASK[image], MASK[image].max() + 1
    inputs, coalitions = (
        [],
        [frozenset(s) for size in range(count + 1) for s in itertools.combinations(range(count), size)],
    )
    for coalition in coalitions:
        inputs.append(np.where(np.isin(labels, list(coalition)), X[image], BASELINE[image]))
    scores = np.asarray(f(jnp.asarray(np.stack(inputs)))[:, TARGET[image]], np.float64)
    return dict(zip(coalitions, scores, strict=True)), count


def dealt(worth, image):
    labels = MASK[image]
    return np.asarray(worth)[labels] / np.bincount(labels)[labels]


def shapley(f, image):
    """The Shapley values of the definition."""
    value, count = values_of(f, image)
    worth = np.zeros(count)
    for feature in range(count):
        for coalition in value:
            if feature not in coalition:
                size = len(coalition)
                share = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
                worth[feature] += share * (value[coalition | {feature}] - value[coalition])
    return dealt(worth, image)


OPTIONS = {"feature_mask": MASK, "baseline": BASELINE}


def test_kernel_shap_of_all_coalitions_is_exact():
    # 14 coalitions of four features: the second image's fourth feature has no entries, and gets nothing.
    found = attribution.kernel_shap(coupled, KEY, X, TARGET, num_samples=14, **OPTIONS)
    expected = np.stack([shapley(coupled, image) for image in range(2)])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_drawn_coalitions_and_orders_tend_to_the_shapley_values():
    expected = np.stack([shapley(coupled, image) for image in range(2)])
    orders = jax.jit(
        lambda key: attribution.shapley_sampling(coupled, key, X, TARGET, num_permutations=3000, **OPTIONS)
    )(KEY)
    np.testing.assert_allclose(orders, expected, atol=0.03 * np.abs(expected).max())
    # Five features more, of one entry each, so that 2000 coalitions are not all; a function of pairs needs no more.
    x, baseline = jnp.tile(X, (1, 2)), jnp.tile(BASELINE, (1, 2))

    def f(x):
        return coupled(x[:, :6]) + linear(x[:, 6:])

    mask = np.concatenate([MASK, [[4, 5, 6, 7, 8, 9], [3, 4, 5, 6, 7, 8]]], axis=1)
    drawn = jax.jit(
        lambda key: attribution.kernel_shap(
            f, key, x, TARGET, num_samples=1000, feature_mask=mask, baseline=baseline
        )
    )(KEY)
    own = (X - BASELINE) * WEIGHTS.T[TARGET]
    np.testing.assert_allclose(drawn[:, 6:], own, atol=0.1)
    np.testing.assert_allclose(drawn[:, :6], expected, atol=0.1 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["shapley_sampling", "kernel_shap"])
@pytest.mark.parametrize("few", [1, *(pytest.param(few, marks=pytest.mark.slow) for few in (2, 5))])
def test_however_few_draws_values_sum_to_the_change(name, few):
    option = {"num_permutations" if name == "shapley_sampling" else "num_samples": few}
    call = functools.partial(getattr(attribution, name), coupled, KEY, X, TARGET, baseline=BASELINE, **option)
    change = (coupled(X) - coupled(BASELINE))[jnp.arange(2), TARGET]
    np.testing.assert_allclose(jax.jit(call)().sum(axis=1), change, rtol=1e-4, atol=1e-4)
    whole = functools.partial(call, feature_mask=np.zeros(6, int))  # one feature
    np.testing.assert_allclose(jax.jit(whole)(), np.tile(change[:, None] / 6, (1, 6)), rtol=1e-4)


@pytest.mark.parametrize(
    "run",
    [
        functools.partial(attribution.feature_ablation, linear),
        functools.partial(attribution.shapley_sampling, linear, KEY, num_permutations=1),
        functools.partial(attribution.kernel_shap, linear, KEY),
        functools.partial(attribution.kernel_shap, linear, KEY, num_samples=40),
        functools.partial(attribution.lime, linear, KEY, ridge=0),
        functools.partial(attribution.lime, linear, KEY, ridge=0, num_samples=40, kernel_width=5.0),
    ],
)
def test_of_a_linear_function_each_gives_weights_times_the_distance(run):
    found = jax.jit(lambda x: run(x, TARGET, baseline=BASELINE))(X)
    expected = (X - BASELINE) * WEIGHTS.T[TARGET]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_ablation_against_a_loop():
    found = attribution.feature_ablation(coupled, X, TARGET, **OPTIONS)
    for image in range(2):
        value, count = values_of(coupled, image)
        everyone = frozenset(range(count))
        worth = [value[everyone] - value[everyone - {feature}] for feature in range(count)]
        np.testing.assert_allclose(found[image], dealt(worth, image), rtol=1e-4, atol=1e-4)


def test_lime_against_a_ridge_regression():
    width, ridge = 0.6, 0.3
    found = attribution.lime(
        coupled, KEY, X, TARGET, num_samples=16, kernel_width=width, ridge=ridge, **OPTIONS
    )
    for image in range(2):
        value, count = values_of(coupled, image)
        count = 4  # a feature without entries is one all the same
        rows, scores, weights = [], [], []
        for members in itertools.product([0, 1], repeat=count):
            present = frozenset(k for k in range(MASK[image].max() + 1) if members[k])
            rows.append([1.0, *members])
            scores.append(value[present])
            distance = 1 - np.sqrt(np.mean(members))
            weights.append(np.exp(-((distance / width) ** 2)))
        z, y, w = np.array(rows), np.array(scores), np.array(weights)
        penalty = ridge * np.diag([0, *[1] * count])
        coefficients = np.linalg.solve(z.T @ (w[:, None] * z) + penalty, z.T @ (w * y))[1:]
        expected = dealt(coefficients[: MASK[image].max() + 1], image)
        np.testing.assert_allclose(found[image], expected, rtol=1e-3, atol=1e-4)


def test_permutation_takes_what_others_have():
    """Mean over all permutations of the batch, each image with its own place; of a product, so nothing cancels."""
    x = jnp.asarray(RANDOM.normal(size=(3, 4)), jnp.float32)
    mask = np.array([0, 1, 1, 0])

    def f(x):
        return jnp.prod(x, axis=1, keepdims=True)

    found = attribution.feature_permutation(
        f, KEY, x, jnp.zeros(3, int), feature_mask=mask, num_permutations=3000
    )
    scores = np.prod(np.asarray(x), axis=1)
    for feature in range(2):
        own, theirs = np.array(x), np.array(x)
        drops = np.zeros(3)
        for order in itertools.permutations(range(3)):
            moved = np.where(mask == feature, theirs[list(order)], own)
            drops += (scores - np.prod(moved, axis=1)) / 6
        np.testing.assert_allclose(
            found[:, mask == feature].sum(axis=1), drops, atol=0.05 * np.abs(scores).max()
        )


def test_a_mask_for_all_images_or_for_each():
    x = jnp.asarray(RANDOM.normal(size=(2, 4, 4, 3)), jnp.float32)
    halves = np.arange(4)[:, None, None] // 2

    def f(x):
        return (x**2).sum(axis=(1, 2))

    one = attribution.feature_ablation(f, x, TARGET, feature_mask=halves)
    each = attribution.feature_ablation(f, x, TARGET, feature_mask=np.broadcast_to(halves, x.shape))
    np.testing.assert_array_equal(one, each)
    squares = np.asarray(x)[np.arange(2), :, :, np.asarray(TARGET)] ** 2
    np.testing.assert_allclose(
        one.sum(axis=(2, 3))[:, ::2] * 2, squares.reshape(2, 2, 8).sum(axis=2), rtol=1e-4
    )


GAMES = {
    "feature_ablation": attribution.feature_ablation,
    "feature_permutation": lambda f, *args, baseline=None, **o: attribution.feature_permutation(
        f, KEY, *args, **o
    ),
    "kernel_shap": lambda f, *args, **o: attribution.kernel_shap(f, KEY, *args, **o),
    "lime": lambda f, *args, **o: attribution.lime(f, KEY, *args, **o),
    "shapley_sampling": lambda f, *args, **o: attribution.shapley_sampling(f, KEY, *args, **o),
}


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((2, 5), int), r"feature_mask that broadcasts to \(2, 6\), got \(2, 5\)"),
        (np.zeros((3, 6), int), "feature_mask that broadcasts"),
        (np.array([0, 0, 2, 2, 3, 3]), "got values from 0 to 3 without 1: number the features anew"),
        (np.array([1, 1, 2, 2, 3, 3]), "got values from 1 to 3 without 0"),
        (np.array([0, -1, 2, 2, 1, 3]), "got values from -1 to 3"),
        (np.array([[0, 1, 2, 3, 4, 5], [0, 1, 2, 2, 4, 4]]), "got values from 0 to 4 without 3"),
    ],
)
def test_wrong_masks_are_named(name, mask, message):
    known = jnp.asarray(mask)
    with pytest.raises(ValueError, match=message):
        GAMES[name](linear, X, TARGET, feature_mask=mask)
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda x: GAMES[name](linear, x, TARGET, feature_mask=known))(X)


@pytest.mark.parametrize("name", GAMES)
def test_masks_of_another_kind_are_named(name):
    with pytest.raises(TypeError, match="feature_mask of integers, got float32"):
        GAMES[name](linear, X, TARGET, feature_mask=jnp.zeros(6))
    with pytest.raises(ValueError, match="feature_mask that is known, got one traced"):
        jax.jit(lambda mask: GAMES[name](linear, X, TARGET, feature_mask=mask))(MASK)
    if name != "feature_permutation":
        with pytest.raises(ValueError, match="baseline that broadcasts"):
            GAMES[name](linear, X, TARGET, baseline=jnp.zeros(5))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: attribution.kernel_shap(linear, KEY, X, TARGET, num_samples=0), "num_samples of at least 1"),
        (lambda: attribution.lime(linear, KEY, X, TARGET, num_samples=0), "num_samples of at least 1"),
        (lambda: attribution.lime(linear, KEY, X, TARGET, kernel_width=0.0), "kernel_width above 0"),
        (lambda: attribution.lime(linear, KEY, X, TARGET, ridge=-1.0), "ridge of at least 0"),
        (
            lambda: attribution.shapley_sampling(linear, KEY, X, TARGET, num_permutations=0),
            "num_permutations of at least 1",
        ),
        (
            lambda: attribution.feature_permutation(linear, KEY, X, TARGET, num_permutations=0),
            "num_permutations of at least 1",
        ),
        (
            lambda: attribution.kernel_shap(lambda x: x[:, :3], KEY, jnp.ones((2, 5000)), TARGET),
            "at most 4096 features, got 5000: give a feature_mask",
        ),
    ],
)
def test_wrong_options_are_named(run, message):
    with pytest.raises(ValueError, match=message):
        run()
