"""Tokens deleted in the order of their relevance, and what becomes of the score.

`f` maps embeddings (N, T, C) to scores (N, K); relevance is (N, T) and its sign counts: the largest value is deleted
first. A deleted token becomes a baseline embedding, or, with `removed`, leaves the sequence: those that stay move
together to its front, `f` is called with a second argument, which of the T tokens are there, (N, T) booleans, and at
least one stays. `mask` says which tokens count; padding is not ranked and never changed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai.batches.checks import as_baseline, as_finite
from jxai.batches.chunks import map_chunks, rows_in_flight
from jxai.batches.draws import row_keys
from jxai.checks import as_array, check_count, check_key, check_number, finite, keep_nan, values
from jxai.errors import InputError, InputTypeError
from jxai.metrics._inputs import as_batch, probabilities, target_scores
from jxai.metrics._pixels import removal_ranks

# From embeddings, and with `removed` which tokens are there.
TokenScores = Callable[..., jax.Array]


def token_deletion(
    f: TokenScores,
    x: jax.Array,
    relevance: jax.Array,
    target: jax.Array,
    *,
    baseline: ArrayLike = 0.0,
    removed: bool = False,
    mask: ArrayLike | None = None,
    num_tokens: int | None = None,
    chunk_size: int | None = None,
) -> jax.Array:
    """Score of the target while the most relevant tokens are deleted, one after another. Lower is better.

    `curve[:, :1] - curve` is the drop after each, `curve_area` the curve's area.

    Args:
        f: from embeddings (N, T, C) to scores (N, K).
        x: embeddings, (N, T, C).
        relevance: (N, T), the largest value goes first, of equal ones the first token.
        target: the class or token whose score is read, (N,) integers.
        baseline: what takes a token's place: a number, an embedding (C,), or whatever broadcasts to `x`.
        removed: whether tokens leave the sequence instead.
        mask: which tokens count, (N, T) booleans; by default all.
        num_tokens: how many at most, S; by default all, T.
        chunk_size: sequences in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N, S + 1), float32, after 0, 1, ... S tokens; where fewer count, the last value stays.

    Raises:
        TypeError: if `target` holds no integers, `x` no floats, or the mask no booleans.
        ValueError: if shapes do not fit, values are not finite, a target is out of range or a count below 1.

    References:
        Evaluating the Visualization of What a Deep Neural Network Has Learned, Samek et al., 2017; of words:
        Explaining Recurrent Neural Network Predictions in Sentiment Analysis, Arras et al., 2017.
    """
    given = _Given(f, x, relevance, target, baseline, removed, mask)
    counts = given.first(num_tokens)
    return given.scores(given.ranks[:, None] >= given.at_most(counts), chunk_size)


def token_insertion(
    f: TokenScores,
    x: jax.Array,
    relevance: jax.Array,
    target: jax.Array,
    *,
    baseline: ArrayLike = 0.0,
    removed: bool = False,
    mask: ArrayLike | None = None,
    num_tokens: int | None = None,
    chunk_size: int | None = None,
) -> jax.Array:
    """Score of the target while the most relevant tokens enter an empty sequence. Higher is better.

    Args:
        f: from embeddings (N, T, C) to scores (N, K).
        x: embeddings, (N, T, C).
        relevance: (N, T), the largest value comes first, of equal ones the first token.
        target: the class or token whose score is read, (N,) integers.
        baseline: what is there before: a number, an embedding (C,), or whatever broadcasts to `x`.
        removed: whether tokens are not in the sequence instead; the curve then starts with one.
        mask: which tokens count, (N, T) booleans; by default all.
        num_tokens: how many at most, S; by default all, T.
        chunk_size: sequences in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N, S + 1), float32, with 0, 1, ... S tokens; where fewer count, the last value stays.

    Raises:
        TypeError: if `target` holds no integers, `x` no floats, or the mask no booleans.
        ValueError: if shapes do not fit, values are not finite, a target is out of range or a count below 1.

    References:
        RISE: Randomized Input Sampling for Explanation of Black-box Models, Petsiuk et al., 2018, of pixels.
    """
    given = _Given(f, x, relevance, target, baseline, removed, mask)
    counts = given.first(num_tokens)
    return given.scores(given.ranks[:, None] < given.at_least(counts), chunk_size)


def comprehensiveness(
    f: TokenScores,
    x: jax.Array,
    relevance: jax.Array,
    target: jax.Array,
    *,
    shares: Sequence[float] = (0.01, 0.05, 0.1, 0.2, 0.5),
    baseline: ArrayLike = 0.0,
    removed: bool = False,
    mask: ArrayLike | None = None,
    chunk_size: int | None = None,
) -> jax.Array:
    """How much of the probability goes with the most relevant tokens. Higher is better.

    The mean of p(x) − p(x without them) over shares of the tokens and over none of them: Σ_k (p(x) − p(x \\ r_k)) /
    (|shares| + 1). A share is of ⌈share · T⌉ tokens.

    Args:
        f: from embeddings (N, T, C) to scores (N, K), before the softmax.
        x: embeddings, (N, T, C).
        relevance: (N, T), the largest value goes first.
        target: the class or token whose probability is read, (N,) integers.
        shares: of the tokens that are deleted, each in (0, 1]; the paper's.
        baseline: what takes a token's place, as in `token_deletion`.
        removed: whether tokens leave the sequence instead, as in the paper.
        mask: which tokens count, (N, T) booleans; by default all.
        chunk_size: sequences in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,), float32, in [-1, 1].

    Raises:
        TypeError: if `target` holds no integers, `x` no floats, or the mask no booleans.
        ValueError: if shapes do not fit, values are not finite, a share or target is out of range.

    References:
        ERASER: A Benchmark to Evaluate Rationalized NLP Models, DeYoung et al., 2020, equations 1 and 3.
    """
    given = _Given(probabilities_of(f), x, relevance, target, baseline, removed, mask)
    counts = given.counts(shares)
    found = given.scores(given.ranks[:, None] >= given.at_most(counts), chunk_size)
    return (found[:, :1] - found).mean(axis=1)


def sufficiency(
    f: TokenScores,
    x: jax.Array,
    relevance: jax.Array,
    target: jax.Array,
    *,
    shares: Sequence[float] = (0.01, 0.05, 0.1, 0.2, 0.5),
    baseline: ArrayLike = 0.0,
    removed: bool = False,
    mask: ArrayLike | None = None,
    chunk_size: int | None = None,
) -> jax.Array:
    """How much of the probability the most relevant tokens alone lack. Lower is better.

    The mean of p(x) − p(them alone) over shares of the tokens and over none of them, as in `comprehensiveness`.

    Args:
        f: from embeddings (N, T, C) to scores (N, K), before the softmax.
        x: embeddings, (N, T, C).
        relevance: (N, T), the largest value stays first.
        target: the class or token whose probability is read, (N,) integers.
        shares: of the tokens that stay, each in (0, 1]; the paper's.
        baseline: what takes the place of the others, as in `token_deletion`.
        removed: whether the others leave the sequence instead, as in the paper; one token at least is in it.
        mask: which tokens count, (N, T) booleans; by default all.
        chunk_size: sequences in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,), float32, in [-1, 1].

    Raises:
        TypeError: if `target` holds no integers, `x` no floats, or the mask no booleans.
        ValueError: if shapes do not fit, values are not finite, a share or target is out of range.

    References:
        ERASER: A Benchmark to Evaluate Rationalized NLP Models, DeYoung et al., 2020, equations 2 and 3.
    """
    given = _Given(probabilities_of(f), x, relevance, target, baseline, removed, mask)
    counts = given.counts(shares)
    alone = given.ranks[:, None] < given.at_least(counts)
    whole = jnp.ones_like(alone[:, :1])
    found = given.scores(jnp.concatenate([whole, alone], axis=1), chunk_size)
    return (found[:, :1] - found[:, 1:]).mean(axis=1)


def soft_comprehensiveness(
    f: TokenScores,
    key: jax.Array,
    x: jax.Array,
    relevance: jax.Array,
    target: jax.Array,
    *,
    keep: float | None = 0.5,
    baseline: ArrayLike = 0.0,
    mask: ArrayLike | None = None,
    num_samples: int = 20,
    chunk_size: int | None = None,
) -> jax.Array:
    """π-Soft-NC: the probability lost where tokens fade by their relevance. Higher is better.

    Each number of token i's embedding stays with probability 1 − a_i, a the relevance from 0 to 1 over the text, or
    becomes the baseline; max(0, p(x) − p(x')) / max(0, p(x) − p(baseline)), 0 where that can lose nothing. With
    `keep` the probabilities are scaled, π q / mean(q) or, where the mean is below π, 1 − (1 − q)(1 − π) / (1 −
    mean(q)), so that on average π stays, whatever the method's values are like. Of the later paper that asks for this
    the idea alone was at hand, not its formula for the scaling.

    Args:
        f: from embeddings (N, T, C) to scores (N, K), before the softmax.
        key: a random key; a draw depends on (key, sequence's place, sample's place) alone.
        x: embeddings, (N, T, C).
        relevance: (N, T).
        target: the class or token whose probability is read, (N,) integers.
        keep: π, in (0, 1): the expected share of what stays; None for Soft-NC as first published, without scaling.
        baseline: what takes a number's place, as in `token_deletion`; the papers' is 0.
        mask: which tokens count, (N, T) booleans; by default all.
        num_samples: draws a sequence.
        chunk_size: sequences in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,), float32, at least 0.

    Raises:
        TypeError: if `target` holds no integers, `x` no floats, or the mask no booleans.
        ValueError: if shapes do not fit, values are not finite, `keep` or a target is out of range, a count below 1.

    References:
        Incorporating Attribution Importance for Improving Faithfulness Metrics, Zhao and Aletras, 2023; Faithfulness
        Evaluation for Decoder-only LLM Attributions with Controlled Retained Information, Huang and Chan, 2026.
    """
    given = _Given(probabilities_of(f), x, relevance, target, baseline, False, mask)
    possible, lost = given.faded(1 - given.unit(), key, keep, num_samples, chunk_size)
    return given.told(jnp.where(possible > 0, lost / jnp.where(possible > 0, possible, 1), 0))


def soft_sufficiency(
    f: TokenScores,
    key: jax.Array,
    x: jax.Array,
    relevance: jax.Array,
    target: jax.Array,
    *,
    keep: float | None = 0.5,
    baseline: ArrayLike = 0.0,
    mask: ArrayLike | None = None,
    num_samples: int = 20,
    chunk_size: int | None = None,
) -> jax.Array:
    """π-Soft-NS: the probability that stays where tokens stay by their relevance. Higher is better.

    As `soft_comprehensiveness`, but a token's numbers stay with probability a_i: 1 − max(0, p(x) − p(x')) / max(0,
    p(x) − p(baseline)), 0 where that can lose nothing.

    Args:
        f: from embeddings (N, T, C) to scores (N, K), before the softmax.
        key: a random key; a draw depends on (key, sequence's place, sample's place) alone.
        x: embeddings, (N, T, C).
        relevance: (N, T).
        target: the class or token whose probability is read, (N,) integers.
        keep: π, in (0, 1): the expected share of what stays; None for Soft-NS as first published, without scaling.
        baseline: what takes a number's place, as in `token_deletion`; the papers' is 0.
        mask: which tokens count, (N, T) booleans; by default all.
        num_samples: draws a sequence.
        chunk_size: sequences in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,), float32, at most 1.

    Raises:
        TypeError: if `target` holds no integers, `x` no floats, or the mask no booleans.
        ValueError: if shapes do not fit, values are not finite, `keep` or a target is out of range, a count below 1.

    References:
        As `soft_comprehensiveness`.
    """
    given = _Given(probabilities_of(f), x, relevance, target, baseline, False, mask)
    possible, lost = given.faded(given.unit(), key, keep, num_samples, chunk_size)
    return given.told(jnp.where(possible > 0, 1 - lost / jnp.where(possible > 0, possible, 1), 0))


def probabilities_of(f: TokenScores) -> TokenScores:
    """The softmax of scores that may also depend on which tokens are there."""
    return lambda x, *present: probabilities(lambda z: f(z, *present))(x)


class _Given:
    """What the metrics are given, checked, and the scores of what they make of it."""

    def __init__(
        self,
        f: TokenScores,
        x: jax.Array,
        relevance: jax.Array,
        target: jax.Array,
        baseline: ArrayLike,
        removed: bool,
        mask: ArrayLike | None,
    ):
        x = as_array(x)
        if x.ndim != 3:
            raise InputError(
                f"expected embeddings `x` of shape (N, T, C), got {x.shape}: embed the tokens first"
            )
        self.mask = jnp.ones(x.shape[:2], bool) if mask is None else as_array(mask)
        if self.mask.dtype != bool:
            raise InputTypeError(f"expected `mask` of booleans, got {self.mask.dtype}: compare it with 1")
        if self.mask.shape != x.shape[:2]:
            raise InputError(f"expected `mask` of shape {x.shape[:2]}, got {self.mask.shape}: one a token")
        if (known := values(self.mask)) is not None and x.size and not known.any(axis=1).all():
            raise InputError("expected `mask` with a token a sequence, got a sequence without: leave it out")
        # Only shapes are asked for: as many tokens are there as before.
        self.x, self.target = as_batch(x, target, f=(lambda z: f(z, self.mask)) if removed else f)
        self.relevance = as_finite("relevance", relevance).astype(jnp.float32)
        if self.relevance.shape != x.shape[:2]:
            raise InputError(
                f"expected `relevance` of shape {x.shape[:2]}, got {self.relevance.shape}: one value a token, summed "
                "over channels"
            )
        self.f, self.removed = f, removed
        self.baseline = as_baseline(baseline, self.x)
        self.length = self.mask.sum(axis=1, keepdims=True)
        # Padding has the last places.
        self.ranks = removal_ranks(jnp.where(self.mask, self.relevance, -jnp.inf))

    def first(self, num_tokens: int | None) -> jax.Array:
        """Numbers of tokens from 0 on, (1, S + 1)."""
        most = self.x.shape[1]
        if num_tokens is not None and check_count("num_tokens", num_tokens) > most:
            raise InputError(f"expected num_tokens of at most {most}, got {num_tokens}: leave it out for all")
        return jnp.arange((num_tokens or most) + 1)[None]

    def counts(self, shares: Sequence[float]) -> jax.Array:
        """Numbers of tokens, (N, 1 + S), the first 0."""
        try:
            shares = [*shares]
        except TypeError:
            shares = []
        if not shares:
            raise InputError("expected shares of the tokens, got none: give such as (0.1, 0.5)")
        for share in shares:
            check_number("shares", share, above=0, most=1)
        exact = jnp.asarray([[0.0, *shares]], jnp.float32) * self.length.astype(jnp.float32)
        return jnp.ceil(exact - 1e-4).astype(jnp.int32)  # 0.2 · 5 is one token in float32 too

    def at_most(self, counts: jax.Array) -> jax.Array:
        """Numbers of tokens that go, (N, P, 1): all, or all but one."""
        return jnp.minimum(counts, self.length - int(self.removed))[:, :, None]

    def at_least(self, counts: jax.Array) -> jax.Array:
        """Numbers of tokens that stay, (N, P, 1)."""
        return jnp.maximum(jnp.minimum(counts, self.length), int(self.removed))[:, :, None]

    def scores(self, stays: jax.Array, chunk_size: int | None) -> jax.Array:
        """The target's scores where only some tokens, (N, P, T), are there: (N, P)."""
        num_rows, num_points = stays.shape[:2]

        def rows(rows: jax.Array) -> jax.Array:
            n = rows // num_points
            here = stays[n, rows % num_points] | ~self.mask[n]
            if not self.removed:
                mixed = jnp.where(here[..., None], self.x[n], self.baseline[n])
                return target_scores(self.f, mixed, n, self.target)
            here &= self.mask[n]
            order = jnp.argsort(~here, axis=1, stable=True)
            moved = jnp.take_along_axis(self.x[n], order[..., None], axis=1)
            present = jnp.arange(here.shape[1])[None] < here.sum(axis=1, keepdims=True)
            return target_scores(lambda z: self.f(z, present), moved, n, self.target)

        found = map_chunks(rows, num_rows * num_points, rows_in_flight(self.x, chunk_size))
        return self.told(finite("scores", found).reshape(num_rows, num_points))

    def unit(self) -> jax.Array:
        """Relevance from 0 to 1 over the tokens that count; one half each where all are equal."""
        low = jnp.where(self.mask, self.relevance, jnp.inf).min(axis=1, keepdims=True)
        high = jnp.where(self.mask, self.relevance, -jnp.inf).max(axis=1, keepdims=True)
        # Halves, so that the width of the largest numbers is one of float32 too.
        width = high / 2 - low / 2
        return jnp.where(width > 0, (self.relevance / 2 - low / 2) / jnp.where(width > 0, width, 1), 0.5)

    def faded(
        self, stay: jax.Array, key: jax.Array, keep: float | None, num_samples: int, chunk_size: int | None
    ) -> tuple[jax.Array, jax.Array]:
        """What probability is lost to the baseline, and on average where numbers stay with probabilities (N, T)."""
        check_key(key)
        check_count("num_samples", num_samples)
        if keep is not None:
            check_number("keep", keep, above=0, below=1)
            stay = _with_mean(stay, keep, self.mask)
        points = num_samples + 2  # all of it, nothing of it, and the draws

        def rows(rows: jax.Array) -> jax.Array:
            n, point = rows // points, rows % points
            keys = row_keys(key, n, point)
            draws = jax.vmap(lambda key: jax.random.uniform(key, self.x.shape[1:]))(keys)
            own = jnp.where((point < 2)[:, None], (point == 0)[:, None].astype(stay.dtype), stay[n])
            here = (draws < own[..., None]) | ~self.mask[n][..., None]
            return target_scores(self.f, jnp.where(here, self.x[n], self.baseline[n]), n, self.target)

        found = map_chunks(rows, len(self.x) * points, rows_in_flight(self.x, chunk_size))
        found = finite("scores", found).reshape(-1, points)
        lost = jnp.maximum(0, found[:, :1] - found)
        return lost[:, 1], lost[:, 2:].mean(axis=1)

    def told(self, result: jax.Array) -> jax.Array:
        """The result, NaN where something given is not finite."""
        return keep_nan(result, self.relevance, self.x, self.baseline)


def _with_mean(stay: jax.Array, keep: Any, mask: jax.Array) -> jax.Array:
    """Probabilities (N, T) scaled so that their mean over the tokens that count is `keep`."""
    mean = jnp.where(mask, stay, 0).sum(axis=1, keepdims=True) / mask.sum(axis=1, keepdims=True).astype(
        stay.dtype
    )
    lower = stay * keep / jnp.where(mean > 0, mean, 1)
    raised = 1 - (1 - stay) * (1 - keep) / jnp.where(mean < 1, 1 - mean, 1)
    return jnp.where(mean >= keep, lower, raised)
