"""Smooth and efficient model randomization, and the random logit, against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics
from jxai.batches.draws import normal_draws

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 6, 6, 2)).astype(np.float32)
KEY = jax.random.key(0)


def tree(seed):
    rng = np.random.default_rng(seed)
    return {name: {"w": jnp.asarray(rng.normal(size=(6, 6)), jnp.float32)} for name in ("bottom", "top")}


VARIABLES, RANDOM = tree(0), tree(1)


def explain(variables, x):
    return jnp.sin(x.sum(axis=-1) * variables["bottom"]["w"]) * variables["top"]["w"]


@pytest.mark.slow
def test_smooth_randomization_is_that_of_a_mean():
    num, spread = 3, np.ptp(X, axis=(1, 2, 3), keepdims=True)

    def smoothed(variables):
        draws = [normal_draws(KEY, jnp.arange(2), jnp.full(2, s), X.shape[1:]) for s in range(num)]
        return sum(explain(variables, X + 0.2 * spread * draw) for draw in draws) / num

    layers = ("top", "bottom")
    found = jax.jit(
        lambda x: metrics.smooth_model_randomization(
            explain, KEY, x, VARIABLES, RANDOM, layers=layers, noise_scale=0.2, num_samples=num
        )
    )(X)
    mixed = {"top": RANDOM["top"], "bottom": VARIABLES["bottom"]}
    for column, variables in enumerate((mixed, RANDOM)):
        pair = smoothed(VARIABLES), smoothed(variables)
        rank, likeness = metrics.rank_correlation(*pair), metrics.structural_similarity(*pair)
        np.testing.assert_allclose(found.rank_correlation[:, column], rank, atol=1e-4)
        np.testing.assert_allclose(found.structural_similarity[:, column], likeness, atol=1e-4)


def slow_entropy(heatmap, num_bins):
    counts, _ = np.histogram(heatmap, bins=num_bins)
    share = counts[counts > 0] / heatmap.size
    return -(share * np.log(share)).sum()


@pytest.mark.parametrize("num_bins", [2, 9])
def test_efficient_randomization_is_a_rise_of_entropy(num_bins):
    def heatmaps(variables):
        return explain(variables, X)

    before, after = (
        np.array([slow_entropy(np.asarray(one), num_bins) for one in heatmaps(variables)])
        for variables in (VARIABLES, RANDOM)
    )
    run = lambda: metrics.efficient_model_randomization(  # noqa: E731
        heatmaps, VARIABLES, RANDOM, num_bins=num_bins
    )
    np.testing.assert_allclose(jax.jit(run)(), (after - before) / before, rtol=1e-4, atol=1e-5)


def test_entropies_of_nothing():
    flat = lambda variables: jnp.ones((2, 6, 6)) * variables["a"][0, 0]  # noqa: E731
    ones, many = {"a": jnp.ones((6, 6))}, {"a": jnp.asarray(RNG.normal(size=(6, 6)), jnp.float32)}
    np.testing.assert_array_equal(metrics.efficient_model_randomization(flat, ones, many), 0)
    each = lambda variables: variables["a"][None]  # noqa: E731
    np.testing.assert_array_equal(metrics.efficient_model_randomization(each, ones, many), np.inf)
    np.testing.assert_array_equal(metrics.efficient_model_randomization(each, many, ones), -1)


def test_only_parameters_are_randomized():
    statistics = {"params": {"a": jnp.ones((6, 6))}, "batch_stats": {"a": VARIABLES["top"]["w"]}}
    others = {"params": {"a": jnp.ones((6, 6))}, "batch_stats": {"a": RANDOM["top"]["w"]}}
    heatmap = lambda v: (v["params"]["a"] * v["batch_stats"]["a"])[None]  # noqa: E731
    assert not metrics.efficient_model_randomization(heatmap, statistics, others).any()


@pytest.mark.slow
def test_random_logit_is_likeness_to_another_class():
    maps = jnp.asarray(RNG.normal(size=(4, 6, 6)), jnp.float32)
    by_class = lambda x, target: maps[target] + x.sum(axis=-1) * 0.1  # noqa: E731
    target = np.array([3, 1])
    run = lambda key, chunk: metrics.random_logit(  # noqa: E731
        by_class, key, X, target, num_classes=4, chunk_size=chunk
    )
    own = by_class(X, target)
    likely = np.stack([metrics.structural_similarity(own, by_class(X, np.full(2, k))) for k in range(4)])
    drawn = [set(), set()]
    for seed in range(12):
        found = np.asarray(run(jax.random.key(seed), None))
        for n in range(2):
            (place,) = np.flatnonzero(np.abs(likely[:, n] - found[n]) < 1e-5)
            drawn[n].add(int(place))
    assert drawn == [{0, 1, 2}, {0, 2, 3}]  # all others, and never itself
    np.testing.assert_allclose(run(KEY, 1), run(KEY, None), atol=1e-5)


def test_an_explanation_that_does_not_know_the_class():
    same = lambda x, target: x.sum(axis=-1)  # noqa: E731
    np.testing.assert_allclose(
        metrics.random_logit(same, KEY, X, np.array([0, 1]), num_classes=2), 1, atol=1e-5
    )


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: metrics.random_logit(lambda x, t: x, KEY, X, np.array([0, 1]), num_classes=2), "sum attrib"),
        (lambda: metrics.random_logit(lambda x, t: x[..., 0], KEY, X, np.array([0, 2]), num_classes=2), "2"),
        (lambda: metrics.random_logit(lambda x, t: x[..., 0], KEY, X, np.array([0, 0]), num_classes=1), "2"),
        (lambda: metrics.efficient_model_randomization(lambda v: X[..., 0], {}, {}), "arrays to randomize"),
        (lambda: metrics.efficient_model_randomization(lambda v: X, VARIABLES, RANDOM), "sum attributions"),
        (
            lambda: metrics.efficient_model_randomization(lambda v: X[..., 0], VARIABLES, RANDOM, num_bins=1),
            "bins",
        ),
        (
            lambda: metrics.smooth_model_randomization(explain, KEY, X, VARIABLES, RANDOM),
            "from the top down",
        ),
        (
            lambda: metrics.smooth_model_randomization(
                explain, KEY, X, VARIABLES, RANDOM, noise_scale=0.0, cascading=False
            ),
            "noise_scale",
        ),
    ],
)
def test_errors(call, match):
    with pytest.raises(ValueError, match=match):
        call()
