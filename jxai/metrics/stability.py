"""How far an explanation moves, against how far the input, its representation or its scores do.

Both sides of the ratio are relative, entry by entry: ‖(e(x) − e(x')) / e(x)‖, Euclidean norms, where an entry that
is 0, or below float32's precision of the largest (1.2e-7 of it), is divided by `smallest` instead. Neighbors x' = x +
noise count where the network predicts for them what it does for x. An input keeps its place in the batch that
`explain` gets.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jxai.batches.draws import normal_draws
from jxai.checks import check_count, check_functions, check_number
from jxai.errors import InputError
from jxai.metrics.inputs import Scores, as_batch
from jxai.metrics.neighbors import Distance, Explain, Seen, norm, over_neighbors


def relative_input_stability(
    f: Scores,
    explain: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array,
    x: jax.Array,
    target: jax.Array,
    *,
    noise_scale: float = 0.05,
    num_samples: int = 10,
    smallest: float = 1e-6,
    chunk_size: int | None = None,
) -> jax.Array:
    """Largest relative change of an explanation, as a multiple of the input's. Lower is better.

    RIS = max over x' of ‖(e(x) − e(x')) / e(x)‖ / max(‖(x − x') / x‖, smallest).

    Args:
        f: from inputs (N, ...) to scores (N, K).
        explain: from inputs (n, ...) and their targets (n,) to attributions or heatmaps (n, ...); each input on its
            own.
        key: a random key; the noise of a sample depends on (key, input's place, sample's place) alone.
        x: inputs, (N, ...).
        target: the classes explained, (N,) integers.
        noise_scale: standard deviation of the Gaussian noise, in units of `x`, above 0.
        num_samples: neighbors of an input, at least 1.
        smallest: ε_min, above 0: the least denominator, and what stands for entries of 0 below.
        chunk_size: inputs explained at once; places begin at 0 in each chunk. By default about 2.4 million elements
            on a CPU, 40 million elsewhere.

    Returns:
        (N,), float32; NaN where no neighbor has the input's predicted class.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target is out of range, a count below 1, or
            `noise_scale` or `smallest` not above 0.

    References:
        Rethinking Stability for Attribution-based Explanations, Agarwal et al., 2022.
    """
    return _stability(
        f, explain, None, key, x, target, of_input, noise_scale, num_samples, smallest, chunk_size
    )


def relative_representation_stability(
    f: Scores,
    explain: Callable[[jax.Array, jax.Array], jax.Array],
    represent: Callable[[jax.Array], jax.Array],
    key: jax.Array,
    x: jax.Array,
    target: jax.Array,
    *,
    noise_scale: float = 0.05,
    num_samples: int = 10,
    smallest: float = 1e-6,
    chunk_size: int | None = None,
) -> jax.Array:
    """Largest relative change of an explanation, as a multiple of an inner representation's. Lower is better.

    RRS = max over x' of ‖(e(x) − e(x')) / e(x)‖ / max(‖(L(x) − L(x')) / L(x)‖, smallest).

    Args:
        f: from inputs (N, ...) to scores (N, K).
        explain: as in `relative_input_stability`.
        represent: L, from inputs (n, ...) to a layer's activations (n, ...).
        key: a random key; the noise of a sample depends on (key, input's place, sample's place) alone.
        x: inputs, (N, ...).
        target: the classes explained, (N,) integers.
        noise_scale: standard deviation of the Gaussian noise, in units of `x`, above 0.
        num_samples: neighbors of an input, at least 1.
        smallest: ε_min, above 0: the least denominator, and what stands for entries of 0 below.
        chunk_size: as in `relative_input_stability`.

    Returns:
        (N,), float32; NaN where no neighbor has the input's predicted class.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: as `relative_input_stability`, and if `represent` gives no array (N, ...).

    References:
        Rethinking Stability for Attribution-based Explanations, Agarwal et al., 2022.
    """
    check_functions(represent=represent)
    return _stability(
        f, explain, represent, key, x, target, of_hidden, noise_scale, num_samples, smallest, chunk_size
    )


def relative_output_stability(
    f: Scores,
    explain: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array,
    x: jax.Array,
    target: jax.Array,
    *,
    noise_scale: float = 0.05,
    num_samples: int = 10,
    smallest: float = 1e-6,
    chunk_size: int | None = None,
) -> jax.Array:
    """Largest relative change of an explanation, against the change of all scores. Lower is better.

    ROS = max over x' of ‖(e(x) − e(x')) / e(x)‖ / max(‖f(x) − f(x')‖, smallest): scores are not divided.

    Args:
        f: from inputs (N, ...) to scores (N, K), before the softmax.
        explain: as in `relative_input_stability`.
        key: a random key; the noise of a sample depends on (key, input's place, sample's place) alone.
        x: inputs, (N, ...).
        target: the classes explained, (N,) integers.
        noise_scale: standard deviation of the Gaussian noise, in units of `x`, above 0.
        num_samples: neighbors of an input, at least 1.
        smallest: ε_min, above 0: the least denominator, and what stands for entries of 0 below.
        chunk_size: as in `relative_input_stability`.

    Returns:
        (N,), float32, per unit of the scores; NaN where no neighbor has the input's predicted class.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: as `relative_input_stability`.

    References:
        Rethinking Stability for Attribution-based Explanations, Agarwal et al., 2022.
    """
    return _stability(
        f, explain, None, key, x, target, of_scores, noise_scale, num_samples, smallest, chunk_size
    )


# Of sums in float32: an entry that is smaller, of its array's largest, is 0 but for rounding.
_ROUNDING = float(jnp.finfo(jnp.float32).eps)

# What an explanation's change is measured against: of (start, seen, smallest), a change (n, ...).
Change = Callable[[Seen, Seen, float], jax.Array]


def of_input(start: Seen, seen: Seen, smallest: float) -> jax.Array:
    """The input's relative change."""
    return _relative(start.x, seen.x, smallest)


def of_hidden(start: Seen, seen: Seen, smallest: float) -> jax.Array:
    """The representation's relative change."""
    return _relative(start.more["hidden"], seen.more["hidden"], smallest)


def of_scores(start: Seen, seen: Seen, smallest: float) -> jax.Array:
    """The scores' change."""
    return seen.more["scores"] - start.more["scores"]


def _relative(start: jax.Array, seen: jax.Array, smallest: float) -> jax.Array:
    magnitude = jnp.abs(start)
    largest = magnitude.max(axis=tuple(range(1, start.ndim)), keepdims=True)
    return (start - seen) / jnp.where(magnitude <= _ROUNDING * largest, smallest, start)


def _stability(
    f: Scores,
    explain: Explain,
    represent: Callable[[jax.Array], jax.Array] | None,
    key: jax.Array,
    x: jax.Array,
    target: jax.Array,
    against: Change,
    noise_scale: float,
    num_samples: int,
    smallest: float,
    chunk_size: int | None,
) -> jax.Array:
    x, target = as_batch(x, target, f=f)
    check_number("noise_scale", noise_scale, above=0)
    check_count("num_samples", num_samples)
    check_number("smallest", smallest, above=0)
    if represent is not None:
        shape = getattr(jax.eval_shape(represent, x), "shape", None)
        if not shape or shape[0] != len(x):
            raise InputError(
                f"expected `represent` to give an array ({len(x)}, ...), got {shape}: one representation an input"
            )

    def move(inputs: jax.Array, images: jax.Array, number: jax.Array) -> jax.Array:
        draws = normal_draws(key, images, jnp.broadcast_to(number, images.shape), inputs.shape[1:])
        return inputs + noise_scale * draws

    def more(inputs: jax.Array) -> dict[str, jax.Array]:
        scores = {"scores": f(inputs)}
        return scores if represent is None else {**scores, "hidden": represent(inputs)}

    distance = change_against(against, smallest)
    return over_neighbors(
        explain, move, distance, x, target, num_neighbors=num_samples, more=more, chunk_size=chunk_size
    )


def change_against(against: Change, smallest: float) -> Callable[[Seen, Seen], Distance]:
    """The explanation's relative change, against another."""

    def distance(start: Seen, seen: Seen) -> Distance:
        below = norm(against(start, seen, smallest))
        below = jnp.where(below < smallest, smallest, below)
        same = start.more["scores"].argmax(axis=1) == seen.more["scores"].argmax(axis=1)
        return Distance(norm(_relative(start.explanation, seen.explanation, smallest)), below, same)

    return distance
