"""EfficientNet-Lite0, and EfficientNet-B0 by an option.

See *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks* by Tan and Le, 2019. The Lite networks,
released in 2020 for devices, have ReLU6 for SiLU and no squeeze-and-excitation; wider and deeper ones keep the stem,
the last convolution and the number of blocks of the first and last stage. Padding is TensorFlow's "SAME": where the
stride is 2 and the side even, the odd row or column of zeros is at the end. Stochastic depth is left out.
"""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
from flax.linen.initializers import variance_scaling

from jxai.models.layers import Activation, check_block, check_network, conv, conv_init
from jxai.ops.convolution import convolution

# A depthwise kernel (k, k, 1, C) counts k·k inputs a channel; conv_init would divide by all C channels as well.
_depthwise_init = variance_scaling(2.0, "fan_in", "normal")


@dataclasses.dataclass(frozen=True)
class MobileStage:
    """Consecutive blocks of one width.

    Attributes:
        size: number of blocks.
        width: output channels of each.
        kernel: side of the depthwise kernels.
        stride: stride of the first block.
        expansion: channels inside a block as a multiple of its input's.
    """

    size: int
    width: int
    kernel: int = 3
    stride: int = 1
    expansion: int = 6


_STAGES = (
    MobileStage(1, 16, expansion=1),
    MobileStage(2, 24, stride=2),
    MobileStage(2, 40, kernel=5, stride=2),
    MobileStage(3, 80, stride=2),
    MobileStage(3, 112, kernel=5),
    MobileStage(4, 192, kernel=5, stride=2),
    MobileStage(1, 320),
)


class MobileBlock(nn.Module):
    """1x1 convolution to more channels, depthwise convolution, 1x1 convolution to fewer; batch norm after each.

    The input is added where neither its size nor its number of channels changes. Nothing follows the sum, so the
    output has both signs.

    Attributes:
        width: output channels.
        kernel: side of the depthwise kernel.
        stride: stride of the depthwise convolution.
        expansion: channels inside as a multiple of the input's; at 1 the first convolution is left out.
        squeeze_excite: whether the channels inside are gated by their means, and SiLU takes ReLU6's place.
    """

    width: int
    kernel: int = 3
    stride: int = 1
    expansion: int = 6
    squeeze_excite: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Output of the block.

        Args:
            x: features, (N, h, w, C).
            train: whether batch norm uses the batch's statistics.

        Returns:
            Features, (N, ⌈h / stride⌉, ⌈w / stride⌉, width).
        """
        check_block(self, x)
        activation = _activation(self.squeeze_excite)
        channels = x.shape[-1]
        inside = channels * self.expansion
        y = x
        if self.expansion != 1:
            y = conv(inside, 1, name="conv_expand")(y)
            y = activation(_batch_norm(train=train, name="bn_expand")(y))
        y = nn.Conv(
            inside,
            (self.kernel, self.kernel),
            strides=(self.stride, self.stride),
            padding="SAME",
            feature_group_count=inside,
            use_bias=False,
            kernel_init=_depthwise_init,
            conv_general_dilated=convolution,
            name="conv_depthwise",
        )(y)
        y = activation(_batch_norm(train=train, name="bn_depthwise")(y))
        if self.squeeze_excite:
            gate = y.mean(axis=(1, 2), keepdims=True)
            # A quarter of the block's input, not of the channels inside.
            gate = nn.silu(conv(max(1, channels // 4), 1, use_bias=True, name="squeeze")(gate))
            y = y * nn.sigmoid(conv(inside, 1, use_bias=True, name="excite")(gate))
        y = conv(self.width, 1, name="conv_project")(y)
        y = _batch_norm(train=train, name="bn_project")(y)
        return y + x if self.stride == 1 and channels == self.width else y


class EfficientNet(nn.Module):
    """A strided convolution, stages of `MobileBlock`s, a 1x1 convolution, mean, dense layer.

    Attributes:
        num_classes: number of scores.
        width_factor: factor of the stages' widths, which are then rounded to multiples of 8.
        depth_factor: factor of the number of blocks of each stage but the first and last, rounded up.
        squeeze_excite: False is Lite0; True is B0, with squeeze-and-excitation and SiLU.
        stages: the stages before the two factors.
        stem_width: channels of the first convolution.
        head_width: channels of the last convolution.
        dropout_rate: share of features dropped below the dense layer; unless it is 0, training needs
            `rngs={"dropout": key}`.
    """

    num_classes: int = 1000
    width_factor: float = 1.0
    depth_factor: float = 1.0
    squeeze_excite: bool = False
    stages: tuple[MobileStage, ...] = _STAGES
    stem_width: int = 32
    head_width: int = 1280
    dropout_rate: float = 0.2

    @property
    def smallest_image(self) -> int:
        """Total stride: a smaller image's map would be one position that sees padding more than image."""
        return 2 * math.prod(stage.stride for stage in self.stages)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Scores before the softmax.

        Args:
            x: normalized images, (N, H, W, C).
            train: whether features are dropped and batch norm uses the batch's statistics (and updates the
                running ones).

        Returns:
            Scores, (N, num_classes).

        Raises:
            ValueError: if `x` is no batch of images, they are smaller than `smallest_image`, `num_classes` is less
                than 1, or a factor is not positive.
        """
        check_network(self, x)
        activation = _activation(self.squeeze_excite)
        x = nn.Conv(
            self.stem_width,
            (3, 3),
            strides=(2, 2),
            padding="SAME",
            use_bias=False,
            kernel_init=conv_init,
            conv_general_dilated=convolution,
            name="conv1",
        )(x)
        x = activation(_batch_norm(train=train, name="bn1")(x))
        index = 0
        for number, stage in enumerate(self.stages):
            scaled = 0 < number < len(self.stages) - 1
            size = math.ceil(stage.size * self.depth_factor) if scaled else stage.size
            width = _multiple_of_8(stage.width * self.width_factor) if self.width_factor != 1 else stage.width
            for block in range(size):
                x = MobileBlock(
                    width,
                    kernel=stage.kernel,
                    stride=stage.stride if block == 0 else 1,
                    expansion=stage.expansion,
                    squeeze_excite=self.squeeze_excite,
                    name=f"block{index}",
                )(x, train=train)
                index += 1
        x = conv(self.head_width, 1, name="conv_last")(x)
        x = _batch_norm(train=train, name="bn_last")(x)
        x = Activation(activation, name="activation_last")(x).mean(axis=(1, 2))
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="head")(x)


class EfficientNetLite0(EfficientNet):
    """The smallest Lite network: ReLU6, no squeeze-and-excitation."""

    squeeze_excite: bool = False


class EfficientNetB0(EfficientNet):
    """The smallest network of the paper: SiLU, squeeze-and-excitation."""

    squeeze_excite: bool = True


def _activation(squeeze_excite: bool) -> Callable[[jax.Array], jax.Array]:
    return nn.silu if squeeze_excite else nn.relu6


def _batch_norm(*, train: bool, name: str) -> nn.BatchNorm:
    """Batch norm with the constants of the release, unlike the other networks'."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.99, epsilon=1e-3, name=name)


def _multiple_of_8(width: float) -> int:
    """The nearest multiple of 8, at least 8, and the next one where that loses more than a tenth."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest
