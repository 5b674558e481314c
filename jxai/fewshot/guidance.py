"""Explanation-guided training: features re-weighted by their relevance, and the loss on both.

Sun et al., *Explanation-Guided Training for Cross-Domain Few-Shot Classification*, ICPR 2020, III-B, C.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai.checks import check_number, keep_nan, keep_nan_of, shown
from jxai.errors import InputTypeError
from jxai.fewshot.auxiliary import CLASSIFIER, classifier_loss
from jxai.fewshot.checks import check_encoded
from jxai.fewshot.episode import Episode, check_episode
from jxai.fewshot.heads.head import KEPT, Head
from jxai.fewshot.system import check_modules, part

Loss = tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class Guidance:
    """How much explanations guide the loss ξ·L(scores) + λ·L(scores on weighted features).

    Attributes:
        plain_weight: ξ; None for the head's released choice, see `Head.loss_weights`.
        guided_weight: λ; None for the head's released choice. 0 trains the plain head, and computes no
            explanation.
        strength: t in the weights 1 + t·R/max|R|; 1 as released.
        through: whether gradients pass through the weights; None for the head's released choice, see `Head.through`.
    """

    plain_weight: float | None = None
    guided_weight: float | None = None
    strength: float = 1.0
    through: bool | None = None

    def __post_init__(self):
        for name in ("plain_weight", "guided_weight", "strength"):
            if (value := getattr(self, name)) is not None or name == "strength":
                check_number(name, value, least=0)
        if not isinstance(self.through, bool | None):
            raise InputTypeError(
                f"expected through as True, False or None, got {shown(self.through)}: choose one"
            )

    def weights(self, head: Head, shot: int) -> tuple[float, float]:
        """(ξ, λ) of a head.

        Args:
            head: the head.
            shot: labeled images a class.

        Returns:
            What is set here, else what the head releases.
        """
        plain, guided = head.loss_weights(shot, guided=self.guided_weight != 0)
        return (
            plain if self.plain_weight is None else self.plain_weight,
            guided if self.guided_weight is None else self.guided_weight,
        )


def check_guidance(head: Any, guidance: Any) -> None:
    """Refuse what are no head and guidance.

    Args:
        head: a head.
        guidance: a `Guidance`.

    Raises:
        TypeError: one of them is not.
    """
    if not isinstance(head, Head) or not isinstance(guidance, Guidance):
        raise InputTypeError(
            f"expected a Head and a Guidance, got {shown(head)} and {shown(guidance)}: make them"
        )


PLAIN = Guidance(guided_weight=0.0)


def head_loss(head: Head, variables: Any, episode: Episode, *, guidance: Guidance = Guidance()) -> Loss:
    """The guided loss of a head on features.

    Args:
        head: the head.
        variables: its own.
        episode: one episode of features; its number of shots decides λ where `guidance` leaves it open.
        guidance: weights of the two losses.

    Returns:
        (loss, (batch statistics of the head after the plain pass, metrics)). Metrics are scalars: "loss",
        "accuracy", "loss_plain", with an auxiliary loss "loss_auxiliary" and, when guided, "loss_guided".

    Raises:
        TypeError: no head, guidance or episode.
        ValueError: the episode's arrays do not fit, or the head cannot take them.
    """
    check_guidance(head, guidance)
    check_episode(episode, labeled=True)
    return loss_of_features(head, variables, episode, guidance)


def loss_of_features(head: Head, variables: Any, episode: Episode, guidance: Guidance) -> Loss:
    """`head_loss` of what was checked."""
    plain_weight, guided_weight = guidance.weights(head, episode.shot)
    labels: Any = episode.query_labels
    (explained, scores), updates = head.apply(
        variables, episode, True, method="plain_pass", mutable=["batch_stats", KEPT]
    )
    plain = head.loss(scores, labels)
    of_queries = scores.reshape(len(episode.query), -1, episode.way).mean(axis=1)
    right = (jnp.argmax(of_queries, axis=-1) == labels) & jnp.isfinite(of_queries).all(axis=-1)
    metrics = {"accuracy": jnp.mean(right), "loss_plain": plain}
    # A loss that does not count shall cost no backward pass.
    loss = plain_weight * plain if plain_weight else jnp.zeros_like(plain)
    auxiliary: Any = head.apply(variables, explained, episode, method="auxiliary_loss")
    if auxiliary is not None:
        metrics["loss_auxiliary"] = auxiliary
        loss = loss + auxiliary
    if guided_weight:
        kept = {KEPT: updates[KEPT]} if KEPT in updates else {}
        given = ({**variables, **kept}, explained, scores)
        through = head.through if guidance.through is None else guidance.through
        if not through:
            given = jax.lax.stop_gradient(given)
        explanation = head.explain(*given, strength=guidance.strength)
        weighted = explained * (
            explanation.weights if through else jax.lax.stop_gradient(explanation.weights)
        )
        # Only evaluation's plain head needs running averages: the weighted pass leaves none.
        guided_scores, _ = head.apply(variables, weighted, True, method="scores", mutable=["batch_stats"])
        metrics["loss_guided"] = head.loss(guided_scores, labels)
        loss = loss + guided_weight * metrics["loss_guided"]
    loss = keep_nan_of(plain, loss)  # whether it counts or not
    return loss, (updates.get("batch_stats", {}), metrics | {"loss": loss})


def guided_loss(
    encoder: nn.Module,
    head: Head,
    variables: Any,
    episode: Episode,
    *,
    guidance: Guidance = Guidance(),
    train_encoder: bool = True,
    classifier_weight: jax.Array | float = 1.0,
) -> Loss:
    """The loss of explanation-guided training on one episode.

    Where the variables have an auxiliary classifier ("classifier", see `init_multi_domain`), its cross-entropy on the
    queries' pooled features joins.

    Args:
        encoder: module from images to features; called with `train`.
        head: the head.
        variables: {"params": {"encoder", "head"}, "batch_stats": {"encoder", "head"}}.
        episode: one episode of images.
        guidance: weights of the two losses; `PLAIN` is the plain system.
        train_encoder: False holds the encoder fixed, on its running averages.
        classifier_weight: of the auxiliary classifier's loss, at least 0; `transformed_loss` lets it decay.

    Returns:
        (loss, (new batch statistics as in `variables`, metrics)); for the metrics see `head_loss`. An auxiliary
        classifier's loss is "loss_classifier".

    Raises:
        TypeError: no module, head, guidance or episode.
        ValueError: the episode's arrays do not fit, or the head cannot take their features; or there is an auxiliary
            classifier, but the episode has no `query_classes`.

    References:
        Sun et al., *Explanation-Guided Training for Cross-Domain Few-Shot Classification*, 2020, eq. 5-7.
    """
    check_modules(encoder, head)
    check_guidance(head, guidance)
    check_number("classifier_weight", classifier_weight, least=0)
    check_episode(episode, labeled=True)
    return loss_of_images(
        encoder,
        head,
        variables,
        episode,
        guidance,
        train_encoder=train_encoder,
        classifier_weight=classifier_weight,
    )


def loss_of_images(
    encoder: nn.Module,
    head: Head,
    variables: Any,
    episode: Episode,
    guidance: Guidance,
    *,
    train_encoder: bool = True,
    classifier_weight: jax.Array | float = 1.0,
) -> Loss:
    """`guided_loss` of what was checked."""
    images = jnp.concatenate([episode.support, episode.query])
    of_encoder = part(variables, "encoder")
    features, updates = encoder.apply(of_encoder, images, train=train_encoder, mutable=["batch_stats"])
    check_encoded(features, len(images))
    features = keep_nan_of(of_encoder, keep_nan(features, images))
    if not train_encoder:
        features = jax.lax.stop_gradient(features)
    num_support = len(episode.support)
    encoded = dataclasses.replace(episode, support=features[:num_support], query=features[num_support:])
    loss, (head_statistics, metrics) = loss_of_features(head, part(variables, "head"), encoded, guidance)
    statistics = {"encoder": updates.get("batch_stats", {}), "head": head_statistics}
    if CLASSIFIER in variables["params"]:
        found = classifier_loss(variables["params"][CLASSIFIER], encoded.query, episode.query_classes)
        loss = loss + jnp.asarray(classifier_weight, found.dtype) * found
        metrics = metrics | {"loss": loss, "loss_classifier": found}
    return loss, (statistics, metrics)
