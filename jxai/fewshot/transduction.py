"""Transductive inference: the queries that a head is surest of become support for the others."""

import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jxai.checks import check_choice, check_count, shown
from jxai.errors import InputError, InputTypeError
from jxai.fewshot.episode import Episode, check_episode
from jxai.fewshot.heads.head import Head

Confidence = Literal["score", "probability"]


@dataclasses.dataclass(frozen=True)
class Transduction:
    """Rounds in which queries join the support with the labels that were predicted for them.

    Attributes:
        counts: how many queries join in each round; as released 35, then 70 of 75.
        restart: whether each round's queries join the true support alone, as in the original cross-attention program.
            Otherwise they join what earlier rounds have made of it, as in the explanation-guided RelationNet: a query
            that is chosen in both rounds then stands in the support twice, under each round's label.
        confidence: queries are ranked by their largest "score", as both programs do, or by their largest
            "probability", the softmax of the scores; for heads whose scores are known up to a number for each query.
    """

    counts: tuple[int, ...] = (35, 70)
    restart: bool = True
    confidence: Confidence = "score"

    def __post_init__(self):
        check_choice("confidence", self.confidence, get_args(Confidence))
        if not isinstance(self.counts, tuple) or not self.counts:
            raise InputError(
                f"expected counts of at least 1, got {shown(self.counts)}: leave the transduction out for none"
            )
        for count in self.counts:
            check_count("counts", count)


def transductive_scores(
    head: Head,
    variables: Any,
    episode: Episode,
    *,
    transduction: Transduction = Transduction(),
) -> jax.Array:
    """A head's scores once the surest queries have joined the support.

    Args:
        head: the head.
        variables: its own.
        episode: one episode of features.
        transduction: how many queries join, and what.

    Returns:
        Scores of all queries, (queries, way), with the last round's support.

    Raises:
        TypeError: no head, transduction or episode, or arrays of other types.
        ValueError: shapes do not fit, or more queries are to join than there are.

    References:
        Hou et al., *Cross Attention Network for Few-shot Classification*, 2019, 4.4.
    """
    if not isinstance(head, Head) or not isinstance(transduction, Transduction):
        raise InputTypeError(
            f"expected a Head and a Transduction, got {shown(head)} and {shown(transduction)}: make them"
        )
    check_episode(episode)
    query = jnp.asarray(episode.query)
    if max(transduction.counts) > len(query):
        raise InputError(
            f"expected at most the {len(query)} queries to join the support, got counts {transduction.counts}: "
            "choose smaller counts, or give more queries"
        )

    def scores(support: jax.Array, labels: jax.Array) -> jax.Array:
        given = dataclasses.replace(episode, support=support, support_labels=labels)
        (_, found), _ = head.apply(variables, given, method="plain_pass", mutable=["batch_stats"])
        return found

    joined, labels = episode.support, episode.support_labels
    found = scores(joined, labels)
    for count in transduction.counts:
        ranked = found if transduction.confidence == "score" else jax.nn.softmax(found)
        # A query whose scores are NaN is the least sure.
        confidence = jnp.where(jnp.isfinite(ranked).all(axis=-1), jnp.max(ranked, axis=-1), -jnp.inf)
        _, surest = jax.lax.top_k(confidence, count)
        if transduction.restart:
            joined, labels = episode.support, episode.support_labels
        joined = jnp.concatenate([joined, query[surest]])
        labels = jnp.concatenate([labels, jnp.argmax(found, axis=-1)[surest]])
        found = scores(joined, labels)
    return found
