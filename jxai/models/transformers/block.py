"""The block of GPT-2 and of vision transformers: norms before attention and MLP, nothing on the way of the sum."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai.checks import check_choice
from jxai.errors import InputError
from jxai.models.layers import check_block
from jxai.models.transformers.layers import ACTIVATIONS, MLP, Attention, layer_norm


class LayerScale(nn.Module):
    """What a branch adds, times a weight a channel.

    See *Going deeper with Image Transformers* by Touvron et al., 2021.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The product, of x's shape (..., C)."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        return x * scale.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class TransformerBlock(nn.Module):
    """Layer norm, self-attention, sum with the input; layer norm, two dense layers with an activation, sum again.

    Attributes:
        num_heads: number of attention heads.
        mlp_width: units between the dense layers.
        activation: between them, by Hugging Face's name.
        epsilon: of the norms.
        layer_scale: whether what is added has a weight a channel.
    """

    num_heads: int
    mlp_width: int
    activation: str = "gelu"
    epsilon: float = 1e-6
    layer_scale: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, mask: Any = None) -> jax.Array:
        """Output of the block.

        Args:
            x: tokens, (N, T, C).
            mask: which key (last axis) a query may see, of a shape that broadcasts to (N, T, T); None for all.

        Returns:
            Tokens, (N, T, C).

        Raises:
            TypeError: if `x` is no array of real numbers.
            ValueError: if it is of another rank, or its channels are no multiple of `num_heads`.
        """
        check_block(self, x, "tokens of shape (N, T, C)", rank=3)
        check_choice("activation", self.activation, ACTIVATIONS)
        if x.shape[-1] % self.num_heads:
            raise InputError(
                f"expected a multiple of num_heads {self.num_heads} as channels, got {x.shape[-1]}: change one"
            )
        head_dim = x.shape[-1] // self.num_heads
        y = Attention(
            self.num_heads,
            self.num_heads,
            head_dim,
            use_bias=True,
            out_bias=True,
            scale=head_dim**-0.5,
            name="attention",
        )(layer_norm(self.epsilon, name="norm1")(x), mask)
        x = x + (LayerScale(name="scale1")(y) if self.layer_scale else y)
        y = layer_norm(self.epsilon, name="norm2")(x)
        y = MLP(self.mlp_width, self.activation, use_bias=True, name="mlp")(y)
        return x + (LayerScale(name="scale2")(y) if self.layer_scale else y)
