"""Explanation-guided training: features re-weighted by their relevance, and the loss on both.

Sun et al., *Explanation-Guided Training for Cross-Domain Few-Shot Classification*, ICPR 2020, III-B, C.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from jxai.fewshot.episode import Episode
from jxai.fewshot.heads.head import Head
from jxai.fewshot.system import part


@dataclasses.dataclass(frozen=True)
class Guidance:
    """How much explanations guide the loss ξ·L(scores) + λ·L(scores on weighted features).

    Attributes:
        plain_weight: ξ.
        guided_weight: λ; None for the released choice by the number of shots, see `released_weight`. 0 trains
            the plain head, and computes no explanation.
        strength: t in the weights 1 + t·R/max|R|; 1 as released.
    """

    plain_weight: float = 1.0
    guided_weight: float | None = None
    strength: float = 1.0

    def __post_init__(self):
        for name in ("plain_weight", "strength"):
            if getattr(self, name) < 0:
                raise ValueError(f"expected {name} of at least 0, got {getattr(self, name)}")
        if self.guided_weight is not None and self.guided_weight < 0:
            raise ValueError(f"expected guided_weight of at least 0 or None, got {self.guided_weight}")


PLAIN = Guidance(guided_weight=0.0)


@flax.struct.dataclass
class Explanation:
    """What guidance computed for one episode.

    Attributes:
        start: relevance of the scores, (queries, way).
        relevance: of the explained features.
        weights: of the explained features, in [0, 2] at strength 1.
    """

    start: jax.Array
    relevance: jax.Array
    weights: jax.Array


def released_weight(shot: int) -> float:
    """λ by the number of shots: 0.5 at 1 and 1 at 5 as released; linear between, and 1 above (our choice).

    Args:
        shot: labelled images a class.

    Returns:
        λ.
    """
    return min(1.0, 0.5 + 0.125 * (shot - 1))


def log_odds(scores: jax.Array) -> jax.Array:
    """The relevance that scores start with: R⁰ = log(β(p + 0.01) / (1.01 − p)), p = softmax, β = way − 1.

    It is about 0 at chance level. The release holds β at 4, which is way − 1 in its 5-way tasks.

    Args:
        scores: raw scores (..., way).

    Returns:
        Relevance of the scores' shape.
    """
    p = jax.nn.softmax(scores)
    return jnp.log((scores.shape[-1] - 1) * (p + 0.01) / (1.01 - p))


def relevance_weights(relevance: jax.Array, *, strength: float = 1.0) -> jax.Array:
    """w = 1 + t·R / max|R| with the maximum over the last axis; 1 where all of R is 0.

    Args:
        relevance: (..., C).
        strength: t, at least 0.

    Returns:
        Weights of the relevance's shape, in [1 − t, 1 + t].
    """
    largest = jnp.max(jnp.abs(relevance), axis=-1, keepdims=True)
    return 1 + strength * relevance / jnp.where(largest == 0, 1, largest)


def explain_head(
    head: Head, variables: Any, explained: Any, scores: jax.Array, *, strength: float = 1.0
) -> Explanation:
    """Explain a head's scores down to its features, and form the weights from that.

    Args:
        head: the head.
        variables: its own.
        explained: what `head.explained` gave.
        scores: what `head.scores` gives for it, (queries, way).
        strength: see `relevance_weights`.

    Returns:
        The explanation. No gradient passes through it, as released for RelationNet and the graph network.
    """
    variables, explained, scores = jax.lax.stop_gradient((variables, explained, scores))
    start = log_odds(scores)
    relevance = head.relevance(variables, explained, start)
    return jax.lax.stop_gradient(
        Explanation(start, relevance, relevance_weights(relevance, strength=strength))
    )


def head_loss(
    head: Head,
    variables: Any,
    support: jax.Array,
    support_labels: jax.Array,
    query: jax.Array,
    query_labels: jax.Array,
    *,
    way: int,
    shot: int,
    guidance: Guidance = Guidance(),
) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    """The guided loss of a head on features.

    Args:
        head: the head.
        variables: its own.
        support: features (way·shot, ...).
        support_labels: (way·shot,).
        query: features (queries, ...).
        query_labels: (queries,).
        way: number of classes.
        shot: labelled images a class; decides λ where `guidance` leaves it open.
        guidance: weights of the two losses.

    Returns:
        (loss, (batch statistics of the head after the plain pass, metrics)). Metrics are scalars: "loss",
        "accuracy", "loss_plain" and, when guided, "loss_guided".
    """
    weight = released_weight(shot) if guidance.guided_weight is None else guidance.guided_weight
    explained = head.apply(variables, support, support_labels, query, way, method="explained")
    scores, updates = head.apply(variables, explained, True, method="scores", mutable=["batch_stats"])
    plain = head.loss(scores, query_labels)
    metrics = {"accuracy": jnp.mean(jnp.argmax(scores, axis=-1) == query_labels), "loss_plain": plain}
    loss = guidance.plain_weight * plain
    if weight:
        explanation = explain_head(head, variables, explained, scores, strength=guidance.strength)
        weighted = explained * explanation.weights
        # Only evaluation's plain head needs running averages: the weighted pass leaves none.
        guided_scores, _ = head.apply(variables, weighted, True, method="scores", mutable=["batch_stats"])
        metrics["loss_guided"] = head.loss(guided_scores, query_labels)
        loss = loss + weight * metrics["loss_guided"]
    return loss, (updates.get("batch_stats", {}), metrics | {"loss": loss})


def guided_loss(
    encoder: nn.Module,
    head: Head,
    variables: Any,
    episode: Episode,
    *,
    guidance: Guidance = Guidance(),
    train_encoder: bool = True,
) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    """The loss of explanation-guided training on one episode.

    Args:
        encoder: module from images to features; called with `train`.
        head: the head.
        variables: {"params": {"encoder", "head"}, "batch_stats": {"encoder", "head"}}.
        episode: one episode.
        guidance: weights of the two losses; `PLAIN` is the plain system.
        train_encoder: False holds the encoder fixed, on its running averages.

    Returns:
        (loss, (new batch statistics as in `variables`, metrics)); for the metrics see `head_loss`.

    References:
        Sun et al., *Explanation-Guided Training for Cross-Domain Few-Shot Classification*, 2020, eq. 5-7.
    """
    images = jnp.concatenate([episode.support, episode.query])
    features, updates = encoder.apply(
        part(variables, "encoder"), images, train=train_encoder, mutable=["batch_stats"]
    )
    if not train_encoder:
        features = jax.lax.stop_gradient(features)
    num_support = episode.support.shape[0]
    loss, (head_statistics, metrics) = head_loss(
        head,
        part(variables, "head"),
        features[:num_support],
        episode.support_labels,
        features[num_support:],
        episode.query_labels,
        way=episode.way,
        shot=num_support // episode.way,
        guidance=guidance,
    )
    return loss, ({"encoder": updates.get("batch_stats", {}), "head": head_statistics}, metrics)
