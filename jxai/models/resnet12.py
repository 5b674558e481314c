"""ResNet12, the encoder of cross-attention networks at 84x84.

See *Cross Attention Network for Few-shot Classification* by Hou et al., 2019. Of the networks called so, this is the
one that its program released: every stage halves the map (rounded up) by the stride of its block's second
convolution, so that an image of 84x84 leaves 6x6 positions; nothing is pooled, and ReLU follows the sum. Others pool
between stages, and have other widths.
"""

import flax.linen as nn
import jax

from jxai.models.bottleneck import BottleneckBlock
from jxai.models.layers import batch_norm, check_network, conv


class ResNet12(nn.Module):
    """A 3x3 convolution with batch norm and ReLU, then stages of one residual block of three 3x3 convolutions.

    Attributes:
        widths: channels of each stage.
        stem_width: channels of the first convolution.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem_width: int = 64

    @property
    def smallest_image(self) -> int:
        """Total stride: a smaller image's map would be one position that sees padding more than image."""
        return 2 ** len(self.widths)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Feature map after the last block; the mean over positions is the caller's.

        Args:
            x: normalized images, (N, H, W, C).
            train: whether batch norm uses the batch's statistics (and updates the running ones).

        Returns:
            Non-negative features, (N, h, w, widths[-1]).

        Raises:
            ValueError: if `x` is no batch of images, or they are smaller than `smallest_image`.
        """
        check_network(self, x)
        x = conv(self.stem_width, 3, padding=1, name="conv1")(x)
        x = nn.relu(batch_norm(train=train, name="bn1")(x))
        for index, width in enumerate(self.widths):
            x = BottleneckBlock(width, stride=2, expansion=1, outer_size=3, name=f"block{index}")(
                x, train=train
            )
        return x
