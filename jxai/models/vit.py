"""The Vision Transformer with a class token, by default ViT-Ti/16.

See *An Image is Worth 16x16 Words* by Dosovitskiy et al., 2021; the tiny size is that of *Training data-efficient
image transformers* by Touvron et al., 2021.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai.errors import InputError
from jxai.models.layers import check_block, check_network


class TransformerBlock(nn.Module):
    """Layer norm, self-attention, sum with the input; layer norm, two dense layers with GELU, sum again.

    Attributes:
        num_heads: number of attention heads.
        mlp_width: units between the dense layers.
    """

    num_heads: int
    mlp_width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Output of the block.

        Args:
            x: tokens, (N, T, C).

        Returns:
            Tokens, (N, T, C).
        """
        check_block(self, x, "tokens of shape (N, T, C)", rank=3)
        if x.shape[-1] % self.num_heads:
            raise InputError(
                f"expected a multiple of num_heads {self.num_heads} as channels, got {x.shape[-1]}: change one"
            )
        y = nn.LayerNorm(name="norm1")(x)
        x = x + nn.MultiHeadDotProductAttention(self.num_heads, name="attention")(y)
        y = nn.LayerNorm(name="norm2")(x)
        y = nn.gelu(nn.Dense(self.mlp_width, name="mlp1")(y))
        return x + nn.Dense(x.shape[-1], name="mlp2")(y)


class VisionTransformer(nn.Module):
    """Patches as tokens behind a class token, learned positions, `TransformerBlock`s, scores of the class token.

    The positions are learned for one number of patches, so the variables fit one size of image only.

    Attributes:
        num_classes: number of scores.
        patch_size: side of a patch in pixels.
        width: channels of a token.
        depth: number of blocks.
        num_heads: attention heads of each block; they share `width` equally.
        mlp_width: units between the dense layers of each block.
    """

    num_classes: int = 1000
    patch_size: int = 16
    width: int = 192
    depth: int = 12
    num_heads: int = 3
    mlp_width: int = 768

    @property
    def smallest_image(self) -> int:
        """Side of one patch."""
        return self.patch_size

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Scores before the softmax.

        Args:
            x: normalized images, (N, H, W, C), H and W multiples of `patch_size`.
            train: changes nothing (there is no dropout); taken because every classifier is called with it.

        Returns:
            Scores, (N, num_classes).

        Raises:
            ValueError: if `x` is no batch of images, their sides are no multiples of `patch_size`, `num_classes` is
                less than 1, or `width` is no multiple of `num_heads`.
        """
        check_network(self, x)
        if self.width % self.num_heads:
            raise InputError(
                f"expected width to be a multiple of num_heads {self.num_heads}, got {self.width}: change one"
            )
        if x.shape[1] % self.patch_size or x.shape[2] % self.patch_size:
            raise InputError(
                f"expected sides that are multiples of {self.patch_size}, got {x.shape[1]}x{x.shape[2]}: "
                "crop or resize the images"
            )
        patch = (self.patch_size, self.patch_size)
        x = nn.Conv(self.width, patch, strides=patch, padding="VALID", name="patches")(x)
        x = x.reshape(x.shape[0], -1, self.width)
        token = self.param("class_token", nn.initializers.zeros, (1, 1, self.width), jnp.float32)
        x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)), x], axis=1)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]), jnp.float32)
        for index in range(self.depth):
            x = TransformerBlock(self.num_heads, self.mlp_width, name=f"block{index}")(x)
        x = nn.LayerNorm(name="norm_last")(x)
        return nn.Dense(self.num_classes, name="head")(x[:, 0])
