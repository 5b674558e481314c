"""DenseNet121: every layer reads what all layers of its stage before it wrote.

See *Densely Connected Convolutional Networks* by Huang et al., 2017.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai.models.layers import Activation, batch_norm, check_block, check_network, conv, stem_224


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1 convolution, batch norm, ReLU, 3x3 convolution, appended to the input.

    Attributes:
        growth: channels that the layer appends.
        bottleneck: channels between the convolutions, as a multiple of `growth`.
    """

    growth: int
    bottleneck: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The input and, behind it, the layer's own features.

        Args:
            x: features, (N, h, w, C).
            train: whether batch norm uses the batch's statistics.

        Returns:
            Features, (N, h, w, C + growth).
        """
        check_block(self, x)
        y = nn.relu(batch_norm(train=train, name="bn1")(x))
        y = conv(self.bottleneck * self.growth, 1, name="conv1")(y)
        y = nn.relu(batch_norm(train=train, name="bn2")(y))
        y = conv(self.growth, 3, padding=1, name="conv2")(y)
        return jnp.concatenate([x, y], axis=-1)


class DenseNet(nn.Module):
    """The ResNets' stem, stages of `DenseLayer`s, between them transitions that halve channels and map.

    Attributes:
        num_classes: number of scores.
        stage_sizes: number of layers in each stage.
        growth: channels that each layer appends.
        bottleneck: channels between a layer's convolutions, as a multiple of `growth`.
        stem_width: channels of the stem.
    """

    num_classes: int = 1000
    stage_sizes: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    bottleneck: int = 4
    stem_width: int = 64

    @property
    def smallest_image(self) -> int:
        """Total stride: a smaller image's map would be one position that sees padding more than image."""
        return 4 * 2 ** (len(self.stage_sizes) - 1)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Scores before the softmax.

        Args:
            x: normalized images, (N, H, W, C).
            train: whether batch norm uses the batch's statistics (and updates the running ones).

        Returns:
            Scores, (N, num_classes).

        Raises:
            ValueError: if `x` is no batch of images, they are smaller than `smallest_image`, or `num_classes` is less
                than 1.
        """
        check_network(self, x)
        x = stem_224(x, self.stem_width, train=train)
        index = 0
        for stage, size in enumerate(self.stage_sizes):
            if stage > 0:
                x = nn.relu(batch_norm(train=train, name=f"transition{stage}_bn")(x))
                x = conv(x.shape[-1] // 2, 1, name=f"transition{stage}_conv")(x)
                x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            for _ in range(size):
                x = DenseLayer(self.growth, self.bottleneck, name=f"layer{index}")(x, train=train)
                index += 1
        x = Activation(nn.relu, name="activation_last")(batch_norm(train=train, name="bn_last")(x))
        return nn.Dense(self.num_classes, name="head")(x.mean(axis=(1, 2)))


class DenseNet121(DenseNet):
    """Six, twelve, twenty-four and sixteen layers in four stages."""

    stage_sizes: tuple[int, ...] = (6, 12, 24, 16)
