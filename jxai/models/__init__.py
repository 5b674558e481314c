"""Encoders and classifiers of images, as Linen modules that know nothing of any explanation method."""

from jxai.models.bottleneck import BottleneckBlock, BottleneckResNet, ResNet50, ResNet101, ResNet152
from jxai.models.classifier import Classifier
from jxai.models.conv import Conv4, Conv4NP, Conv6, Conv6NP, ConvNet
from jxai.models.densenet import DenseLayer, DenseNet, DenseNet121
from jxai.models.efficientnet import EfficientNet, EfficientNetB0, EfficientNetLite0, MobileBlock, MobileStage
from jxai.models.focus import FocusNet
from jxai.models.huggingface import load_transformer
from jxai.models.layers import max_pool_2x2
from jxai.models.loaded import Loaded
from jxai.models.magika import Magika, byte_features
from jxai.models.packaged import focus, magika, minilm, smollm2
from jxai.models.pretrained import efficientnet_lite0, load_pretrained
from jxai.models.registry import encoder, encoder_names
from jxai.models.resnet import ResNet, ResNet10, ResNet18, ResNet34, SimpleBlock
from jxai.models.resnet12 import ResNet12
from jxai.models.split import split
from jxai.models.squeezenet import Fire, SqueezeNet
from jxai.models.transformers.block import TransformerBlock
from jxai.models.transformers.decoder import Decoder, DecoderBlock
from jxai.models.transformers.decoder_config import DecoderConfig
from jxai.models.transformers.encoder import Encoder, EncoderBlock, EncoderConfig
from jxai.models.transformers.gpt2 import GPT2, GPT2Config
from jxai.models.transformers.rope import RopeScaling
from jxai.models.transformers.vision import VisionTransformer
from jxai.models.vgg import VGG, VGG16
from jxai.models.weights import WeightsReport, fill_variables, read_weights

__all__ = [
    "GPT2",
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
    "Decoder",
    "DecoderBlock",
    "DecoderConfig",
    "DenseLayer",
    "DenseNet",
    "DenseNet121",
    "EfficientNet",
    "EfficientNetB0",
    "EfficientNetLite0",
    "Encoder",
    "EncoderBlock",
    "EncoderConfig",
    "Fire",
    "FocusNet",
    "GPT2Config",
    "Loaded",
    "Magika",
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
    "RopeScaling",
    "SimpleBlock",
    "SqueezeNet",
    "TransformerBlock",
    "VisionTransformer",
    "WeightsReport",
    "byte_features",
    "efficientnet_lite0",
    "encoder",
    "encoder_names",
    "fill_variables",
    "focus",
    "load_pretrained",
    "load_transformer",
    "magika",
    "max_pool_2x2",
    "minilm",
    "read_weights",
    "smollm2",
    "split",
]
