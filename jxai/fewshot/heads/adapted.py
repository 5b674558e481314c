"""A linear layer that takes one step of gradient descent on the support before it answers.

Finn, Abbeel and Levine, *Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks*, 2017; of the last layer
alone as in Raghu et al., *Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of MAML*, 2020.
"""

import flax.linen as nn
import jax

from jxai import lrp
from jxai.errors import InputError
from jxai.fewshot.episode import Episode
from jxai.fewshot.heads.conditioned import Conditioned, ConditionedHead, vectors
from jxai.models.layers import check_fields, dense_init


class Errors(nn.Module):
    """By how much the support's scores are wrong: the descending gradient of cross-entropy, one-hot − softmax.

    A module, so that a composite can hold it constant.
    """

    def __call__(self, scores: jax.Array, labels: jax.Array) -> jax.Array:
        """The errors.

        Args:
            scores: of the support, (supports, way).
            labels: one-hot, (supports, way).

        Returns:
            (supports, way).
        """
        return labels - nn.softmax(scores)


class AdaptedHead(ConditionedHead):
    """Scores of a dense layer after one step on the support's mean cross-entropy, W + (η/n) Σ_i s_i e_iᵀ.

    s are the n supports' features, e their one-hot labels less the softmax of their scores by W, and the bias moves
    likewise. W, where the step starts, is what training learns, through the step.

    Nobody has published how to guide this head; it is our choice. What is explained, and weighted, is the query's
    features; the adapted layer is constant. Where the support is explained (`episode_relevance`), the errors e are
    constant, as attention is elsewhere: q·W is a dense layer on the query q, and of the step's share of a score,
    (η/n) Σ_i e_i (s_i·q), the support gets half, s_i what belongs to its own e_i.

    Attributes:
        way: the most classes that an episode may have.
        step_size: η.
        pool: average maps over their positions; else flatten them.
    """

    way: int = 5
    step_size: float = 1.0
    pool: bool = True

    def setup(self):
        """Declare the layer where the step starts."""
        check_fields(self)
        self.fc = nn.Dense(self.way, kernel_init=dense_init)
        self.errors = Errors()

    def explained(self, episode: Episode, train: bool = False) -> Conditioned:
        """The queries (queries, C) beside the step of kernel (C, way) and bias (way,); for the arguments see `Head`.

        Raises:
            ValueError: there are more classes than `self.way`.
        """
        way = episode.way
        if way > self.way:
            raise InputError(f"expected at most {self.way} classes, got {way}: make AdaptedHead(way={way})")
        support, query = (vectors(x, pool=self.pool) for x in (episode.support, episode.query))
        labels = jax.nn.one_hot(episode.support_labels, way, dtype=support.dtype)
        errors = self.errors(self.fc(support)[:, :way], labels) * (self.step_size / len(support))
        return Conditioned(query, (support.T @ errors, errors.sum(axis=0)))

    def condense(self, features: jax.Array) -> jax.Array:
        """Vectors; for the arguments see `Head`."""
        return vectors(features, pool=self.pool)

    def scores(self, explained: Conditioned, train: bool = False) -> jax.Array:
        """The adapted layer's; for the arguments see `Head`."""
        kernel, bias = explained.context
        # Two products: the support has no part in the first.
        before = self.fc(explained.features)[:, : len(bias)]
        return before + explained.features @ kernel + bias[None]

    @property
    def composite(self) -> lrp.Composite:
        """The release's rules, the errors constant."""

        def held(operation: lrp.Operation) -> bool:
            return operation.kind is lrp.Kind.MODULE and isinstance(operation.module, Errors)

        return lrp.Composite(((held, lrp.Constant()),), "adapted") | lrp.sun2020
