"""PyTorch's side of the benchmarks: ResNet18 and VGG16 with a JAX model's weights, explained by zennit and captum.

Needs torch, zennit and captum, which jxai does not; whoever needs them imports this module, no other does. zennit
imports torchvision for two classes and installs it with its own torch, so install it without its dependencies:

    pip install torch && pip install --no-deps zennit captum && pip install click matplotlib packaging tqdm

The networks are torchvision's, module by module (without VGG16's dropout and its pooling from 7x7 to 7x7), because
zennit finds its rules by the modules' classes and its batch norms by the modules' order. Tensors here are
channels-first; `to_torch` and `to_numpy` change sides.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from jxai.errors import InputError

CompositeName = Literal["EpsilonPlus", "EpsilonAlpha2Beta1", "EpsilonGammaBox"]
Bound = float | Sequence[float] | np.ndarray

# Convolutions of VGG16 by stage, each stage ended by max pooling.
_VGG16_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, summed with their input; attributes named as torchvision names them."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        # In the order of the forward pass: zennit merges a batch norm with the module registered before it.
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Output of the block; zennit puts a forward of its own in this one's place, with a module for the sum."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    """ResNet18 for ImageNet: 7x7 stem of stride 2, 3x3 max pooling, four stages of two blocks, global mean, dense."""

    def __init__(self, num_classes: int = 1000, widths: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        blocks, inputs = [], 64
        for stage, width in enumerate(widths):
            blocks += [BasicBlock(inputs, width, 1 if stage == 0 else 2), BasicBlock(width, width, 1)]
            inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (N, num_classes) of images (N, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.blocks(x)), 1))


class VGG16(nn.Module):
    """VGG16 without batch norm: thirteen convolutions and three dense layers."""

    def __init__(self, num_classes: int = 1000, image_size: int = 224, dense_width: int = 4096) -> None:
        super().__init__()
        layers, inputs = [], 3
        for stage in _VGG16_WIDTHS:
            for width in stage:
                layers += [nn.Conv2d(inputs, width, 3, 1, 1), nn.ReLU(inplace=True)]
                inputs = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * (image_size // 32) ** 2, dense_width),
            nn.ReLU(inplace=True),
            nn.Linear(dense_width, dense_width),
            nn.ReLU(inplace=True),
            nn.Linear(dense_width, num_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (N, num_classes) of images (N, 3, H, W)."""
        return self.classifier(torch.flatten(self.features(x), 1))


def to_torch(maps: Any) -> torch.Tensor:
    """Maps (N, H, W, C), of NumPy or JAX, as a tensor (N, C, H, W) of its own memory."""
    return torch.from_numpy(np.array(maps, np.float32).transpose(0, 3, 1, 2).copy())


def to_numpy(maps: torch.Tensor) -> np.ndarray:
    """A tensor (N, C, H, W) as an array (N, H, W, C)."""
    return maps.detach().cpu().numpy().transpose(0, 2, 3, 1)


def resnet18(variables: Mapping[str, Any]) -> ResNet18:
    """ResNet18 with the weights and the running statistics of the JAX model.

    Args:
        variables: those of `jxai.models.Classifier(jxai.models.ResNet18(stem="224"), num_classes)`.

    Returns:
        The network in evaluation mode.
    """
    params, statistics = variables["params"], variables["batch_stats"]["encoder"]
    encoder, head = params["encoder"], params["head"]
    widths = [encoder[f"block{index}"]["conv2"]["kernel"].shape[-1] for index in range(0, 8, 2)]
    model = ResNet18(head["bias"].shape[0], widths)
    _load_conv(model.conv1, encoder["conv1"])
    _load_batch_norm(model.bn1, encoder["bn1"], statistics["bn1"])
    blocks: Any = model.blocks
    for index, block in enumerate(blocks):
        theirs, running = encoder[f"block{index}"], statistics[f"block{index}"]
        for layer in ("1", "2"):
            _load_conv(getattr(block, f"conv{layer}"), theirs[f"conv{layer}"])
            _load_batch_norm(getattr(block, f"bn{layer}"), theirs[f"bn{layer}"], running[f"bn{layer}"])
        if block.downsample is not None:
            _load_conv(block.downsample[0], theirs["shortcut"])
            _load_batch_norm(block.downsample[1], theirs["bn_shortcut"], running["bn_shortcut"])
    _load_dense(model.fc, head)
    return model.eval()


def vgg16(params: Mapping[str, Any]) -> VGG16:
    """VGG16 with the weights of a JAX model.

    Args:
        params: conv0 to conv12 and the dense layers, fc0 to fc2 or (`jxai.models.VGG16`) dense0, dense1 and head,
            each with kernel and bias. The first dense kernel's rows are in the order of (row, column, channel).

    Returns:
        The network in evaluation mode, for images of the one size that the first dense layer fits.
    """
    names = ("fc0", "fc1", "fc2") if "fc0" in params else ("dense0", "dense1", "head")
    first = np.asarray(params[names[0]]["kernel"])
    side = round((first.shape[0] / _VGG16_WIDTHS[-1][-1]) ** 0.5)
    model = VGG16(params[names[2]]["bias"].shape[0], 32 * side, first.shape[1])
    convolutions = [module for module in model.features if isinstance(module, nn.Conv2d)]
    for index, module in enumerate(convolutions):
        _load_conv(module, params[f"conv{index}"])
    # PyTorch flattens (channel, row, column).
    rows = first.reshape(side, side, -1, first.shape[1]).transpose(2, 0, 1, 3).reshape(first.shape)
    dense = [module for module in model.classifier if isinstance(module, nn.Linear)]
    for module, name in zip(dense, names, strict=True):
        layer = params[name]
        _load_dense(module, {"kernel": rows, "bias": layer["bias"]} if name == names[0] else layer)
    return model.eval()


def _copy(parameter: torch.Tensor, value: Any) -> None:
    value = torch.from_numpy(np.array(value, np.float32))
    if parameter.shape != value.shape:
        raise InputError(
            f"expected weights of shape {tuple(parameter.shape)}, got {tuple(value.shape)}: "
            "give the variables of the same architecture"
        )
    with torch.no_grad():
        parameter.copy_(value)


def _load_conv(module: nn.Conv2d, theirs: Mapping[str, Any]) -> None:
    _copy(module.weight, np.asarray(theirs["kernel"]).transpose(3, 2, 0, 1))
    if module.bias is not None:
        _copy(module.bias, theirs["bias"])


def _load_dense(module: nn.Linear, theirs: Mapping[str, Any]) -> None:
    _copy(module.weight, np.asarray(theirs["kernel"]).T)
    _copy(module.bias, theirs["bias"])


def _load_batch_norm(module: nn.BatchNorm2d, theirs: Mapping[str, Any], running: Mapping[str, Any]) -> None:
    values = {"weight": theirs["scale"], "bias": theirs["bias"]}
    values |= {"running_mean": running["mean"], "running_var": running["var"]}
    for name, value in values.items():
        _copy(getattr(module, name), value)


def torch_gradient(model: nn.Module, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Gradient of the targets' scores with respect to the images, by autograd.

    Args:
        model: the network.
        x: images (N, 3, H, W).
        target: a class of each image, (N,), of integers.

    Returns:
        The gradient, (N, 3, H, W).
    """
    x = x.detach().requires_grad_()
    scores = model(x)
    return torch.autograd.grad(scores.gather(1, target[:, None]).sum(), x)[0]


def captum_integrated_gradients(
    model: nn.Module, x: torch.Tensor, target: torch.Tensor, *, num_steps: int, batch: int
) -> torch.Tensor:
    """Integrated Gradients from black by captum, with the right Riemann sum.

    Args:
        model: the network, in evaluation mode.
        x: images (N, 3, H, W).
        target: a class of each image, (N,), of integers.
        num_steps: gradients an image.
        batch: how many inputs are in flight.

    Returns:
        The attributions, (N, 3, H, W).
    """
    method = importlib.import_module("captum.attr").IntegratedGradients(model)
    return method.attribute(
        x, target=target, n_steps=num_steps, method="riemann_right", internal_batch_size=max(batch, len(x))
    )


def captum_smooth_grad(
    model: nn.Module, x: torch.Tensor, target: torch.Tensor, *, deviation: float, num_roots: int, batch: int
) -> torch.Tensor:
    """SmoothGrad by captum's noise tunnel: the mean gradient, with its sign, at noisy copies.

    Args:
        model: the network, in evaluation mode.
        x: images (N, 3, H, W).
        target: a class of each image, (N,), of integers.
        deviation: the noise's standard deviation in the units of `x`.
        num_roots: gradients an image.
        batch: how many inputs are in flight.

    Returns:
        The mean gradient, (N, 3, H, W).
    """
    captum = importlib.import_module("captum.attr")
    return captum.NoiseTunnel(captum.Saliency(model)).attribute(
        x,
        target=target,
        abs=False,
        nt_samples=num_roots,
        nt_samples_batch_size=max(1, batch // len(x)),
        stdevs=deviation,
    )


def captum_smooth_taylor(
    model: nn.Module, x: torch.Tensor, target: torch.Tensor, *, deviation: float, num_roots: int, batch: int
) -> torch.Tensor:
    """SmoothTaylor by captum's noise tunnel: the mean of a root's gradient times the way from it to the image.

    Args:
        model: the network, in evaluation mode.
        x: images (N, 3, H, W).
        target: a class of each image, (N,), of integers.
        deviation: the noise's standard deviation in the units of `x`.
        num_roots: gradients an image.
        batch: how many inputs are in flight.

    Returns:
        The mean term, (N, 3, H, W).
    """
    captum = importlib.import_module("captum.attr")

    def attribute(term: Any, inputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        # The tunnel has an image's noisy copies next to one another.
        origin = x.repeat_interleave(len(inputs) // len(x), 0)
        return (origin - inputs) * captum.Saliency.attribute(term, inputs, target=target, abs=False)

    own: Any = attribute
    own.__wrapped__ = attribute  # which the tunnel calls, so that captum's logging wraps nothing twice
    term = type("Term", (captum.Saliency,), {"attribute": own})
    return captum.NoiseTunnel(term(model)).attribute(
        x,
        target=target,
        nt_samples=num_roots,
        nt_samples_batch_size=max(1, batch // len(x)),
        stdevs=deviation,
    )


def zennit_relevance(
    model: nn.Module,
    composite_name: CompositeName,
    x: torch.Tensor,
    target: torch.Tensor,
    *,
    low: Bound | None = None,
    high: Bound | None = None,
) -> torch.Tensor:
    """Relevance of the images for the targets' scores, by a composite of zennit with its default numbers.

    The relevance at the top is the target's score. Each call registers the composite anew, as zennit does when its
    attributor is called: the batch norms are merged before and restored after. So one model serves one call at a
    time.

    Args:
        model: the network, in evaluation mode.
        composite_name: the composite's class in `zennit.composites`.
        x: images (N, 3, H, W).
        target: a class of each image, (N,), of integers.
        low: least value of a pixel, for EpsilonGammaBox, one for all channels or one for each.
        high: greatest value of a pixel, likewise.

    Returns:
        The relevance, (N, 3, H, W).

    Raises:
        ValueError: if the composite needs bounds and there are none, or the other way round.
    """
    zennit = import_zennit()
    if composite_name == "EpsilonGammaBox":
        if low is None or high is None:
            raise InputError("expected low and high for EpsilonGammaBox, got none: give the pixels' bounds")
        bounds = {"low": _bound(low).to(x.device), "high": _bound(high).to(x.device)}
    elif low is not None or high is not None:
        raise InputError(f"expected no bounds for {composite_name}, got low or high: leave them out")
    else:
        bounds = {}
    # zennit's ResNetCanonizer, but for the blocks of this file instead of torchvision's.
    canonizers = [zennit.canonizers.SequentialMergeBatchNorm(), zennit.canonizers.AttributeCanonizer(summed)]
    composite = getattr(zennit.composites, composite_name)(canonizers=canonizers, **bounds)

    def top(scores: torch.Tensor) -> torch.Tensor:
        return scores.detach() * nn.functional.one_hot(target, scores.shape[1])

    with zennit.attribution.Gradient(model, composite) as attributor:
        # What zennit merged it leaves with epsilon zero, which PyTorch refuses on CUDA from 2.11 on; 1 + 1e-12 rounds
        # to the 1 that is meant.
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d) and module.eps == 0:
                module.eps = 1e-12
        return attributor(x.detach(), top)[1]


def _bound(value: Bound) -> torch.Tensor:
    bound = torch.as_tensor(np.array(value, np.float32))
    return bound.reshape(1, -1, 1, 1) if bound.ndim == 1 else bound


def summed(name: str, module: nn.Module) -> dict[str, Any] | None:
    """What zennit's canonizer puts into a residual block: a module that sums, and a forward pass that uses it."""
    if not isinstance(module, BasicBlock):
        return None
    zennit = import_zennit()
    forward = zennit.torchvision.ResNetBasicBlockCanonizer.forward
    return {"forward": forward.__get__(module), "canonizer_sum": zennit.layer.Sum()}


def import_zennit() -> types.ModuleType:
    """Import zennit, whose only use of torchvision is to name the classes of its residual blocks."""
    if "zennit" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return importlib.import_module("zennit")
    names = ("torchvision", "torchvision.models", "torchvision.models.resnet")
    stubs = {name: types.ModuleType(name) for name in names}
    for block in ("Bottleneck", "BasicBlock"):
        setattr(stubs[names[-1]], block, type(block, (nn.Module,), {}))
    sys.modules.update(stubs)
    try:
        return importlib.import_module("zennit")
    finally:  # nobody else shall take the stubs for torchvision
        for name in names:
            del sys.modules[name]
