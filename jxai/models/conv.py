"""Conv4 and Conv6, the small encoders of the few-shot literature, and their variants for RelationNet.

See *A Closer Look at Few-shot Classification* by Chen et al., 2019. Side of the map by side of the image:

| encoder | 32 | 84 | 224 |
|---|---|---|---|
| `Conv4`, `Conv6` | 2 | 5 | 14 |
| `Conv4NP`, `Conv6NP` | 6 | 19 | 54 |

RelationNet's head pools its input map twice, so it needs one of the variants (a 2x2 map vanishes in it).
"""

import flax.linen as nn
import jax

from jxai.models.layers import batch_norm, check_network, conv, max_pool_2x2


class ConvNet(nn.Module):
    """Blocks of 3x3 convolution with bias, batch norm, ReLU and, in the first ones, 2x2 max pooling.

    Attributes:
        depth: number of blocks.
        width: channels of every block.
        num_pools: how many blocks, from the first, pool.
        pooled_padding: padding of the blocks that pool; the others pad 1.
    """

    depth: int = 4
    width: int = 64
    num_pools: int = 4
    pooled_padding: int = 1

    @property
    def smallest_image(self) -> int:
        """Side of the smallest image that leaves a map of one position."""
        side = 1
        for _ in range(min(self.num_pools, self.depth)):
            side = 2 * side + 2 * (1 - self.pooled_padding)
        return side

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Feature map after the last block.

        Args:
            x: normalized images, (N, H, W, C).
            train: whether batch norm uses the batch's statistics (and updates the running ones).

        Returns:
            Non-negative features, (N, h, w, width).

        Raises:
            ValueError: if `x` is no batch of images, or they are smaller than `smallest_image`.
        """
        check_network(self, x)
        for index in range(self.depth):
            pools = index < self.num_pools
            padding = self.pooled_padding if pools else 1
            x = conv(self.width, 3, padding=padding, use_bias=True, name=f"conv{index}")(x)
            x = nn.relu(batch_norm(train=train, name=f"bn{index}")(x))
            if pools:
                x = max_pool_2x2(x)
        return x


class Conv4(ConvNet):
    """Four blocks of 64 channels, all of which pool."""

    depth: int = 4


class Conv6(ConvNet):
    """Six blocks of 64 channels, of which the first four pool."""

    depth: int = 6


class Conv4NP(ConvNet):
    """Conv4 for RelationNet: two blocks that pool and have no padding, then two that keep the map's size."""

    depth: int = 4
    num_pools: int = 2
    pooled_padding: int = 0


class Conv6NP(ConvNet):
    """Conv6 for RelationNet: two blocks that pool and have no padding, then four that keep the map's size."""

    depth: int = 6
    num_pools: int = 2
    pooled_padding: int = 0
