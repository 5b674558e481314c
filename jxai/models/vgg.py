"""VGG16, with and without batch norm.

See *Very Deep Convolutional Networks for Large-Scale Image Recognition* by Simonyan and Zisserman, 2015.
"""

import flax.linen as nn
import jax

from jxai.errors import InputError
from jxai.models.layers import Activation, check_network, conv, max_pool_2x2
from jxai.models.layers import (
    batch_norm as norm,  # the class below has a field of the other name
)


class VGG(nn.Module):
    """Stages of 3x3 convolutions with ReLU, each ended by 2x2 max pooling, then dense layers.

    The map is flattened, so the first dense layer fits one size of image only (7x7 positions for 224). Rows come
    before columns before channels: PyTorch's weights, channels first, need a transposition there.

    Attributes:
        num_classes: number of scores.
        stage_sizes: number of convolutions in each stage.
        widths: channels of each stage.
        dense_widths: units of each dense layer below the scores.
        batch_norm: whether batch norm stands between each convolution (which keeps its bias) and its ReLU.
        dropout_rate: share of units dropped after each dense layer below the scores; unless it is 0, training
            needs `rngs={"dropout": key}`.
    """

    num_classes: int = 1000
    stage_sizes: tuple[int, ...] = (2, 2, 3, 3, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    dense_widths: tuple[int, ...] = (4096, 4096)
    batch_norm: bool = False
    dropout_rate: float = 0.5

    @property
    def smallest_image(self) -> int:
        """Side of the smallest image that leaves a map of one position."""
        return 2 ** len(self.stage_sizes)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Scores before the softmax.

        Args:
            x: normalized images, (N, H, W, C).
            train: whether units are dropped and batch norm uses the batch's statistics (and updates the
                running ones).

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
        index = 0
        for size, width in zip(self.stage_sizes, self.widths, strict=True):
            for _ in range(size):
                x = conv(width, 3, padding=1, use_bias=True, name=f"conv{index}")(x)
                if self.batch_norm:
                    x = norm(train=train, name=f"bn{index}")(x)
                x = Activation(nn.relu, name=f"relu{index}")(x)
                index += 1
            x = max_pool_2x2(x)
        x = x.reshape(x.shape[0], -1)
        for layer, width in enumerate(self.dense_widths):
            x = nn.relu(nn.Dense(width, name=f"dense{layer}")(x))
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="head")(x)


class VGG16(VGG):
    """Thirteen convolutions and three dense layers."""

    stage_sizes: tuple[int, ...] = (2, 2, 3, 3, 3)
