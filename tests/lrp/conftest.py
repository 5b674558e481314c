"""float64; the networks of the golden archives `lrp_vgg` and `lrp_resnet`, as a user would write them in Linen."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

# What the tests of this folder share is the module `formulas` beside this file. Last in the list.
sys.path.append(str(Path(__file__).resolve().parent))


os.environ.setdefault("KERAS_BACKEND", "jax")  # before keras is imported


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


class Vgg(nn.Module):
    widths: tuple[int, ...]
    hidden: int
    classes: int

    @nn.compact
    def __call__(self, x):
        for i in (1, 2):
            x = nn.Conv(self.widths[i - 1], (3, 3), padding=1, name=f"conv{i}")(x)
            x = nn.relu(nn.BatchNorm(use_running_average=True, name=f"bn{i}")(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Conv(self.widths[2], (3, 3), padding=1, name="conv3")(x))
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(self.hidden, name="fc1")(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes, name="fc2")(x)


class Block(nn.Module):
    width: int
    stride: int

    @nn.compact
    def __call__(self, x):
        def conv(size, stride, name):
            return nn.Conv(self.width, (size, size), stride, padding=size // 2, use_bias=False, name=name)

        def norm(name):
            return nn.BatchNorm(use_running_average=True, name=name)

        y = nn.relu(norm("bn1")(conv(3, self.stride, "conv1")(x)))
        y = norm("bn2")(conv(3, 1, "conv2")(y))
        if self.stride != 1 or x.shape[-1] != self.width:
            x = norm("bn_shortcut")(conv(1, self.stride, "shortcut")(x))
        return nn.relu(y + x)


class ResNet(nn.Module):
    widths: tuple[int, ...]
    classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.widths[0], (5, 5), 2, padding=2, use_bias=False, name="conv1")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, name="bn1")(x))
        for i, width in enumerate(self.widths):
            x = Block(width, 1 if i == 0 else 2, name=f"block{i}")(x)
        return nn.Dense(self.classes, name="fc")(jnp.mean(x, axis=(1, 2)))


_BATCH_NORM = {"scale": "params", "bias": "params", "mean": "batch_stats", "var": "batch_stats"}


@pytest.fixture(scope="session")
def golden_network(golden: Path) -> Callable:
    """Function of an archive's name to (module, variables, everything in the archive)."""

    def load(name):
        with np.load(golden / f"{name}.npz") as archive:
            reference = dict(archive)
        variables = {"params": {}, "batch_stats": {}}
        for key, value in reference.items():
            layer, _, leaf = key.rpartition("_")
            if leaf not in ("kernel", *_BATCH_NORM) or layer == "relevance":
                continue
            node = variables[_BATCH_NORM.get(leaf, "params")]
            for part in layer.split("_", 1) if layer.startswith("block") else [layer]:
                node = node.setdefault(part, {})
            node[leaf] = value
        return _model(variables["params"]), variables, reference

    return load


def _model(params):
    def width(node):
        return node["kernel"].shape[-1]

    if "fc2" in params:
        widths = tuple(width(params[f"conv{i}"]) for i in (1, 2, 3))
        return Vgg(widths, width(params["fc1"]), width(params["fc2"]))
    blocks = sorted(name for name in params if name.startswith("block"))
    return ResNet(tuple(width(params[name]["conv2"]) for name in blocks), width(params["fc"]))
