"""Beside the cross-attention head's features: their norms, and which positions of a map matter to another map.

Both are modules, so that a composite can hold them constant.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai.models.layers import conv_init


class InverseNorm(nn.Module):
    """1 / ‖x‖ over the last axis, which is kept; 0, without a gradient, where x is zero."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """The inverse norms.

        Args:
            x: vectors (..., C).

        Returns:
            (..., 1).
        """
        squares = jnp.sum(x**2, axis=-1, keepdims=True)
        return jnp.where(squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1)), 0)


class Attention(nn.Module):
    """Attention to each position of a map, in [1, 2], by its correlation with the positions of another map.

    With the mean correlation of each of the other map's positions, a small network draws up the kernel k by which
    they count: attention is 1 + softmax over i of mean_j(a[i, j]·k_j) / temperature.

    Attributes:
        hidden: width of the network.
        temperature: of the softmax.
    """

    hidden: int = 6
    temperature: float = 0.025

    @nn.compact
    def __call__(self, correlation: jax.Array, *, train: bool) -> jax.Array:
        """Attention.

        Args:
            correlation: a[i, j] between position i of the map and j of the other, (..., positions, positions).
            train: whether batch norm uses the statistics of all leading axes (and updates the running ones).

        Returns:
            (..., positions).
        """
        positions = correlation.shape[-1]
        kernel = nn.Dense(self.hidden, kernel_init=conv_init, name="fc1")(correlation.mean(axis=-2))
        kernel = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name="bn")(kernel)
        kernel = nn.Dense(positions, kernel_init=conv_init, name="fc2")(nn.relu(kernel))
        matches = jnp.einsum("...ij,...j->...i", correlation, kernel) / positions
        return 1 + nn.softmax(matches / self.temperature)
