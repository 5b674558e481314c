"""What guidance asks of a head: which features it explains, its scores from them, its loss."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai import lrp
from jxai.checks import check_count, keep_nan, keep_nan_of
from jxai.fewshot.checks import check_every_class, check_task
from jxai.fewshot.episode import Episode, check_episode
from jxai.fewshot.explanation import Explanation, log_odds
from jxai.guidance import relevance_weights

# Where a head may leave, while it computes scores, what `explain` would otherwise compute again.
KEPT = "explanation"


def released_weight(shot: int) -> float:
    """λ by the number of shots: 0.5 at 1 and 1 at 5 as released; linear between, 1 above, 0.5 below (our choice).

    Args:
        shot: labeled images a class.

    Returns:
        λ.

    Raises:
        ValueError: no integer of at least 0.
    """
    return min(1.0, 0.5 + 0.125 * (max(check_count("shot", shot, least=0), 1) - 1))


def prototypes(support: jax.Array, labels: jax.Array, way: int) -> jax.Array:
    """The mean of each class's support features.

    Args:
        support: features (supports, ...).
        labels: (supports,), integers in [0, way); every class has at least one support.
        way: number of classes.

    Returns:
        (way, ...).

    Raises:
        TypeError: no floats, or labels of no integers.
        ValueError: shapes do not fit, or a class has no support (not seen under jit).
    """
    check_task(support, labels, support, way)
    return class_means(support, labels, way)


def class_means(support: jax.Array, labels: jax.Array, way: int) -> jax.Array:
    """`prototypes` of an episode that was checked."""
    check_every_class(labels, way)
    members = jax.nn.one_hot(labels, way, axis=0, dtype=support.dtype)
    # Labels are no weights: where support carries relevance, it meets a mean and no dense layer.
    return jnp.tensordot(lrp.fixed(members / members.sum(axis=1, keepdims=True)), support, axes=1)


class Head(nn.Module):
    """A classifier of query features by support features, in two steps.

    Subclasses give `explained` and `scores`; a loss other than cross-entropy, other rules, or a cheaper way
    to the same relevance are theirs to override. Guidance asks for `scores(explained * weights)`: what is explained
    supports `*` with an array of its relevance's shape.
    """

    def explained(self, episode: Episode, train: bool = False) -> Any:
        """The features that are explained and re-weighted.

        Args:
            episode: one episode of features; its labels of queries are the loss's, not the head's.
            train: whether batch statistics are used and recorded in the collection "batch_stats".

        Returns:
            The features, channels last.
        """
        raise NotImplementedError

    def scores(self, explained: Any, train: bool = False) -> jax.Array:
        """Raw scores (queries, way), before any softmax or sigmoid.

        Args:
            explained: what `explained` gave, or that times weights.
            train: whether batch statistics are used and recorded in the collection "batch_stats".

        Returns:
            Scores (queries, way). In training there may be several scores a query, (queries, ..., way): the loss
            is then their mean.
        """
        raise NotImplementedError

    def condense(self, features: jax.Array) -> jax.Array:
        """What of an image's features the head uses, for those who keep features for many episodes.

        Args:
            features: what the encoder gave, (N, ...).

        Returns:
            Features with which the head gives the same scores; here the same ones.
        """
        return features

    def __call__(self, episode: Episode, train: bool = False) -> jax.Array:
        """The plain head's scores; for the arguments see `explained`, for errors `check_episode`."""
        return self.forward(episode, train)[1]

    def forward(self, episode: Episode, train: bool = False) -> tuple[Any, jax.Array]:
        """(explained, scores) of the plain head; for the arguments see `explained`, for errors `check_episode`."""
        check_episode(episode)
        return self.plain_pass(episode, train)

    def plain_pass(self, episode: Episode, train: bool = False) -> tuple[Any, jax.Array]:
        """`forward` of an episode that was checked."""
        given = jax.tree.leaves((self.variables, episode.support))  # before batch statistics are written
        explained = self.explained(episode, train)
        return explained, keep_nan_of(given, keep_nan(self.scores(explained, train), episode.query))

    @property
    def composite(self) -> lrp.Composite:
        """The rules of the head's modules."""
        return lrp.sun2020

    @property
    def mixes_queries(self) -> bool:
        """Whether a query's scores hand relevance to queries of other classes too, as in a graph."""
        return False

    @property
    def through(self) -> bool:
        """Whether, as released, the gradient of the guided loss passes through the weights of the features."""
        return False

    def loss(self, scores: jax.Array, labels: jax.Array) -> jax.Array:
        """Cross-entropy of the scores, a mean over the queries.

        Args:
            scores: raw scores (queries, ..., way).
            labels: (queries,), integers in [0, way).

        Returns:
            A scalar.
        """
        log_p = jax.nn.log_softmax(scores).reshape(labels.size, -1, scores.shape[-1]).mean(axis=1)
        return -jnp.mean(log_p[jnp.arange(labels.size), labels])

    def loss_weights(self, shot: int, *, guided: bool) -> tuple[float, float]:
        """The released weights of the losses of plain and of guided scores.

        Args:
            shot: labeled images a class.
            guided: whether training is guided.

        Returns:
            (ξ, λ).
        """
        return 1.0, released_weight(shot) if guided else 0.0

    def auxiliary_loss(self, explained: Any, episode: Episode) -> jax.Array | None:
        """What the head learns besides the episode's scores.

        Args:
            explained: what `explained` gave in training.
            episode: the episode, with `query_labels`.

        Returns:
            A scalar, or None for nothing.
        """
        return None

    def explain(
        self, variables: Any, explained: Any, scores: jax.Array, *, strength: float = 1.0
    ) -> Explanation:
        """Explain the scores down to the features, and form the weights from that.

        Args:
            variables: the head's own, with the collection that `scores` left for this.
            explained: what `explained` gave.
            scores: what `scores` gives for it.
            strength: see `relevance_weights`.

        Returns:
            The explanation, which can be differentiated; `Guidance.through` says whether training does.
        """
        start = log_odds(scores)
        relevance = self.relevance(variables, explained, start)
        return Explanation(start, relevance, relevance_weights(relevance, strength=strength))

    def relevance(self, variables: Any, explained: Any, start: jax.Array) -> jax.Array:
        """Relevance of the explained features.

        Args:
            variables: the head's own.
            explained: what `explained` gave.
            start: relevance of the scores, (queries, way).

        Returns:
            Relevance, of the explained features' shape.
        """

        def scores(explained):
            return self.apply(variables, explained, True, method="scores", mutable=["batch_stats"])[0]

        return lrp.vjp(scores, explained, composite=self.composite)[1](start)[0]
