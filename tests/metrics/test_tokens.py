"""Metrics of tokens against loops over sequences, tokens and draws."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

N, T, C, K = 3, 5, 2, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, T, C)).astype(np.float32)
RELEVANCE = RNG.normal(size=(N, T)).astype(np.float32)
RELEVANCE[0, :3] = 0.5  # ties: the first token goes first
TARGET = np.array([1, 0, 3])
LENGTHS = (5, 3, 4)
MASK = np.array([[i < length for i in range(T)] for length in LENGTHS])
WEIGHTS = RNG.normal(size=(T, C, K)).astype(np.float32)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def f(x, present=None):
    """What it gives depends on the places of tokens, and padding counts."""
    present = jnp.ones(x.shape[:2], bool) if present is None else present
    hidden = jnp.tanh(jnp.einsum("ntc,tck->ntk", x, WEIGHTS))
    return (hidden * present[..., None]).sum(axis=1)


def score(x, present=None, probability=False):
    """Of one sequence (T, C), all classes."""
    scores = np.asarray(f(x[None], None if present is None else np.asarray(present)[None])[0])
    return np.exp(scores) / np.exp(scores).sum() if probability else scores


def changed(n, stays, *, removed, mask, baseline=0.0, probability=False):
    """The target's score of sequence n where only some tokens stay."""
    counts = [t for t in range(T) if mask is None or mask[n, t]]
    kept = [t for t in counts if t in stays]
    x = X[n].copy()
    if removed:
        x = np.concatenate([x[kept], np.zeros((T - len(kept), C), np.float32)])
        return score(x, [i < len(kept) for i in range(T)], probability)[TARGET[n]]
    for t in counts:
        if t not in kept:
            x[t] = baseline
    return score(x, None, probability)[TARGET[n]]


def order(n, mask):
    return sorted((t for t in range(T) if mask is None or mask[n, t]), key=lambda t: (-RELEVANCE[n, t], t))


@pytest.fixture(scope="module")
def run():
    """All of them as one program an option: compiled once."""

    @functools.partial(jax.jit, static_argnames="removed")
    def of(x, relevance, mask, removed):
        given = {"removed": removed, "mask": mask, "baseline": 0.0 if removed else 0.25}
        names = ("token_deletion", "token_insertion", "comprehensiveness", "sufficiency")
        return {name: getattr(metrics, name)(f, x, relevance, TARGET, **given) for name in names}

    return functools.cache(lambda removed, masked: of(X, RELEVANCE, MASK if masked else None, removed))


CASES = pytest.mark.parametrize(
    ("removed", "masked"),
    [(False, True), (True, True), *(pytest.param(r, False, marks=pytest.mark.slow) for r in (False, True))],
)


@CASES
def test_curves_are_the_slow_loops(run, removed, masked):
    mask = MASK if masked else None
    given = {"removed": removed, "mask": mask, "baseline": 0.25}
    deleted, inserted = np.zeros((N, T + 1)), np.zeros((N, T + 1))
    for n in range(N):
        ranked = order(n, mask)
        for k in range(T + 1):
            gone = ranked[: min(k, len(ranked) - removed)]
            deleted[n, k] = changed(n, [t for t in ranked if t not in gone], **given)
            inserted[n, k] = changed(n, ranked[: max(k, int(removed))], **given)
    np.testing.assert_allclose(run(removed, masked)["token_deletion"], deleted, **CLOSE)
    np.testing.assert_allclose(run(removed, masked)["token_insertion"], inserted, **CLOSE)


@CASES
def test_comprehensiveness_and_sufficiency_are_the_slow_loops(run, removed, masked):
    mask = MASK if masked else None
    given = {"removed": removed, "mask": mask, "baseline": 0.25, "probability": True}
    shares = (0.01, 0.05, 0.1, 0.2, 0.5)
    for n in range(N):
        ranked = order(n, mask)
        whole = changed(n, ranked, **given)
        counts = [0, *(math.ceil(share * len(ranked)) for share in shares)]
        without = [whole - changed(n, ranked[min(k, len(ranked) - removed) :], **given) for k in counts]
        alone = [whole - changed(n, ranked[: max(k, int(removed))], **given) for k in counts]
        found = run(removed, masked)
        np.testing.assert_allclose(found["comprehensiveness"][n], sum(without) / 6, **CLOSE)
        np.testing.assert_allclose(found["sufficiency"][n], sum(alone) / 6, **CLOSE)


def linear(x):
    return jnp.stack([x.sum(axis=(1, 2)), jnp.zeros(len(x))], axis=1)


@pytest.fixture(scope="module")
def soft():
    ones = jnp.ones((2, 4, 3))
    relevance = jnp.array([[0.0, 0.0, 0.0, 1.0], [3.0, 2.0, 1.0, 0.0]])
    target = np.array([0, 0])

    @functools.partial(jax.jit, static_argnames="keep")
    def of(keep, seed):
        key = jax.random.key(seed)
        return [
            metric(linear, key, ones, relevance, target, keep=keep, num_samples=400)
            for metric in (metrics.soft_comprehensiveness, metrics.soft_sufficiency)
        ]

    return of


def test_soft_metrics_as_published(soft):
    """p of 12 ones is almost 1: what is lost is close to 0 until most are gone, so the sure cases are exact."""
    comprehensive, sufficient = soft(None, 0)
    sigmoid = lambda s: 1 / (1 + np.exp(-s))  # noqa: E731
    possible = sigmoid(12) - sigmoid(0)
    # Of the first sequence one token goes for sure and three stay for sure, or the other way round.
    np.testing.assert_allclose(comprehensive[0], (sigmoid(12) - sigmoid(9)) / possible, rtol=1e-3)
    np.testing.assert_allclose(sufficient[0], 1 - (sigmoid(12) - sigmoid(3)) / possible, rtol=1e-3)


@pytest.mark.parametrize("keep", [0.2, pytest.param(0.7, marks=pytest.mark.slow)])
def test_as_much_stays_as_is_asked_for(keep):
    """The mean of what stays, seen through a score that counts it: f = log(p / (1 − p)) of a share p."""

    def count(x):
        share = (x.mean(axis=(1, 2)) * 0.8 + 0.1)[:, None]
        return jnp.log(jnp.concatenate([share, 1 - share], axis=1))

    relevance = jnp.array([[0.0, 0.0, 0.0, 1.0], [3.0, 2.0, 1.0, 0.0]])
    given = (count, jax.random.key(1), jnp.ones((2, 4, 3)), relevance, np.array([0, 0]))
    found = metrics.soft_comprehensiveness(*given, keep=keep, num_samples=400)
    # p goes from 0.9 to 0.1 in proportion to what stays.
    np.testing.assert_allclose(found, 1 - keep, atol=0.02)
    np.testing.assert_allclose(metrics.soft_sufficiency(*given, keep=keep, num_samples=400), keep, atol=0.02)


def test_the_same_key_gives_the_same_draws_and_where_nothing_can_be_lost_it_is_zero(soft):
    np.testing.assert_array_equal(soft(0.5, 3)[0], soft(0.5, 3)[0])
    assert (np.asarray(soft(0.5, 3)[0]) != np.asarray(soft(0.5, 4)[0])).any()
    none = metrics.soft_comprehensiveness(
        linear, jax.random.key(0), -jnp.ones((1, 2, 2)), jnp.ones((1, 2)), np.array([0]), num_samples=2
    )
    assert none.tolist() == [0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": X[0]}, r"embeddings `x` of shape \(N, T, C\)"),
        ({"relevance": RELEVANCE[..., None]}, "`relevance` of shape"),
        ({"mask": MASK * 1}, "`mask` of booleans"),
        ({"mask": MASK[:, :2]}, "`mask` of shape"),
        ({"mask": MASK & False}, "`mask` with a token a sequence"),
        ({"shares": ()}, "shares of the tokens"),
        ({"shares": (0.0,)}, "shares in"),
        ({"shares": 0.5}, "shares of the tokens"),
    ],
)
def test_what_is_refused(options, message):
    given = {"x": X, "relevance": RELEVANCE, **options}
    with pytest.raises(ValueError, match=f"expected {message}"):
        metrics.comprehensiveness(f, given.pop("x"), given.pop("relevance"), TARGET, **given)
