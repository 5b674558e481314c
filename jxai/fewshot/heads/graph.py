"""The graph network's head: queries and supports are nodes that learn whom to listen to.

Garcia and Bruna, *Few-Shot Learning with Graph Neural Networks*, 2018; explained as in Sun et al.,
*Explanation-Guided Training for Cross-Domain Few-Shot Classification*, 2020.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai import lrp
from jxai.errors import InputError
from jxai.fewshot.episode import Episode
from jxai.fewshot.explanation import Explanation, log_odds
from jxai.fewshot.heads.conditioned import Conditioned, ConditionedHead, vectors
from jxai.fewshot.heads.graph_layers import EPSILON, MOMENTUM, Adjacency, GraphConvolution, Skip
from jxai.guidance import relevance_weights
from jxai.lrp.rules.presets import SUN2020_DENSE
from jxai.models.layers import check_fields, dense_init


@dataclasses.dataclass(frozen=True)
class Aggregation(lrp.Norm):
    """LRP-ε of a product with weights that depend on the features but are held constant."""

    kinds: ClassVar[frozenset[lrp.Kind]] = frozenset({lrp.Kind.CONTRACTION})


class GraphHead(ConditionedHead):
    """Graphs of all supports and one query of each class, convolved three times.

    As released, queries come class by class and graph i holds query i of every class, so that a query's scores depend
    on the queries beside it, and on all by batch statistics. Maps are averaged over their positions first.

    The explained features are the nodes after the first dense layer and its batch norm, (graphs, nodes, features),
    the supports' in front; the context holds the supports' one-hot labels.

    Attributes:
        way: the most classes that an episode may have: the width of labels and scores.
        features: width of the nodes.
        growth: channels that each of the first two graph convolutions adds.
        widths: of the adjacencies' networks.
        running_statistics: evaluate on running averages. By default, as released, every call normalizes by the
            statistics of its own episode.
        complete_flow: follow all relevance. By default, as released, what the last graph convolution gives the
            channels that the first one added is dropped.
    """

    way: int = 5
    features: int = 128
    growth: int = 48
    widths: tuple[int, ...] = (192, 192, 96, 96)
    running_statistics: bool = False
    complete_flow: bool = False

    def setup(self):
        """Declare the layers; their names are those of the reference values."""
        check_fields(self)
        self.fc = nn.Dense(self.features, kernel_init=dense_init)
        self.fc_bn = nn.BatchNorm(momentum=MOMENTUM, epsilon=EPSILON)
        self.w0, self.w1, self.w_last = (Adjacency(self.widths) for _ in range(3))
        self.l0, self.l1 = (GraphConvolution(self.growth) for _ in range(2))
        self.l_last = GraphConvolution(self.way, last=True)
        self.skip = Skip()

    def explained(self, episode: Episode, train: bool = False) -> Conditioned:
        """The nodes beside the supports' labels; for the arguments see `Head`.

        Raises:
            ValueError: there are more classes than `self.way`, or the queries are no multiple of them.
        """
        support, query, way = episode.support, episode.query, episode.way
        if way > self.way:
            raise InputError(f"expected at most {self.way} classes, got {way}: make GraphHead(way={way})")
        if len(query) % way:
            raise InputError(
                f"expected a multiple of {way} queries, class by class, got {len(query)}: a graph holds one query of "
                "every class"
            )
        x = self.fc(vectors(jnp.concatenate([support, query])))
        x = self.fc_bn(x, use_running_average=self._running(train))
        of_support, of_query = x[: len(support)], x[len(support) :]
        of_query = jnp.swapaxes(of_query.reshape(way, -1, self.features), 0, 1)
        of_support = jnp.broadcast_to(of_support, (len(of_query), *of_support.shape))
        nodes = jnp.concatenate([of_support, of_query], axis=1)
        return Conditioned(nodes, jax.nn.one_hot(episode.support_labels, self.way, dtype=x.dtype))

    def condense(self, features: jax.Array) -> jax.Array:
        """Vectors; for the arguments see `Head`."""
        return vectors(features)

    def scores(self, explained: Conditioned, train: bool = False) -> jax.Array:
        """Scores of the queries; for the arguments see `Head`."""
        of_queries = self.node_scores(explained, train)[:, len(explained.context) :]
        return jnp.swapaxes(of_queries, 0, 1).reshape(-1, of_queries.shape[-1])

    def node_scores(self, explained: Conditioned, train: bool = False) -> jax.Array:
        """Scores of every node.

        Args:
            explained: what `explained` gave, or that times weights.
            train: whether batch statistics are recorded.

        Returns:
            Scores (graphs, nodes, way).
        """
        running = self._running(train)
        nodes, labels = explained.features, explained.context
        way = nodes.shape[1] - len(labels)
        labels = jnp.pad(labels, ((0, way), (0, 0)))
        x = jnp.concatenate([nodes, jnp.broadcast_to(labels, (len(nodes), *labels.shape))], axis=-1)
        first = self.l0(x, self.w0(x, running), running)
        after_first = jnp.concatenate([x, first], axis=-1)
        second = self.l1(after_first, self.w1(after_first, running), running)
        adjacency = self.w_last(jnp.concatenate([after_first, second], axis=-1), running)
        last = self.l_last(jnp.concatenate([x, self.skip(first), second], axis=-1), adjacency, running)
        return last[..., :way]

    @property
    def composite(self) -> lrp.Composite:
        """The released rules: adjacencies are constant, and so is what passes the second convolution by."""
        constant = Adjacency if self.complete_flow else (Adjacency, Skip)

        def held(operation: lrp.Operation) -> bool:
            return operation.kind is lrp.Kind.MODULE and isinstance(operation.module, constant)

        rules = ((held, lrp.Constant()), (lrp.Kind.CONTRACTION, Aggregation(SUN2020_DENSE.epsilon)))
        return lrp.Composite(rules, "graph network") | lrp.sun2020

    @property
    def mixes_queries(self) -> bool:
        """A graph holds a query of every class."""
        return True

    def explain(
        self, variables: Any, explained: Conditioned, scores: jax.Array, *, strength: float = 1.0
    ) -> Explanation:
        """Explain the scores of all nodes, as released; for the arguments see `Head`."""

        def node_scores(nodes: jax.Array) -> jax.Array:
            given = dataclasses.replace(explained, features=nodes)
            return self.apply(variables, given, True, method="node_scores", mutable=["batch_stats"])[0]

        found, pullback = lrp.vjp(node_scores, explained.features, composite=self.composite)
        start = log_odds(found)
        (relevance,) = pullback(start)
        return Explanation(start, relevance, relevance_weights(relevance, strength=strength))

    def _running(self, train: bool) -> bool:
        return self.running_statistics and not train
