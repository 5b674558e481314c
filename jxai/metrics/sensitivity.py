"""Maximum sensitivity: how far an explanation moves when its input hardly does."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jxai.batches.chunks import map_chunks, rows_in_flight
from jxai.batches.draws import row_keys
from jxai.checks import check_count, check_number, finite, keep_nan
from jxai.errors import InputError
from jxai.metrics.inputs import as_batch
from jxai.ops.channels_last import with_plain_convolutions


def maximum_sensitivity(
    explain: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array,
    x: jax.Array,
    target: jax.Array,
    *,
    radius: float = 0.02,
    num_samples: int = 10,
    chunk_size: int | None = None,
) -> jax.Array:
    """Largest relative change of an explanation within a small box around the input. Lower is better.

    max over d of ‖e(x + d) − e(x)‖ / ‖e(x)‖, d uniform in [−radius, radius] in each element, Euclidean norms.

    An input keeps its place in the batch that `explain` gets, so an estimator with a fixed key draws the same noise
    for x and for x + d.

    Args:
        explain: from inputs (n, ...) and their targets (n,) to attributions or heatmaps (n, ...); each input on its
            own.
        key: a random key; the noise of a sample depends on (key, input's place, sample's place) alone.
        x: inputs, (N, ...).
        target: the classes explained, (N,) integers.
        radius: half the box's side, in units of `x`, above 0.
        num_samples: inputs tried in each box, at least 1.
        chunk_size: inputs explained at once. Places begin at 0 in each chunk, which matters to explanations with
            noise of their own; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,), float32; infinite where an explanation of norm 0 moves, 0 where it does not.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a count is below 1 or `radius` not above 0.

    References:
        On the (In)fidelity and Sensitivity of Explanations, Yeh et al., 2019.
    """
    x, target = as_batch(x, target)
    explain = with_plain_convolutions(explain)
    check_count("num_samples", num_samples)
    check_number("radius", radius, above=0)
    shape = getattr(jax.eval_shape(explain, x, target), "shape", None)
    if not shape or shape[0] != len(x):
        raise InputError(
            f"expected `explain` to give an array ({len(x)}, ...), got {shape}: one explanation an input"
        )

    def moves(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The farthest that explanations move, and how long they are."""
        inputs, classes = x[images], target[images]

        def sample(
            carry: tuple[jax.Array, jax.Array], index: jax.Array
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            start, largest = carry
            keys = row_keys(key, images, jnp.broadcast_to(index, images.shape))
            draws = jax.vmap(lambda one: jax.random.uniform(one, x.shape[1:], minval=-1, maxval=1))(keys)
            moved = (inputs + jnp.where(index == 0, 0, radius) * draws).astype(x.dtype)
            explanation = explain(moved, classes).astype(jnp.float32)
            start = jnp.where(index == 0, explanation, start)  # the first one is x itself
            moved_by = _norm(explanation - start)
            farther = jnp.isnan(moved_by) | (moved_by > largest)  # XLA's maximum may lose NaN
            return (start, jnp.where(farther, moved_by, largest)), None

        start = jnp.zeros((len(images), *shape[1:]), jnp.float32)
        carry = start, jnp.zeros(len(images), jnp.float32)
        (start, largest), _ = jax.lax.scan(sample, carry, jnp.arange(num_samples + 1))
        return largest, _norm(start)

    largest, length = finite("explanations", map_chunks(moves, len(x), rows_in_flight(x, chunk_size)))
    return keep_nan(jnp.where(largest == 0, 0, largest / length), x)


def _norm(values: jax.Array) -> jax.Array:
    return jnp.sqrt((values**2).sum(axis=tuple(range(1, values.ndim))))
