"""Metrics that ask for the same inputs: each input is scored or explained once for all of them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jxai.batches.draws import normal_draws
from jxai.checks import check_count, keep_nan
from jxai.metrics.features import Baseline
from jxai.metrics.inputs import Scores, as_batch
from jxai.metrics.neighbors import Distance, Explain, Move, Seen, over_neighbors, uniform_moves
from jxai.metrics.regions import selectivity
from jxai.metrics.removal import curve_area, removal_curves
from jxai.metrics.sensitivity import relative_change, slope
from jxai.metrics.stability import change_against, of_hidden, of_input, of_scores


class _Measure(NamedTuple):
    """Of what is seen at an input and at a neighbor, and whether the mean over neighbors is taken, or the largest."""

    of: Callable[[Seen, Seen], Distance]
    mean: bool = False


_SMALLEST = 1e-6  # of the relative stabilities
_STABILITY = {
    "relative_input_stability": _Measure(change_against(of_input, _SMALLEST)),
    "relative_output_stability": _Measure(change_against(of_scores, _SMALLEST)),
}
_REPRESENTED = {"relative_representation_stability": _Measure(change_against(of_hidden, _SMALLEST))}
_BOX = {
    "maximum_sensitivity": _Measure(relative_change),
    "average_sensitivity": _Measure(relative_change, mean=True),
    "local_lipschitz_estimate": _Measure(slope),
}


def removal(
    f: Scores,
    x: jax.Array,
    heatmap: jax.Array,
    target: jax.Array,
    *,
    baseline: Baseline = 0.0,
    num_steps: int,
) -> dict[str, jax.Array]:
    """Three metrics of the same path, on which pixels give way to a baseline, the most relevant first.

    Args:
        f: from images (N, H, W, C) to scores (N, K).
        x: images, (N, H, W, C).
        heatmap: (N, H, W).
        target: the classes explained, (N,).
        baseline: what takes a pixel's place.
        num_steps: of the path, between which are as many pixels, or one more.

    Returns:
        (N,) each, by name: the areas of `deletion` and `pixel_flipping`, and `monotonicity`, whose features enter on
        the path's way back.
    """
    flipping, deletion = removal_curves(f, x, heatmap, target, baseline=baseline, num_steps=num_steps)
    never = (flipping[:, :-1] >= flipping[:, 1:]).all(axis=1).astype(jnp.float32)
    return {
        "deletion": curve_area(deletion),
        "pixel_flipping": curve_area(flipping),
        "monotonicity": keep_nan(never, flipping),
    }


def regional(
    f: Scores,
    x: jax.Array,
    heatmap: jax.Array,
    target: jax.Array,
    *,
    baseline: Baseline = 0.0,
    patch_size: int = 9,
) -> dict[str, jax.Array]:
    """Two metrics of the squares that give way to a baseline, the most relevant first, until none is left.

    Args:
        f: from images (N, H, W, C) to scores (N, K).
        x: images, (N, H, W, C).
        heatmap: (N, H, W).
        target: the classes explained, (N,).
        baseline: what takes a square's place.
        patch_size: side of the squares, in pixels.

    Returns:
        (N,) each, by name: the area of `selectivity` and the mean of `region_perturbation`'s drops.
    """
    curve = selectivity(f, x, heatmap, target, patch_size=patch_size, baseline=baseline)
    drops = (curve[:, :1] - curve).mean(axis=1)
    return {"selectivity": curve_area(curve), "region_perturbation": drops}


def relative_stabilities(
    f: Scores,
    explain: Explain,
    key: jax.Array,
    x: jax.Array,
    target: jax.Array,
    *,
    noise_scale: float = 0.05,
    num_samples: int = 10,
) -> dict[str, jax.Array]:
    """`relative_input_stability` and `relative_output_stability`, (N,) each, by name; arguments as theirs."""

    def move(inputs: jax.Array, images: jax.Array, number: jax.Array) -> jax.Array:
        draws = normal_draws(key, images, jnp.broadcast_to(number, images.shape), inputs.shape[1:])
        return inputs + noise_scale * draws

    return _of_all(_STABILITY, f, None, explain, move, x, target, num_samples)


def robustness(
    f: Scores,
    explain: Explain,
    key: jax.Array,
    x: jax.Array,
    target: jax.Array,
    *,
    radius: float,
    num_samples: int,
    explained: jax.Array | None = None,
    represent: Callable[[jax.Array], jax.Array] | None = None,
) -> dict[str, jax.Array]:
    """Metrics of the same neighbors, uniform in a box.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        explain: from inputs (n, ...) and classes (n,) to explanations (n, ...).
        key: a random key.
        x: inputs, (N, ...).
        target: the classes explained, (N,).
        radius: half the box's side, in units of `x`.
        num_samples: neighbors of an input.
        explained: the explanations of `x`, where they are known.
        represent: from inputs (n, ...) to a layer's activations (n, ...), where there is such a layer.

    Returns:
        By name `maximum_sensitivity`, `average_sensitivity` and `local_lipschitz_estimate`, and of the box's
        neighbors `relative_input_stability` and `relative_output_stability`, (N,) each; of a layer also
        `relative_representation_stability`.
    """
    measures = {**_BOX, **_STABILITY, **({} if represent is None else _REPRESENTED)}
    moves = uniform_moves(key, radius)
    return _of_all(measures, f, represent, explain, moves, x, target, num_samples, explained)


def _of_all(
    measures: Mapping[str, _Measure],
    f: Scores,
    represent: Callable[[jax.Array], jax.Array] | None,
    explain: Explain,
    move: Move,
    x: jax.Array,
    target: jax.Array,
    num_samples: int,
    explained: jax.Array | None = None,
) -> dict[str, jax.Array]:
    x, target = as_batch(x, target, f=f)
    check_count("num_samples", num_samples)

    def distance(start: Seen, seen: Seen) -> Distance:
        each = [measure.of(start, seen) for measure in measures.values()]
        counts = [jnp.broadcast_to(one.counts, one.above.shape) for one in each]
        stacked = (
            jnp.stack(parts, axis=1) for parts in ([o.above for o in each], [o.below for o in each], counts)
        )
        return Distance(*stacked)

    def more(inputs: jax.Array) -> dict[str, Any]:
        hidden = {} if represent is None else {"hidden": represent(inputs)}
        return {"scores": f(inputs), **hidden}

    found = over_neighbors(
        explain,
        move,
        distance,
        x,
        target,
        num_neighbors=num_samples,
        more=more,
        mean=[measure.mean for measure in measures.values()],
        explained=explained,
    )
    return {name: found[:, place] for place, name in enumerate(measures)}
