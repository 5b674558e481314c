"""Completeness: whether attributions add up to what they explain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai.batches.checks import as_baseline, as_finite
from jxai.batches.chunks import map_chunks, rows_in_flight
from jxai.checks import check_number, finite, keep_nan
from jxai.errors import InputError
from jxai.metrics.inputs import Scores, as_batch, target_scores


class Completeness(NamedTuple):
    """What `completeness` finds of each input.

    Attributes:
        residual: |Σ A − Δ| / |Δ|, (N,) float32; infinite where Δ is 0 and the sum is not.
        complete: whether the residual is within the tolerance, (N,) bool.
    """

    residual: jax.Array
    complete: jax.Array


def completeness(
    f: Scores,
    x: jax.Array,
    attributions: jax.Array,
    target: jax.Array,
    *,
    baseline: ArrayLike | None = 0.0,
    tolerance: float = 1e-2,
    chunk_size: int | None = None,
) -> Completeness:
    """Relative difference between the attributions' sum and the score's change from a baseline. Lower is better.

    |Σ A − Δ| / |Δ| with Δ = f(x) − f(x₀), or Δ = f(x) for relevance, which is to add up to the score itself.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        x: inputs, (N, ...).
        attributions: A, (N, ...): of x's shape, or heatmaps.
        target: the class whose score is read, (N,) integers.
        baseline: x₀: a number or whatever broadcasts to `x`; None for relevance, Δ = f(x).
        tolerance: the largest residual that passes, above 0.
        chunk_size: inputs in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        The residuals, and whether they are within the tolerance.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target is out of range or `tolerance` not above 0.

    References:
        Axiomatic Attribution for Deep Networks, Sundararajan et al., 2017.
    """
    x, target = as_batch(x, target, f=f)
    attributions = as_finite("attributions", attributions).astype(jnp.float32)
    if len(attributions) != len(x):
        raise InputError(
            f"expected `attributions` of shape ({len(x)}, ...), got {attributions.shape}: explain every input"
        )
    check_number("tolerance", tolerance, above=0)
    num_images = len(x)
    pairs = x[None] if baseline is None else jnp.stack([x, as_baseline(baseline, x)])

    def scores(rows: jax.Array) -> jax.Array:
        image = rows % num_images
        return target_scores(f, pairs[rows // num_images, image], image, target)

    score = map_chunks(scores, len(pairs) * num_images, rows_in_flight(x, chunk_size)).reshape(-1, num_images)
    change = finite("scores", score[0] if baseline is None else score[0] - score[1])
    total = finite("sums of attributions", attributions.sum(axis=tuple(range(1, attributions.ndim))))
    error = jnp.abs(total - change)
    residual = keep_nan(jnp.where(error == 0, 0, error / jnp.abs(change)), attributions, x)
    return Completeness(residual, residual <= tolerance)
