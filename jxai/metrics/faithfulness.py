"""Whether attributions foretell how far the score falls without some features, as a correlation.

Attributions are those of elements, of x's shape, or of places, without x's last axis: then a place's channels go
together. They are contributions, such as input times gradient, in the order and sign of what they say.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jxai.batches.draws import row_keys
from jxai.checks import check_count, check_key, finite, keep_nan, shown
from jxai.errors import InputError
from jxai.metrics.correlation import pearson
from jxai.metrics.features import (
    Baseline,
    as_attributions,
    as_replacement,
    group_size_of,
    scores_and_sums,
)
from jxai.metrics.inputs import Scores, as_batch
from jxai.metrics.pixels import removal_ranks


def faithfulness_estimate(
    f: Scores,
    x: jax.Array,
    attributions: jax.Array,
    target: jax.Array,
    *,
    group_size: int | None = None,
    baseline: Baseline = 0.0,
    key: jax.Array | None = None,
    chunk_size: int | None = None,
) -> jax.Array:
    """Correlation of attributions with the drops of the score as each feature alone is removed. Higher is better.

    corr_k(Σ_{i ∈ G_k} a_i, f(x) − f(x without G_k)), Pearson's, over the groups G_k of features in the order of their
    attributions, the largest first. The paper's groups are single features, and its scores probabilities: give an
    `f` with a softmax for them.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        x: inputs, (N, ..., C).
        attributions: a, of x's shape, or (N, ...) without its last axis.
        target: the class whose score is read, (N,) integers.
        group_size: features removed at a time; by default so many that there are at most 100 groups.
        baseline: what takes a feature's place: a number, (C,), whatever broadcasts to `x`, or a function
            (x, mask, key) -> x of one input, such as `mean_baseline()`.
        key: what a function as `baseline` draws from, if it does; each group gets a key of its own.
        chunk_size: inputs in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,) in [-1, 1], float32; 0 where the attributions or the drops are constant.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target or `group_size` is out of range.

    References:
        Towards Robust Interpretability with Self-Explaining Neural Networks, Alvarez-Melis and Jaakkola, 2018,
        section 4.
    """
    x, target = as_batch(x, target, f=f)
    attributions = as_attributions(attributions, x)
    size = group_size_of(group_size, attributions[0].size)
    replace = as_replacement(baseline, x, key)
    ranks = removal_ranks(attributions)
    num_groups = -(-attributions[0].size // size)

    def removed(images: jax.Array, sets: jax.Array) -> jax.Array:
        """None first, then a group each."""
        return ranks[images] // size == sets.reshape(-1, *[1] * (ranks.ndim - 1)) - 1

    scores, sums = scores_and_sums(f, x, target, removed, 1 + num_groups, replace, chunk_size, attributions)
    return _correlation(sums[:, 1:], scores[:, :1] - scores[:, 1:])


def sensitivity_n(
    f: Scores,
    key: jax.Array,
    x: jax.Array,
    attributions: jax.Array,
    target: jax.Array,
    *,
    sizes: Sequence[int] | None = None,
    num_samples: int = 100,
    baseline: Baseline = 0.0,
    chunk_size: int | None = None,
) -> jax.Array:
    """Correlation of attributions' sums with the score's drops over random sets of n features. Higher is better.

    corr_S(Σ_{i ∈ S} a_i, f(x) − f(x without S)), Pearson's, over sets S of n features drawn uniformly, each n. The
    mean over images is the paper's curve.

    Quantus' program of this name is another thing. It draws no sets: it removes the features of each image in the
    order of their attributions, a step at a time, and correlates, over the images, the attributions of the k-th step
    alone with the drop since the start, after all k steps. `pixel_flipping` gives these drops.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        key: a random key; a set depends on (key, image's place, n's place, sample's place) alone.
        x: inputs, (N, ..., C).
        attributions: a, of x's shape, or (N, ...) without its last axis.
        target: the class whose score is read, (N,) integers.
        sizes: n, each from 1 to the number of features; by default eight, from 1 to 80 %, in equal ratios as far as
            integers go.
        num_samples: sets a size, at least 2; 100 as published.
        baseline: what takes a feature's place: a number, (C,), whatever broadcasts to `x`, or a function
            (x, mask, key) -> x of one input, such as `mean_baseline()`.
        chunk_size: inputs in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N, number of sizes) in [-1, 1], float32; 0 where the sums or the drops are constant, as with all features.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target or a size is out of range, or `num_samples`
            is below 2.

    References:
        Towards Better Understanding of Gradient-based Attribution Methods for Deep Neural Networks, Ancona et al.,
        2018, section 4.
    """
    x, target = as_batch(x, target, f=f)
    attributions = as_attributions(attributions, x)
    check_key(key)
    check_count("num_samples", num_samples, least=2)
    num_features = attributions[0].size
    counts = _sizes(sizes, num_features)
    num_sets = 1 + len(counts) * num_samples
    limits = jnp.asarray([0, *np.repeat(counts, num_samples)], jnp.int32)
    of_sets, of_baseline = jax.random.split(key)
    replace = as_replacement(baseline, x, of_baseline)

    def removed(images: jax.Array, sets: jax.Array) -> jax.Array:
        return _random_sets(of_sets, images, sets, limits[sets], attributions.shape[1:])

    scores, sums = scores_and_sums(f, x, target, removed, num_sets, replace, chunk_size, attributions)
    shape = len(x), len(counts), num_samples
    return _correlation(sums[:, 1:].reshape(shape), (scores[:, :1] - scores[:, 1:]).reshape(shape))


def faithfulness_correlation(
    f: Scores,
    key: jax.Array,
    x: jax.Array,
    attributions: jax.Array,
    target: jax.Array,
    *,
    subset_size: int | None = None,
    num_samples: int = 100,
    baseline: Baseline = 0.0,
    chunk_size: int | None = None,
) -> jax.Array:
    """Correlation of attributions' sums with the score's drops over random sets of one size. Higher is better.

    corr_S(Σ_{i ∈ S} a_i, f(x) − f(x without S)), Pearson's, over sets S of |S| features drawn uniformly:
    `sensitivity_n` at one n.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        key: a random key; a set depends on (key, image's place, sample's place) alone.
        x: inputs, (N, ..., C).
        attributions: a, of x's shape, or (N, ...) without its last axis.
        target: the class whose score is read, (N,) integers.
        subset_size: |S|, from 1 to the number of features; by default a tenth of them, at least 1.
        num_samples: sets an image, at least 2.
        baseline: what takes a feature's place: a number, (C,), whatever broadcasts to `x`, or a function
            (x, mask, key) -> x of one input, such as `mean_baseline()`.
        chunk_size: inputs in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,) in [-1, 1], float32; 0 where the sums or the drops are constant.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target or `subset_size` is out of range, or
            `num_samples` is below 2.

    References:
        Evaluating and Aggregating Feature-based Model Explanations, Bhatt et al., 2020, definition 3.
    """
    if subset_size is None:
        subset_size = max(1, as_attributions(attributions, as_batch(x, target)[0])[0].size // 10)
    check_count("subset_size", subset_size)
    options = {"sizes": (subset_size,), "num_samples": num_samples, "baseline": baseline}
    return sensitivity_n(f, key, x, attributions, target, **options, chunk_size=chunk_size)[:, 0]


def _correlation(sums: jax.Array, drops: jax.Array) -> jax.Array:
    """Pearson's, along the last axis, NaN for an image whose numbers are not finite."""
    return finite("correlations", keep_nan(pearson(sums, drops), sums, drops))


def _sizes(sizes: Sequence[int] | None, num_features: int) -> list[int]:
    """The sizes of sets, checked, or the default ones."""
    if sizes is None:
        return sorted({int(size) for size in np.geomspace(1, max(1, 0.8 * num_features), 8)})
    if not isinstance(sizes, Sequence | np.ndarray) or isinstance(sizes, str | bytes) or not len(sizes):
        raise InputError(f"expected sizes of sets, got {shown(sizes)}: give such as (1, 10)")
    counts = [check_count("sizes", size) for size in sizes]
    if max(counts) > num_features:
        raise InputError(
            f"expected sizes of at most {num_features}, the number of features, got {max(counts)}: lower them"
        )
    return counts


def _random_sets(
    key: jax.Array, images: jax.Array, sets: jax.Array, sizes: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """Sets drawn uniformly among those of a size, booleans (c, *shape)."""
    num_features = math.prod(shape)

    def one(key: jax.Array, size: jax.Array) -> jax.Array:
        order = jnp.argsort(jax.random.bits(key, (num_features,), jnp.uint32))
        first = jnp.arange(num_features) < size
        return jnp.zeros(num_features, bool).at[order].set(first, unique_indices=True).reshape(shape)

    return jax.vmap(one)(row_keys(key, images, sets), sizes)
