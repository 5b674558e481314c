"""From a head's scores to weights of its features: where relevance starts, and what is made of it."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Explanation:
    """What guidance computed for one episode.

    Attributes:
        start: relevance of the scores, (queries, way); of a graph's, at every node.
        relevance: of the explained features.
        weights: of the explained features, in [0, 2] at strength 1; an array, or what `jnp.asarray` makes one of.
    """

    start: jax.Array
    relevance: jax.Array
    weights: Any


def log_odds(scores: jax.Array) -> jax.Array:
    """The relevance that scores start with: R⁰ = log(β(p + 0.01) / (1.01 − p)), p = softmax, β = way − 1.

    It is about 0 at chance level. The release holds β at 4, which is way − 1 in its 5-way tasks.

    Args:
        scores: raw scores (..., way).

    Returns:
        Relevance of the scores' shape.
    """
    p = jax.nn.softmax(scores)
    return jnp.log((scores.shape[-1] - 1) * (p + 0.01) / (1.01 - p))


def relevance_weights(relevance: jax.Array, *, strength: float = 1.0) -> jax.Array:
    """w = 1 + t·R / max|R| with the maximum over the last axis; 1 where all of R is 0.

    Args:
        relevance: (..., C).
        strength: t, at least 0.

    Returns:
        Weights of the relevance's shape, in [1 − t, 1 + t].
    """
    largest = jnp.max(jnp.abs(relevance), axis=-1, keepdims=True)
    return 1 + strength * relevance / jnp.where(largest == 0, 1, largest)
