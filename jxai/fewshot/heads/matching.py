"""The matching network's head: a query attends to the supports and takes their labels.

Vinyals et al., *Matching Networks for One Shot Learning*, 2016.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from jxai import lrp
from jxai.fewshot.checks import check_every_class
from jxai.fewshot.episode import Episode
from jxai.fewshot.heads.conditioned import Conditioned, ConditionedHead, normalized, vectors
from jxai.models.layers import check_fields


class ClassEvidence(nn.Module):
    """The logarithm of the summed attention to each class, but for a term that all classes share."""

    def __call__(self, logits: jax.Array, members: jax.Array) -> jax.Array:
        """log Σ_j exp(logits_j) over the supports j of each class.

        Args:
            logits: of each support, (queries, supports).
            members: 1 where a support is of a class, else 0, (way, supports).

        Returns:
            Scores (queries, way).
        """
        return jax.nn.logsumexp(logits[:, None], axis=-1, b=members[None])


@dataclasses.dataclass(frozen=True)
class AttentionShares(lrp.Rule):
    """A log-sum-exp hands relevance to its terms in proportion to their exponentials, which are its derivatives."""

    def propagate(
        self, function: Any, inputs: list[jax.Array], outputs: list[jax.Array], relevance: list[jax.Array]
    ) -> list[jax.Array]:
        """Relevance of the terms; for the arguments see `lrp.Rule`."""
        return list(jax.vjp(function, *inputs)[1](relevance))


class MatchingHead(ConditionedHead):
    """Attention of the query to the supports by their cosine, without parameters.

    A class's score is the logarithm of the attention that its supports get together. Full-context embeddings, which
    the original adds, are left out.

    Nobody has published how to guide this head; it is our choice. What is explained, and weighted, is the query's
    normalized features: a class hands its relevance to its supports in proportion to the attention that they get, and
    their cosines, a dense layer, hand it on to the query with ε = 0.01. The supports are constant.

    Attributes:
        temperature: cosines are divided by it; 0.01 as in Chen et al., *A Closer Look at Few-shot Classification*,
            2019, and 1 in the original.
        pool: average maps over their positions; else flatten them.
    """

    temperature: float = 0.01
    pool: bool = True

    def setup(self):
        """Declare the module that the rule meets."""
        check_fields(self)
        self.evidence = ClassEvidence()

    def explained(self, episode: Episode, train: bool = False) -> Conditioned:
        """The queries (queries, C) beside the supports and the classes' members; for the arguments see `Head`."""
        check_every_class(episode.support_labels, episode.way)
        support, query = (normalized(vectors(x, pool=self.pool)) for x in (episode.support, episode.query))
        members = jax.nn.one_hot(episode.support_labels, episode.way, axis=0, dtype=support.dtype)
        return Conditioned(query, (support, members))

    def condense(self, features: jax.Array) -> jax.Array:
        """Vectors; for the arguments see `Head`."""
        return vectors(features, pool=self.pool)

    def scores(self, explained: Conditioned, train: bool = False) -> jax.Array:
        """Log-sums of exponentials; for the arguments see `Head`."""
        support, members = explained.context
        return self.evidence(explained.features @ support.T / self.temperature, members)

    @property
    def composite(self) -> lrp.Composite:
        """The release's rules with one for the attention."""
        return lrp.Composite(((ClassEvidence, AttentionShares()),)) | lrp.sun2020
