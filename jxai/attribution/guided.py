"""Guided Integrated Gradients: a path from the baseline that moves first where the score hardly answers."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jxai.attribution.gradients import Explain, Scores, gradient
from jxai.attribution.inputs import as_inputs
from jxai.batches.chunks import sum_over_roots
from jxai.batches.targets import Target
from jxai.checks import check_count, check_known, check_number

# Of the whole way: where sums of float32 count as equal.
_TOLERANCE = 1e-6


def guided_ig(
    f: Scores,
    x: Any,
    target: Target,
    *,
    baseline: Any = 0.0,
    num_steps: int = 200,
    fraction: float = 0.25,
    max_distance: float = 0.02,
    explain: Explain = gradient,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """Σ over steps of the way that each entry goes times ∇f_t, along a path of entries whose |∇f_t| is small.

    Each step goes 1/M of the distance ‖x − x₀‖₁ by the entries with the smallest gradients, none farther than
    `max_distance` from its place on the straight path. Its sum over an image tends to f_t(x) − f_t(x₀).

    Args:
        f: from inputs (N, ...) to scores (N, K).
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        baseline: x₀: a number or an array that broadcasts to `x`.
        num_steps: M, gradients an image, one after the other.
        fraction: of the entries, which move at a time, in (0, 1]; 0.25 is the release's.
        max_distance: in shares of the path, in [0, 1]; 0 is the straight path, and 1 the paper's without anchors.
        explain: what takes the gradient's place.
        chunk_size: images in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; sums are float32 at least.

    Raises:
        TypeError: `x` holds no floats, or `target` no integers.
        ValueError: shapes do not fit, a count or a share is out of range, values are not finite or a target is out of
            range (values are not seen under jit).

    References:
        Kapishnikov et al., *Guided Integrated Gradients: an Adaptive Path Method for Removing Noise*, 2021,
        algorithm 1, with the distance from the straight path bounded as in the authors' release.
    """
    inputs = as_inputs(f, x, target)
    x = inputs.x
    check_count("num_steps", num_steps)
    check_known("fraction", fraction)
    check_number("fraction", fraction, above=0, most=1)
    check_number("max_distance", max_distance, least=0, most=1)
    start = inputs.baseline(baseline)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    rank = math.floor(fraction * (x[0].size - 1))
    rounds = math.ceil(1 / fraction) + 2  # each but the last brings that share of the entries to their bound

    def terms(images: jax.Array, _: jax.Array) -> jax.Array:
        shape = (len(images), *x.shape[1:])
        first, last = (one[images].reshape(len(images), -1).astype(wide) for one in (start, x))
        whole = jnp.abs(last - first).sum(axis=1)

        def step(carry: tuple[jax.Array, jax.Array], number: jax.Array) -> Any:
            at, total = carry
            slopes = (
                inputs.explained(explain, at.reshape(shape).astype(x.dtype), images)
                .reshape(at.shape)
                .astype(wide)
            )
            share = (number + 1) / num_steps
            low, high = (
                first + (last - first) * jnp.clip(share + side * max_distance, 0, 1) for side in (-1, 1)
            )
            distances = jnp.stack([whole * (1 - share), whole], axis=1)
            move = functools.partial(_move, rank=rank, rounds=rounds)
            moved = jax.vmap(move)(at, first, last, slopes, low, high, distances)
            return (moved, total + (moved - at) * slopes), None

        steps = jnp.arange(num_steps, dtype=wide)
        (_, total), _ = jax.lax.scan(step, (first, jnp.zeros_like(first)), steps)
        return total.reshape(shape)

    total = sum_over_roots(terms, x, num_roots=1, chunk_size=chunk_size, mesh=mesh)
    return inputs.attributions(total)


def _move(
    at: jax.Array,
    first: jax.Array,
    last: jax.Array,
    slopes: jax.Array,
    low: jax.Array,
    high: jax.Array,
    distances: jax.Array,
    *,
    rank: int,
    rounds: int,
) -> jax.Array:
    """One image's entries after a step: so near to x that `distances[0]` of `distances[1]` remains."""
    remains, whole = distances[0], distances[1]
    # Who lags behind the bound comes to it first.
    ahead = jnp.sign(last - first)
    at = jnp.where((at - low) * ahead < 0, low, at)

    def goes_on(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        at, number = state
        return (jnp.abs(last - at).sum() > remains + _TOLERANCE * whole) & (number < rounds)

    def move(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        at, number = state
        free = at != high
        magnitudes = jnp.where(free, jnp.abs(slopes), jnp.inf)
        chosen = free & (magnitudes <= jnp.sort(magnitudes)[rank])
        way = jnp.where(chosen, jnp.abs(high - at), 0).sum()
        excess = jnp.abs(last - at).sum() - remains
        gamma = jnp.where(excess < way, excess / jnp.where(way > 0, way, 1), 1)
        there = jnp.where(gamma < 1, at + gamma * (high - at), high)
        return jnp.where(chosen, there, at), number + 1

    return jax.lax.while_loop(goes_on, move, (at, jnp.zeros((), jnp.int32)))[0]
