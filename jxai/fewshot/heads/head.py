"""What guidance asks of a head: which features it explains, its scores from them, its loss."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai import lrp


class Head(nn.Module):
    """A classifier of query features by support features, in two steps.

    Subclasses give `explained` and `scores`; a loss other than cross-entropy, other rules, or a cheaper way
    to the same relevance are theirs to override. Guidance asks for `scores(explained * weights)`: what is explained
    supports `*` with an array of its relevance's shape.
    """

    def explained(self, support: jax.Array, support_labels: jax.Array, query: jax.Array, way: int) -> Any:
        """The features that are explained and re-weighted.

        Args:
            support: features (way·shot, ...), in any order of classes.
            support_labels: (way·shot,), integers in [0, way).
            query: features (queries, ...).
            way: number of classes.

        Returns:
            The features, channels last.
        """
        raise NotImplementedError

    def scores(self, explained: Any, train: bool = False) -> jax.Array:
        """Raw scores (queries, way), before any softmax or sigmoid.

        Args:
            explained: what `explained` gave, or that times weights.
            train: whether batch statistics are recorded in the collection "batch_stats".

        Returns:
            Scores (queries, way).
        """
        raise NotImplementedError

    def __call__(
        self, support: jax.Array, support_labels: jax.Array, query: jax.Array, way: int, train: bool = False
    ) -> jax.Array:
        """The plain head: `scores(explained(...))`; for the arguments see there."""
        return self.scores(self.explained(support, support_labels, query, way), train)

    @property
    def composite(self) -> lrp.Composite:
        """The rules of the head's modules."""
        return lrp.sun2020

    def loss(self, scores: jax.Array, labels: jax.Array) -> jax.Array:
        """Cross-entropy of the scores, a mean over the queries.

        Args:
            scores: raw scores (queries, way).
            labels: (queries,), integers in [0, way).

        Returns:
            A scalar.
        """
        return -jnp.mean(jax.nn.log_softmax(scores)[jnp.arange(labels.size), labels])

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
