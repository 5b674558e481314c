"""Directions inside of a model that stand for a concept, and how to make it insensitive to one, or blind.

A layer's activations are (N, ..., C), f what lies above it: `jxai.models.split` and `mark` cut a model in two.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jxai.checks import as_array, check_functions, finite, keep_nan, values
from jxai.errors import InputError
from jxai.guidance.maps import as_explanations, scaled


def concept_vector(activations: jax.Array, present: jax.Array) -> jax.Array:
    """The pattern of a concept, cov(a, t) / var(t), at length 1: for t of 0 and 1 the difference of two means.

    Unlike a classifier's weights, it does not lean away from what else varies.

    Example:
        >>> concept_vector(jnp.array([[1.0, 5.0], [3.0, 5.0]]), jnp.array([False, True]))
        Array([1., 0.], dtype=float32)

    Args:
        activations: a, (N, ..., C), floats; the mean over the axes between is taken.
        present: t, (N,), booleans; both must be there.

    Returns:
        (C,), float32 at least; 0 all over where both means are equal.

    Raises:
        TypeError: no arrays of numbers.
        ValueError: shapes do not fit, only examples with or without the concept, or values that are not finite (not
            seen under jit).

    References:
        Pahde et al., *Navigating Neural Space, Revisiting Concept Activation Vectors to Overcome Directional
        Divergence*, 2024 (pattern-CAV).
    """
    activations = as_explanations("activations", activations)
    present = as_array(present)
    if present.dtype != bool or present.shape != activations.shape[:1]:
        raise InputError(
            f"expected booleans ({len(activations)},) as present, got {present.dtype} {present.shape}: say of each "
            "example whether it has the concept"
        )
    if (known := values(present)) is not None and (known.all() or not known.any()):
        raise InputError("expected examples with and without the concept, got one kind: add the other")
    pooled = activations.reshape(len(activations), -1, activations.shape[-1]).mean(axis=1)
    with_it = present.astype(pooled.dtype)[:, None]
    number = with_it.sum()
    apart = (with_it * pooled).sum(axis=0) / number - ((1 - with_it) * pooled).sum(axis=0) / (
        len(pooled) - number
    )
    apart = scaled(apart[None])[0]  # its largest entry 1, or all of it 0
    square = (apart**2).sum()
    return apart / jnp.sqrt(jnp.where(square > 0, square, 1))  # a length whose gradient is finite at 0


def concept_sensitivity(
    f: Callable[[jax.Array], jax.Array], activations: jax.Array, target: jax.Array, concept: jax.Array
) -> jax.Array:
    """(∂/∂s m·f(a + s h))² at s = 0: RR-ClArC's loss, 0 where a step along the concept changes nothing.

    The gradient's product with h is a derivative along h, which forward differentiation has at the cost of one more
    forward pass, and whose own gradient holds no gradient of the activations. At a layer with positions h is added at
    all of them.

    Args:
        f: from activations (N, ..., C) to scores (N, K).
        activations: a, (N, ..., C), floats.
        target: m, (N, K), floats: a one-hot vector is a class; `jax.random.rademacher` draws the signs,
            which ask of all classes.
        concept: h, (C,), as `concept_vector` gives it.

    Returns:
        (N,), of the scores' dtype, float32 at least.

    Raises:
        TypeError: no function, or no arrays of numbers.
        ValueError: shapes do not fit, or values that are not finite (not seen under jit).

    References:
        Dreyer et al., *From Hope to Safety, Unlearning Biases of Deep Models via Gradient Penalization in Latent
        Space*, 2024, equation 3.
    """
    check_functions(f=f)
    as_explanations("activations", activations)
    activations = as_array(activations)
    concept, weights = _as_concept(concept, activations), finite("target", as_array(target))
    if (
        weights.ndim != 2
        or len(weights) != len(activations)
        or not jnp.issubdtype(weights.dtype, jnp.floating)
    ):
        raise InputError(
            f"expected a target ({len(activations)}, K) of floats, got {weights.dtype} {weights.shape}: of classes "
            "give jax.nn.one_hot"
        )
    of_f = jax.eval_shape(f, activations)
    if getattr(of_f, "shape", None) != weights.shape or not jnp.issubdtype(of_f.dtype, jnp.floating):
        raise InputError(
            f"expected f to give scores {weights.shape} of floats, the target's shape, got {of_f}: choose one output"
        )
    along = jnp.broadcast_to(concept.astype(activations.dtype), activations.shape)
    scores, change = jax.jvp(f, (activations,), (along,))
    finite("f's scores", scores)
    wide = jnp.promote_types(scores.dtype, jnp.float32)
    slope = (weights.astype(wide) * change.astype(wide)).sum(axis=1)
    return keep_nan(slope**2, activations, scores, weights)


def without_concept(
    activations: jax.Array,
    concept: jax.Array,
    origin: jax.Array,
    *,
    where: jax.Array | None = None,
) -> jax.Array:
    """a − h hᵀ(a − z): activations with the concept held at an origin, of all examples or of some.

    With `where` it is the reactive form, which leaves examples as they are that show no sign of the concept.

    Args:
        activations: a, (N, ..., C), floats.
        concept: h, (C,), of length 1.
        origin: z, (C,): the mean activation of examples without the concept.
        where: (N,), booleans: which examples are changed; by default all.

    Returns:
        Of the activations' shape and dtype.

    Raises:
        TypeError: no arrays of numbers.
        ValueError: shapes do not fit, or values that are not finite (not seen under jit).

    References:
        Anders et al., *Finding and Removing Clever Hans*, 2022 (projective ClArC); Bareeva et al., *Reactive Model
        Correction*, 2024.
    """
    wide = as_explanations("activations", activations)
    given = as_array(activations)
    concept, origin = _as_concept(concept, given), _as_concept(origin, given, name="origin")
    held = concept.astype(wide.dtype), origin.astype(wide.dtype)
    along = ((wide - held[1]) * held[0]).sum(axis=-1, keepdims=True)
    changed = (wide - along * held[0]).astype(given.dtype)
    if where is None:
        return keep_nan(changed, given)
    chosen = as_array(where)
    if chosen.dtype != bool or chosen.shape != given.shape[:1]:
        raise InputError(
            f"expected booleans ({len(given)},) as where, got {chosen.dtype} {chosen.shape}: say of each example "
            "whether it is changed"
        )
    return jnp.where(chosen.reshape(-1, *[1] * (given.ndim - 1)), keep_nan(changed, given), given)


def _as_concept(value: jax.Array, activations: jax.Array, *, name: str = "concept") -> jax.Array:
    array = finite(name, as_array(value))
    if array.shape != activations.shape[-1:] or not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f"expected {name} ({activations.shape[-1]},) of floats, got {array.dtype} {array.shape}: one number a "
            "channel of the activations"
        )
    return array
