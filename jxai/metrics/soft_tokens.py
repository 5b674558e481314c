"""Tokens that fade by their relevance, and what becomes of the probability; shapes as in `jxai.metrics.tokens`."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai.batches.chunks import map_chunks, rows_in_flight
from jxai.batches.draws import row_keys
from jxai.checks import check_count, check_key, check_number, finite, keep_nan
from jxai.metrics.inputs import target_scores
from jxai.metrics.token_inputs import TokenInputs, TokenScores


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
    given = TokenInputs(f, x, relevance, target, baseline, False, mask, probability=True)
    possible, lost = _faded(given, 1 - _unit(given), key, keep, num_samples, chunk_size)
    share = jnp.where(possible > 0, lost / jnp.where(possible > 0, possible, 1), 0)
    return given.told(keep_nan(share, possible, lost))


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
    given = TokenInputs(f, x, relevance, target, baseline, False, mask, probability=True)
    possible, lost = _faded(given, _unit(given), key, keep, num_samples, chunk_size)
    share = jnp.where(possible > 0, 1 - lost / jnp.where(possible > 0, possible, 1), 0)
    return given.told(keep_nan(share, possible, lost))


def _unit(given: TokenInputs) -> jax.Array:
    """Relevance from 0 to 1 over the tokens that count; one half each where all are equal."""
    low = jnp.where(given.mask, given.relevance, jnp.inf).min(axis=1, keepdims=True)
    high = jnp.where(given.mask, given.relevance, -jnp.inf).max(axis=1, keepdims=True)
    # Halves, so that the width of the largest numbers is one of float32 too.
    width = high / 2 - low / 2
    return jnp.where(width > 0, (given.relevance / 2 - low / 2) / jnp.where(width > 0, width, 1), 0.5)


def _faded(
    given: TokenInputs,
    stay: jax.Array,
    key: jax.Array,
    keep: float | None,
    num_samples: int,
    chunk_size: int | None,
) -> tuple[jax.Array, jax.Array]:
    """What probability is lost to the baseline, and on average where numbers stay with probabilities (N, T)."""
    check_key(key)
    check_count("num_samples", num_samples)
    if keep is not None:
        check_number("keep", keep, above=0, below=1)
        stay = _with_mean(stay, keep, given.mask)
    points = num_samples + 2  # all of it, nothing of it, and the draws

    def rows(rows: jax.Array) -> jax.Array:
        n, point = rows // points, rows % points
        keys = row_keys(key, n, point)
        draws = jax.vmap(lambda key: jax.random.uniform(key, given.x.shape[1:]))(keys)
        own = jnp.where((point < 2)[:, None], (point == 0)[:, None].astype(stay.dtype), stay[n])
        here = (draws < own[..., None]) | ~given.mask[n][..., None]
        return target_scores(given.f, jnp.where(here, given.x[n], given.baseline[n]), n, given.target)

    found = map_chunks(rows, len(given.x) * points, rows_in_flight(given.x, chunk_size))
    found = finite("scores", found).reshape(-1, points)
    lost = jnp.maximum(0, found[:, :1] - found)
    return lost[:, 1], lost[:, 2:].mean(axis=1)


def _with_mean(stay: jax.Array, keep: Any, mask: jax.Array) -> jax.Array:
    """Probabilities (N, T) scaled so that their mean over the tokens that count is `keep`."""
    count = mask.sum(axis=1, keepdims=True).astype(stay.dtype)
    mean = jnp.where(mask, stay, 0).sum(axis=1, keepdims=True) / count
    lower = stay * keep / jnp.where(mean > 0, mean, 1)
    raised = 1 - (1 - stay) * (1 - keep) / jnp.where(mean < 1, 1 - mean, 1)
    return jnp.where(mean >= keep, lower, raised)
