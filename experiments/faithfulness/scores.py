"""Explanations of a small network by many methods, and what every metric says of them.

Everything takes the network's parameters, so that one compilation serves all networks.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.faithfulness.networks import Network, Params, apply
from jxai import attribution, lrp, metrics

KNOWN = ("trigger recall", "trigger mass", "trigger recovery")
"""BackX's: only in pictures with a trigger."""
TUNED = ("F-Fidelity", "FFid+", "FFid−")
CONTROL = "random"
_EPSILON = lrp.Composite(((lrp.Kind.CONVOLUTION, lrp.Epsilon(0.1)), (lrp.Kind.DENSE, lrp.Epsilon(0.1))))


class Asked(NamedTuple):
    """What is explained, and by which network.

    Attributes:
        params: the network's.
        tuned: the same network's, tuned on random masks.
        x: pictures, (n, 32, 32, 1).
        clean: the same without the trigger; `x` itself where there is none.
        mask: where the trigger is, (n, 32, 32) bool; anything where there is none.
        target: the classes explained, (n,).
    """

    params: Params
    tuned: Params
    x: jax.Array
    clean: jax.Array
    mask: jax.Array
    target: jax.Array


def _methods(network: Network, params: Params, key: jax.Array) -> dict[str, Callable]:
    def f(x: jax.Array) -> jax.Array:
        return apply(network, params, x)

    def features(x: jax.Array) -> jax.Array:
        return apply(network, params, x, "features")

    def head(maps: jax.Array) -> jax.Array:
        return apply(network, params, maps, "head")

    def relevance(composite: lrp.Composite) -> Callable:
        return lambda x, t: lrp.relevance(f, x, t, composite=composite)

    return {
        "gradient": lambda x, t: attribution.gradient(f, x, t),
        "|gradient|": lambda x, t: jnp.abs(attribution.gradient(f, x, t)),
        "input × gradient": lambda x, t: attribution.input_x_gradient(f, x, t),
        "Integrated Gradients": lambda x, t: attribution.integrated_gradients(f, x, t, num_steps=20),
        "SmoothGrad": lambda x, t: attribution.smooth_grad(f, key, x, t, num_roots=20),
        "SmoothTaylor": lambda x, t: attribution.smooth_taylor(f, key, x, t, noise_scale=0.3, num_roots=20),
        "DeepLIFT": lambda x, t: attribution.deep_lift(f, x, t),
        "LRP-ε": relevance(_EPSILON),
        "LRP EpsilonPlus": relevance(lrp.EpsilonPlus()),
        "LRP EpsilonGammaBox": relevance(lrp.EpsilonGammaBox(low=0.0, high=1.0)),
        "guided backpropagation": relevance(lrp.GuidedBackprop()),
        "Grad-CAM": lambda x, t: attribution.grad_cam(features, head, x, t),
        "LayerCAM": lambda x, t: attribution.layer_cam(features, head, x, t),
        "occlusion": lambda x, t: attribution.occlusion(f, x, t, window=4, stride=2),
        "RISE": lambda x, t: attribution.rise(f, key, x, t, num_masks=200, cells=5),
        CONTROL: lambda x, t: jax.random.normal(key, x.shape),
    }


METHODS = tuple(_methods(Network(2), None, jax.random.key(0)))


def _metrics(
    network: Network, asked: Asked, key: jax.Array, maps: jax.Array, beta: float
) -> dict[str, jax.Array]:
    def f(x: jax.Array) -> jax.Array:
        return apply(network, asked.params, x)

    def tuned(x: jax.Array) -> jax.Array:
        return jax.nn.softmax(apply(network, asked.tuned, x))

    x, target, heatmap = asked.x, asked.target, maps[..., 0]
    area = metrics.curve_area
    fidelity = metrics.f_fidelity(
        tuned, key, x, heatmap, target, sizes=(0.05, 0.1, 0.2, 0.4, 0.6), beta=beta, num_samples=20
    )
    plus, minus = fidelity.plus.mean(axis=1), fidelity.minus.mean(axis=1)
    return {
        "trigger recall": metrics.relevance_rank(heatmap, asked.mask),
        "trigger mass": metrics.relevance_mass(heatmap, asked.mask),
        "trigger recovery": metrics.trigger_recovery(f, x, asked.clean, heatmap, asked.mask, target),
        "F-Fidelity": plus - minus,
        "FFid+": plus,
        "FFid−": minus,
        "insertion": area(metrics.insertion(f, x, heatmap, target, num_steps=20)),
        "deletion": area(metrics.deletion(f, x, heatmap, target, num_steps=20)),
        "pixel flipping": area(metrics.pixel_flipping(f, x, heatmap, target, num_steps=20)),
        "ROAD": metrics.road(f, key, x, heatmap, target, shares=(0.1, 0.3, 0.5)).mean(axis=1),
        "IROF": metrics.irof(f, x, heatmap, target, num_segments=40),
        "selectivity": area(metrics.selectivity(f, x, heatmap, target, patch_size=4)),
        "infidelity": metrics.infidelity(f, key, x, maps, target, num_samples=50, scaled=True),
        "faithfulness correlation": metrics.faithfulness_correlation(f, key, x, heatmap, target),
        "faithfulness estimate": metrics.faithfulness_estimate(f, x, heatmap, target),
        "monotonicity correlation": metrics.monotonicity_correlation(
            f, key, x, heatmap, target, num_samples=2, group_size=16
        ),
        "sparseness": metrics.sparseness(heatmap),
        "complexity": metrics.complexity(heatmap),
    }


DIRECTIONS: Mapping[str, str] = {
    **dict.fromkeys((*KNOWN, "F-Fidelity", "FFid+", "insertion", "IROF", "sparseness"), "higher"),
    **dict.fromkeys(("FFid−", "deletion", "pixel flipping", "ROAD", "selectivity", "infidelity"), "lower"),
    "faithfulness correlation": "higher",
    "faithfulness estimate": "higher",
    "monotonicity correlation": "higher",
    "complexity": "lower",
    "maximum sensitivity": "lower",
}


class Scorer:
    """Compiled methods and metrics."""

    def __init__(self, network: Network, *, beta: float):
        def explain(name: str, params: Params, key: jax.Array, x: jax.Array, target: jax.Array) -> jax.Array:
            return _methods(network, params, key)[name](x, target)

        def sensitivity(
            name: str, params: Params, key: jax.Array, x: jax.Array, target: jax.Array
        ) -> jax.Array:
            of_method, of_moves = jax.random.split(key)
            method = _methods(network, params, of_method)[name]
            return metrics.maximum_sensitivity(method, of_moves, x, target, radius=0.05, num_samples=4)

        self._explain = jax.jit(explain, static_argnums=0)
        self._sensitivity = jax.jit(sensitivity, static_argnums=0)
        self._metrics = jax.jit(lambda asked, key, maps: _metrics(network, asked, key, maps, beta))

    def __call__(self, key: jax.Array, asked: Asked, method: str) -> dict[str, np.ndarray]:
        """Scores of a method, one a picture.

        Args:
            key: of the noise, the same for every method.
            asked: what is explained.
            method: of `METHODS`.

        Returns:
            By metric, (n,).
        """
        of_method, of_metrics, of_moves = jax.random.split(key, 3)
        maps = self._explain(method, asked.params, of_method, asked.x, asked.target)
        found = dict(self._metrics(asked, of_metrics, maps))
        found["maximum sensitivity"] = self._sensitivity(
            method, asked.params, of_moves, asked.x, asked.target
        )
        return {name: np.asarray(values, np.float64) for name, values in found.items()}
