"""Features weighted by their relevance: what Sun et al. train few-shot heads with, for any classifier."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jxai.checks import as_array, check_functions, check_number, finite
from jxai.errors import InputError
from jxai.guidance.maps import as_explanations


def relevance_weights(relevance: jax.Array, *, strength: float = 1.0) -> jax.Array:
    """w = 1 + t·R / max|R| with the maximum over the last axis; 1 where all of R is 0.

    Args:
        relevance: (..., C).
        strength: t, at least 0.

    Returns:
        Weights of the relevance's shape, in [1 − t, 1 + t].

    Raises:
        TypeError: no array of numbers.
        ValueError: no last axis, a negative strength, or relevance that is not finite (not seen under jit).

    References:
        Sun et al., *Explanation-Guided Training for Cross-Domain Few-Shot Classification*, 2020, equation 5.
    """
    check_number("strength", strength, least=0)
    relevance = finite("relevance", as_array(relevance))
    if not relevance.ndim or not relevance.shape[-1] or not jnp.issubdtype(relevance.dtype, jnp.floating):
        raise InputError(
            f"expected relevance (..., C) of floats, got {relevance.dtype} {relevance.shape}: add an axis"
        )
    # Twice: the first is held, so that gradients of tiny relevance stay within float32.
    held = jax.lax.stop_gradient(jnp.max(jnp.abs(relevance), axis=-1, keepdims=True))
    relevance = relevance / jnp.where(held == 0, 1, held)
    largest = jnp.max(jnp.abs(relevance), axis=-1, keepdims=True)
    return 1 + strength * relevance / jnp.where(largest == 0, 1, largest)


def weighted_scores(
    head: Callable[[jax.Array], jax.Array],
    explain: Callable[[jax.Array], jax.Array],
    features: jax.Array,
    *,
    strength: float = 1.0,
    through: bool = False,
) -> jax.Array:
    """Scores of features that were multiplied by the weights of their own relevance.

    Train on the sum of a loss of `head(features)` and one of these: what is relevant to the explained class counts
    more in the second, what speaks against it less.

    Args:
        head: from features (N, ..., C) to scores (N, K).
        explain: from features to relevance of their shape, such as
            `lambda z: lrp.relevance(head, z, labels, composite=...)`.
        features: (N, ..., C), floats.
        strength: t in `relevance_weights`, at least 0.
        through: whether gradients pass through the weights; the paper's release lets them pass through one head's
            alone (cross attention).

    Returns:
        (N, K), as `head` gives them.

    Raises:
        TypeError: no functions, or no array of numbers.
        ValueError: relevance of another shape than the features, a negative strength, or values that are not finite
            (not seen under jit).

    References:
        Sun et al., *Explanation-Guided Training for Cross-Domain Few-Shot Classification*, 2020, equations 5 and 6.
    """
    check_functions(head=head, explain=explain)
    as_explanations("features", features)
    features = as_array(features)
    relevance = as_array(explain(features))
    if relevance.shape != features.shape:
        raise InputError(
            f"expected relevance of the features' shape {features.shape}, got {relevance.shape}: explain the "
            "features, not what they come from"
        )
    weights = relevance_weights(relevance, strength=strength).astype(features.dtype)
    return head(features * (weights if through else jax.lax.stop_gradient(weights)))
