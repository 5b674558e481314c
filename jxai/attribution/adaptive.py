"""Adaptive noising: a search for the noise scale of each image, one compiled program for all images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from jxai.batches.checks import check_finite, is_tree, per_image
from jxai.checks import as_array, check_count, check_functions, check_key, check_number, finite, keep_nan
from jxai.compiled import run_compiled
from jxai.errors import InputError, InputTypeError

Objective = Callable[[jax.Array, Any, jax.Array], jax.Array]

# What an image evaluates next.
_START, _UP, _DOWN = 0, 1, 2


class AdaptiveNoise(NamedTuple):
    """What the search found; T = 1 + 2 · max_iterations.

    Attributes:
        noise_scale: the best scale of each image, (N,); under `jit`, NaN where its objective is nowhere finite.
        value: its objective, (N,), NaN likewise.
        scales: every scale in the order evaluated, (N, T); NaN after an image's last.
        values: their objectives, (N, T); NaN after an image's last.
        num_evaluations: how many an image took, (N,), integers.
    """

    noise_scale: jax.Array
    value: jax.Array
    scales: jax.Array
    values: jax.Array
    num_evaluations: jax.Array


class _State(NamedTuple):
    """Where each image stands, (N,) each but the traces (N, T)."""

    phase: jax.Array
    scale: jax.Array  # where the image is: the last place moved to
    value: jax.Array
    step: jax.Array
    stops: jax.Array
    iteration: jax.Array
    done: jax.Array
    best_scale: jax.Array
    best_value: jax.Array
    scales: jax.Array
    values: jax.Array
    evaluated: jax.Array


def adaptive_noise(
    objective: Objective,
    key: jax.Array,
    x: Any,
    *,
    start: ArrayLike | None = None,
    step: float = 0.1,
    decay: float = 0.9,
    max_stops: int = 3,
    max_iterations: int = 20,
    fresh: bool = False,
) -> AdaptiveNoise:
    """Search the noise scale σ that minimizes an objective, such as SmoothTaylor's AUPC or AUTVC, image by image.

    From σ, |σ + α| is tried; if it is worse than σ, the search moves to |σ − α| instead, even if that is worse as
    well: then α becomes decay · α. It ends at the first such worsening after `max_stops` of them in a row. Every
    round evaluates the next scale of all images at once, whichever of the two theirs is.

    Example:
        >>> objective = lambda key, x, scale: (scale - 0.7) ** 2
        >>> found = adaptive_noise(objective, jax.random.key(0), jnp.full((1, 4), 0.5))
        >>> round(float(found.noise_scale[0]), 2)
        0.7

    Args:
        objective: of (key, x, noise scales (N,)) to values (N,), lower is better; each image's depends on it alone.
        key: a random key.
        x: inputs, (N, ...), floats, or a tree of arrays (N, ...), which the objective gets as it is.
        start: σ at the beginning; a number or (N,), above 0; by default each image's mean |x|, of a tree over all
            its floats.
        step: α at the beginning, above 0.
        decay: factor of α, in (0, 1].
        max_stops: worsenings in a row that do not end the search.
        max_iterations: rounds of one or two evaluations.
        fresh: whether each evaluation gets a key of its own, as in the paper's release; by default all get the same
            draws, so that the objective is a function of σ.

    Returns:
        The best scales, their values, and the traces. |σ − α| may be 0, where SmoothTaylor is 0 everywhere: an
        objective for which that is best needs a floor of its own.

    Raises:
        TypeError: `x` holds no floats, or the objective is no function.
        ValueError: an option is out of range, a tree's arrays have other numbers of rows, the objective does not give
            (N,) or nothing finite, `x` is not finite or `start` not positive (values are not seen under jit).

    References:
        Goh et al., *Understanding Integrated Gradients with SmoothTaylor for Deep Neural Network Attribution*, 2020,
        algorithm 1.
    """
    given = jax.tree.map(as_array, x) if is_tree(x) else as_array(x)
    x = _floats(given)
    check_finite("x", x)
    check_key(key)
    check_functions(objective=objective)
    check_count("max_iterations", max_iterations)
    check_count("max_stops", max_stops, least=0)
    check_number("step", step, above=0)
    check_number("decay", decay, above=0, most=1)
    num_images = x.shape[0]
    if start is None:
        start = jnp.abs(x.astype(jnp.promote_types(x.dtype, jnp.float32))).mean(axis=tuple(range(1, x.ndim)))
        # A black image has no scale of its own.
        start = jnp.where(start > 0, start, step)
    scale = per_image("start", start, x).reshape(num_images)
    shape = getattr(jax.eval_shape(objective, key, given, scale), "shape", None)
    if shape != (num_images,):
        raise InputError(
            f"expected the objective to give shape ({num_images},), got {shape}: one value an image"
        )

    def propose(state: _State) -> jax.Array:
        signed = jnp.where(state.phase == _UP, state.step, -state.step)
        return jnp.where(state.phase == _START, state.scale, jnp.abs(state.scale + signed))

    def advance(state: _State, tried: jax.Array, value: jax.Array) -> _State:
        active = ~state.done
        worse = jnp.isnan(value) | (
            value > state.value
        )  # NaN is worse than a number, a number better than NaN
        first, up, down = (active & (state.phase == phase) for phase in (_START, _UP, _DOWN))
        moved = first | down | (up & ~worse)
        worsened = down & worse
        ends = worsened & (state.stops >= max_stops)
        improved = moved & ~worsened & (value < state.best_value)
        iteration = state.iteration + ((up & ~worse) | down).astype(jnp.int32)
        row = jnp.arange(num_images)
        # Beyond the end nothing is written.
        place = jnp.where(active, state.evaluated, state.scales.shape[1])
        return _State(
            phase=jnp.where(up & worse, _DOWN, _UP).astype(jnp.int32),
            scale=jnp.where(moved, tried, state.scale),
            value=jnp.where(moved, value, state.value),
            step=jnp.where(worsened, decay * state.step, state.step),
            stops=jnp.where(worsened, state.stops + 1, jnp.where(moved, 0, state.stops)),
            iteration=iteration,
            done=state.done | ends | (iteration >= max_iterations),
            best_scale=jnp.where(improved, tried, state.best_scale),
            best_value=jnp.where(improved, value, state.best_value),
            scales=state.scales.at[row, place].set(tried, mode="drop"),
            values=state.values.at[row, place].set(value, mode="drop"),
            evaluated=state.evaluated + active.astype(jnp.int32),
        )

    def body(carry: tuple[jax.Array, _State]) -> tuple[jax.Array, _State]:
        evaluation, state = carry
        tried = propose(state)
        own = jax.random.fold_in(key, evaluation) if fresh else key
        value = objective(own, given, tried).astype(scale.dtype)
        return evaluation + 1, advance(state, tried, value)

    counts = jnp.zeros(num_images, jnp.int32)
    trace = jnp.zeros((num_images, 1 + 2 * max_iterations), scale.dtype)
    state = _State(
        phase=counts + _START,
        scale=scale,
        value=jnp.full_like(scale, jnp.inf),
        step=jnp.full_like(scale, step),
        stops=counts,
        iteration=counts,
        done=counts > 0,
        best_scale=scale,
        best_value=jnp.full_like(scale, jnp.inf),
        scales=trace,
        values=trace,
        evaluated=counts,
    )
    first = jnp.zeros((), jnp.int32), state
    _, state = run_compiled(lambda: jax.lax.while_loop(lambda carry: ~carry[1].done.all(), body, first))
    best = finite("the objective", state.best_value)
    scale = keep_nan(state.best_scale, best, x)
    # NaN that is meant: `jax_debug_nans` looks for others.
    with jax.debug_nans(False):
        taken = jnp.arange(trace.shape[1])[None, :] < state.evaluated[:, None]
        scales, values = (jnp.where(taken, one, jnp.nan) for one in (state.scales, state.values))
    return AdaptiveNoise(scale, keep_nan(best, best, x), scales, values, state.evaluated)


def _floats(x: Any) -> jax.Array:
    """An array as it is; of a tree all floats side by side, (N, D)."""
    if not is_tree(x):
        return x
    leaves = jax.tree.leaves(x)
    if any(not leaf.ndim or len(leaf) != len(leaves[0]) for leaf in leaves):
        shapes = ", ".join(str(leaf.shape) for leaf in leaves)
        raise InputError(
            f"expected arrays (N, ...) of one N in `x`, got {shapes}: close over what is no input"
        )
    floats = [leaf.reshape(len(leaf), -1) for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    if not floats:
        raise InputTypeError(
            f"expected floats in `x`, got {leaves[0].dtype}: noise has no scale of integers, give embeddings"
        )
    return jnp.concatenate(floats, axis=1)
