"""Tokens, masks, positions and spans, checked once."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai.checks import as_array, shown, values
from jxai.errors import InputError, InputTypeError


def as_ids(ids: ArrayLike, name: str = "ids") -> jax.Array:
    """Tokens (N, T), T at least 1, as int32.

    Raises:
        TypeError: no integers.
        ValueError: another shape, no token, or a negative one.
    """
    ids = as_array(ids)
    if ids.ndim != 2 or not ids.size:
        raise InputError(
            f"expected `{name}` of shape (N, T) with at least one token, got {ids.shape}: give a batch of prompts "
            "that are not empty"
        )
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise InputTypeError(f"expected `{name}` of integers, got {ids.dtype}: give the tokenizer's numbers")
    if (known := values(ids)) is not None and known.min() < 0:
        raise InputError(f"expected `{name}` of at least 0, got {known.min()}: give the tokenizer's numbers")
    return ids.astype(jnp.int32)


def as_mask(mask: ArrayLike | None, ids: jax.Array, name: str = "mask") -> jax.Array | None:
    """Which tokens count, (N, T) booleans, at least one a sequence; None for all."""
    if mask is None:
        return None
    mask = as_array(mask)
    if mask.dtype != bool:
        raise InputTypeError(f"expected `{name}` of booleans, got {mask.dtype}: compare it with 1")
    if mask.shape != ids.shape:
        raise InputError(f"expected `{name}` of shape {ids.shape}, got {mask.shape}: one a token")
    if (known := values(mask)) is not None and not known.any(axis=1).all():
        raise InputError(f"expected `{name}` with a token a sequence, got a sequence without: leave it out")
    return mask


def last_positions(ids: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The last token that counts of each sequence, (N,)."""
    length = ids.shape[1]
    if mask is None:
        return jnp.full(len(ids), length - 1, jnp.int32)
    return (length - 1 - jnp.argmax(mask[:, ::-1], axis=1)).astype(jnp.int32)


def points_of(
    ids: jax.Array,
    mask: jax.Array | None,
    target: ArrayLike | None,
    positions: ArrayLike | None,
    span: Any,
) -> tuple[jax.Array, jax.Array | None]:
    """What is explained where.

    Returns:
        Positions (N, P), and the tokens asked for behind them, (N, P), or None for the most probable ones.
    """
    count, length = ids.shape
    if span is not None:
        if target is not None or positions is not None:
            raise InputError("expected span without target and positions, got both: it has its own")
        start, stop = _as_span(span, length)
        return jnp.broadcast_to(jnp.arange(start - 1, stop - 1), (count, stop - start)), ids[:, start:stop]
    if positions is None:
        where = last_positions(ids, mask)
    else:
        where = as_array(positions)
        if not jnp.issubdtype(where.dtype, jnp.integer):
            raise InputTypeError(f"expected `positions` of integers, got {where.dtype}: count tokens")
        if where.shape not in ((), (count,)):
            raise InputError(
                f"expected `positions` as a number or of shape ({count},), got {where.shape}: one a sequence"
            )
        if (known := values(where)) is not None and not ((known >= -length) & (known < length)).all():
            raise InputError(f"expected `positions` in [-{length}, {length}), got {known.tolist()}")
        where = jnp.broadcast_to(jnp.where(where < 0, where + length, where), (count,))
    if target is None:
        return where[:, None], None
    tokens = as_array(target)
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise InputTypeError(f"expected `target` of integers, got {tokens.dtype}: give tokens' numbers")
    if tokens.shape != (count,):
        raise InputError(f"expected `target` of shape ({count},), got {tokens.shape}: one token a sequence")
    return where[:, None], tokens[:, None]


def in_range(name: str, tokens: jax.Array, size: int) -> jax.Array:
    """Tokens as they are; an error where they are none of the vocabulary."""
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise InputTypeError(f"expected `{name}` of integers, got {tokens.dtype}: give tokens' numbers")
    known = values(tokens)
    if known is not None and not 0 <= known.min() <= known.max() < size:
        raise InputError(
            f"expected `{name}` in [0, {size}), got values from {known.min()} to {known.max()}: give numbers of the "
            "vocabulary"
        )
    return tokens


def _as_span(span: Any, length: int) -> tuple[int, int]:
    try:
        start, stop = map(operator.index, span)
    except (TypeError, ValueError):
        start, stop = 0, 0
    if not 1 <= start < stop <= length:
        raise InputError(
            f"expected span as (start, stop) with 1 <= start < stop <= {length}, got {shown(span)}: the first token "
            "has none before it"
        )
    return start, stop
