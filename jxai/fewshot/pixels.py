"""What a few-shot system looks at: relevance of a query's pixels for every class of the episode."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai import lrp
from jxai.fewshot.episode import Episode
from jxai.fewshot.guidance import log_odds
from jxai.fewshot.heads.head import Head
from jxai.fewshot.system import part


def pixel_relevance(
    encoder: nn.Module,
    head: Head,
    variables: Any,
    episode: Episode,
    *,
    composite: lrp.Composite = lrp.sun2020,
) -> tuple[jax.Array, jax.Array]:
    """Relevance of the query images' pixels, through the head and then the encoder, for each class.

    All classes come from one forward pass. Support images are held constant.

    Args:
        encoder: module from images to features; on its running statistics.
        head: the head, as in evaluation.
        variables: of the system, see `init_variables`.
        episode: one episode.
        composite: the encoder's rules; the head has its own.

    Returns:
        (relevance (queries, way, H, W, C), scores (queries, way)); relevance starts with `log_odds`, so it is
        negative where a class is less likely than chance.
    """
    of_encoder, of_head = part(variables, "encoder"), part(variables, "head")
    support = encoder.apply(of_encoder, episode.support, train=False)

    def scores(features):
        return head.apply(
            of_head, support, episode.support_labels, features, episode.way, mutable=["batch_stats"]
        )[0]

    features, to_pixels = lrp.vjp(
        lambda query: encoder.apply(of_encoder, query, train=False), episode.query, composite=composite
    )
    found, to_features = lrp.vjp(scores, features, composite=head.composite)
    starts = jnp.eye(episode.way)[:, None] * log_odds(found)
    (relevance,) = jax.vmap(lambda start: to_pixels(*to_features(start)))(starts)
    return jnp.swapaxes(relevance, 0, 1), found
