"""The cross-attention network's head: a query's map and a class's prototype, each attended by the other.

Hou et al., *Cross Attention Network for Few-shot Classification*, 2019; explained as in Sun et al.,
*Explanation-Guided Training for Cross-Domain Few-Shot Classification*, 2020.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from jxai import lrp
from jxai.checks import check_count
from jxai.errors import InputError
from jxai.fewshot.episode import Episode
from jxai.fewshot.explanation import Explanation, log_odds
from jxai.fewshot.heads.attention import Attention, InverseNorm
from jxai.fewshot.heads.head import Head, class_means
from jxai.guidance import relevance_weights
from jxai.lrp.rules.presets import SUN2020_DENSE
from jxai.lrp.rules.ratio import stabilize
from jxai.models.layers import check_fields, dense_init


@flax.struct.dataclass
class MapWeights:
    """Weights w_c·(1 + x·s·t / max|x·s|) of the query maps, kept as factors: written out, they take most of a step.

    Attributes:
        channels: w_c, (queries, way, C).
        query: x up to a factor at each position, (queries, h, w, C).
        share: s, the relevance of an entry of x over the entry: one for a row, (queries, h, way, C).
        scale: t / max|x·s|, (queries, h, w, way).
    """

    channels: jax.Array
    query: jax.Array
    share: jax.Array
    scale: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `dense()`."""
        queries, height, width, way = self.scale.shape
        return (queries, way, height, width, self.query.shape[-1])

    def dense(self) -> jax.Array:
        """The weights written out, (queries, way, h, w, C)."""
        of_positions = jnp.einsum("qhvc,qhwc,qhvw->qwhvc", self.query, self.share, self.scale)
        return self.channels[:, :, None, None] * (1 + of_positions)

    def __jax_array__(self) -> jax.Array:
        return self.dense()


@flax.struct.dataclass
class Attended:
    """Maps of queries and prototypes, and for every pair of them the attention to the positions of both.

    Attributes:
        prototype: (way, h, w, C).
        query: (queries, h, w, C).
        prototype_attention: (queries, way, h, w).
        query_attention: (queries, way, h, w).
        weights: of the attended query maps, (queries, way, h, w, C) or None.
    """

    prototype: jax.Array
    query: jax.Array
    prototype_attention: jax.Array
    query_attention: jax.Array
    weights: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `dense()`."""
        return (*self.query_attention.shape, self.query.shape[-1])

    def dense(self) -> jax.Array:
        """The attended query maps written out, (queries, way, h, w, C)."""
        return self.query[:, None] * self.query_attention[..., None]

    def __jax_array__(self) -> jax.Array:
        return self.dense()

    def __mul__(self, weights: Any) -> "Attended":
        return dataclasses.replace(self, weights=weights)

    __rmul__ = __mul__


class CrossAttentionHead(Head):
    """Cosine of attended prototype and attended query.

    In training every position of the query is scored, in evaluation the mean over positions. The explained features
    are the attended query maps (queries, way, h, w, C). Prototypes, norms and attention receive no relevance; the
    gradient of the guided loss flows through all of the explanation, as released.

    Attributes:
        num_classes: classes of the global classifier, which learns beside the episodes; None for none.
        hidden: width of the attention's network.
        temperature: of the attention's softmax.
        scale: what cosines are multiplied by.
    """

    num_classes: int | None = None
    hidden: int = 6
    temperature: float = 0.025
    scale: float = 7.0

    def setup(self):
        """Declare the layers."""
        check_fields(self)
        if self.num_classes is not None:
            check_count("num_classes", self.num_classes)
        self.inverse_norm = InverseNorm()
        self.attention = Attention(self.hidden, self.temperature)
        self.classifier = (
            None if self.num_classes is None else nn.Dense(self.num_classes, kernel_init=dense_init)
        )

    @property
    def composite(self) -> lrp.Composite:
        """Attention and norms are constant, and sums have the ε of dense layers."""

        def held(operation: lrp.Operation) -> bool:
            whole = operation.kind is lrp.Kind.MODULE
            return whole and isinstance(operation.module, (Attention, InverseNorm))

        rules = ((held, lrp.Constant()), (lrp.Kind.MEAN, lrp.Norm(SUN2020_DENSE.epsilon)))
        return lrp.Composite(rules, "cross attention") | lrp.sun2020

    @property
    def through(self) -> bool:
        """The gradient passes through all of the explanation; see `Head`."""
        return True

    def explained(self, episode: Episode, train: bool = False) -> Attended:
        """The maps and their attention; for the arguments see `Head`. Features are maps (N, h, w, C).

        In training, the attention's batch norm sees all pairs twice: the prototypes' side, then the queries'.
        """
        query, way = episode.query, episode.way
        if query.ndim != 4:
            raise InputError(
                f"expected maps (N, h, w, C), got {query.shape}: take an encoder that does not pool"
            )
        if self.is_initializing() and self.classifier is not None:
            self.classifier(query)
        prototype = class_means(episode.support, episode.support_labels, way)
        flat = [x.reshape(len(x), -1, x.shape[-1]) for x in (prototype, query)]
        norms = [self.inverse_norm(x)[..., 0] for x in flat]
        # Norms are taken to the products' end, where arrays are small.
        correlation = (
            jnp.einsum("wic,qjc->qwij", *flat) * norms[0][None, :, :, None] * norms[1][:, None, None, :]
        )
        of_prototype = self.attention(correlation, train=train)
        of_query = self.attention(jnp.swapaxes(correlation, -1, -2), train=train)
        pairs = (len(query), way, *query.shape[1:3])
        return Attended(prototype, query, of_prototype.reshape(pairs), of_query.reshape(pairs))

    def scores(self, explained: Attended, train: bool = False) -> jax.Array:
        """Scores (queries, way), or in training (queries, h, w, way).

        Args:
            explained: the attended maps. Weights multiply the products of normalized query and prototype, and
                count in training alone.
            train: whether each position is scored.

        Returns:
            The scores.
        """
        if not train:
            prototype, query, _ = self.pooled(explained)
            return self.scale * jnp.einsum("qwc,qwc->qw", query, prototype)
        prototype, weights = self.pooled_prototype(explained), explained.weights
        # A query's position normalized is the same whatever the attention to it, and can be normalized last.
        query = explained.query
        if weights is None:
            cosines = jnp.einsum("qhvc,qwc->qhvw", query, prototype)
        elif isinstance(weights, MapWeights):
            prototype = prototype * weights.channels
            added = jnp.einsum("qhvc,qhwc->qhvw", query * weights.query, prototype[:, None] * weights.share)
            cosines = jnp.einsum("qhvc,qwc->qhvw", query, prototype) + weights.scale * added
        else:
            cosines = jnp.einsum("qhvc,qwc,qwhvc->qhvw", query, prototype, weights)
        return self.scale * self.inverse_norm(query) * cosines

    def unit(self, x: jax.Array) -> jax.Array:
        """Vectors over the last axis, normalized; zeros stay zeros.

        Args:
            x: (..., C).

        Returns:
            (..., C).
        """
        return x * self.inverse_norm(x)

    def pooled_prototype(self, explained: Attended) -> jax.Array:
        """The attended prototypes, averaged over positions and normalized.

        Args:
            explained: the attended maps.

        Returns:
            (queries, way, C).
        """
        pooled = jnp.einsum("whvc,qwhv->qwc", explained.prototype, explained.prototype_attention)
        return self.unit(pooled)

    def pooled(self, explained: Attended) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What the evaluation's scores are made of.

        Args:
            explained: the attended maps.

        Returns:
            The prototypes and the queries, averaged over positions and normalized, (queries, way, C), and the sums of
            each row of the attended queries, (queries, h, way, C).
        """
        rows = jnp.einsum("qhvc,qwhv->qhwc", explained.query, explained.query_attention)
        query = (rows / explained.query.shape[2]).sum(axis=1)
        return self.pooled_prototype(explained), self.unit(query), rows

    def loss_weights(self, shot: int, *, guided: bool) -> tuple[float, float]:
        """(ξ, λ): half of one local loss, beside the global classifier's; for the arguments see `Head`."""
        return (0.0, 0.5) if guided else (0.5, 0.0)

    def auxiliary_loss(self, explained: Attended, episode: Episode) -> jax.Array | None:
        """Cross-entropy of the global classifier at each position of the query as its own class attends it.

        Args:
            explained: the attended maps.
            episode: the episode, with `query_labels` and, for the classifier, `query_classes` in [0, num_classes).

        Returns:
            A scalar, or None without a classifier.

        Raises:
            ValueError: there is a classifier, but no `query_classes`.
        """
        if self.classifier is None:
            return None
        labels: Any = episode.query_labels
        if episode.query_classes is None:
            raise InputError(
                "expected query_classes for the global classifier, got None: take episodes of data.episode_dataset, "
                "which carry them, or a head with num_classes=None"
            )
        attention = explained.query_attention[jnp.arange(len(labels)), labels]
        return self.loss(self.classifier(explained.query * attention[..., None]), episode.query_classes)

    def explain(
        self, variables: Any, explained: Attended, scores: jax.Array, *, strength: float = 1.0
    ) -> Explanation:
        """Explain the evaluation's scores down to the attended query maps; for the arguments see `Head`.

        Two weights multiply the product of the normalized vectors: of its channels, by the relevance of the pooled
        products, and of the channels at each position, by what that becomes on its way back through the two means.

        Returns:
            The explanation.
        """
        epsilon, width = SUN2020_DENSE.epsilon, explained.query.shape[2]
        found: Any = self.apply(variables, explained, method="pooled")
        prototype, query, rows = found
        products = prototype * query
        total = products.sum(axis=-1, keepdims=True)
        start = log_odds(self.scale * total[..., 0])
        pooled = products * (start[..., None] / stabilize(total, epsilon))
        # A row's mean m gets m·R / S(Σm), and an entry x of the row x / S(Σx) of that. Σx / S(Σx) = 1 - ε / |S(Σx)|.
        of_means = pooled / (width * stabilize(rows.sum(axis=1) / width, epsilon))
        share = (1 - epsilon / jnp.abs(stabilize(rows, epsilon))) * of_means[:, None]
        largest = largest_product(explained.query, share)
        weights: Any = MapWeights(
            relevance_weights(pooled, strength=strength),
            explained.query,
            share,
            strength / jnp.where(largest == 0, 1, largest),
        )
        relevance = explained.dense() * jnp.swapaxes(share, 1, 2)[:, :, :, None]
        return Explanation(start, relevance, weights)


def largest_product(x: jax.Array, y: jax.Array) -> jax.Array:
    """max over c of |x·y|; the gradient goes to the c of the maximum alone.

    Args:
        x: (..., n, C).
        y: (..., m, C).

    Returns:
        (..., n, m).
    """
    # On a CPU, XLA finds a maximum fourteen times faster than its place, and differentiates it slower still. So the
    # place is a maximum too: c, less more than C wherever the product is not the largest.
    products = jnp.abs(x[..., :, None, :] * y[..., None, :, :])
    largest = jnp.max(products, axis=-1, keepdims=True)
    channels, info = x.shape[-1], jnp.finfo(x.dtype)
    behind = (largest - products) / jnp.maximum(largest, info.tiny / info.eps)
    numbers = jnp.arange(channels, dtype=jnp.promote_types(x.dtype, jnp.float32))  # bfloat16 counts to 256
    numbers = numbers.reshape(*[1] * (behind.ndim - 1), -1)
    place = jnp.max(numbers - behind * (2 * channels / info.eps), axis=-1)
    place = jax.lax.stop_gradient(place).astype(jnp.int32)
    of_y = jnp.take_along_axis(y, jnp.swapaxes(place, -1, -2), axis=-1)
    return jnp.abs(jnp.take_along_axis(x, place, axis=-1) * jnp.swapaxes(of_y, -1, -2))
