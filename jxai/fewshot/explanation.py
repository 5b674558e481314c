"""From a head's scores to weights of its features: where relevance starts, and what is made of it."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jxai.checks import as_array, finite
from jxai.errors import InputError


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

    Raises:
        TypeError: no array of numbers.
        ValueError: fewer than two classes, or scores that are not finite (not seen under jit).
    """
    scores = finite("scores", as_array(scores))
    if not scores.ndim or scores.shape[-1] < 2 or not jnp.issubdtype(scores.dtype, jnp.floating):
        raise InputError(
            f"expected scores (..., way) of floats for two classes at least, got {scores.dtype} {scores.shape}: "
            "odds need another class"
        )
    # In bfloat16 1.01 − p would be off by a fifth where p is near 1.
    p = jax.nn.softmax(scores.astype(jnp.promote_types(scores.dtype, jnp.float32)))
    return jnp.log((scores.shape[-1] - 1) * (p + 0.01) / (1.01 - p)).astype(scores.dtype)
