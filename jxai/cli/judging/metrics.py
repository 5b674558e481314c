"""The metrics that `jxai judge` compares methods by: a column each, at a cost that two cores can pay."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jxai import metrics
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0, InputSpace
from jxai.cli.explaining.methods import Classifier, Explain
from jxai.cli.judging.methods import Judged

_RADIUS = 0.02  # of moved copies, in 128 gray levels


@dataclasses.dataclass(frozen=True)
class Costs:
    """How much each metric computes."""

    num_regions: int = 30
    """Windows of 15 x 15 that the perturbation curve replaces (AUPC)."""
    num_draws: int = 1
    """Draws of noise a window (the paper has 50)."""
    num_steps: int = 10
    """Steps of insertion, deletion and pixel flipping."""
    shares: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Shares of pixels that ROAD removes."""
    num_perturbations: int = 10
    """Of infidelity, a picture."""
    num_moves: int = 2
    """Moved copies of a picture of maximum sensitivity."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A batch of pictures explained by a method.

    Attributes:
        f: the network.
        randomized: the network with random parameters.
        judged: the method.
        key: of the method's noise.
        noise: of the metrics' noise.
        x: images, (N, H, W, C).
        target: (N,).
        attributions: the method's, (N, H, W, C) or (N, H, W, 1).
    """

    f: Classifier
    randomized: Classifier
    judged: Judged
    key: jax.Array
    noise: jax.Array
    x: jax.Array
    target: jax.Array
    attributions: jax.Array

    @property
    def heatmap(self) -> jax.Array:
        """The signed sum over channels, (N, H, W)."""
        return as_heatmap(self.attributions)


class Measured(NamedTuple):
    """What a metric says of each picture.

    Attributes:
        values: (N,).
        curve: (N, points), where the metric has one to draw.
    """

    values: jax.Array
    curve: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Metric:
    """A column of the table.

    Attributes:
        name: in `jxai.metrics.DIRECTIONS`.
        label: in the table.
        about: what is measured, for the caption.
        measure: from a batch to its values.
        applies: whether it means something for a method.
    """

    name: str
    label: str
    about: str
    measure: Callable[[Case], Measured]
    applies: Callable[[Judged], bool] = lambda judged: True


@functools.partial(jax.jit, static_argnums=0)
def explained(explain: Explain, f: Classifier, key: jax.Array, x: jax.Array, target: jax.Array) -> jax.Array:
    """Attributions; compiled once a method.

    Args:
        explain: the method's.
        f: the network.
        key: of the method's noise.
        x: images, (N, H, W, C).
        target: (N,).

    Returns:
        (N, H, W, C) or (N, H, W, 1).
    """
    return explain(f, key, x, target)


@jax.jit
def as_heatmap(attributions: jax.Array) -> jax.Array:
    """The signed sum over channels.

    Args:
        attributions: (N, H, W, C).

    Returns:
        (N, H, W).
    """
    return attributions.sum(axis=-1)


@functools.cache
def judging_metrics(costs: Costs, space: InputSpace = EFFICIENTNET_LITE0) -> Mapping[str, Metric]:
    """Every metric by its name, in the order of the table; the same functions for the same costs.

    Args:
        costs: numbers of draws and the like.
        space: the network's inputs: gray takes a removed pixel's place.

    Returns:
        Name to metric.
    """
    steps: dict[str, Any] = {"num_steps": costs.num_steps}

    def of_heatmap(function: Callable[..., Any]) -> Callable[[Case], Measured]:
        """Of the heatmap alone."""
        compiled = jax.jit(function)
        return lambda case: Measured(compiled(case.heatmap))

    def of_network(function: Callable[..., Measured]) -> Callable[[Case], Measured]:
        """Of the network and the heatmap."""
        compiled = jax.jit(function)
        return lambda case: compiled(case.f, case.noise, case.x, case.heatmap, case.target)

    @of_network
    def perturbation(f: Classifier, key: jax.Array, x: jax.Array, heatmap: jax.Array, target: jax.Array):
        regions = {"num_regions": costs.num_regions, "num_draws": costs.num_draws}
        curve = metrics.perturbation_curve(
            f, key, x, heatmap, target, low=space.low, high=space.high, **regions
        )
        return Measured(metrics.aupc(curve), curve)

    @of_network
    def insertion(f: Classifier, key: jax.Array, x: jax.Array, heatmap: jax.Array, target: jax.Array):
        return Measured(metrics.curve_area(metrics.insertion(f, x, heatmap, target, **steps)))

    @of_network
    def deletion(f: Classifier, key: jax.Array, x: jax.Array, heatmap: jax.Array, target: jax.Array):
        return Measured(
            metrics.curve_area(metrics.deletion(f, x, heatmap, target, baseline=space.gray, **steps))
        )

    @of_network
    def flipping(f: Classifier, key: jax.Array, x: jax.Array, heatmap: jax.Array, target: jax.Array):
        curve = metrics.pixel_flipping(f, x, heatmap, target, baseline=space.gray, **steps)
        return Measured(metrics.curve_area(curve))

    @of_network
    def road(f: Classifier, key: jax.Array, x: jax.Array, heatmap: jax.Array, target: jax.Array):
        return Measured(metrics.road(f, key, x, heatmap, target, shares=costs.shares).mean(axis=1))

    @jax.jit
    def infidelity(f: Classifier, key: jax.Array, x: jax.Array, attributions: jax.Array, target: jax.Array):
        # Where a pixel has one attribution, its channels share it: the factor is fitted anyway.
        each = jnp.broadcast_to(attributions, x.shape)
        options = {"num_samples": costs.num_perturbations, "scaled": True}
        return Measured(metrics.infidelity(f, key, x, each, target, **options))

    @functools.partial(jax.jit, static_argnums=0)
    def sensitivity(
        explain: Explain, f: Classifier, key: jax.Array, noise: jax.Array, x: jax.Array, target: jax.Array
    ):
        def moved(x: jax.Array, target: jax.Array) -> jax.Array:
            return explain(f, key, x, target)

        radius = _RADIUS * space.gray_levels
        moves = {"radius": radius, "num_samples": costs.num_moves}
        return Measured(metrics.maximum_sensitivity(moved, noise, x, target, **moves))

    @functools.partial(jax.jit, static_argnums=0)
    def residual(
        judged: Judged,
        f: Classifier,
        key: jax.Array,
        x: jax.Array,
        attributions: jax.Array,
        target: jax.Array,
    ):
        baseline = None if judged.baseline is None else judged.baseline(key, x)
        return Measured(metrics.completeness(f, x, attributions, target, baseline=baseline).residual)

    def randomization(case: Case) -> Measured:
        other = explained(case.judged.method.explain, case.randomized, case.key, case.x, case.target)
        return Measured(metrics.rank_correlation(case.heatmap, as_heatmap(other)))

    draws = "draw" if costs.num_draws == 1 else "draws"
    found = [
        Metric(
            "aupc",
            "AUPC",
            f"the score over {costs.num_regions} windows of 15 x 15 replaced by noise, {costs.num_draws} {draws} "
            "each (the paper: 30, 50)",
            perturbation,
        ),
        Metric(
            "autvc",
            "AUTVC",
            "total variation over the heatmap's pyramid",
            of_heatmap(lambda heatmap: metrics.autvc(metrics.multiscale_total_variation(heatmap))),
        ),
        Metric(
            "insertion",
            "insertion",
            f"probability while pixels enter a blurred picture, {costs.num_steps} steps",
            insertion,
        ),
        Metric(
            "deletion",
            "deletion",
            f"probability while pixels give way to gray, {costs.num_steps} steps",
            deletion,
        ),
        Metric(
            "pixel_flipping",
            "pixel flipping",
            f"the score meanwhile, in logits, {costs.num_steps} steps",
            flipping,
        ),
        Metric(
            "road",
            "ROAD",
            f"mean probability once {', '.join(f'{share:.0%}' for share in costs.shares)} of the pixels, the most "
            "relevant first, are imputed",
            road,
        ),
        Metric(
            "infidelity",
            "infidelity",
            f"after the best scaling of each heatmap, {costs.num_perturbations} perturbations",
            lambda case: infidelity(case.f, case.noise, case.x, case.attributions, case.target),
        ),
        Metric(
            "maximum_sensitivity",
            "max. sensitivity",
            f"within ±{_RADIUS * 128:.1f} gray levels of 255, {costs.num_moves} moved copies, the method's "
            "noise held",
            lambda case: sensitivity(
                case.judged.method.explain, case.f, case.key, case.noise, case.x, case.target
            ),
        ),
        Metric("sparseness", "sparseness", "Gini index", of_heatmap(metrics.sparseness)),
        Metric("complexity", "complexity", "entropy in nats", of_heatmap(metrics.complexity)),
        Metric(
            "completeness",
            "residual",
            "|sum − change| / |change| of the score from the baseline, of relevance |sum − score| / |score|",
            lambda case: residual(case.judged, case.f, case.key, case.x, case.attributions, case.target),
            applies=lambda judged: judged.adds_up,
        ),
        Metric(
            "model_randomization",
            "randomization",
            "rank correlation with the heatmap of the network once all its parameters are shuffled",
            randomization,
        ),
    ]
    return {metric.name: metric for metric in found}
