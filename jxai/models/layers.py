"""What the encoders of this package share: initialization, padding, batch norm, pooling, the check of input."""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.linen.initializers import variance_scaling

from jxai.checks import check_count, check_number, shown
from jxai.errors import InputError, InputTypeError
from jxai.ops.convolution import convolution
from jxai.ops.pooling import max_pool

# Normal with standard deviation √(2 / (k·k·out)), as the released programs draw every convolution.
conv_init = variance_scaling(2.0, "fan_out", "normal")

# PyTorch's default for a dense layer, uniform within ±1/√fan_in, as released.
dense_init = variance_scaling(1 / 3, "fan_in", "uniform")


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
        conv_general_dilated=convolution,
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
    return max_pool(x, 3, padding=((1, 1), (1, 1)))


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """2x2 max pooling with stride 2; an odd last row or column is left out. See `max_pool`.

    Args:
        x: maps (N, H, W, C).

    Returns:
        Maps (N, H // 2, W // 2, C).

    Raises:
        TypeError: if `x` is no array of real numbers.
        ValueError: if it has another rank, or leaves no map.
    """
    check_maps(x, "maps of shape (N, H, W, C)")
    if min(x.shape[1:3]) < 2:
        raise InputError(f"expected maps of at least 2x2, got {x.shape[1]}x{x.shape[2]}: pool less often")
    return max_pool(x, 2)


class Activation(nn.Module):
    """A function of each number as a module of its own, so that `split` can tell what is above it.

    Attributes:
        function: of an array.
    """

    function: Callable[[jax.Array], jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:
        """The function of `x`, of its shape."""
        return self.function(x)


def check_network(module: nn.Module, x: jax.Array) -> None:
    """Refuse fields that make no network, and what is no batch of images, or too small ones to leave a map.

    Args:
        module: an encoder or a classifier with `smallest_image`, the least height and width.
        x: what it was given; (N, H, W, C) is right.

    Raises:
        TypeError: if `x` is no array of real numbers.
        ValueError: if a field is out of range, or `x` has another rank, no entries or smaller images.
    """
    check_fields(module)
    check_maps(x, "images of shape (N, H, W, C)")
    smallest = module.smallest_image  # pyright: ignore[reportAttributeAccessIssue]
    if min(x.shape[1:3]) < smallest:
        raise InputError(
            f"expected images of at least {smallest}x{smallest}, got {x.shape[1]}x{x.shape[2]}: "
            "enlarge the images or take an encoder that pools less; channels come last"
        )


def check_maps(x: jax.Array, what: str, *, rank: int = 4) -> None:
    """Refuse what is no batch of maps.

    Args:
        x: what was given.
        what: what is right.
        rank: its number of axes.

    Raises:
        TypeError: if `x` is no array of real numbers.
        ValueError: if it has another rank or no entries.
    """
    if not isinstance(x, jax.Array | np.ndarray) or not np.can_cast(x.dtype, np.float64, "same_kind"):
        raise InputTypeError(
            f"expected {what}, got {shown(x)} of {getattr(x, 'dtype', type(x).__name__)}: give numbers"
        )
    if x.ndim != rank or not x.size:
        raise InputError(f"expected {what}, got {x.shape}: merge or add leading axes")


def check_block(
    module: nn.Module, x: jax.Array, what: str = "features of shape (N, h, w, C)", *, rank: int = 4
) -> None:
    """`check_fields` and `check_maps`, for a part of a network."""
    check_fields(module)
    check_maps(x, what, rank=rank)


# Fields that may be 0, or empty.
_MAY_BE_NONE = ("num_pools", "padding", "pooled_padding", "dense_widths", "labels", "num_registers")


def check_fields(module: nn.Module) -> None:
    """Refuse sizes below 1, which leave no features or scores (Flax would return arrays of none), and odd numbers.

    Args:
        module: its fields of integers, numbers and tuples of such are looked at.

    Raises:
        ValueError: if one is out of range.
    """
    for field in dataclasses.fields(module):
        if field.name not in ("parent", "name"):
            _check_field(field.name, getattr(module, field.name), field.type)


def _check_field(name: str, value: Any, kind: Any) -> None:
    least = 0 if name in _MAY_BE_NONE else 1
    if kind is int:
        check_count(name, value, least=least)
    elif kind is float:
        if name.endswith("rate"):
            check_number(name, value, least=0, most=1)
        else:
            check_number(name, value, above=0)
    elif typing.get_origin(kind) is tuple:
        if not isinstance(value, tuple) or len(value) < least:
            raise InputError(
                f"expected {name} as a tuple of at least {least}, got {shown(value)}: list the sizes"
            )
        for item in value:
            _check_field(name, item, typing.get_args(kind)[0])
    elif dataclasses.is_dataclass(kind) and not issubclass(kind, nn.Module):  # pyright: ignore[reportArgumentType]
        if not isinstance(value, kind):  # pyright: ignore[reportArgumentType]
            raise InputError(f"expected {name} of {kind.__name__}, got {shown(value)}: make one")
        for field in dataclasses.fields(kind):
            _check_field(field.name, getattr(value, field.name), field.type)
    elif kind is nn.Module and not isinstance(value, nn.Module):
        raise InputError(f"expected {name} as a Linen module, got {shown(value)}: make one")
