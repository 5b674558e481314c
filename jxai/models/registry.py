"""Encoders by name."""

import dataclasses
from typing import Any

from jxai.checks import check_choice, check_count
from jxai.errors import InputError, InputTypeError
from jxai.models.conv import Conv4, Conv4NP, Conv6, Conv6NP, ConvNet
from jxai.models.layers import check_fields
from jxai.models.resnet import ResNet, ResNet10, ResNet18, ResNet34, Stem
from jxai.models.resnet12 import ResNet12

Encoder = ConvNet | ResNet | ResNet12

_ENCODERS: dict[str, type[Encoder]] = {
    "conv4": Conv4,
    "conv4np": Conv4NP,
    "conv6": Conv6,
    "conv6np": Conv6NP,
    "resnet10": ResNet10,
    "resnet12": ResNet12,
    "resnet18": ResNet18,
    "resnet34": ResNet34,
}


def encoder_names() -> tuple[str, ...]:
    """The names that `encoder` knows, sorted."""
    return tuple(sorted(_ENCODERS))


def encoder(name: str, *, image_size: int, **options: Any) -> Encoder:
    """Make an encoder by its name, suited to a size of image.

    Args:
        name: one of `encoder_names()`.
        image_size: height and width of the images in pixels. It chooses the stem of a `ResNet` unless `stem` is
            given: "224" from 128 on, "84" from 64 on, "32" below.
        **options: fields of the module: `width`, `num_pools`, `pooled_padding` of the convolutional ones;
            `widths`, `stem_width` and, but for ResNet12, `stem` of the residual ones.

    Returns:
        The Linen module; `module.apply(variables, x, train=...)` takes images (N, H, W, 3) to a feature
        map (N, h, w, C).

    Raises:
        ValueError: if the name is unknown or the images are too small for the encoder.
        TypeError: if the encoder has no such option.

    Example:
        >>> encoder("resnet10", image_size=32).stem
        '32'
    """
    check_choice("an encoder", name, encoder_names())
    check_count("image_size", image_size)
    cls = _ENCODERS[name]
    known = {field.name for field in dataclasses.fields(cls)} - {"parent", "name"}
    if unknown := sorted(set(options) - known):
        raise InputTypeError(
            f"expected options of {name} among {', '.join(sorted(known))}, got {', '.join(unknown)}"
        )
    if issubclass(cls, ResNet):
        options = {"stem": _stem_for(image_size), **options}
    module = cls(**options)
    check_fields(module)
    if image_size < module.smallest_image:
        raise InputError(
            f"expected image_size of at least {module.smallest_image} for {name}, got {image_size}: "
            "enlarge the images or take an encoder that pools less"
        )
    return module


def _stem_for(image_size: int) -> Stem:
    if image_size >= 128:
        return "224"
    return "84" if image_size >= 64 else "32"
