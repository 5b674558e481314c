"""The Vision Transformer with a class token, by default ViT-Ti/16, and what DINOv2 adds to it.

See *An Image is Worth 16x16 Words* by Dosovitskiy et al., 2021; the tiny size is that of *Training data-efficient
image transformers* by Touvron et al., 2021; *DINOv2* by Oquab et al., 2024; *Vision Transformers Need Registers* by
Darcet et al., 2024.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import check_choice, check_count
from jxai.errors import InputError
from jxai.models.layers import check_fields, check_network
from jxai.models.transformers.block import TransformerBlock
from jxai.models.transformers.layers import computed, init_normal, layer_norm, make_layers, run_layers
from jxai.ops.convolution import convolution

POOLINGS = ("class", "class and mean")


class VisionTransformer(nn.Module):
    """Patches as tokens behind a class token, learned positions, `TransformerBlock`s, scores of the class token.

    Attributes:
        num_classes: number of scores; None for none, and the tokens are what is returned.
        patch_size: side of a patch in pixels.
        width: channels of a token.
        depth: number of blocks.
        num_heads: attention heads of each block; they share `width` equally.
        mlp_width: units between the dense layers of each block.
        epsilon: of every norm.
        num_registers: tokens behind the class token that stand for no patch and have no position.
        layer_scale: whether what a block adds has a weight a channel.
        position_grid: patches of a side that positions are learned for; for other images they are interpolated
            bicubically. None for those of the image that the variables were made for, which fit no other.
        antialias: whether they are smoothed first where an image has fewer patches, as DINOv2's with registers are.
        pooling: what is scored: "class" (the class token) or "class and mean" (with the mean of the patches).
        scan: whether the blocks are one loop (parameters of all of them below "layers", stacked), which compiles one
            of them; otherwise "layer0", "layer1", and so on. The numbers are the same.
        remat: whether what is inside of a block is computed again on the way back, which saves memory.
    """

    num_classes: int | None = 1000
    patch_size: int = 16
    width: int = 192
    depth: int = 12
    num_heads: int = 3
    mlp_width: int = 768
    epsilon: float = 1e-6
    num_registers: int = 0
    layer_scale: bool = False
    position_grid: int | None = None
    antialias: bool = False
    pooling: str = "class"
    scan: bool = False
    remat: bool = False

    @property
    def smallest_image(self) -> int:
        """Side of one patch."""
        return self.patch_size

    def setup(self) -> None:
        """Modules."""
        self._check()
        patch = (self.patch_size, self.patch_size)
        self.patches = nn.Conv(
            self.width, patch, strides=patch, padding="VALID", conv_general_dilated=convolution
        )

        def make() -> TransformerBlock:
            return TransformerBlock(
                self.num_heads, self.mlp_width, epsilon=self.epsilon, layer_scale=self.layer_scale
            )

        make_layers(self, make, self.depth)
        self.norm = layer_norm(self.epsilon)
        if self.num_classes is not None:
            self.head = nn.Dense(self.num_classes)

    def _check(self) -> None:
        check_fields(self)
        for name in ("num_classes", "position_grid"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        check_choice("pooling", self.pooling, POOLINGS)
        for name in ("layer_scale", "antialias", "scan", "remat"):
            check_choice(name, getattr(self, name), (True, False))
        if self.width % self.num_heads:
            raise InputError(
                f"expected width to be a multiple of num_heads {self.num_heads}, got {self.width}: change one"
            )

    @nn.compact
    def _tokens(self, x: jax.Array) -> jax.Array:
        """Patches as tokens, with positions, behind the class token and the registers."""
        n, grid = x.shape[0], (x.shape[1] // self.patch_size, x.shape[2] // self.patch_size)
        x = self.patches(x).reshape(n, -1, self.width)
        normal = init_normal
        learned = grid if self.position_grid is None else (self.position_grid, self.position_grid)
        size = (1, learned[0] * learned[1] + 1, self.width)
        token = self.param("class_token", nn.initializers.zeros, (1, 1, self.width), jnp.float32)
        positions = self.param("positions", normal, size, jnp.float32)
        positions = interpolated(positions, learned, grid, antialias=self.antialias).astype(x.dtype)
        x = jnp.concatenate([jnp.tile(token.astype(x.dtype), (n, 1, 1)), x], axis=1) + positions
        if not self.num_registers:
            return x
        registers = self.param("registers", normal, (1, self.num_registers, self.width), jnp.float32)
        registers = jnp.tile(registers.astype(x.dtype), (n, 1, 1))
        return jnp.concatenate([x[:, :1], registers, x[:, 1:]], axis=1)

    def encode(self, x: jax.Array) -> jax.Array:
        """Tokens behind the last norm.

        Args:
            x: normalized images, (N, H, W, 3), H and W multiples of `patch_size`.

        Returns:
            (N, 1 + registers + patches, width): the class token, the registers, the patches row by row.

        Raises:
            TypeError: if `x` is no array of real numbers.
            ValueError: if `x` is no batch of images, or a field is out of range.
        """
        check_network(self, x)
        if x.shape[1] % self.patch_size or x.shape[2] % self.patch_size:
            raise InputError(
                f"expected sides that are multiples of {self.patch_size}, got {x.shape[1]}x{x.shape[2]}: "
                "crop or resize the images"
            )
        x = self._tokens(computed(jnp.asarray(x)))
        return self.norm(run_layers(self, x, lambda block, x, _: block(x), each=[False] * self.depth))

    def classify(self, hidden: jax.Array) -> jax.Array:
        """Scores before the softmax of tokens as `encode` gives them.

        Args:
            hidden: (N, 1 + registers + patches, width).

        Returns:
            (N, num_classes).

        Raises:
            ValueError: if `num_classes` is None.
        """
        if self.num_classes is None:
            raise InputError("expected num_classes, got None: the model has no scores")
        if self.pooling == "class":
            return self.head(hidden[:, 0])
        patches = hidden[:, 1 + self.num_registers :]
        return self.head(jnp.concatenate([hidden[:, 0], patches.mean(1)], axis=-1))

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Scores before the softmax.

        Args:
            x: normalized images, (N, H, W, C), H and W multiples of `patch_size`.
            train: changes nothing (there is no dropout); taken because every classifier is called with it.

        Returns:
            Scores, (N, num_classes); without classes, tokens as `encode` gives them.

        Raises:
            ValueError: if `x` is no batch of images, their sides are no multiples of `patch_size`, `num_classes` is
                less than 1, or `width` is no multiple of `num_heads`.
        """
        hidden = self.encode(x)
        return hidden if self.num_classes is None else self.classify(hidden)


def interpolated(
    positions: jax.Array, learned: tuple[int, int], grid: tuple[int, int], *, antialias: bool = False
) -> jax.Array:
    """Positions of patches for a grid of another size, by cubic convolution.

    PyTorch's coefficient is -0.75 without antialiasing and -0.5, as JAX's, with it.

    Args:
        positions: (1, 1 + rows * columns, C): of the class token, then row by row.
        learned: rows and columns that they are of.
        grid: rows and columns that are wanted.
        antialias: whether the kernel is as wide as the places that are wanted are apart.

    Returns:
        (1, 1 + rows * columns, C) of the grid.
    """
    if learned == grid:
        return positions
    maps = positions[0, 1:].reshape(*learned, -1)
    if antialias:
        maps = jax.image.resize(maps, (*grid, maps.shape[-1]), "cubic")
    else:
        rows, columns = (
            jnp.asarray(cubic_weights(size, new), positions.dtype)
            for size, new in zip(learned, grid, strict=True)
        )
        maps = jnp.einsum("ar,bs,rsc->abc", rows, columns, maps)
    return jnp.concatenate([positions[:, :1], maps.reshape(1, -1, maps.shape[-1])], axis=1)


def cubic_weights(size: int, new: int, *, coefficient: float = -0.75) -> np.ndarray:
    """What each new place takes of each old one, (new, size), float64; places are centers, edges are repeated.

    See *Cubic convolution interpolation for digital image processing* by Keys, 1981.
    """
    place = (np.arange(new) + 0.5) * size / new - 0.5
    first = np.floor(place).astype(int) - 1
    weights = np.zeros((new, size))
    a = coefficient
    for step in range(4):
        far = np.abs(place - (first + step))
        near = ((a + 2) * far - (a + 3)) * far**2 + 1
        weight = np.where(far <= 1, near, ((far - 5) * far + 8) * far * a - 4 * a)
        np.add.at(weights, (np.arange(new), np.clip(first + step, 0, size - 1)), weight)
    return weights
