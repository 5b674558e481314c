"""The random key of a seed on the command line."""

import jax

from jxai.errors import InputError

_LARGEST = 2**32 - 1


def key_of(seed: int) -> jax.Array:
    """The key of a seed.

    Args:
        seed: of 32 bits; JAX would cut others to them without a word, and two seeds be one.

    Returns:
        The key.

    Raises:
        ValueError: another number.
    """
    if not 0 <= seed <= _LARGEST:
        raise InputError(f"expected a seed from 0 to {_LARGEST}, got {seed}: give another")
    return jax.random.key(seed)
