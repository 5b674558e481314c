"""What the encoders of this package share: initialisation, padding, batch norm, pooling, the check of input."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import variance_scaling

# Normal with standard deviation √(2 / (k·k·out)), as the released programs draw every convolution.
conv_init = variance_scaling(2.0, "fan_out", "normal")


def conv(
    features: int, size: int, *, name: str, stride: int = 1, padding: int = 0, use_bias: bool = False
) -> nn.Conv:
    """Square convolution with PyTorch's symmetric padding ("SAME" pads one side only where the stride is 2).

    Args:
        features: number of output channels.
        size: side of the kernel.
        name: the module's name in the parameters.
        stride: step along both axes.
        padding: rows and columns of zeros on each side.
        use_bias: whether a bias is added.

    Returns:
        The Linen module.
    """
    pad = (padding, padding)
    return nn.Conv(
        features,
        (size, size),
        strides=(stride, stride),
        padding=(pad, pad),
        use_bias=use_bias,
        kernel_init=conv_init,
        name=name,
    )


def batch_norm(*, train: bool, name: str) -> nn.BatchNorm:
    """Batch norm with the constants of the released programs (PyTorch's momentum 0.1 is 0.9 here).

    Args:
        train: batch statistics if true, running ones otherwise.
        name: the module's name in the parameters.

    Returns:
        The Linen module.
    """
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name=name)


def stem_224(x: jax.Array, width: int, *, train: bool) -> jax.Array:
    """The first layers of networks for 224x224: 7x7 convolution, batch norm, ReLU, 3x3 max pooling.

    Called inside of a compact method, whose module gets "conv1" and "bn1".

    Args:
        x: images (N, H, W, C).
        width: output channels.
        train: whether batch norm uses the batch's statistics.

    Returns:
        Non-negative maps (N, ⌈⌈H / 2⌉ / 2⌉, ⌈⌈W / 2⌉ / 2⌉, width).
    """
    x = conv(width, 7, stride=2, padding=3, name="conv1")(x)
    x = nn.relu(batch_norm(train=train, name="bn1")(x))
    pad = ((1, 1), (1, 1))  # of -inf; Flax takes it, its annotation names strings alone
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=pad)  # pyright: ignore[reportArgumentType]


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """2x2 max pooling with stride 2; an odd last row or column is left out.

    The maximum of four strided slices, because the gradient of `nn.max_pool` is thirty times slower on a CPU. Equal
    winners share the gradient.

    Args:
        x: maps (N, H, W, C).

    Returns:
        Maps (N, H // 2, W // 2, C).
    """
    height, width = (side // 2 * 2 for side in x.shape[1:3])
    rows = jnp.maximum(x[:, 0:height:2], x[:, 1:height:2])
    return jnp.maximum(rows[:, :, 0:width:2], rows[:, :, 1:width:2])


def check_images(x: jax.Array, *, smallest: int) -> None:
    """Refuse what is no batch of images, or images too small to leave a map.

    Args:
        x: what the encoder was given; (N, H, W, C) is right.
        smallest: least height and width.

    Raises:
        ValueError: if `x` has another rank, or an image is smaller than `smallest`.
    """
    if x.ndim != 4:
        raise ValueError(f"expected images of shape (N, H, W, C), got {x.shape}: merge or add leading axes")
    if min(x.shape[1:3]) < smallest:
        raise ValueError(
            f"expected images of at least {smallest}x{smallest}, got {x.shape[1]}x{x.shape[2]}: "
            "enlarge the images or take an encoder that pools less"
        )


def check_classes(num_classes: int) -> None:
    """Refuse a number of classes that leaves no scores (Flax would return an array of none).

    Args:
        num_classes: number of scores a classifier is to return.

    Raises:
        ValueError: if `num_classes` is less than 1.
    """
    if num_classes < 1:
        raise ValueError(f"expected num_classes of at least 1, got {num_classes}: count the classes")
