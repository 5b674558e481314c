"""Every method that explains a photograph, by name: what the command `jxai explain` and the tables choose from."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jxai import attribution, lrp, metrics
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0, InputSpace
from jxai.errors import InputError

# What weighs or takes apart the maps that `Classifier.maps` gives.
OF_MAPS = (
    "grad-cam",
    "grad-cam-plus-plus",
    "layer-cam",
    "score-cam",
    "eigen-cam",
    "guided-grad-cam",
    "layer-conductance",
)

# A composite's name on the command line, and its label in pictures.
_NAMES = {
    "lrp-0": "LRP-0",
    "lrp-epsilon": "ε = 0.25",
    "lrp-gamma": "γ = 0.25",
    "epsilon-plus": "EpsilonPlus",
    "epsilon-plus-flat": "EpsilonPlusFlat",
    "w2-epsilon-plus": "w² + EpsilonPlus",
    "epsilon-gamma-box": "EpsilonGammaBox",
    "epsilon-alpha2-beta1": "EpsilonAlpha2Beta1",
    "epsilon-alpha2-beta1-flat": "EpsilonAlpha2Beta1Flat",
    "excitation-backprop": "ExcitationBackprop",
    "guided-backprop": "GuidedBackprop",
    "deconvnet": "Deconvnet",
}


def _everywhere(rule: lrp.Rule) -> lrp.Composite:
    return lrp.Composite(((lrp.Kind.CONVOLUTION, rule), (lrp.Kind.DENSE, rule)))


def composites(space: InputSpace = EFFICIENTNET_LITE0) -> dict[str, lrp.Composite]:
    """Every composite by its label.

    Args:
        space: the network's inputs, whose range z^B takes.

    Returns:
        Label to composite.
    """
    return {
        "LRP-0": _everywhere(lrp.Epsilon(1e-6)),
        "ε = 0.25": _everywhere(lrp.Epsilon(0.25)),
        "γ = 0.25": _everywhere(lrp.Gamma(0.25)),
        "EpsilonPlus": lrp.EpsilonPlus(),
        "EpsilonPlusFlat": lrp.EpsilonPlusFlat(),
        "w² + EpsilonPlus": lrp.Composite(((lrp.first, lrp.WSquare()),)) | lrp.EpsilonPlus(),
        "EpsilonGammaBox": lrp.EpsilonGammaBox(low=space.low, high=space.high),
        "EpsilonAlpha2Beta1": lrp.EpsilonAlpha2Beta1(),
        "EpsilonAlpha2Beta1Flat": lrp.EpsilonAlpha2Beta1Flat(),
        "ExcitationBackprop": lrp.ExcitationBackprop(),
        "GuidedBackprop": lrp.GuidedBackprop(),
        "Deconvnet": lrp.Deconvnet(),
    }


@flax.struct.dataclass
class Classifier:
    """A network with its variables, from images to scores; an argument of compiled functions.

    Attributes:
        variables: of the network.
        apply: from variables and images (N, H, W, C) to scores (N, K).
        maps: from variables and images to the maps that Grad-CAM weighs, (N, h, w, K'); None where none are known.
        rest: from variables and those maps to the scores.
    """

    variables: Any
    apply: Callable[[Any, jax.Array], jax.Array] = flax.struct.field(pytree_node=False)
    maps: Callable[[Any, jax.Array], jax.Array] | None = flax.struct.field(pytree_node=False)
    rest: Callable[[Any, jax.Array], jax.Array] | None = flax.struct.field(pytree_node=False)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Scores (N, K) of images (N, H, W, C)."""
        return self.apply(self.variables, x)

    def features(self, x: jax.Array) -> jax.Array:
        """Maps (N, h, w, K') of images (N, H, W, C)."""
        assert self.maps is not None
        return self.maps(self.variables, x)

    def head(self, maps: jax.Array) -> jax.Array:
        """Scores (N, K) of maps (N, h, w, K')."""
        assert self.rest is not None
        return self.rest(self.variables, maps)


Explain = Callable[[Classifier, jax.Array, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to explain a batch of images.

    Attributes:
        name: on the command line and in files.
        label: in pictures.
        explain: from the classifier, a key, images (N, H, W, C) and targets (N,) to attributions (N, H, W, C), or
            (N, H, W, 1) where a pixel has one; under `jax.jit`.
        adds_up: whether the attributions are shares of the score, so that their sum may be compared with it.
    """

    name: str
    label: str
    explain: Explain
    adds_up: bool


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much each method computes, and how much noise it adds."""

    num_roots: int = 50
    """Roots of SmoothTaylor (the paper has 150), noisy copies of SmoothGrad."""
    noise_scale: float = 0.225
    """SmoothTaylor's σ in 128 gray levels of 255: 29 of them, as the paper's 0.5 is in its own unit."""
    noise_share: float = 0.15
    """SmoothGrad's σ as a share of the picture's range."""
    num_steps: int = 50
    """Of Integrated Gradients, from a black picture."""
    num_samples: int = 100
    """Of expected gradients."""
    num_masks: int = 500
    """Of RISE."""
    num_coalitions: int = 200
    """Of squares that are there, of KernelSHAP and LIME."""
    num_orders: int = 5
    """In which squares appear, of Shapley value sampling."""
    window: int = 32
    """Side of the square that occlusion covers with gray, in pixels; and of the squares of a grid that are features
    of ablation, KernelSHAP, LIME and Shapley value sampling."""
    stride: int = 16
    """From one such square to the next."""
    chunk_size: int | None = None
    """Network inputs in flight; by default 16 on a CPU, 256 elsewhere."""


def methods(
    settings: Settings = Settings(),
    *,
    space: InputSpace = EFFICIENTNET_LITE0,
    references: Any = None,
    mesh: Mesh | None = None,
) -> dict[str, Method]:
    """Every method by its name.

    Args:
        settings: numbers of roots and the like.
        space: the network's inputs.
        references: images (B, H, W, C) of the data, which expected gradients starts from; None where it is not used.
        mesh: devices to spread the work over: the inputs in flight, or where there is one an image, the images.

    Returns:
        Name to method.
    """
    rows: dict[str, Any] = {"chunk_size": settings.chunk_size, "mesh": mesh}
    black: dict[str, Any] = {"baseline": space.low, "num_steps": settings.num_steps, **rows}
    roots: dict[str, Any] = {"num_roots": settings.num_roots, **rows}
    noisy: dict[str, Any] = {"noise_scale": settings.noise_share, **roots}
    around: dict[str, Any] = {"noise_scale": settings.noise_scale * space.gray_levels, **roots}
    square: dict[str, Any] = {
        "baseline": space.gray,
        "window": settings.window,
        "stride": settings.stride,
        **rows,
    }
    drawn: dict[str, Any] = {"num_samples": settings.num_samples, **rows}

    def squares(x: jax.Array) -> dict[str, Any]:
        # Known, also while JAX traces.
        grid = np.asarray(metrics.grid_segments(x.shape[1], x.shape[2], patch_size=settings.window))
        return {"feature_mask": grid[..., None], "baseline": space.gray, **rows}

    def expected_gradients(f: Classifier, key: jax.Array, x: jax.Array, target: jax.Array) -> jax.Array:
        if references is None:
            raise InputError("expected references for expected gradients, got none: give some pictures")
        return attribution.expected_gradients(f, key, x, target, references=references, **drawn)

    def one_pass(explain: Callable[[Classifier, jax.Array, jax.Array], jax.Array]) -> Explain:
        return lambda f, key, x, target: explain(f, _spread(x, mesh), _spread(target, mesh))

    def of_maps(explain: Callable[..., jax.Array]) -> Explain:
        return one_pass(lambda f, x, target: explain(f.features, f.head, x, target))

    def conducted(f: Classifier, key: jax.Array, x: jax.Array, target: jax.Array) -> jax.Array:
        path: dict[str, Any] = {"baseline": space.low, "num_steps": settings.num_steps, **rows}
        maps = attribution.conductance(f.features, f.head, x, target, **path).sum(axis=-1, keepdims=True)
        return jax.image.resize(maps, (*x.shape[:3], 1), "bilinear")

    def propagate(composite: lrp.Composite) -> Explain:
        return one_pass(lambda f, x, target: lrp.relevance(f, x, target, composite=composite))

    guided = functools.partial(lrp.relevance, composite=lrp.GuidedBackprop())
    found = [
        Method("gradient", "gradient", one_pass(attribution.gradient), False),
        Method("input-x-gradient", "gradient × input", one_pass(attribution.input_x_gradient), True),
        Method(
            "integrated-gradients",
            "Integrated Gradients",
            lambda f, key, x, target: attribution.integrated_gradients(f, x, target, **black),
            True,
        ),
        Method(
            "smooth-grad",
            "SmoothGrad",
            lambda f, key, x, target: attribution.smooth_grad(f, key, x, target, **noisy),
            False,
        ),
        Method(
            "smooth-taylor",
            "SmoothTaylor",
            lambda f, key, x, target: attribution.smooth_taylor(f, key, x, target, **around),
            False,
        ),
        Method("expected-gradients", "expected gradients", expected_gradients, True),
        Method(
            "occlusion",
            "occlusion",
            lambda f, key, x, target: attribution.occlusion(f, x, target, **square),
            False,
        ),
        Method(
            "blur-ig",
            "Blur IG",
            lambda f, key, x, target: attribution.blur_ig(f, x, target, num_steps=settings.num_steps, **rows),
            True,
        ),
        Method(
            "guided-ig",
            "Guided IG",
            lambda f, key, x, target: attribution.guided_ig(f, x, target, **black),
            True,
        ),
        Method(
            "deep-lift",
            "DeepLIFT",
            lambda f, key, x, target: attribution.deep_lift(f, x, target, baseline=space.low, **rows),
            True,
        ),
        Method(
            "feature-ablation",
            "ablation",
            lambda f, key, x, target: attribution.feature_ablation(f, x, target, **squares(x)),
            False,
        ),
        Method(
            "shapley-sampling",
            "Shapley sampling",
            lambda f, key, x, target: attribution.shapley_sampling(
                f, key, x, target, num_permutations=settings.num_orders, **squares(x)
            ),
            True,
        ),
        Method(
            "kernel-shap",
            "KernelSHAP",
            lambda f, key, x, target: attribution.kernel_shap(
                f, key, x, target, num_samples=settings.num_coalitions, **squares(x)
            ),
            True,
        ),
        Method(
            "lime",
            "LIME",
            lambda f, key, x, target: attribution.lime(
                f, key, x, target, num_samples=settings.num_coalitions, **squares(x)
            ),
            False,
        ),
        Method(
            "rise",
            "RISE",
            lambda f, key, x, target: attribution.rise(
                f, key, x, target, num_masks=settings.num_masks, baseline=space.gray, **rows
            ),
            False,
        ),
        Method("grad-cam", "Grad-CAM", of_maps(attribution.grad_cam), False),
        Method("grad-cam-plus-plus", "Grad-CAM++", of_maps(attribution.grad_cam_plus_plus), False),
        Method("layer-cam", "LayerCAM", of_maps(attribution.layer_cam), False),
        Method(
            "score-cam",
            "Score-CAM",
            lambda f, key, x, target: attribution.score_cam(f.features, f.head, x, target, **rows),
            False,
        ),
        Method(
            "eigen-cam",
            "Eigen-CAM",
            one_pass(lambda f, x, target: attribution.eigen_cam(f.features, x)),
            False,
        ),
        Method(
            "guided-grad-cam",
            "Guided Grad-CAM",
            of_maps(functools.partial(attribution.guided_grad_cam, explain=guided)),
            False,
        ),
        Method("layer-conductance", "layer conductance", conducted, False),
    ]
    of_label = composites(space)
    for name, label in _NAMES.items():
        composite = of_label[label]
        found.append(Method(name, label, propagate(composite), composite.relevance))
    return {method.name: method for method in found}


def _spread(array: jax.Array, mesh: Mesh | None) -> jax.Array:
    """The images dealt out to the devices, if they can be dealt out evenly."""
    if mesh is None or len(array) % mesh.size:
        return array
    return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
