"""ResNet50, 101 and 152, the classifiers whose blocks narrow before their 3x3 convolution.

See *Deep Residual Learning for Image Recognition* by He et al., 2016. The stride is in the 3x3 convolution, as in
torchvision ("version 1.5"), not in the first 1x1 one as in the paper: the latter skips three quarters of its input.
"""

import flax.linen as nn
import jax

from jxai.errors import InputError
from jxai.models.layers import batch_norm, check_block, check_network, conv, stem_224


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with batch norm, ReLU between them, sum with the input, ReLU.

    Where width or size changes, the input goes through a 1x1 convolution and batch norm before the sum.

    Attributes:
        width: channels of the first two convolutions.
        stride: stride of the 3x3 convolution and of the shortcut.
        expansion: output channels as a multiple of `width`.
        outer_size: side of the first and the last convolution's kernel, odd.
    """

    width: int
    stride: int = 1
    expansion: int = 4
    outer_size: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Output of the block.

        Args:
            x: features, (N, h, w, C).
            train: whether batch norm uses the batch's statistics.

        Returns:
            Non-negative features, (N, ⌈h / stride⌉, ⌈w / stride⌉, expansion·width).
        """
        check_block(self, x)
        channels, outer = self.expansion * self.width, self.outer_size
        y = conv(self.width, outer, padding=outer // 2, name="conv1")(x)
        y = nn.relu(batch_norm(train=train, name="bn1")(y))
        y = conv(self.width, 3, stride=self.stride, padding=1, name="conv2")(y)
        y = nn.relu(batch_norm(train=train, name="bn2")(y))
        y = conv(channels, outer, padding=outer // 2, name="conv3")(y)
        y = batch_norm(train=train, name="bn3")(y)
        if self.stride != 1 or x.shape[-1] != channels:
            x = conv(channels, 1, stride=self.stride, name="shortcut")(x)
            x = batch_norm(train=train, name="bn_shortcut")(x)
        return nn.relu(y + x)


class BottleneckResNet(nn.Module):
    """The stem for 224, stages of `BottleneckBlock`s (every one but the first halves the map), mean, dense layer.

    Attributes:
        num_classes: number of scores.
        stage_sizes: number of blocks in each stage.
        widths: `BottleneckBlock.width` of each stage.
        expansion: output channels of every block as a multiple of its width.
        stem_width: channels of the stem.
    """

    num_classes: int = 1000
    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    expansion: int = 4
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
            ValueError: if `x` is no batch of images, they are smaller than `smallest_image`, `num_classes` is less
                than 1, or `widths` and `stage_sizes` have different lengths.
        """
        check_network(self, x)
        if len(self.widths) != len(self.stage_sizes):
            raise InputError(
                f"expected a width for each of {len(self.stage_sizes)} stages, got {self.widths}: match them"
            )
        x = stem_224(x, self.stem_width, train=train)
        index = 0
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True)):
            for block in range(size):
                stride = 2 if stage > 0 and block == 0 else 1
                x = BottleneckBlock(width, stride, self.expansion, name=f"block{index}")(x, train=train)
                index += 1
        return nn.Dense(self.num_classes, name="head")(x.mean(axis=(1, 2)))


class ResNet50(BottleneckResNet):
    """Three, four, six and three blocks in four stages."""

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)


class ResNet101(BottleneckResNet):
    """Three, four, twenty-three and three blocks in four stages."""

    stage_sizes: tuple[int, ...] = (3, 4, 23, 3)


class ResNet152(BottleneckResNet):
    """Three, eight, thirty-six and three blocks in four stages."""

    stage_sizes: tuple[int, ...] = (3, 8, 36, 3)
