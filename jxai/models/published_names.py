"""Names in published checkpoints for the modules of the ImageNet networks, one table for all of them.

torchvision's for VGG16, the ResNets, DenseNet121 and SqueezeNet 1.1; the release's for EfficientNet-Lite0. They
follow from the sizes of a network alone, so that narrower or shallower ones have names too.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import flax.linen as nn

from jxai.errors import InputError
from jxai.models.bottleneck import BottleneckResNet, ResNet50, ResNet101, ResNet152
from jxai.models.classifier import Classifier
from jxai.models.densenet import DenseNet, DenseNet121
from jxai.models.efficientnet import EfficientNet, EfficientNetLite0
from jxai.models.resnet import ResNet, ResNet18, ResNet34
from jxai.models.squeezenet import SqueezeNet
from jxai.models.vgg import VGG, VGG16

# What files are told apart as: name to the network.
NETWORKS: dict[str, nn.Module] = {
    "VGG16": VGG16(),
    "VGG16 with batch norm": VGG16(batch_norm=True),
    "ResNet18": Classifier(ResNet18(), 1000),
    "ResNet34": Classifier(ResNet34(), 1000),
    "ResNet50": ResNet50(),
    "ResNet101": ResNet101(),
    "ResNet152": ResNet152(),
    "DenseNet121": DenseNet121(),
    "SqueezeNet 1.1": SqueezeNet(),
    "EfficientNet-Lite0": EfficientNetLite0(),
}

_MOST_PARTS = 8  # of a published name: "features.denseblock1.denselayer1.norm1" has four

# torchvision's own files of DenseNets still say norm.1 for norm1, and so on.
_OLD = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])$")


def published_names(model: nn.Module) -> dict[str, str]:
    """The name that a checkpoint has for every module that holds variables.

    Args:
        model: one of the table's networks, of any sizes.

    Returns:
        Path of the Linen module, such as "block0/conv1", to what stands before ".weight".

    Raises:
        ValueError: the table has no such network.
    """
    for kind, names in _TABLE.items():
        if isinstance(model, kind) and (found := names(model)):
            return found
    raise InputError(
        f"expected one of {', '.join(NETWORKS)} (ResNet18 and ResNet34 inside of Classifier), got "
        f"{type(model).__name__}: use fill_variables with names of your own"
    )


def as_in_file(names: Mapping[str, str], tensors: Iterable[str]) -> dict[str, str]:
    """The names with the older spelling where the file has it.

    Args:
        names: as `published_names` gives them.
        tensors: names of the file's tensors.

    Returns:
        The same paths to the names as the file spells them.
    """
    spelled = {_today(name): name for name in _prefixes(tensors)}
    return {path: spelled.get(name, name) for path, name in names.items()}


def prefixes(names: Mapping[str, str], tensors: Iterable[str]) -> dict[str, int]:
    """What may stand before a network's names in a file: "module." of DataParallel, "state_dict.", and so on.

    Args:
        names: as `published_names` gives them.
        tensors: names of the file's tensors.

    Returns:
        The prefix, "" or with a dot at its end, to how many of the network's modules are found behind it.
    """
    wanted = set(names.values())
    found: dict[str, set[str]] = {}
    for name in map(_today, _prefixes(tensors)):
        parts = name.split(".")
        # The name may be read in several ways: of "layer1.0.conv1", "conv1" is a module too.
        for start in range(max(0, len(parts) - _MOST_PARTS), len(parts)):
            if (module := ".".join(parts[start:])) in wanted:
                prefix = "".join(f"{part}." for part in parts[:start])
                found.setdefault(prefix, set()).add(module)
    return {prefix: len(modules) for prefix, modules in found.items()}


def recognized(tensors: Iterable[str]) -> str | None:
    """Which network a file is of, by names alone.

    Args:
        tensors: names of the file's tensors.

    Returns:
        A key of `NETWORKS`, or None.
    """
    found = {_today(name) for name in _prefixes(tensors)}
    for network, model in NETWORKS.items():
        names = published_names(model)
        for prefix in prefixes(names, tensors):
            behind = {name.removeprefix(prefix) for name in found if name.startswith(prefix)}
            if behind == set(names.values()):
                return network
    return None


def _prefixes(tensors: Iterable[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in tensors}


def _today(name: str) -> str:
    return _OLD.sub(r"\1\2", name)


def _numbered(stage_sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(number among all, stage, number within the stage) of every block."""
    blocks = [(stage, block) for stage, size in enumerate(stage_sizes) for block in range(size)]
    return ((index, *block) for index, block in enumerate(blocks))


def _inside(ours: str, theirs: str, modules: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}/{inner}": f"{theirs}.{name}" for inner, name in modules.items()}


def _vgg(model: VGG) -> dict[str, str]:
    names, place = {}, 0  # of the next layer in `features`, which counts ReLUs and poolings too
    for index, _, block in _numbered(model.stage_sizes):
        place += 1 if index and not block else 0  # the pooling before the stage
        names[f"conv{index}"] = f"features.{place}"
        if model.batch_norm:
            names[f"bn{index}"] = f"features.{place + 1}"
        place += 3 if model.batch_norm else 2
    for layer in range(len(model.dense_widths)):
        names[f"dense{layer}"] = f"classifier.{3 * layer}"  # ReLU and dropout between
    return names | {"head": f"classifier.{3 * len(model.dense_widths)}"}


def _residual(model: ResNet | BottleneckResNet, *, convolutions: int, expansion: int) -> dict[str, str]:
    names, channels = {"conv1": "conv1", "bn1": "bn1"}, model.stem_width
    inside = {
        f"{kind}{number + 1}": f"{kind}{number + 1}"
        for kind in ("conv", "bn")
        for number in range(convolutions)
    }
    shortcut = {"shortcut": "downsample.0", "bn_shortcut": "downsample.1"}
    for index, stage, block in _numbered(model.stage_sizes):
        width = expansion * model.widths[stage]
        has_shortcut = width != channels or (stage > 0 and block == 0)
        modules = inside | shortcut if has_shortcut else inside
        names |= _inside(f"block{index}", f"layer{stage + 1}.{block}", modules)
        channels = width
    return names


def _classifier(model: Classifier) -> dict[str, str]:
    if not isinstance(model.encoder, ResNet):
        return {}
    encoder = _residual(model.encoder, convolutions=2, expansion=1)
    return {f"encoder/{ours}": theirs for ours, theirs in encoder.items()} | {"head": "fc"}


def _bottleneck(model: BottleneckResNet) -> dict[str, str]:
    return _residual(model, convolutions=3, expansion=model.expansion) | {"head": "fc"}


def _densenet(model: DenseNet) -> dict[str, str]:
    names = {"conv1": "features.conv0", "bn1": "features.norm0"}
    inside = {"bn1": "norm1", "conv1": "conv1", "bn2": "norm2", "conv2": "conv2"}
    for index, stage, layer in _numbered(model.stage_sizes):
        names |= _inside(f"layer{index}", f"features.denseblock{stage + 1}.denselayer{layer + 1}", inside)
    for stage in range(1, len(model.stage_sizes)):
        names[f"transition{stage}_bn"] = f"features.transition{stage}.norm"
        names[f"transition{stage}_conv"] = f"features.transition{stage}.conv"
    return names | {"bn_last": "features.norm5", "head": "classifier"}


def _squeezenet(model: SqueezeNet) -> dict[str, str]:
    names = {"conv1": "features.0"}
    inside = {"squeeze_conv": "squeeze", "expand1": "expand1x1", "expand3": "expand3x3"}
    for index, stage, _ in _numbered([len(stage) for stage in model.stages]):
        # The convolution and its ReLU come first, then a pooling before every stage.
        names |= _inside(f"fire{index}", f"features.{index + stage + 3}", inside)
    return names | {"head": "classifier.1"}  # dropout is 0


def _efficientnet(model: EfficientNet) -> dict[str, str]:
    if model.squeeze_excite or model.depth_factor != 1:
        return {}
    names = {
        "conv1": "_conv_stem",
        "bn1": "_bn0",
        "conv_last": "_conv_head",
        "bn_last": "_bn1",
        "head": "_fc",
    }
    expansion = {"conv_expand": "_expand_conv", "bn_expand": "_bn0"}
    inside = {
        "conv_depthwise": "_depthwise_conv",
        "bn_depthwise": "_bn1",
        "conv_project": "_project_conv",
        "bn_project": "_bn2",
    }
    for index, stage, _ in _numbered([stage.size for stage in model.stages]):
        modules = inside if model.stages[stage].expansion == 1 else expansion | inside
        names |= _inside(f"block{index}", f"_blocks.{index}", modules)
    return names


# Type to its names; no names where only some networks of the type were published.
_TABLE: dict[type[nn.Module], Callable[..., dict[str, str]]] = {
    VGG: _vgg,
    Classifier: _classifier,
    BottleneckResNet: _bottleneck,
    DenseNet: _densenet,
    SqueezeNet: _squeezenet,
    EfficientNet: _efficientnet,
}
