"""Tokens deleted in the order of their relevance, and what becomes of the score.

`f` maps embeddings (N, T, C) to scores (N, K); relevance is (N, T) and its sign counts: the largest value is deleted
first. A deleted token becomes a baseline embedding, or, with `removed`, leaves the sequence: those that stay move
together to its front, `f` is called with a second argument, which of the T tokens are there, (N, T) booleans, and at
least one stays. `mask` says which tokens count; padding is not ranked and never changed.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai.metrics.token_inputs import TokenInputs, TokenScores


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
    given = TokenInputs(f, x, relevance, target, baseline, removed, mask)
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
    given = TokenInputs(f, x, relevance, target, baseline, removed, mask)
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
    given = TokenInputs(f, x, relevance, target, baseline, removed, mask, probability=True)
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
    given = TokenInputs(f, x, relevance, target, baseline, removed, mask, probability=True)
    counts = given.counts(shares)
    alone = given.ranks[:, None] < given.at_least(counts)
    whole = jnp.ones_like(alone[:, :1])
    found = given.scores(jnp.concatenate([whole, alone], axis=1), chunk_size)
    return (found[:, :1] - found[:, 1:]).mean(axis=1)
