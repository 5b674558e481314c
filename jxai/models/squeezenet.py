"""SqueezeNet 1.1, a classifier of 1.2 million parameters whose layers are all convolutions.

See *SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size* by Iandola et al., 2016;
version 1.1 is the authors' later one, of the same accuracy at 2.4 times less computation.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai.models.layers import check_block, check_network, conv
from jxai.ops.pooling import max_pool

# (squeeze, expand) of each fire module, stage by stage; a pooling stands before each stage.
_STAGES_1_1 = (
    ((16, 64), (16, 64)),
    ((32, 128), (32, 128)),
    ((48, 192), (48, 192), (64, 256), (64, 256)),
)


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 convolutions side by side, with ReLU after each.

    Attributes:
        squeeze: channels of the first convolution.
        expand: channels of each of the two others.
    """

    squeeze: int
    expand: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Output of the module.

        Args:
            x: features, (N, h, w, C).

        Returns:
            Non-negative features, (N, h, w, 2·expand), the 1x1 convolution's first.
        """
        check_block(self, x)
        x = nn.relu(conv(self.squeeze, 1, use_bias=True, name="squeeze_conv")(x))
        pointwise = nn.relu(conv(self.expand, 1, use_bias=True, name="expand1")(x))
        spatial = nn.relu(conv(self.expand, 3, padding=1, use_bias=True, name="expand3")(x))
        return jnp.concatenate([pointwise, spatial], axis=-1)


class SqueezeNet(nn.Module):
    """A strided 3x3 convolution, stages of fire modules, and a 1x1 convolution whose maps' means are the scores.

    Attributes:
        num_classes: number of scores.
        stem_width: channels of the first convolution.
        stages: (squeeze, expand) of every fire module, one tuple a stage.
        dropout_rate: share of features dropped below the last convolution; unless it is 0, training needs
            `rngs={"dropout": key}`.
    """

    num_classes: int = 1000
    stem_width: int = 64
    stages: tuple[tuple[tuple[int, int], ...], ...] = _STAGES_1_1
    dropout_rate: float = 0.5

    @property
    def smallest_image(self) -> int:
        """Side of the smallest image that leaves a map of one position."""
        return 2 * 2 ** len(self.stages) + 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Scores before the softmax; never negative, because a ReLU stands below the mean.

        Args:
            x: normalized images, (N, H, W, C).
            train: whether features are dropped.

        Returns:
            Scores, (N, num_classes).

        Raises:
            ValueError: if `x` is no batch of images, they are smaller than `smallest_image`, or `num_classes` is less
                than 1.
        """
        check_network(self, x)
        x = nn.relu(conv(self.stem_width, 3, stride=2, use_bias=True, name="conv1")(x))
        index = 0
        for stage in self.stages:
            x = _max_pool_3x3(x)
            for squeeze, expand in stage:
                x = Fire(squeeze, expand, name=f"fire{index}")(x)
                index += 1
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        x = nn.relu(conv(self.num_classes, 1, use_bias=True, name="head")(x))
        return x.mean(axis=(1, 2))


def _max_pool_3x3(x: jax.Array) -> jax.Array:
    """3x3 max pooling of stride 2; an even side ends in a window of two rows or columns, as released."""
    height, width = x.shape[1:3]
    return max_pool(x, 3, padding=((0, (height - 3) % 2), (0, (width - 3) % 2)))
