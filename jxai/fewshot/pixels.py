"""What a few-shot system looks at: relevance of the pixels of queries, and of the support that they are told by."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai import lrp
from jxai.batches.chunks import map_chunks, rows_in_flight
from jxai.checks import as_array, values
from jxai.errors import InputError
from jxai.fewshot.checks import check_encoded, check_labels
from jxai.fewshot.episode import Episode, check_episode
from jxai.fewshot.explanation import log_odds
from jxai.fewshot.heads.head import Head
from jxai.fewshot.system import check_modules, part


def pixel_relevance(
    encoder: nn.Module,
    head: Head,
    variables: Any,
    episode: Episode,
    *,
    composite: lrp.Composite = lrp.sun2020,
) -> tuple[jax.Array, jax.Array]:
    """Relevance of the query images' pixels, through the head and then the encoder, for each class.

    All classes come from one forward pass. Support images are held constant; `episode_relevance` explains them too. A
    query's relevance is that of its own scores, also where other queries take part in them.

    Args:
        encoder: module from images to features; on its running statistics.
        head: the head, as in evaluation.
        variables: of the system, see `init_variables`.
        episode: one episode of images.
        composite: the encoder's rules; the head has its own.

    Returns:
        (relevance (queries, way, H, W, C), scores (queries, way)); relevance starts with `log_odds`, so it is
        negative where a class is less likely than chance.

    Raises:
        TypeError: no module, head or episode.
        ValueError: the episode's arrays do not fit, or values are not finite (not seen under jit).
    """
    check_modules(encoder, head)
    check_episode(episode)
    encode, scores = _parts(encoder, head, variables, episode)
    features, to_pixels = lrp.vjp(encode, episode.query, composite=composite)
    check_encoded(features, len(episode.query))
    # An encoder refuses no images; some heads take no support.
    none = len(episode.support) == 0
    support = features[:0] if none else encode(episode.support)
    found, to_features = lrp.vjp(lambda query: scores(support, query), features, composite=head.composite)
    queries, way = found.shape
    # Queries of one graph see one another: they start apart, so that each keeps what its own scores give it.
    apart = way if head.mixes_queries else 1
    own = jnp.repeat(jnp.eye(apart), queries // apart, axis=1)

    def to_own_pixels(starts: jax.Array) -> jax.Array:
        (of_features,) = jax.vmap(to_features)(starts)
        return to_pixels(jnp.einsum("aq,aq...->q...", own, of_features))[0]

    starts = jnp.eye(way)[:, None, None] * own[:, :, None] * log_odds(found)
    return jax.vmap(to_own_pixels, out_axes=1)(starts), found


def episode_relevance(
    encoder: nn.Module,
    head: Head,
    variables: Any,
    episode: Episode,
    *,
    queries: ArrayLike | None = None,
    target: ArrayLike | None = None,
    contrast: ArrayLike | None = None,
    composite: lrp.Composite = lrp.sun2020,
    chunk_size: int | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Relevance of every support image's pixels and of the query's own, for one class of each query.

    Where `pixel_relevance` holds the support constant, here both sides carry relevance. They share it by the head's
    rules: a layer on both in proportion, a product of the two in halves (`lrp.Split`; AttnLRP, Achtibat et al. 2024,
    eq. 15). What a head's composite holds constant, such as attention, stays so.

    Relevance starts at the score itself, so that all of it, with what biases, labels and stabilizers absorb, sums to
    the score. With `contrast` it starts at the difference of two classes' scores: the supports of a class that the
    explained score does not depend on have none.

    Args:
        encoder: module from images to features; on its running statistics.
        head: the head, as in evaluation.
        variables: of the system, see `init_variables`.
        episode: one episode of images, with support.
        queries: which queries are explained, (Q,) integers in [0, queries); by default all.
        target: the class explained, (Q,) integers in [0, way); by default the one of the highest score.
        contrast: the class spoken against, (Q,) integers in [0, way).
        composite: the encoder's rules; the head has its own.
        chunk_size: for how many queries at once the support is explained; changes memory and rounding alone. By
            default by the size of the support.

    Returns:
        (relevance of the support (Q, supports, H, W, C), of each query's own pixels (Q, H, W, C), scores (Q, way)).
        What a graph hands to its other queries is left out.

    Raises:
        TypeError: no module, head or episode, or classes that are no integers.
        ValueError: the episode's arrays do not fit, there is no support, a query or class is out of range, values are
            not finite (not seen under jit), or the head has an operation without a rule, which is named.
    """
    check_modules(encoder, head)
    check_episode(episode)
    if not len(episode.support):
        raise InputError(
            "expected an episode with support, got none: explain queries alone by pixel_relevance"
        )
    where = _chosen(queries, len(episode.query))
    encode, scores = _parts(encoder, head, variables, episode)
    support, to_support = lrp.vjp(encode, episode.support, composite=composite)
    check_encoded(support, len(episode.support))
    _, to_query = lrp.vjp(encode, episode.query[where], composite=composite)
    found, to_features = lrp.vjp(scores, support, encode(episode.query), composite=head.composite)
    own = found[where]
    start = _of_one("target", own.argmax(axis=-1) if target is None else target, own)
    if contrast is not None:
        start -= _of_one("contrast", contrast, own)

    def of_row(row: jax.Array) -> tuple[jax.Array, jax.Array]:
        of_support, of_query = to_features(jnp.zeros_like(found).at[where[row]].set(start[row]))
        return to_support(of_support)[0], of_query[where[row]]

    default = max(1, rows_in_flight(episode.support, None) // len(episode.support))
    size = rows_in_flight(episode.support, default if chunk_size is None else chunk_size)
    of_support, of_query = map_chunks(jax.vmap(of_row), len(where), size)
    return of_support, to_query(of_query)[0], own


def _parts(encoder: nn.Module, head: Head, variables: Any, episode: Episode) -> tuple[Callable, Callable]:
    """The encoder as a function of images, and the scores as one of the features of support and queries."""
    of_encoder, of_head = part(variables, "encoder"), part(variables, "head")

    def encode(images: jax.Array) -> Any:
        return encoder.apply(of_encoder, images, train=False)

    def scores(support: jax.Array, query: jax.Array) -> jax.Array:
        given = dataclasses.replace(episode, support=support, query=query)
        (_, found), _ = head.apply(of_head, given, method="plain_pass", mutable=["batch_stats"])
        return found

    return encode, scores


def _of_one(name: str, classes: Any, scores: jax.Array) -> jax.Array:
    """The scores (Q, way), but for one class of each query zero."""
    classes = as_array(classes)
    check_labels(name, classes, count=len(scores), way=scores.shape[1])
    return jax.nn.one_hot(classes, scores.shape[1], dtype=scores.dtype) * scores


def _chosen(queries: Any, count: int) -> jax.Array:
    """Which queries are explained."""
    if queries is None:
        return jnp.arange(count)
    queries = as_array(queries)
    if queries.ndim != 1 or not queries.size or not jnp.issubdtype(queries.dtype, jnp.integer):
        raise InputError(
            f"expected `queries` as integers (Q,), got {queries.dtype} {queries.shape}: give places of queries"
        )
    known = values(queries)
    if known is not None and not 0 <= known.min() <= known.max() < count:
        raise InputError(
            f"expected `queries` in [0, {count}), got values from {known.min()} to {known.max()}: count from 0"
        )
    return queries
