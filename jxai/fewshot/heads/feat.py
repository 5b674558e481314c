"""FEAT's head: prototypes adapted to one another by self-attention; a query belongs to the nearest of them.

Ye, Hu, Zhan and Sha, *Few-Shot Learning via Embedding Adaptation with Set-to-Set Functions*, 2020.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from flax.linen.initializers import variance_scaling

from jxai import lrp
from jxai.checks import check_number
from jxai.fewshot.episode import Episode
from jxai.fewshot.heads.conditioned import vectors
from jxai.fewshot.heads.head import Head, class_means
from jxai.lrp.rules.presets import SUN2020_DENSE
from jxai.lrp.rules.ratio import stabilize
from jxai.models.layers import check_fields

# Normal with standard deviation √(2 / (in + out)), as released.
_init = variance_scaling(1.0, "fan_avg", "normal")


@flax.struct.dataclass
class Task:
    """A query and the prototypes that it is compared with.

    Attributes:
        prototypes: (1, way, C), the same for every query; weighted, each query's own, (queries, way, C).
        query: (queries, C).
    """

    prototypes: jax.Array
    query: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `dense()`."""
        return (len(self.query), 1 + self.prototypes.shape[1], self.query.shape[-1])

    def dense(self) -> jax.Array:
        """Each query before its prototypes, (queries, 1 + way, C)."""
        own = jnp.broadcast_to(self.prototypes, (len(self.query), *self.prototypes.shape[1:]))
        return jnp.concatenate([self.query[:, None], own], axis=1)

    def __jax_array__(self) -> jax.Array:
        return self.dense()

    def __mul__(self, weights: jax.Array) -> "Task":
        return Task(self.prototypes * weights[:, 1:], self.query * weights[:, 0])

    __rmul__ = __mul__


class Adaptation(nn.Module):
    """One layer of self-attention with a residual and layer normalization."""

    @nn.compact
    def __call__(self, x: jax.Array, together: jax.Array | None = None) -> jax.Array:
        """The adapted set.

        Args:
            x: a set of vectors, (..., n, C).
            together: which of them see one another, (n, n) bool; None for all.

        Returns:
            (..., n, C), in the order of the set.
        """
        width = x.shape[-1]
        query, key, value = (
            nn.Dense(width, use_bias=False, kernel_init=_init, name=name)(x)
            for name in ("query", "key", "value")
        )
        logits = jnp.einsum("...ic,...jc->...ij", query, key) / width**0.5
        if together is not None:
            logits = jnp.where(together, logits, -jnp.inf)
        mixed = jnp.einsum("...ij,...jc->...ic", nn.softmax(logits), value)
        mixed = nn.Dense(width, kernel_init=_init, name="out")(mixed)
        return nn.LayerNorm(epsilon=1e-5, name="norm")(x + mixed)


class Nearness(nn.Module):
    """Negative squared distances, but for the query's own square, which is the same for every class."""

    def __call__(self, prototypes: jax.Array, query: jax.Array) -> jax.Array:
        """2p·q − ‖p‖².

        Args:
            prototypes: (1 or queries, way, C).
            query: (queries, C).

        Returns:
            (queries, way).
        """
        return jnp.sum(2 * prototypes * query[:, None] - prototypes**2, axis=-1)


@dataclasses.dataclass(frozen=True)
class ProductShares(lrp.Rule):
    """2p·q hands relevance on as a dense layer does, half to p and half to q where both get some; −‖p‖² is a bias."""

    def propagate(
        self, function: Any, inputs: list[jax.Array], outputs: list[jax.Array], relevance: list[jax.Array]
    ) -> list[jax.Array]:
        """Relevance of prototypes, query or both; for the arguments see `lrp.Rule`."""
        shares = []
        for index, x in enumerate(inputs):

            def alone(x: jax.Array, index: int = index) -> jax.Array:
                return function(*inputs[:index], x, *inputs[index + 1 :])[0]

            # The layer's kernel is the derivative where x is 0, and so has no part of −‖p‖².
            zero = jnp.zeros_like(x)
            products, pullback = jax.jvp(alone, (zero,), (x,))[1], jax.vjp(alone, zero)[1]
            (of_x,) = pullback(relevance[0] / stabilize(products, SUN2020_DENSE.epsilon))
            shares.append(x * of_x / len(inputs))
        return shares


class FEATHead(Head):
    """Negative squared distances of the query and the adapted prototypes, over a temperature.

    In training the paper's contrastive loss joins: each class's supports and queries are adapted among themselves,
    and all of them shall be nearest to the mean of their own class. The release's dropout is left out.

    Nobody has published how to guide this head; it is our choice. What is explained, and weighted, is the query's
    features and, for each query, the prototypes before their adaptation. Attention's weights are constant and
    the dense layers have ε = 0.01, as in the cross-attention head; a product's relevance goes half to the query and
    half to the adapted prototype.

    Attributes:
        temperature: distances are divided by it; 64 as released.
        contrast: weight of the contrastive loss, 0.1 as released for 5 shots; None for none.
        contrast_temperature: of its distances; 32 as released for 5 shots.
        pool: average maps over their positions; else flatten them.
    """

    temperature: float = 64.0
    contrast: float | None = 0.1
    contrast_temperature: float = 32.0
    pool: bool = True

    def setup(self):
        """Declare the modules."""
        check_fields(self)
        if self.contrast is not None:
            check_number("contrast", self.contrast, above=0)
        self.adaptation, self.nearness = Adaptation(), Nearness()

    @property
    def composite(self) -> lrp.Composite:
        """The release's rules, attention's weights held constant, and one for the distances."""
        rules = ((Nearness, ProductShares()), (lrp.attention_weights, lrp.Constant()))
        return lrp.Composite(rules, "FEAT") | lrp.sun2020

    def explained(self, episode: Episode, train: bool = False) -> Task:
        """The queries beside the prototypes; for the arguments see `Head`."""
        support, query = (vectors(x, pool=self.pool) for x in (episode.support, episode.query))
        return Task(class_means(support, episode.support_labels, episode.way)[None], query)

    def condense(self, features: jax.Array) -> jax.Array:
        """Vectors; for the arguments see `Head`."""
        return vectors(features, pool=self.pool)

    def scores(self, explained: Task, train: bool = False) -> jax.Array:
        """Scores (queries, way); for the arguments see `Head`."""
        return self.nearness(self.adaptation(explained.prototypes), explained.query) / self.temperature

    def auxiliary_loss(self, explained: Task, episode: Episode) -> jax.Array | None:
        """The contrastive loss; for the arguments see `Head`."""
        if self.contrast is None:
            return None
        labels: Any = episode.query_labels
        images = jnp.concatenate([vectors(x, pool=self.pool) for x in (episode.support, episode.query)])
        classes = jnp.concatenate([episode.support_labels, labels])
        adapted = self.adaptation(images, classes[:, None] == classes[None])
        centers = class_means(adapted, classes, episode.way)
        scores = self.nearness(centers[None], images) / self.contrast_temperature
        return self.contrast * self.loss(scores, classes)

    def relevance(self, variables: Any, explained: Task, start: jax.Array) -> jax.Array:
        """Relevance of each query and of its prototypes, (queries, 1 + way, C); for the arguments see `Head`."""

        def scores(dense: jax.Array) -> jax.Array:
            found: Any = self.apply(variables, Task(dense[:, 1:], dense[:, 0]), True, method="scores")
            return found

        return lrp.vjp(scores, explained.dense(), composite=self.composite)[1](start)[0]
