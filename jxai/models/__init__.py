"""Encoders from images to feature maps, as Linen modules that know nothing of any explanation method."""

from jxai.models.classifier import Classifier
from jxai.models.conv import Conv4, Conv4NP, Conv6, Conv6NP, ConvNet
from jxai.models.layers import max_pool_2x2
from jxai.models.registry import encoder, encoder_names
from jxai.models.resnet import ResNet, ResNet10, ResNet18, ResNet34, SimpleBlock

__all__ = [
    "Classifier",
    "Conv4",
    "Conv4NP",
    "Conv6",
    "Conv6NP",
    "ConvNet",
    "ResNet",
    "ResNet10",
    "ResNet18",
    "ResNet34",
    "SimpleBlock",
    "encoder",
    "encoder_names",
    "max_pool_2x2",
]
