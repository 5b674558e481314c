"""Whether the score goes by the order of attributions: as features come, and as each of them varies.

Attributions are those of elements, of x's shape, or of places, without x's last axis: then a place's channels go
together.
"""

import jax
import jax.numpy as jnp

from jxai.checks import check_count, check_key, finite, keep_nan
from jxai.metrics.correlation import spearman
from jxai.metrics.features import (
    Baseline,
    as_attributions,
    as_replacement,
    group_size_of,
    scores_and_sums,
    scores_without,
)
from jxai.metrics.inputs import Scores, as_batch
from jxai.metrics.pixels import removal_ranks


def monotonicity(
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
    """Whether the score never falls as features enter, the least relevant first. Higher is better.

    1 where f(x_0) ≤ f(x_1) ≤ ... ≤ f(x), else 0; x_0 is the baseline, and x_k has the k groups of features with the
    smallest attributions. Signs count: give |a| for an order by magnitude.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        x: inputs, (N, ..., C).
        attributions: a, of x's shape, or (N, ...) without its last axis.
        target: the class whose score is read, (N,) integers.
        group_size: features that enter at a time; by default so many that there are at most 100 groups. The paper's
            is 1.
        baseline: what is there before: a number, (C,), whatever broadcasts to `x`, or a function (x, mask, key) -> x
            of one input, such as `mean_baseline()`.
        key: what a function as `baseline` draws from, if it does; each step gets a key of its own.
        chunk_size: inputs in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,), float32, 0 or 1; the mean over inputs is the share of them that pass. Of a constant map the features
        enter in reverse reading order.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target or `group_size` is out of range.

    References:
        One Explanation Does Not Fit All: A Toolkit and Taxonomy of AI Explainability Techniques, Arya et al., 2019;
        Generating Contrastive Explanations with Monotonic Attribute Functions, Luss et al., 2019.
    """
    x, target = as_batch(x, target, f=f)
    attributions = as_attributions(attributions, x)
    num_features = attributions[0].size
    size = group_size_of(group_size, num_features)
    replace = as_replacement(baseline, x, key)
    # From the last place to enter to the first: what is missing after k groups has a place below F − k·size.
    ranks = removal_ranks(attributions)
    steps = -(-num_features // size)

    def missing(images: jax.Array, step: jax.Array) -> jax.Array:
        return ranks[images] < (num_features - step * size).reshape(-1, *[1] * (ranks.ndim - 1))

    scores = scores_without(f, x, target, missing, steps + 1, replace, chunk_size)
    never = (scores[:, 1:] >= scores[:, :-1]).all(axis=1).astype(jnp.float32)
    return keep_nan(never, scores, attributions)


def monotonicity_correlation(
    f: Scores,
    key: jax.Array,
    x: jax.Array,
    attributions: jax.Array,
    target: jax.Array,
    *,
    num_samples: int = 10,
    group_size: int | None = None,
    baseline: Baseline | None = None,
    chunk_size: int | None = None,
) -> jax.Array:
    """Rank correlation of attributions' magnitudes with how much the score varies by each feature. Higher is better.

    ρ_k(Σ_{i ∈ G_k} |a_i|, E[(f(x) − f(x with other values of G_k))²]), Spearman's, over groups G_k of features in the
    order of their magnitudes. Quantus weights each image's squares by 1 / f(x)², which no rank sees.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        key: a random key; what a feature becomes depends on (key, image's place, group's and sample's place) alone.
        x: inputs, (N, ..., C).
        attributions: a, of x's shape, or (N, ...) without its last axis.
        target: the class whose score is read, (N,) integers.
        num_samples: draws a group, at least 1.
        group_size: features that vary at a time; by default so many that there are at most 100 groups. The paper's
            is 1.
        baseline: the other values: a function (x, mask, key) -> x of one input that draws them, or a number or an
            array, for which one sample is enough. By default uniform between the input's smallest and largest value.
        chunk_size: inputs in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,) in [-1, 1], float32; 0 where the magnitudes are constant, or the score varies as much by all.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target or `group_size` is out of range, or
            `num_samples` is below 1.

    References:
        On Quantitative Aspects of Model Interpretability, Nguyen and Martinez, 2020, section 3.
    """
    x, target = as_batch(x, target, f=f)
    magnitudes = jnp.abs(as_attributions(attributions, x))
    check_key(key)
    check_count("num_samples", num_samples)
    num_features = magnitudes[0].size
    size = group_size_of(group_size, num_features)
    replace = as_replacement(_within_range if baseline is None else baseline, x, key)
    ranks = removal_ranks(magnitudes)
    num_groups = -(-num_features // size)

    def varied(images: jax.Array, sets: jax.Array) -> jax.Array:
        """None first, then a group each, all of them once and again."""
        group = jnp.where(sets == 0, -1, (sets - 1) % num_groups)
        return ranks[images] // size == group.reshape(-1, *[1] * (ranks.ndim - 1))

    num_sets = 1 + num_groups * num_samples
    scores, sums = scores_and_sums(f, x, target, varied, num_sets, replace, chunk_size, magnitudes)
    squares = (scores[:, 1:] - scores[:, :1]) ** 2
    effects = finite("effects", squares.reshape(len(x), num_samples, num_groups).mean(axis=1))
    return keep_nan(spearman(sums[:, 1 : 1 + num_groups], effects), effects, magnitudes)


def _within_range(x: jax.Array, mask: jax.Array, key: jax.Array | None) -> jax.Array:
    """Uniform noise between the smallest and the largest value of one input."""
    assert key is not None
    return x.min() + (x.max() - x.min()) * jax.random.uniform(key, x.shape, x.dtype)
