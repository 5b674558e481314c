"""Which words make two sentences similar.

A model is anything with `embed`, `encode` as in `jxai.text.explain` and `sentence(hidden, mask) -> (N, C)`, unit
vectors, such as `models.minilm()`; the similarity is their scalar product.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai import lrp
from jxai.checks import check_count, finite, keep_nan
from jxai.compiled import run_compiled
from jxai.errors import InputError
from jxai.text.inputs import as_ids, as_mask
from jxai.text.relevance import Method, by_rows, check_method, summed


class Similarity(NamedTuple):
    """What `similarity` finds.

    Attributes:
        score: the cosine, (N,).
        first: relevance of the first sentences' tokens, (N, T).
        second: of the second ones', (N, S).
    """

    score: jax.Array
    first: jax.Array
    second: jax.Array


def similarity(
    model: Any,
    ids: ArrayLike,
    other: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    other_mask: ArrayLike | None = None,
    method: Method = lrp.AttnLRP(),
) -> Similarity:
    """Relevance of both sentences' tokens for their cosine, each side's with the other's vector held.

    cos = Σ_k u_k v_k is linear in u and in v, so each side gets all of it: the sides are not to be added, they are
    the two sums of `token_pairs` over the other side.

    Args:
        model: a sentence encoder; see the module.
        ids: the first sentences, (N, T) integers.
        other: the second ones, (N, S) integers.
        mask: which tokens of the first count, (N, T) booleans; by default all.
        other_mask: likewise, (N, S).
        method: as in `jxai.text.explain`.

    Returns:
        The cosine and both sides' relevance, float32.

    Raises:
        TypeError: tokens are no integers, or a mask no booleans.
        ValueError: shapes do not fit, there is no token, or as the method says.
    """
    sides = _sides(ids, other, mask, other_mask)
    check_method(method)
    embedded = [model.embed(ids) for ids, _ in sides]
    vectors = [run_compiled(_vectors(model, mask), x) for x, (_, mask) in zip(embedded, sides, strict=True)]
    found = []
    for x, (_, mask), held in zip(embedded, sides, vectors[::-1], strict=True):

        def cosine(x: jax.Array, row: dict[str, jax.Array]) -> jax.Array:
            return (_vectors(model, row["mask"])(x) * row["held"]).sum(axis=-1)

        given = {"mask": mask, "held": held}
        if isinstance(method, lrp.Composite):
            scores = functools.partial(cosine, row=given)
            y, pullback = lrp.vjp(scores, x, composite=method)
            relevance = summed(pullback(y if method.relevance else jnp.ones_like(y))[0])
        else:
            relevance = by_rows(method, cosine, x, given, channels=False)
        found.append(finite("relevance", keep_nan(relevance, x)))
    return Similarity((vectors[0] * vectors[1]).sum(axis=-1), *found)


def token_pairs(
    model: Any,
    ids: ArrayLike,
    other: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    other_mask: ArrayLike | None = None,
    composite: lrp.Composite = lrp.AttnLRP(),
    chunk_size: int = 32,
) -> jax.Array:
    """Relevance of each pair of tokens for the cosine of two sentences.

    R_ij = Σ_k R_i(u_k) R_j(v_k), with R_i(u_k) the relevance of token i for channel k of its sentence's vector: a
    backward pass of each sentence for each channel.

    Args:
        model: a sentence encoder; see the module.
        ids: the first sentences, (N, T) integers.
        other: the second ones, (N, S) integers.
        mask: which tokens of the first count, (N, T) booleans; by default all.
        other_mask: likewise, (N, S).
        composite: the rules.
        chunk_size: channels in flight; changes memory and rounding alone.

    Returns:
        (N, T, S), float32.

    Raises:
        TypeError: tokens are no integers, a mask no booleans, or no composite.
        ValueError: shapes do not fit, there is no token, or as `lrp.vjp`.

    References:
        Eberle et al., *Building and Interpreting Deep Similarity Models* (BiLRP), 2020.
    """
    check_count("chunk_size", chunk_size)

    def of_channels(ids: jax.Array, mask: jax.Array) -> jax.Array:
        """R_i(u_k), (K, N, T)."""
        x = model.embed(ids)
        u, pullback = lrp.vjp(_vectors(model, mask), x, composite=composite)

        def one(k: jax.Array) -> jax.Array:
            start = jnp.where(jnp.arange(u.shape[-1]) == k, u if composite.relevance else 1, 0)
            return keep_nan(summed(pullback(start.astype(u.dtype))[0]), x)

        size = min(chunk_size, u.shape[-1])
        return run_compiled(lambda: jax.lax.map(one, jnp.arange(u.shape[-1]), batch_size=size))

    first, second = (of_channels(*side) for side in _sides(ids, other, mask, other_mask))
    return finite("relevance", jnp.einsum("knt,kns->nts", first, second))


def _sides(ids: Any, other: Any, mask: Any, other_mask: Any) -> list[tuple[jax.Array, jax.Array]]:
    """(tokens, mask) of both."""
    ids, other = as_ids(ids), as_ids(other, "other")
    if len(ids) != len(other):
        raise InputError(f"expected as many second sentences as first ones, got {len(ids)} and {len(other)}")
    masks = as_mask(mask, ids), as_mask(other_mask, other, "other_mask")
    return [
        (tokens, jnp.ones(tokens.shape, bool) if own is None else own)
        for tokens, own in zip((ids, other), masks, strict=True)
    ]


def _vectors(model: Any, mask: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """From embeddings (c, T, C) to unit vectors (c, K); the mask is (c, T), or (T,) for all."""

    def vectors(x: jax.Array) -> jax.Array:
        own = jnp.broadcast_to(mask, x.shape[:2])
        hidden = model.encode(x, own)
        if hasattr(model, "sentence"):
            return model.sentence(hidden, own)
        return model.apply(hidden, own, method="sentence")

    return vectors
