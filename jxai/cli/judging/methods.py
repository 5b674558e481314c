"""The methods that `jxai judge` compares: of the registry, two more, and a control that explains nothing."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.typing import ArrayLike

from jxai import attribution
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0, InputSpace
from jxai.cli.explaining.methods import Classifier, Method, Settings, methods
from jxai.metrics.evaluation import CONTROL, random_heatmaps

REFERENCE = "integrated-gradients"

# Score-CAM is not here: it scores the picture once a channel of the maps, 1280 times in EfficientNet-Lite0.
_OF_REGISTRY = (
    "gradient",
    "input-x-gradient",
    REFERENCE,
    "blur-ig",
    "guided-ig",
    "deep-lift",
    "expected-gradients",
    "smooth-grad",
    "smooth-taylor",
    "occlusion",
    "feature-ablation",
    "shapley-sampling",
    "kernel-shap",
    "lime",
    "rise",
    "grad-cam",
    "grad-cam-plus-plus",
    "layer-cam",
    "eigen-cam",
    "guided-grad-cam",
    "layer-conductance",
    "epsilon-plus",
    "epsilon-plus-flat",
    "epsilon-gamma-box",
    "epsilon-alpha2-beta1",
    "lrp-0",
    "excitation-backprop",
    "guided-backprop",
)
# What they sum to is a change from no one baseline.
_NO_BASELINE = ("expected-gradients", "blur-ig")


@dataclasses.dataclass(frozen=True)
class Judged:
    """A method, and what the sum of its attributions is to be.

    Attributes:
        method: how it explains.
        adds_up: whether the sum is to be the score, or its change from the baseline.
        baseline: from the method's key and the images to x₀, where there is one.
    """

    method: Method
    adds_up: bool
    baseline: Callable[[jax.Array, jax.Array], ArrayLike] | None = None


def judged(
    settings: Settings, *, references: Any, space: InputSpace = EFFICIENTNET_LITE0
) -> Mapping[str, Judged]:
    """Every method that is compared, by name, in the order of the tables.

    Args:
        settings: numbers of roots and the like.
        references: images (B, H, W, C) that expected gradients starts from.
        space: the network's inputs.

    Returns:
        Name to method.
    """
    known = methods(settings, space=space, references=references)
    starts = {
        **dict.fromkeys((REFERENCE, "guided-ig", "deep-lift"), space.low),
        **dict.fromkeys(("kernel-shap", "shapley-sampling"), space.gray),
    }

    def of(name: str) -> Judged:
        adds_up = known[name].adds_up and name not in _NO_BASELINE
        return Judged(known[name], adds_up, (lambda key, x: starts[name]) if name in starts else None)

    def noise(key: jax.Array, x: jax.Array) -> jax.Array:
        return attribution.uniform_baselines(key, x, count=1, low=space.low, high=space.high)[0]

    def from_noise(f: Classifier, key: jax.Array, x: jax.Array, target: jax.Array) -> jax.Array:
        rows = {"num_steps": settings.num_steps, "chunk_size": settings.chunk_size}
        return attribution.integrated_gradients(f, x, target, baseline=noise(key, x), **rows)

    def variance(f: Classifier, key: jax.Array, x: jax.Array, target: jax.Array) -> jax.Array:
        return attribution.smooth_grad(
            f,
            key,
            x,
            target,
            noise_scale=settings.noise_share,
            num_roots=settings.num_roots,
            statistic="variance",
            chunk_size=settings.chunk_size,
        )

    after = {
        REFERENCE: Judged(Method("ig-noise", "IG, noise", from_noise, True), True, noise),
        "smooth-grad": Judged(Method("var-grad", "VarGrad", variance, False), False),
        "guided-backprop": Judged(Method(CONTROL, "random (control)", random_heatmaps, False), False),
    }
    ordered = {}
    for name in _OF_REGISTRY:
        ordered[name] = of(name)
        if name in after:
            ordered[after[name].method.name] = after[name]
    black = dataclasses.replace(known[REFERENCE], label="IG, black")
    return ordered | {REFERENCE: dataclasses.replace(ordered[REFERENCE], method=black)}
