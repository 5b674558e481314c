"""Encoders and classifiers of images, as Linen modules that know nothing of any explanation method."""

from jxai.models.bottleneck import BottleneckBlock, BottleneckResNet, ResNet50, ResNet101, ResNet152
from jxai.models.classifier import Classifier
from jxai.models.conv import Conv4, Conv4NP, Conv6, Conv6NP, ConvNet
from jxai.models.densenet import DenseLayer, DenseNet, DenseNet121
from jxai.models.efficientnet import EfficientNet, EfficientNetB0, EfficientNetLite0, MobileBlock, MobileStage
from jxai.models.layers import max_pool_2x2
from jxai.models.pretrained import efficientnet_lite0, load_pretrained
from jxai.models.registry import encoder, encoder_names
from jxai.models.resnet import ResNet, ResNet10, ResNet18, ResNet34, SimpleBlock
from jxai.models.resnet12 import ResNet12
from jxai.models.split import split
from jxai.models.squeezenet import Fire, SqueezeNet
from jxai.models.vgg import VGG, VGG16
from jxai.models.vit import TransformerBlock, VisionTransformer
from jxai.models.weights import WeightsReport, fill_variables, read_weights

__all__ = [
    "VGG",
    "VGG16",
    "BottleneckBlock",
    "BottleneckResNet",
    "Classifier",
    "Conv4",
    "Conv4NP",
    "Conv6",
    "Conv6NP",
    "ConvNet",
    "DenseLayer",
    "DenseNet",
    "DenseNet121",
    "EfficientNet",
    "EfficientNetB0",
    "EfficientNetLite0",
    "Fire",
    "MobileBlock",
    "MobileStage",
    "ResNet",
    "ResNet10",
    "ResNet12",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "SimpleBlock",
    "SqueezeNet",
    "TransformerBlock",
    "VisionTransformer",
    "WeightsReport",
    "efficientnet_lite0",
    "encoder",
    "encoder_names",
    "fill_variables",
    "load_pretrained",
    "max_pool_2x2",
    "read_weights",
    "split",
]
