"""ResNet10, 18 and 34 as cross-domain few-shot classification has them.

See *A Closer Look at Few-shot Classification* by Chen et al., 2019, and *Cross-Domain Few-Shot Classification
via Learned Feature-Wise Transformation* by Tseng et al., 2020. Three stems, for three sizes of image:

| stem | before the blocks | map of an image of that size |
|---|---|---|
| `"224"` (released) | 7x7 convolution of stride 2, padding 3; 3x3 max pooling of stride 2, padding 1 | 7x7 |
| `"84"` | 3x3 convolution of stride 2, no pooling (the released stem would leave 3x3) | 6x6 |
| `"32"` | 3x3 convolution of stride 1, no pooling | 4x4 |
"""

from typing import Literal

import flax.linen as nn
import jax

from jxai.errors import InputError
from jxai.models.layers import batch_norm, check_block, check_network, conv, stem_224

Stem = Literal["224", "84", "32"]

# By how much each stem reduces height and width.
_STEM_STRIDES = {"224": 4, "84": 2, "32": 1}


class SimpleBlock(nn.Module):
    """Convolution, batch norm, ReLU, convolution, batch norm, sum with the input, ReLU.

    Where width or size changes, the input goes through a 1x1 convolution and batch norm before the sum.

    Attributes:
        width: output channels.
        stride: stride of the first convolution and of the shortcut.
    """

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Output of the block.

        Args:
            x: features, (N, h, w, C).
            train: whether batch norm uses the batch's statistics.

        Returns:
            Non-negative features, (N, ⌈h / stride⌉, ⌈w / stride⌉, width).
        """
        check_block(self, x)
        y = conv(self.width, 3, stride=self.stride, padding=1, name="conv1")(x)
        y = nn.relu(batch_norm(train=train, name="bn1")(y))
        y = conv(self.width, 3, padding=1, name="conv2")(y)
        y = batch_norm(train=train, name="bn2")(y)
        if self.stride != 1 or x.shape[-1] != self.width:
            x = conv(self.width, 1, stride=self.stride, name="shortcut")(x)
            x = batch_norm(train=train, name="bn_shortcut")(x)
        return nn.relu(y + x)


class ResNet(nn.Module):
    """A stem and stages of `SimpleBlock`s; every stage but the first halves the map.

    Attributes:
        stage_sizes: number of blocks in each stage.
        widths: channels of each stage.
        stem: "224", "84" or "32", see the table of this file.
        stem_width: channels of the stem.
    """

    stage_sizes: tuple[int, ...] = (1, 1, 1, 1)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: Stem = "224"
    stem_width: int = 64

    @property
    def smallest_image(self) -> int:
        """Total stride: a smaller image's map would be one position that sees padding more than image."""
        return self._stem_stride() * 2 ** (len(self.stage_sizes) - 1)

    def _stem_stride(self) -> int:
        if self.stem not in _STEM_STRIDES:
            raise InputError(
                f"expected a stem among {sorted(_STEM_STRIDES)}, got {self.stem!r}: choose one of them"
            )
        return _STEM_STRIDES[self.stem]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Feature map after the last block; the mean over positions is the caller's.

        Args:
            x: normalized images, (N, H, W, C).
            train: whether batch norm uses the batch's statistics (and updates the running ones).

        Returns:
            Non-negative features, (N, h, w, widths[-1]).

        Raises:
            ValueError: if `x` is no batch of images, they are smaller than `smallest_image`, the stem is
                unknown, or `widths` and `stage_sizes` have different lengths.
        """
        check_network(self, x)
        if len(self.widths) != len(self.stage_sizes):
            raise InputError(
                f"expected a width for each of {len(self.stage_sizes)} stages, got {self.widths}: match them"
            )
        if self.stem == "224":
            x = stem_224(x, self.stem_width, train=train)
        else:
            x = conv(self.stem_width, 3, stride=self._stem_stride(), padding=1, name="conv1")(x)
            x = nn.relu(batch_norm(train=train, name="bn1")(x))
        index = 0
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True)):
            for block in range(size):
                stride = 2 if stage > 0 and block == 0 else 1
                x = SimpleBlock(width, stride, name=f"block{index}")(x, train=train)
                index += 1
        return x


class ResNet10(ResNet):
    """One block in each of four stages."""

    stage_sizes: tuple[int, ...] = (1, 1, 1, 1)


class ResNet18(ResNet):
    """Two blocks in each of four stages."""

    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)


class ResNet34(ResNet):
    """Three, four, six and three blocks in four stages."""

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
