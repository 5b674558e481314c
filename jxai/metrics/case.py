"""What a metric of `evaluate` looks at, and the metrics that it knows by name."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jxai.compiled import Compiled
from jxai.errors import InputError
from jxai.metrics.concentration import complexity, sparseness
from jxai.metrics.faithfulness import faithfulness_correlation, faithfulness_estimate
from jxai.metrics.fidelity import infidelity
from jxai.metrics.inputs import Scores
from jxai.metrics.localization import (
    attribution_localization,
    localization_auc,
    pointing_game,
    relevance_mass,
    relevance_rank,
)
from jxai.metrics.regions import irof
from jxai.metrics.removal import curve_area, insertion
from jxai.metrics.road import road
from jxai.metrics.sensitivity import average_sensitivity, local_lipschitz_estimate, maximum_sensitivity
from jxai.metrics.shared import regional, relative_stabilities, removal
from jxai.metrics.variation import autvc, multiscale_total_variation


class Explainer(Compiled):
    """The method that is judged, with the noise that its attributions came from."""

    def __init__(
        self, name: str, key: jax.Array, explain: Callable[..., jax.Array], f: Scores, asked: list[str]
    ) -> None:
        """Take the method.

        Args:
            name: the method's.
            key: of its noise.
            explain: of (f, images, classes).
            f: the function that is explained.
            asked: gets the name once something is asked for: what is made then is the method's own.
        """
        self._name, self._key, self._explain, self._f, self._asked = name, key, explain, f, asked

    def __call__(self, x: jax.Array, target: jax.Array, *, f: Scores | None = None) -> jax.Array:
        """Attributions.

        Args:
            x: inputs, (n, ...).
            target: classes, (n,).
            f: another function, such as the same one with random parameters.

        Returns:
            Of x's shape, or with a last axis of 1.
        """
        self._asked.append(self._name)
        return self._explain(self._f if f is None else f, x, target)

    @property
    def name(self) -> str:
        """The method's."""
        self._asked.append(self._name)
        return self._name

    @property
    def key(self) -> jax.Array:
        """Of the method's noise."""
        self._asked.append(self._name)
        return self._key


class Case(NamedTuple):
    """A batch of inputs explained by a method: what a metric looks at.

    Attributes:
        f: from images (n, H, W, C), embeddings (n, T, C) or a table (n, D) to scores (n, K).
        key: of the metric's noise.
        x: these inputs.
        target: the classes explained, (n,).
        attributions: the method's, of x's shape, or with a last axis of 1 where a pixel or a token has one.
        explain: the method, from inputs and classes to attributions, with the noise that these came from; with
            `f=...` of another function. It has a `name` and a `key`.
        mask: where the object is, (n, H, W) booleans, or None.
    """

    f: Scores
    key: jax.Array
    x: jax.Array
    target: jax.Array
    attributions: jax.Array
    explain: Explainer
    mask: jax.Array | None

    @property
    def heatmap(self) -> jax.Array:
        """The signed sum over channels, (n, H, W) or (n, T); of a table the attributions, (n, D)."""
        return self.attributions if self.x.ndim == 2 else self.attributions.sum(axis=-1)

    @property
    def located(self) -> jax.Array:
        """The mask.

        Raises:
            ValueError: there is none.
        """
        if self.mask is None:
            raise InputError("expected a mask for metrics of localization, got none: give evaluate a mask")
        return self.mask


Metric = Callable[[Case], Any]


@dataclasses.dataclass(frozen=True)
class Part:
    """One of several metrics that one computation gives.

    Attributes:
        of: the computation, of a case to metrics by name.
        name: this one's.
        group: what the computation's noise is named after.
    """

    of: Callable[[Case], Mapping[str, Any]]
    name: str
    group: str

    def __call__(self, case: Case) -> Any:
        """This metric alone."""
        return self.of(case)[self.name]


def parts(of: Callable[[Case], Mapping[str, Any]], *names: str) -> dict[str, Part]:
    """The metrics of one computation, by name."""
    return {name: Part(of, name, " and ".join(names)) for name in names}


def _removal(case: Case) -> dict[str, Any]:
    return removal(case.f, case.x, case.heatmap, case.target, num_steps=20)


def _regional(case: Case) -> dict[str, Any]:
    return regional(case.f, case.x, case.heatmap, case.target)


def _stability(case: Case) -> dict[str, Any]:
    return relative_stabilities(case.f, case.explain, case.key, case.x, case.target)


def _each(case: Case) -> jax.Array:
    """Attributions of every channel, where they were of pixels."""
    return jnp.broadcast_to(case.attributions, case.x.shape)


NAMED: Mapping[str, Metric] = {
    "insertion": lambda c: curve_area(insertion(c.f, c.x, c.heatmap, c.target, num_steps=20)),
    **parts(_removal, "deletion", "pixel_flipping", "monotonicity"),
    "road": lambda c: road(c.f, c.key, c.x, c.heatmap, c.target).mean(axis=1),
    "irof": lambda c: irof(c.f, c.x, c.heatmap, c.target),
    **parts(_regional, "selectivity", "region_perturbation"),
    "infidelity": lambda c: infidelity(c.f, c.key, c.x, _each(c), c.target, scaled=True),
    "faithfulness_correlation": lambda c: faithfulness_correlation(c.f, c.key, c.x, c.heatmap, c.target),
    "faithfulness_estimate": lambda c: faithfulness_estimate(c.f, c.x, c.heatmap, c.target),
    "maximum_sensitivity": lambda c: maximum_sensitivity(c.explain, c.key, c.x, c.target),
    "average_sensitivity": lambda c: average_sensitivity(c.explain, c.key, c.x, c.target),
    "local_lipschitz_estimate": lambda c: local_lipschitz_estimate(c.explain, c.key, c.x, c.target),
    **parts(_stability, "relative_input_stability", "relative_output_stability"),
    "autvc": lambda c: autvc(multiscale_total_variation(c.heatmap)),
    "sparseness": lambda c: sparseness(c.heatmap),
    "complexity": lambda c: complexity(c.heatmap),
    "pointing_game": lambda c: pointing_game(c.heatmap, c.located),
    "attribution_localization": lambda c: attribution_localization(c.heatmap, c.located),
    "localization_auc": lambda c: localization_auc(c.heatmap, c.located),
    "relevance_mass": lambda c: relevance_mass(c.heatmap, c.located),
    "relevance_rank": lambda c: relevance_rank(c.heatmap, c.located),
}
"""Metrics by name, with their functions' default options but 20 steps for curves, the path of which
monotonicity shares, and the best scaling for infidelity.
A name's direction is in `DIRECTIONS`."""

LOCATED = (
    "pointing_game",
    "attribution_localization",
    "localization_auc",
    "relevance_mass",
    "relevance_rank",
)
"""Of these, what asks for a mask."""
