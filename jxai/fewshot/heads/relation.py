"""RelationNet's head: a small network that compares each query with each class prototype.

Sung et al., *Learning to Compare: Relation Network for Few-Shot Learning*, 2018; explained as in Sun et al.,
*Explanation-Guided Training for Cross-Domain Few-Shot Classification*, 2020.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai import lrp
from jxai.fewshot.episode import Episode
from jxai.fewshot.heads.head import Head, class_means
from jxai.fewshot.heads.pairs import PairConv, Pairs, relevance_of_pairs
from jxai.fewshot.heads.winograd import small_map_convolution
from jxai.models import max_pool_2x2
from jxai.models.layers import check_fields


class RelationHead(Head):
    """Two blocks of convolution, batch norm, ReLU and pooling on the pairs, then two dense layers.

    The explained features are the pairs (queries, way, h, w, 2C), the prototype's channels first.

    Attributes:
        features: channels of the two convolutions; 512 behind a ResNet10.
        hidden: width of the first dense layer.
        padding: of the two convolutions; as released, 1 behind encoders whose map is below 10x10, else 0.
        running_statistics: evaluate on running averages. By default, as released, every call normalizes by the
            statistics of its own pairs, so that a query's score depends on the other queries.
        nonnegative: the features are known to follow a ReLU, as those of the encoders in `jxai.models` do: the
            share of negative inputs in the first convolution's rule is zero and is not computed.
    """

    features: int = 512
    hidden: int = 8
    padding: int = 1
    running_statistics: bool = False
    nonnegative: bool = False

    def setup(self):
        """Declare the layers; their names are those of the reference values."""
        check_fields(self)
        self.conv1 = PairConv(self.features, self.padding)
        self.bn1 = nn.BatchNorm(momentum=0.9, epsilon=1e-5)
        self.conv2 = nn.Conv(
            self.features, (3, 3), padding=self.padding, conv_general_dilated=small_map_convolution
        )
        self.bn2 = nn.BatchNorm(momentum=0.9, epsilon=1e-5)
        self.fc1 = nn.Dense(self.hidden)
        self.fc2 = nn.Dense(1)

    def explained(self, episode: Episode, train: bool = False) -> Pairs:
        """The pairs of prototype and query; for the arguments see `Head`."""
        return Pairs(class_means(episode.support, episode.support_labels, episode.way), episode.query)

    def scores(self, explained: Pairs | jax.Array, train: bool = False) -> jax.Array:
        """Scores (queries, way), before the sigmoid.

        Args:
            explained: the pairs, or the pairs written out and weighted (queries, way, h, w, 2C).
            train: whether batch statistics are recorded.

        Returns:
            Scores (queries, way).
        """
        return self.compare(self.conv1(explained), train)

    def compare(self, z: jax.Array, train: bool = False) -> jax.Array:
        """What follows the pair convolution.

        Args:
            z: its output (queries, way, h, w, features).
            train: whether batch statistics are recorded.

        Returns:
            Scores (queries, way).
        """
        running = self.running_statistics and not train
        x = max_pool_2x2(nn.relu(self.bn1(z.reshape(-1, *z.shape[2:]), use_running_average=running)))
        x = max_pool_2x2(nn.relu(self.bn2(self.conv2(x), use_running_average=running)))
        x = nn.relu(self.fc1(x.reshape(x.shape[0], -1)))
        return self.fc2(x).reshape(z.shape[:2])

    def loss(self, scores: jax.Array, labels: jax.Array) -> jax.Array:
        """Squared error of the sigmoid of the scores to one-hot labels, a mean over queries and ways.

        Args:
            scores: (queries, way).
            labels: (queries,).

        Returns:
            A scalar.
        """
        return jnp.mean((nn.sigmoid(scores) - jax.nn.one_hot(labels, scores.shape[-1])) ** 2)

    def relevance(self, variables: Any, explained: Pairs, start: jax.Array) -> jax.Array:
        """Relevance of the pairs, (queries, way, h, w, 2C); for the arguments see `Head`."""

        def compare(z: jax.Array) -> jax.Array:
            return self.apply(variables, z, True, method="compare", mutable=["batch_stats"])[0]

        z = jnp.asarray(self.apply(variables, explained, method="convolved"))
        _, pullback = lrp.vjp(compare, z, composite=self.composite)
        kernel = variables["params"]["conv1"]["kernel"]
        return relevance_of_pairs(
            explained, kernel, self.padding, pullback(start)[0], nonnegative=self.nonnegative
        )

    def convolved(self, explained: Pairs | jax.Array) -> jax.Array:
        """The pair convolution alone.

        Args:
            explained: see `scores`.

        Returns:
            Maps (queries, way, h', w', features).
        """
        return self.conv1(explained)
