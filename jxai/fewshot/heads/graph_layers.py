"""Layers of the graph network: learned adjacencies, and the convolution over them.

Garcia and Bruna, *Few-Shot Learning with Graph Neural Networks*, 2018.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from jxai.fewshot.heads.head import KEPT
from jxai.models.layers import dense_init

MOMENTUM, EPSILON = 0.9, 1e-5


class Adjacency(nn.Module):
    """How much every node takes from every other: a small network on |x_i − x_j|, and a softmax over j.

    The network sees a pair and its mirror image alike, so that only the pairs i < j are computed, and x_i with itself
    once. Batch norm counts them as often as they stand in the full matrix.

    What is computed stays in the collection `KEPT`, where that is mutable, and is taken from there where it is given.

    Attributes:
        widths: of the network's hidden layers.
    """

    widths: tuple[int, ...] = (192, 192, 96, 96)

    @nn.compact
    def __call__(self, x: jax.Array, running: bool) -> jax.Array:
        """Compute the adjacencies.

        Args:
            x: nodes (graphs, n, C).
            running: whether batch norm takes its running averages.

        Returns:
            Weights (graphs, n, n), zero on the diagonal; each row sums to 1.
        """
        if self.has_variable(KEPT, "adjacency"):
            return self.get_variable(KEPT, "adjacency")
        n = x.shape[1]
        first, second = np.triu_indices(n, 1)
        pairs = np.arange(len(first))
        # A product with ±1 gathers faster than indices do, forward and backward. The last row is a node with itself.
        signs = np.zeros((len(pairs) + 1, n), x.dtype)
        signs[pairs, first], signs[pairs, second] = 1, -1
        counts = np.full(len(pairs) + 1, 2.0, x.dtype)
        counts[-1] = n
        z = jnp.abs(jnp.einsum("pn,gnc->gpc", signs, x, precision="highest"))
        for number, width in enumerate(self.widths, 1):
            z = nn.Dense(width, kernel_init=dense_init, name=f"conv{number}")(z)
            z = nn.leaky_relu(CountedBatchNorm(name=f"bn{number}")(z, counts, running), 0.01)
        z = nn.Dense(1, kernel_init=dense_init, name="convlast")(z)[..., 0].at[:, -1].set(-1e8)
        places = np.full((n, n), -1)
        places[first, second] = places[second, first] = pairs
        adjacency = nn.softmax(z[:, places])
        if self.is_mutable_collection(KEPT) and not self.is_initializing():
            self.put_variable(KEPT, "adjacency", adjacency)
        return adjacency


class CountedBatchNorm(nn.Module):
    """Batch norm over rows of which each stands for several equal ones."""

    @nn.compact
    def __call__(self, x: jax.Array, counts: np.ndarray, running: bool) -> jax.Array:
        """Normalize.

        Args:
            x: rows (graphs, rows, C).
            counts: how many rows each of them stands for, (rows,).
            running: whether to take the running averages.

        Returns:
            Rows, of x's shape.
        """
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones_init(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
        averages = [
            self.variable("batch_stats", name, initial, shape, jnp.float32)
            for name, initial in (("mean", jnp.zeros), ("var", jnp.ones))
        ]
        if running:
            mean, variance = (average.value for average in averages)
        else:
            share = (counts / (x.shape[0] * counts.sum()))[None, :, None].astype(x.dtype)
            mean = jnp.sum(share * x, axis=(0, 1))
            variance = jnp.sum(share * (x - mean[None, None]) ** 2, axis=(0, 1))
            if not self.is_initializing():
                for average, now in zip(averages, (mean, variance), strict=True):
                    average.value = MOMENTUM * average.value + (1 - MOMENTUM) * now
        mean, bias = mean[None, None], bias[None, None]
        return (x - mean) * (jax.lax.rsqrt(variance + EPSILON) * scale)[None, None] + bias


class GraphConvolution(nn.Module):
    """A dense layer on each node beside the mean of its neighbors, [x, A x].

    Attributes:
        features: output channels.
        last: leave out batch norm and leaky ReLU.
    """

    features: int
    last: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, adjacency: jax.Array, running: bool) -> jax.Array:
        """Convolve.

        Args:
            x: nodes (graphs, n, C).
            adjacency: A, (graphs, n, n).
            running: whether batch norm takes its running averages.

        Returns:
            Nodes (graphs, n, features).
        """
        graphs, n, channels = x.shape
        # One product with [I; A], so that relevance meets one linear layer for both halves, as released.
        itself = jnp.broadcast_to(jnp.eye(n, dtype=adjacency.dtype), adjacency.shape)
        kernel = jnp.concatenate([itself, adjacency], axis=1)
        z = jnp.einsum("gkn,gnc->gkc", kernel, x, precision="highest")
        z = jnp.swapaxes(z.reshape(graphs, 2, n, channels), 1, 2).reshape(graphs, n, 2 * channels)
        z = nn.Dense(self.features, kernel_init=dense_init, name="fc")(z)
        if self.last:
            return z
        bn = nn.BatchNorm(use_running_average=running, momentum=MOMENTUM, epsilon=EPSILON, name="bn")
        return nn.leaky_relu(bn(z), 0.01)


class Skip(nn.Module):
    """The identity: features that pass a layer by, as a module that a composite may hold constant."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """x itself.

        Args:
            x: an array.

        Returns:
            x.
        """
        return checkpoint_name(x, "skip")  # an operation, so that there is something to hold
