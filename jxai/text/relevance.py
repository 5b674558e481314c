"""Relevance of tokens for a next token, for a sequence, for a class.

A model is anything with `embed(ids (N, T)) -> (N, T, C)`, `encode(x (N, T, C), mask (N, T) or None) -> (N, T, C)` and
`unembed(hidden (..., C)) -> (..., V)`, such as `jxai.models.Loaded`; hand it to `jax.jit` as an argument, then its
weights are no constants of the program. What is explained are the word embeddings; a token's relevance is the sum
over its channels.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai import lrp
from jxai.checks import as_array, check_choice, check_count, finite, keep_nan, shown
from jxai.compiled import run_compiled
from jxai.errors import InputError, InputTypeError
from jxai.text.inputs import as_ids, as_mask, in_range, last_positions, points_of

Scores = Callable[[jax.Array], jax.Array]
# Rules of relevance, or an explanation of (f, x, target) such as `jxai.attribution.gradient`.
Method = lrp.Composite | Callable[[Scores, jax.Array, jax.Array], jax.Array]
Score = Literal["logit", "log-probability"]


def token_relevance(
    f: Scores,
    x: jax.Array,
    target: ArrayLike,
    *,
    method: Method = lrp.AttnLRP(),
    channels: bool = False,
) -> jax.Array:
    """Relevance of tokens for one score each, of any function of their embeddings.

    The other functions are this one for a language model. A class: `f` is
    `lambda x: model.classify(model.encode(x, mask, types))`; bytes of a file: whatever follows their embedding.

    Example:
        >>> f = lambda x: x.sum(axis=(1, 2))[:, None]
        >>> token_relevance(f, jnp.ones((1, 3, 2)), [0]).tolist()
        [[2.0, 2.0, 2.0]]

    Args:
        f: from embeddings (N, T, C) to scores (N, K).
        x: embeddings, (N, T, C), floats.
        target: which score, (N,) integers in [0, K).
        method: a composite of `jxai.lrp`, or an attribution of (f, x, target): `attribution.gradient`,
            `functools.partial(attribution.integrated_gradients, baseline=...)` and so on. By default AttnLRP
            (Achtibat et al. 2024).
        channels: whether relevance of each channel is wanted, before the sum.

    Returns:
        (N, T), float32, or with `channels` (N, T, C) in x's dtype.

    Raises:
        TypeError: `x` holds no floats, `target` no integers, or the method is none.
        ValueError: shapes do not fit, values are not finite, a target is out of range, or as the method says.
    """
    x = as_array(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputTypeError(f"expected embeddings of floats, got {x.dtype}: embed the tokens first")
    if x.ndim != 3 or not x.size:
        raise InputError(f"expected embeddings (N, T, C) of at least one token, got shape {x.shape}")
    target = as_array(target)
    check_method(method)
    if isinstance(method, lrp.Composite):
        found = lrp.relevance(f, x, target, composite=method)
    else:
        found = check_found(method(f, x, target), x)
    return finite("relevance", keep_nan(found if channels else summed(found), x))


def explain(
    model: Any,
    ids: ArrayLike,
    target: ArrayLike | None,
    *,
    positions: ArrayLike | None = None,
    span: tuple[int, int] | None = None,
    contrast: ArrayLike | None = None,
    score: Score = "logit",
    method: Method = lrp.AttnLRP(),
    mask: ArrayLike | None = None,
    channels: bool = False,
    chunk_size: int = 8,
) -> jax.Array:
    """Relevance of each token for what a language model says next.

    Relevance starts at the logit y_t of the target; with `contrast` at y_t − y_s: +y_t at t and −y_s at s. For the
    log-probability it starts at each logit with y_v ∂log p_t/∂y_v = y_v ([v = t] − p_v), the contrast with all tokens
    at once; the softmax itself needs no rule then.

    Args:
        model: with embed, encode and unembed; see the module.
        ids: the tokens, (N, T) integers.
        target: the token explained, (N,) integers in [0, V); None for the largest logit, and with `span`.
        positions: behind which token the next one is asked for, an integer or (N,), negative ones from the end of T;
            by default the last token of the mask.
        span: (start, stop) with 1 <= start < stop <= T: explains the tokens ids[:, start:stop], each behind the token
            before it, all from one forward pass. The sum of their maps is the sequence's.
        contrast: the token spoken against, (N,) integers in [0, V).
        score: "logit" or "log-probability".
        method: as in `token_relevance`. An attribution sees each row alone, with scores (·, 1).
        mask: which tokens count, (N, T) booleans; by default all.
        channels: whether relevance of each channel is wanted.
        chunk_size: how many maps of a span are in flight; changes memory and rounding alone.

    Returns:
        (N, T), float32; with `span` (N, stop − start, T); with `channels` one axis (C) more, in x's dtype.

    Raises:
        TypeError: tokens are no integers, the mask no booleans, or the method is none.
        ValueError: shapes do not fit, there is no token, a position or a token is out of range, span is given with
            positions or target, contrast with log-probability, or as the method says.

    References:
        Achtibat et al., *AttnLRP*, 2024; Yin and Neubig, *Interpreting Language Models with Contrastive
        Explanations*, 2022.
    """
    ids = as_ids(ids)
    mask = as_mask(mask, ids)
    check_count("chunk_size", chunk_size)
    check_method(method)
    where, tokens, against = as_points(ids, mask, target, positions, span, contrast, score)
    x = model.embed(ids)

    scores_at = functools.partial(logits_at, model)

    if isinstance(method, lrp.Composite):
        y, pullback = lrp.vjp(lambda x: scores_at(x, where, mask), x, composite=method)
        chosen = y.argmax(axis=-1) if tokens is None else in_range("target", tokens, y.shape[-1])
        start = coefficients(y, chosen, against, score) * (y if method.relevance else 1)
        found = each_map(pullback, start, chunk_size, channels)
    else:
        if tokens is None:
            tokens = run_compiled(lambda: scores_at(x, where, mask).argmax(axis=-1))
        found = _by_attribution(method, scores_at, x, (where, tokens, against, mask), score, channels)
    found = keep_nan(found, x)
    return finite("relevance", found if span is not None else found[:, 0])


def logits(model: Any, x: jax.Array, *, mask: ArrayLike | None = None) -> jax.Array:
    """Logits of the next token, behind the last one: what estimators and metrics call `f` for a language model.

    Such as `lambda x, present=None: text.logits(model, x, mask=present)`, where tokens may leave the sequence.

    Args:
        model: with encode and unembed; see the module.
        x: embeddings, (N, T, C).
        mask: which tokens count, (N, T) booleans; by default all.

    Returns:
        (N, V).

    Raises:
        TypeError: the mask holds no booleans, or as the model says.
        ValueError: the mask is of another shape or empty, logits are not finite, or as the model says.
    """
    x = as_array(x)
    if x.ndim != 3 or not x.size:
        raise InputError(f"expected embeddings (N, T, C) of at least one token, got shape {x.shape}")
    tokens = jnp.zeros(x.shape[:2], jnp.int32)
    mask = as_mask(mask, tokens)
    return finite("logits", logits_at(model, x, last_positions(tokens, mask)[:, None], mask)[:, 0])


def as_points(
    ids: jax.Array, mask: jax.Array | None, target: Any, positions: Any, span: Any, contrast: Any, score: Any
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """What is explained where, checked: positions (N, P), tokens (N, P), tokens spoken against (N,), or None."""
    check_choice("score", score, get_args(Score))
    where, tokens = points_of(ids, mask, target, positions, span)
    if contrast is None:
        return where, tokens, None
    if score == "log-probability":
        raise InputError("expected contrast with score='logit', got log-probability: leave one of them out")
    against = as_array(contrast)
    if against.shape != ids.shape[:1]:
        raise InputError(
            f"expected `contrast` of shape {ids.shape[:1]}, got {against.shape}: one token a sequence"
        )
    return where, tokens, against


def logits_at(model: Any, x: jax.Array, where: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Logits behind tokens.

    Args:
        model: with encode and unembed.
        x: embeddings, (N, T, C).
        where: positions, (N, P).
        mask: (N, T) or None.

    Returns:
        (N, P, V).
    """
    hidden = model.encode(x, mask)
    return model.unembed(jnp.take_along_axis(hidden, where[:, :, None], axis=1))


def coefficients(
    y: jax.Array, tokens: jax.Array, against: jax.Array | None, score: Score = "logit"
) -> jax.Array:
    """The derivative of a score by the logits.

    Args:
        y: logits, (N, P, V).
        tokens: (N, P).
        against: (N,) or None.
        score: as in `explain`.

    Returns:
        (N, P, V).
    """
    c = jax.nn.one_hot(tokens, y.shape[-1], dtype=y.dtype)
    if against is not None:
        c -= jax.nn.one_hot(in_range("contrast", against, y.shape[-1]), y.shape[-1], dtype=y.dtype)[:, None]
    if score == "log-probability":
        c -= jax.nn.softmax(y, axis=-1)
    return c


def each_map(pullback: Callable, start: jax.Array, chunk_size: int, channels: bool) -> jax.Array:
    """The map of each position, of one pullback.

    Args:
        pullback: from relevance (N, P, V) to the tuple of that of (N, T, C).
        start: (N, P, V).
        chunk_size: maps in flight.
        channels: whether their channels are kept.

    Returns:
        (N, P, T) or (N, P, T, C).
    """
    count = start.shape[1]

    def one(p: jax.Array) -> jax.Array:
        own = (jnp.arange(count) == p)[None, :, None]
        (found,) = pullback(jnp.where(own, start, 0))
        return found if channels else summed(found)

    if count == 1:
        return one(jnp.zeros((), int))[:, None]
    maps = run_compiled(lambda: jax.lax.map(one, jnp.arange(count), batch_size=min(chunk_size, count)))
    return jnp.moveaxis(maps, 0, 1)


def _by_attribution(
    method: Callable, scores_at: Callable, x: jax.Array, points: tuple, score: Score, channels: bool
) -> jax.Array:
    """The map of each position by an attribution, (N, P, T) or (N, P, T, C)."""
    where, tokens, against, mask = points
    size = jax.eval_shape(scores_at, x, where, mask).shape[-1]

    def scores(z: jax.Array, row: dict[str, Any]) -> jax.Array:
        own = None if row["mask"] is None else jnp.broadcast_to(row["mask"], z.shape[:2])
        y = scores_at(z, jnp.broadcast_to(row["where"], (len(z), 1)), own)[:, 0]
        if score == "log-probability":
            return jax.nn.log_softmax(y, axis=-1)[:, row["token"]]
        return y[:, row["token"]] - (0 if row["against"] is None else y[:, row["against"]])

    each = {"mask": mask, "against": None if against is None else in_range("contrast", against, size)}
    x, each = jax.tree.map(lambda array: jnp.repeat(array, where.shape[1], axis=0), (x, each))
    each |= {"where": where.reshape(-1), "token": in_range("target", tokens, size).reshape(-1)}
    found = by_rows(method, scores, x, each, channels)
    return found.reshape(*where.shape, *found.shape[1:])


def by_rows(
    method: Callable, scores: Callable, x: jax.Array, given: dict[str, Any], channels: bool
) -> jax.Array:
    """Maps by an attribution, row by row: it may ask for a row in any number, and masks and positions are each row's.

    Args:
        method: of (f, x, target).
        scores: from embeddings (c, T, C) and one row of what is given to scores (c,).
        x: embeddings, (N, T, C).
        given: arrays (N, ...), or None.
        channels: whether their channels are kept.

    Returns:
        (N, T) or (N, T, C).
    """

    def one(row: tuple[jax.Array, dict[str, Any]]) -> jax.Array:
        z, own = row[0][None], row[1]
        found = method(lambda z: scores(z, own)[:, None], z, jnp.zeros(1, jnp.int32))
        found = check_found(found, z)
        return (found if channels else summed(found))[0]

    return run_compiled(lambda: jax.lax.map(one, (x, given)))


def check_method(method: Any) -> None:
    """Refuse what is neither a composite nor a function."""
    if not isinstance(method, lrp.Composite) and not callable(method):
        raise InputTypeError(
            f"expected a method as a composite of jxai.lrp or a function of (f, x, target), got {shown(method)}"
        )


def check_found(found: Any, x: jax.Array) -> jax.Array:
    """What a method gave; an error where it is not of x's shape."""
    found = as_array(found)
    if found.shape != x.shape:
        raise InputError(f"expected a method that gives relevance of shape {x.shape}, got {found.shape}")
    return found


def summed(relevance: jax.Array) -> jax.Array:
    """Relevance of tokens, float32 at least, of that of their channels."""
    return relevance.astype(jnp.promote_types(relevance.dtype, jnp.float32)).sum(axis=-1)
