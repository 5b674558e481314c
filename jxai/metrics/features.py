"""Sets of features replaced and the score read, a set at a time: what the metrics of faithfulness share.

A feature is an element of an input, or, where attributions lack the last axis, a place with all its channels.
What takes a feature's place is `baseline`: a number or an array, or a function (x, mask, key) -> x of one input,
without the axis of images. Of what the function returns only the masked features count.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai.batches.checks import as_baseline, as_finite
from jxai.batches.chunks import map_chunks, rows_in_flight
from jxai.batches.draws import row_keys
from jxai.checks import as_array, check_count, check_key, finite, keep_nan, shown
from jxai.errors import InputError
from jxai.metrics.inputs import Scores, probabilities, target_scores

# Of one input: (x, mask of x's shape, key or None) -> x.
Baseline = ArrayLike | Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]
# Of (x, removed, images, sets), the first two (c, ...), the others (c,): what takes the features' places.
Replacement = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
# Of (images, sets), both (c,): which features go, booleans (c, ...).
Removed = Callable[[jax.Array, jax.Array], jax.Array]


def as_attributions(attributions: ArrayLike, x: jax.Array) -> jax.Array:
    """Attributions of elements, of x's shape, or of places, without its last axis, as float32.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    array = as_array(attributions)
    if array.ndim < 2 or array.shape not in (x.shape, x.shape[:-1]):
        raise InputError(
            f"expected `attributions` of shape {x.shape}, or {x.shape[:-1]} without channels, got {array.shape}: "
            "one for each element of x, or one for each of its places"
        )
    return as_finite("attributions", array).astype(jnp.float32)


def as_replacement(baseline: Baseline, x: jax.Array, key: jax.Array | None = None) -> Replacement:
    """What takes the place of features, by an array or the caller's function.

    Args:
        baseline: a number, whatever broadcasts to `x`, or a function of one input.
        x: (N, ...).
        key: what the function draws from, folded with the image's place and the set's, or None.

    Raises:
        TypeError: `key` is none.
        ValueError: it does not broadcast, is not finite, or the function gives another shape.
    """
    if key is not None:
        check_key(key)
    if not callable(baseline):
        whole = as_baseline(baseline, x)
        return lambda x, removed, images, sets: whole[images]
    one = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    found = jax.eval_shape(baseline, one, jax.ShapeDtypeStruct(one.shape, jnp.bool_), key)
    shape = getattr(found, "shape", None)
    if shape != one.shape or not jnp.issubdtype(found.dtype, jnp.floating):
        got = shown(found) if shape is None else f"{found.dtype} of shape {shape}"
        raise InputError(
            f"expected `baseline` to give floats of shape {one.shape}, got {got}: of (x, mask, key) of one input it "
            "returns the input with its masked features replaced"
        )

    def replace(x: jax.Array, removed: jax.Array, images: jax.Array, sets: jax.Array) -> jax.Array:
        if key is None:
            return jax.vmap(lambda x, mask: baseline(x, mask, None))(x, removed)
        return jax.vmap(baseline)(x, removed, row_keys(key, images, sets))

    return replace


def scores_without(
    f: Scores,
    x: jax.Array,
    target: jax.Array,
    removed: Removed,
    num_sets: int,
    replace: Replacement,
    chunk_size: int | None,
) -> jax.Array:
    """The target's scores once each of some sets of features is replaced.

    Args:
        f: from inputs (c, ...) to scores (c, K).
        x: (N, ...), checked.
        target: (N,), checked.
        removed: which features go; sets are made when they are needed, a chunk at a time.
        num_sets: S, at least 1.
        replace: of `as_replacement`.
        chunk_size: inputs in flight, or None.

    Returns:
        (N, S), float32; NaN, under `jit`, where x or what was put into it is not finite.

    Raises:
        ValueError: chunk_size is below 1, or a score is not finite.
    """

    return _scores(f, x, target, removed, num_sets, replace, chunk_size, lambda images, gone, outputs: ())[0]


def scores_and_sums(
    f: Scores,
    x: jax.Array,
    target: jax.Array,
    removed: Removed,
    num_sets: int,
    replace: Replacement,
    chunk_size: int | None,
    attributions: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """As `scores_without`, and the sums of the attributions, (N, ...), that go with each set: (N, S) both."""
    axes = tuple(range(1, attributions.ndim))
    # About their middle: equal attributions have equal sums then, whatever the order they are added in.
    middle = attributions.max(axis=axes) / 2 + attributions.min(axis=axes) / 2
    centered = attributions - middle.reshape(-1, *[1] * len(axes))

    def sums(images: jax.Array, gone: jax.Array, outputs: jax.Array) -> jax.Array:
        count = gone.sum(axis=axes, dtype=jnp.float32)
        return jnp.where(gone, centered[images], 0).sum(axis=axes) + middle[images] * count

    scores, found = _scores(f, x, target, removed, num_sets, replace, chunk_size, sums)
    return scores, keep_nan(finite("sums of attributions", found).reshape(scores.shape), attributions)


def scores_and_probabilities(
    f: Scores,
    x: jax.Array,
    target: jax.Array,
    removed: Removed,
    num_sets: int,
    replace: Replacement,
    chunk_size: int | None,
) -> tuple[jax.Array, jax.Array]:
    """As `scores_without`, and the target's softmax probabilities of the same outputs: (N, S) both."""

    def share(images: jax.Array, gone: jax.Array, outputs: jax.Array) -> jax.Array:
        return target_scores(probabilities(lambda _: outputs), outputs, images, target)

    scores, found = _scores(f, x, target, removed, num_sets, replace, chunk_size, share)
    shares = finite("scores", found).reshape(scores.shape)
    return scores, jnp.where(jnp.isnan(scores), jnp.nan, shares)


def _scores(
    f: Scores,
    x: jax.Array,
    target: jax.Array,
    removed: Removed,
    num_sets: int,
    replace: Replacement,
    chunk_size: int | None,
    beside: Callable[[jax.Array, jax.Array, jax.Array], Any],
) -> tuple[jax.Array, Any]:
    """The scores, and what else is made of (images, features that go, f's outputs) of each row."""

    def one(rows: jax.Array) -> tuple[jax.Array, Any]:
        image, number = rows // num_sets, rows % num_sets
        inputs, gone = x[image], removed(image, number)
        mask = jnp.broadcast_to(gone.reshape(*gone.shape, *[1] * (x.ndim - gone.ndim)), inputs.shape)
        mixed = jnp.where(mask, replace(inputs, mask, image, number).astype(x.dtype), inputs)
        outputs = f(mixed)
        scores = keep_nan(target_scores(lambda _: outputs, mixed, image, target), mixed)
        return scores, beside(image, gone, outputs)

    found, others = map_chunks(one, len(x) * num_sets, rows_in_flight(x, chunk_size))
    return keep_nan(finite("scores", found).reshape(len(x), num_sets), x), others


def group_size_of(group_size: int | None, num_features: int) -> int:
    """Features that go together: the caller's number, or so many that there are at most 100 groups.

    Raises:
        ValueError: it is below 1 or above the number of features.
    """
    if group_size is None:
        return -(-num_features // 100)
    check_count("group_size", group_size)
    if group_size > num_features:
        raise InputError(
            f"expected group_size of at most {num_features}, the number of features, got {group_size}: lower it"
        )
    return group_size
