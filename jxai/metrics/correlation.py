"""How two lists of numbers go together, along the last axis: by value and by rank."""

import jax
import jax.numpy as jnp


def pearson(first: jax.Array, second: jax.Array) -> jax.Array:
    """Pearson's correlation; 0 where a list is constant, so that nothing can go with it.

    Args:
        first: (..., S), float32.
        second: (..., S), float32.

    Returns:
        (...) in [-1, 1], float32.
    """
    first, second = _direction(first), _direction(second)
    power = (first**2).sum(axis=-1) * (second**2).sum(axis=-1)
    likeness = (first * second).sum(axis=-1) / jnp.sqrt(jnp.where(power > 0, power, 1))
    return jnp.clip(jnp.where(power > 0, likeness, 0), -1, 1)


def spearman(first: jax.Array, second: jax.Array) -> jax.Array:
    """Pearson's correlation of ranks, as `pearson`; equal values share the mean of their ranks."""
    return pearson(centered_ranks(first), centered_ranks(second))


@jax.jit
def centered_ranks(values: jax.Array) -> jax.Array:
    """Ranks less their mean, as shares of the count: float32 then holds their products.

    Args:
        values: (..., S).

    Returns:
        (..., S), float32.
    """

    def line(flat: jax.Array) -> jax.Array:
        ascending = jnp.sort(flat)
        below, up_to = (jnp.searchsorted(ascending, flat, side=side) for side in ("left", "right"))
        return (below + up_to - flat.size).astype(jnp.float32) / (2 * flat.size)

    return jax.vmap(line)(values.reshape(-1, values.shape[-1])).reshape(values.shape)


def _direction(values: jax.Array) -> jax.Array:
    """The values less their mean, 0 where they are constant, in a unit in which squares are no trouble."""
    size = jnp.abs(values).max(axis=-1, keepdims=True)
    unit = values / jnp.where(size > 0, size, 1)
    centered = unit - unit.mean(axis=-1, keepdims=True)
    # Compared before rounding: the mean of equal numbers need not be that number.
    constant = values.max(axis=-1, keepdims=True) == values.min(axis=-1, keepdims=True)
    most = jnp.abs(centered).max(axis=-1, keepdims=True)
    return jnp.where(constant, 0, centered / jnp.where(most > 0, most, 1))
