"""Relevance R of an activation x travels as the ratio c = R / x; here the two are turned into each other.

With ratios, plain automatic differentiation is already LRP-0: sums, concatenations, slices, means, ReLU and
pooling conserve relevance without a rule. An activation of exactly zero may still carry relevance (below a rule
whose R is not proportional to x), so both directions treat |x| < TINY as TINY with the sign of x: the relevance
comes back whole, and no infinity appears.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jxai.checks import check_number

TINY = 1e-20


def _nonzero(x: jax.Array) -> jax.Array:
    return jnp.where(jnp.abs(x) < TINY, jnp.where(x < 0, -TINY, TINY), x).astype(x.dtype)


def to_ratio(relevance: jax.Array, x: jax.Array) -> jax.Array:
    """R / x, finite where x is zero."""
    return relevance / _nonzero(x)


def to_relevance(ratio: jax.Array, x: jax.Array) -> jax.Array:
    """c · x, the inverse of `to_ratio`."""
    return ratio * _nonzero(x)


def check_stabilizer(epsilon: Any) -> None:
    """Refuse a stabilizer that is negative or not a number."""
    check_number("a stabilizer epsilon", epsilon, least=0)


def is_zero(number: Any) -> bool:
    """Whether a rule's number is known to be 0, so that what it multiplies is left out; of a traced one it is not."""
    return not isinstance(number, Tracer) and not number


def stabilize(z: jax.Array, epsilon: Any) -> jax.Array:
    """S(z) = z + ε·sgn(z) with sgn(0) = +1."""
    return z + jnp.where(z < 0, -epsilon, epsilon).astype(z.dtype)


def replace_zeros(z: jax.Array, epsilon: Any) -> jax.Array:
    """z, with ε in place of exact zeros."""
    return jnp.where(z == 0, jnp.asarray(epsilon, z.dtype), z)
