"""What the metrics ask of attributions, baselines and numbers, and the scores as probabilities."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

from jxai.metrics._chunks import default_chunk
from jxai.metrics._inputs import check_count, check_images, count_bad

Scores = Callable[[jax.Array], jax.Array]


def as_batch(x: ArrayLike, target: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Inputs (N, ...) and their classes (N,), checked; NumPy's could not be indexed inside of a loop."""
    inputs, classes = jnp.asarray(x), jnp.asarray(target)
    check_images(inputs, classes)
    return inputs, classes


def as_finite(name: str, array: ArrayLike) -> jax.Array:
    """The array as float32; an error where it is no batch or not finite."""
    values = jnp.asarray(array)
    if values.ndim < 2 or not values.size:
        raise ValueError(f"expected `{name}` of shape (N, ...), got {values.shape}: add the axis of images")
    if bad := count_bad(values):
        raise ValueError(
            f"expected finite `{name}`, got {bad} of {values.size} NaN or infinite: look for them"
        )
    return values.astype(jnp.float32)


def as_baseline(baseline: ArrayLike, x: jax.Array) -> jax.Array:
    """The baseline, of x's shape and dtype; an error where it does not broadcast or is not finite."""
    values = jnp.asarray(baseline, x.dtype)
    try:
        whole = jnp.broadcast_to(values, x.shape)
    except ValueError as error:
        raise ValueError(
            f"expected `baseline` that broadcasts to {x.shape}, got {values.shape}: give a number, "
            "one a channel, or images"
        ) from error
    if count_bad(values):
        raise ValueError("expected a finite `baseline`, got NaN or infinite values: look for them")
    return whole


def check_number(name: str, value: float, *, above: float | None = None, least: float | None = None) -> None:
    """Refuse a known number that is not above a bound, or less than one; NaN too."""
    if isinstance(value, Tracer):
        return
    if above is not None and not value > above:
        raise ValueError(f"expected {name} above {above}, got {value}: raise it")
    if least is not None and not value >= least:
        raise ValueError(f"expected {name} of at least {least}, got {value}: raise it")


def rows_in_flight(x: jax.Array, chunk_size: int | None) -> int:
    """The chunk's size: the user's, or one by the size of an input."""
    if chunk_size is None:
        return default_chunk(x[0].size)
    check_count("chunk_size", chunk_size)
    return chunk_size


def probabilities(f: Scores) -> Scores:
    """The softmax of scores, in float32."""
    return lambda x: jax.nn.softmax(jnp.asarray(f(x), jnp.float32), axis=-1)


def draws(key: jax.Array, rows: jax.Array, samples: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal noise, (c, *shape) float32; each row's depends on (key, row, sample) alone.

    Args:
        key: a random key.
        rows: (c,), integers.
        samples: (c,), integers.
        shape: of one draw.
    """
    keys = jax.vmap(lambda n, s: jax.random.fold_in(jax.random.fold_in(key, n), s))(rows, samples)
    return jax.vmap(lambda one: jax.random.normal(one, shape, jnp.float32))(keys)
