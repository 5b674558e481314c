"""State dicts as torchvision names and shapes them, written down by hand, with made-up values."""

import math
import zlib

import numpy as np


def norm(name, width):
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (width,) for leaf in leaves} | {f"{name}.num_batches_tracked": ()}


def dense(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def convolution(name, inputs, outputs, size):
    return {f"{name}.weight": (outputs, inputs, size, size)}


def convolution_with_bias(name, inputs, outputs, size):
    return convolution(name, inputs, outputs, size) | {f"{name}.bias": (outputs,)}


def vgg(*, cfg, side, dense_widths, classes, batch_norm=False):
    """`cfg` as in torchvision: widths, and "M" where the maps are pooled."""
    shapes, channels, place = {}, 3, 0
    for width in cfg:
        if width == "M":
            place += 1
            continue
        shapes |= convolution_with_bias(f"features.{place}", channels, width, 3)
        if batch_norm:
            shapes |= norm(f"features.{place + 1}", width)
        channels, place = width, place + 2 + batch_norm
    units = channels * side * side
    for layer, width in enumerate((*dense_widths, classes)):
        shapes |= dense(f"classifier.{3 * layer}", units, width)
        units = width
    return shapes


def resnet(*, sizes, widths, stem, classes, kernels, expansion):
    """`kernels` of a block's convolutions: (3, 3) or (1, 3, 1)."""
    shapes = convolution("conv1", 3, stem, 7) | norm("bn1", stem)
    channels = stem
    for stage, (size, width) in enumerate(zip(sizes, widths, strict=True), start=1):
        for block in range(size):
            name, inputs = f"layer{stage}.{block}", channels
            for number, kernel in enumerate(kernels, start=1):
                outputs = width * expansion if number == len(kernels) else width
                shapes |= convolution(f"{name}.conv{number}", inputs, outputs, kernel)
                shapes |= norm(f"{name}.bn{number}", outputs)
                inputs = outputs
            if block == 0 and (stage > 1 or channels != outputs):
                shapes |= convolution(f"{name}.downsample.0", channels, outputs, 1)
                shapes |= norm(f"{name}.downsample.1", outputs)
            channels = outputs
    return shapes | dense("fc", channels, classes)


def densenet(*, sizes, growth, bottleneck, stem, classes):
    shapes = convolution("features.conv0", 3, stem, 7) | norm("features.norm0", stem)
    channels = stem
    for stage, size in enumerate(sizes, start=1):
        for layer in range(1, size + 1):
            name = f"features.denseblock{stage}.denselayer{layer}"
            shapes |= norm(f"{name}.norm1", channels) | norm(f"{name}.norm2", bottleneck * growth)
            shapes |= convolution(f"{name}.conv1", channels, bottleneck * growth, 1)
            shapes |= convolution(f"{name}.conv2", bottleneck * growth, growth, 3)
            channels += growth
        if stage < len(sizes):
            shapes |= norm(f"features.transition{stage}.norm", channels)
            shapes |= convolution(f"features.transition{stage}.conv", channels, channels // 2, 1)
            channels //= 2
    return shapes | norm("features.norm5", channels) | dense("classifier", channels, classes)


def squeezenet(*, places, stem, classes):
    """`places`: place in `features` to (squeeze, expand)."""
    shapes = convolution_with_bias("features.0", 3, stem, 3)
    channels = stem
    for place, (squeeze, expand) in places.items():
        shapes |= convolution_with_bias(f"features.{place}.squeeze", channels, squeeze, 1)
        shapes |= convolution_with_bias(f"features.{place}.expand1x1", squeeze, expand, 1)
        shapes |= convolution_with_bias(f"features.{place}.expand3x3", squeeze, expand, 3)
        channels = 2 * expand
    return shapes | convolution_with_bias("classifier.1", channels, classes, 1)


def residual(*sizes, kernels, expansion):
    return resnet(
        sizes=sizes, widths=(64, 128, 256, 512), stem=64, classes=1000, kernels=kernels, expansion=expansion
    )


BASIC, BOTTLENECK = {"kernels": (3, 3), "expansion": 1}, {"kernels": (1, 3, 1), "expansion": 4}
_VGG16_CFG = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
_VGG16 = {"cfg": _VGG16_CFG, "side": 7, "dense_widths": (4096, 4096), "classes": 1000}
_FIRES = dict(
    zip((3, 4, 6, 7, 9, 10, 11, 12), ((n, 4 * n) for n in (16, 16, 32, 32, 48, 48, 64, 64)), strict=True)
)

# Our names to the tensors of torchvision's networks.
FILES = {
    "VGG16": vgg(**_VGG16),
    "VGG16 with batch norm": vgg(**_VGG16, batch_norm=True),
    "ResNet18": residual(2, 2, 2, 2, **BASIC),
    "ResNet34": residual(3, 4, 6, 3, **BASIC),
    "ResNet50": residual(3, 4, 6, 3, **BOTTLENECK),
    "ResNet101": residual(3, 4, 23, 3, **BOTTLENECK),
    "ResNet152": residual(3, 8, 36, 3, **BOTTLENECK),
    "DenseNet121": densenet(sizes=(6, 12, 24, 16), growth=32, bottleneck=4, stem=64, classes=1000),
    "SqueezeNet 1.1": squeezenet(places=_FIRES, stem=64, classes=1000),
}

# The same programs, narrow.
_STAGES = {"sizes": (1, 2), "widths": (4, 6), "stem": 5, "classes": 5}
SMALL_FILES = {
    "VGG": vgg(cfg=(4, "M", 6, 6, "M"), side=8, dense_widths=(8, 7), classes=5),
    "VGG with batch norm": vgg(
        cfg=(4, "M", 6, 6, "M"), side=8, dense_widths=(8,), classes=5, batch_norm=True
    ),
    "basic": resnet(**_STAGES, **BASIC),
    "bottleneck": resnet(**_STAGES, **BOTTLENECK),
    "DenseNet": densenet(sizes=(2, 1), growth=4, bottleneck=2, stem=6, classes=5),
    "SqueezeNet": squeezenet(places={3: (3, 4), 4: (3, 5), 6: (4, 6)}, stem=6, classes=5),
}


def made_up(name, shape):
    """Uniform values, the same wherever this runs: kernels by fan-in, variances and scales around 1."""
    if shape == ():
        return np.array(7)
    drawn = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).random(shape)
    if len(shape) > 1:
        return ((2 * drawn - 1) * math.sqrt(6 / math.prod(shape[1:]))).astype(np.float32)
    if name.endswith(("bias", "running_mean")):
        return (0.4 * drawn - 0.2).astype(np.float32)
    return (0.6 + 0.7 * drawn).astype(np.float32)


def tensors(shapes):
    return {name: made_up(name, shape) for name, shape in shapes.items()}


def images(side):
    drawn = np.random.Generator(np.random.PCG64(0)).random((2, side, side, 3)) * 2 - 1
    drawn[1, :, : side // 2] += np.linspace(-3, 3, side)[
        :, None, None
    ]  # so that the two differ on average too
    return drawn.astype(np.float32)
