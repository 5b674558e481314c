"""Which network is explained: one of ImageNet's by name, or one's own; with its classes and what it takes."""

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai import models
from jxai.checks import printable
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0, TORCHVISION, InputSpace
from jxai.cli.explaining.methods import Classifier
from jxai.cli.explaining.own_model import load_model
from jxai.cli.explaining.photographs import CLASS_NAMES
from jxai.errors import InputError
from jxai.models.pretrained import efficientnet_lite0

_LITE0 = "efficientnet-lite0"
# What makes each of torchvision's, and the module whose maps Grad-CAM weighs.
_TORCHVISION: Mapping[str, tuple[Any, str]] = {
    "vgg16": (models.VGG16, "relu12"),
    "resnet18": (lambda: models.Classifier(models.ResNet18(), 1000), "encoder"),
    "resnet34": (lambda: models.Classifier(models.ResNet34(), 1000), "encoder"),
    "resnet50": (models.ResNet50, "block15"),
    "resnet101": (models.ResNet101, "block32"),
    "resnet152": (models.ResNet152, "block49"),
    "densenet121": (models.DenseNet121, "activation_last"),
    "squeezenet": (models.SqueezeNet, "fire7"),
}
Name = Literal[
    "efficientnet-lite0",
    "vgg16",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "densenet121",
    "squeezenet",
]


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """Which network; by default one that comes with its weights."""

    network: Name = _LITE0
    """One of ImageNet's. All but efficientnet-lite0 need `--weights`, a checkpoint of torchvision's."""
    model: str | None = None
    """One's own instead: MODULE:FUNCTION or FILE.py:FUNCTION, a function that gives (apply, variables), or a model of
    NNX, Equinox or Keras (docs/explain.md)."""
    weights: Path | None = None
    """Of the network (.pth, .safetensors, .npz); of one's own model a tensor for every variable, by its path."""
    classes: Path | None = None
    """Text file with a class's name a line; ImageNet's for its networks."""
    input_size: int | None = None
    """Side of the pictures that one's own model takes, in pixels; 224."""
    mean: tuple[float, float, float] | None = None
    """Of RGB in [0, 1], subtracted for one's own model; 0 0 0."""
    std: tuple[float, float, float] | None = None
    """What that is divided by; 1 1 1."""
    maps: str | None = None
    """Path of the module in one's own model whose maps Grad-CAM weighs, such as "encoder/block3"."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A classifier, and what it takes and gives.

    Attributes:
        title: for captions.
        classifier: from inputs to scores.
        space: its inputs.
        class_names: K names.
        digest: of what else than its variables decides what it computes.
    """

    title: str
    classifier: Classifier
    space: InputSpace
    class_names: tuple[str, ...]
    digest: bytes = b""

    def check_maps(self, method: str) -> None:
        """Refuse a method that weighs maps where none are known.

        Args:
            method: its name.

        Raises:
            ValueError: the network has no maps.
        """
        if self.classifier.maps is None:
            raise InputError(
                f"expected --maps for {method} of {self.title}, got none: name the module whose maps it weighs"
            )

    def class_of(self, target: str) -> int:
        """A class by its number or its name, in upper or lower case.

        Raises:
            ValueError: there is none, or several of that name.
        """
        count = len(self.class_names)
        if target.lstrip("-").isdecimal():
            if not 0 <= int(target) < count:
                raise InputError(
                    f"expected a target from 0 to {count - 1}, got {target}: give a class's number"
                )
            return int(target)
        names = [name.casefold() for name in self.class_names]
        if names.count(target.casefold()) == 1:
            return names.index(target.casefold())
        near = difflib.get_close_matches(target.casefold(), names, 3)
        raise InputError(
            f"expected a target predicted, true, or a class's number or name, got {target!r}, the name of "
            f"{names.count(target.casefold())} classes: "
            + (f"did you mean {', '.join(near)}?" if near else f"give a number from 0 to {count - 1}")
        )


def load_network(options: NetworkOptions = NetworkOptions()) -> Network:
    """The network with its weights.

    Args:
        options: which.

    Returns:
        The network; its classifier has no maps where Grad-CAM has nothing to weigh.

    Raises:
        ValueError: options that do not go together, weights that do not fit, names of another number of classes, or
            a model that does not take such pictures.
        FileNotFoundError: there is no such file, or the package with EfficientNet-Lite0's weights is missing.
    """
    return _of_imagenet(options) if options.model is None else _own(options, options.model)


def _of_imagenet(options: NetworkOptions) -> Network:
    own = {"--input-size": options.input_size, "--mean": options.mean, "--std": options.std}
    if given := [flag for flag, value in {**own, "--maps": options.maps}.items() if value is not None]:
        raise InputError(f"expected {given[0]} with --model, got it alone: {options.network} has its own")
    module: nn.Module
    if options.network == _LITE0:
        module, variables, _ = efficientnet_lite0(path=options.weights)
        path, space, title = "activation_last", EFFICIENTNET_LITE0, "EfficientNet-Lite0"
    else:
        if options.weights is None:
            raise InputError(
                f"expected --weights for {options.network}, got none: give torchvision's checkpoint "
                f"({options.network}-....pth or .safetensors)"
            )
        make, path = _TORCHVISION[options.network]
        module, space, title = make(), TORCHVISION, options.network
        variables, _ = models.load_pretrained(module, options.weights)
    maps, rest = models.split(module, path, train=False)

    def apply(variables: Any, x: jax.Array) -> Any:
        return module.apply(variables, x, train=False)

    return _with_names(title, Classifier(variables, apply, maps, rest), space, options, CLASS_NAMES)


def _own(options: NetworkOptions, place: str) -> Network:
    if options.network != _LITE0:
        raise InputError(f"expected --network or --model, got both: leave {options.network} out")
    size = 224 if options.input_size is None else options.input_size
    space = InputSpace(
        size, round(size * 8 / 7), mean=options.mean or (0.0, 0.0, 0.0), std=options.std or (1.0, 1.0, 1.0)
    )
    apply, variables, digest = load_model(place, options.weights)
    maps = rest = None
    if options.maps is not None:
        maps, rest = models.split(apply, options.maps, variables=variables, image_shape=(size, size, 3))
    classifier = Classifier(variables, apply, maps, rest)
    return _with_names(place, classifier, space, options, None, digest)


def _with_names(
    title: str,
    classifier: Classifier,
    space: InputSpace,
    options: NetworkOptions,
    names: tuple[str, ...] | None,
    digest: bytes = b"",
) -> Network:
    """The network with names of its classes, once it is seen to be one."""
    images = jax.ShapeDtypeStruct((2, space.size, space.size, 3), jnp.float32)
    try:
        scores = jax.eval_shape(classifier, images)
    except Exception as error:
        raise InputError(
            f"expected a model of images (N, {space.size}, {space.size}, 3), got from {title}: "
            f"{printable(error, 300)}: give --input-size, or a function of (variables, images)"
        ) from error
    if not hasattr(scores, "shape") or len(scores.shape) != 2 or scores.shape[0] != 2:
        raise InputError(
            f"expected scores (2, K) of 2 images from {title}, got {jax.tree.map(lambda x: x.shape, scores)}: return "
            "one array of scores"
        )
    count = scores.shape[1]
    if options.classes is not None:
        names = _read_names(options.classes)
        if len(names) != count:
            raise InputError(
                f"expected {count} names in {printable(options.classes)}, one a score of {title}, got {len(names)}: "
                "give a line a class"
            )
    if names is None:
        names = tuple(f"class {number}" for number in range(count))
    return Network(title, classifier, space, names, digest)


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"expected a text file with a class's name a line, got {printable(path)} ({printable(error)}): give one"
        ) from error
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(printable(line.strip()) for line in lines)
