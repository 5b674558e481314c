"""The prototypical network's head: a query belongs to the class whose mean support is nearest.

Snell, Swersky and Zemel, *Prototypical Networks for Few-shot Learning*, 2017.
"""

import jax
import jax.numpy as jnp

from jxai.fewshot.episode import Episode
from jxai.fewshot.heads.conditioned import Conditioned, ConditionedHead, vectors
from jxai.fewshot.heads.head import class_means


class PrototypeHead(ConditionedHead):
    """Negative squared distances −‖q − p‖² of query and prototype, without parameters.

    −‖q − p‖² = 2p·q − ‖p‖² − ‖q‖², and the last term is the same for every class: the scores leave it out, which
    changes neither softmax nor loss. What is left is a dense layer on the query with kernel 2p.

    Nobody has published how to guide this head; it is our choice. What is explained, and weighted, is the query's
    features; prototypes are constant. The rule is the release's for dense layers: ε = 0.01, the bias −‖p‖² left out.

    Attributes:
        pool: average maps over their positions; else flatten them, as the original does.
    """

    pool: bool = True

    def explained(self, episode: Episode, train: bool = False) -> Conditioned:
        """The queries (queries, C) beside the prototypes (way, C); for the arguments see `Head`."""
        support, query = (vectors(x, pool=self.pool) for x in (episode.support, episode.query))
        return Conditioned(query, class_means(support, episode.support_labels, episode.way))

    def condense(self, features: jax.Array) -> jax.Array:
        """Vectors; for the arguments see `Head`."""
        return vectors(features, pool=self.pool)

    def scores(self, explained: Conditioned, train: bool = False) -> jax.Array:
        """2p·q − ‖p‖²; for the arguments see `Head`."""
        means = explained.context
        bias = -jnp.sum(means**2, axis=-1)
        return explained.features @ (2 * means).T + bias[None]  # a sum, as rules know a bias
