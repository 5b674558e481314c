"""Noise that depends on the row it is for, however rows are chunked."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jxai.checks import check_key


def row_keys(key: jax.Array, images: jax.Array, roots: jax.Array) -> jax.Array:
    """A key for each row, which depends on (key, image, root) alone.

    Args:
        key: a random key.
        images: (c,), integers.
        roots: (c,), integers.

    Returns:
        Keys, (c,).
    """
    check_key(key)
    return jax.vmap(lambda n, r: jax.random.fold_in(jax.random.fold_in(key, n), r))(images, roots)


def normal_draws(
    key: jax.Array,
    images: jax.Array,
    roots: jax.Array,
    shape: tuple[int, ...],
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """Standard normal noise for each row.

    Args:
        key: a random key.
        images: (c,), integers.
        roots: (c,), integers.
        shape: of one draw.
        dtype: of the draws.

    Returns:
        (c, *shape).
    """
    return jax.vmap(lambda one: jax.random.normal(one, shape, dtype))(row_keys(key, images, roots))
