"""What a few-shot system looks at: relevance of a query's pixels for every class of the episode."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai import lrp
from jxai.fewshot.checks import check_encoded
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

    All classes come from one forward pass. Support images are held constant. A query's relevance is that of its own
    scores, also where other queries take part in them.

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
    of_encoder, of_head = part(variables, "encoder"), part(variables, "head")

    def scores(features):
        given = dataclasses.replace(episode, support=support, query=features)
        (_, found), _ = head.apply(of_head, given, method="plain_pass", mutable=["batch_stats"])
        return found

    features, to_pixels = lrp.vjp(
        lambda query: encoder.apply(of_encoder, query, train=False), episode.query, composite=composite
    )
    check_encoded(features, len(episode.query))
    # An encoder refuses no images; some heads take no support.
    none = len(episode.support) == 0
    support = features[:0] if none else encoder.apply(of_encoder, episode.support, train=False)
    found, to_features = lrp.vjp(scores, features, composite=head.composite)
    queries, way = found.shape
    # Queries of one graph see one another: they start apart, so that each keeps what its own scores give it.
    apart = way if head.mixes_queries else 1
    own = jnp.repeat(jnp.eye(apart), queries // apart, axis=1)

    def to_own_pixels(starts: jax.Array) -> jax.Array:
        (of_features,) = jax.vmap(to_features)(starts)
        return to_pixels(jnp.einsum("aq,aq...->q...", own, of_features))[0]

    starts = jnp.eye(way)[:, None, None] * own[:, :, None] * log_odds(found)
    return jax.vmap(to_own_pixels, out_axes=1)(starts), found
