"""F-Fidelity: random masks among the relevant features and among the others, for a network that has learned masks.

Without features an input is none that a network was trained on. F-Fidelity has two remedies. The network is tuned,
with no explanation in sight, on inputs without a random share of their features, `randomly_masked`; and what goes to
judge an explanation, in `f_fidelity`, is as random and never more than that share. The step of training is the
caller's; its one new line is `loss(params, randomly_masked(key, x, share=0.1), label)`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jxai.batches.checks import check_finite
from jxai.batches.draws import row_keys
from jxai.checks import as_array, check_count, check_key, check_number, finite, keep_nan, shown
from jxai.errors import InputError
from jxai.metrics.features import Baseline, as_attributions, as_replacement, scores_without
from jxai.metrics.inputs import Scores, as_batch
from jxai.metrics.pixels import removal_ranks

_SIZES = tuple(percent / 100 for percent in range(10, 100, 10))


class FFidelity(NamedTuple):
    """What `f_fidelity` finds of each input, a column an explanation's size.

    Attributes:
        plus: FFid+, the score's mean drop without some of the relevant features, (N, S) float32. Higher is better.
        minus: FFid-, its mean drop without some of the other features, (N, S) float32. Lower is better.
    """

    plus: jax.Array
    minus: jax.Array


def randomly_masked(
    key: jax.Array, x: ArrayLike, *, share: float = 0.1, baseline: Baseline = 0.0
) -> jax.Array:
    """Inputs with random features replaced, for tuning a network that `f_fidelity` is to ask.

    Of an input's d features so many are replaced as a draw from 0, 1, ..., ⌊share · d⌋ says. The authors' program
    always replaces ⌊share · d⌋; `f_fidelity` replaces fewer where the explanation is small.

    Args:
        key: a random key; an input's mask depends on (key, input's place) alone. Give each step its own.
        x: inputs, (N, ..., C), whose places lose all channels, or (N, D).
        share: β, the largest share of the features, above 0 and at most 1; 0.1 as published.
        baseline: what takes a feature's place: a number, (C,), whatever broadcasts to `x`, or a function
            (x, mask, key) -> x of one input, such as `mean_baseline()`. The same as in `f_fidelity`.

    Returns:
        As `x`.

    Raises:
        TypeError: if `x` holds no floats.
        ValueError: if `x` has no features, values are not finite or `share` is out of range.

    References:
        F-Fidelity: A Robust Framework for Faithfulness Evaluation of Explainable AI, Zheng et al., 2025.
    """
    x = as_array(x)
    check_finite("x", x)
    check_number("share", share, above=0, most=1)
    of_masks, of_counts, of_baseline = jax.random.split(check_key(key), 3)
    replace = as_replacement(baseline, x, of_baseline)
    shape = x.shape[1:-1] if x.ndim > 2 else x.shape[1:]
    most = _floor(share * math.prod(shape))
    images = jnp.arange(len(x), dtype=jnp.int32)
    nothing = jnp.zeros_like(images)
    counts = jax.vmap(lambda one: jax.random.randint(one, (), 0, most + 1))(
        row_keys(of_counts, images, nothing)
    )
    gone = _drawn(row_keys(of_masks, images, nothing), jnp.ones((len(x), *shape), bool), counts)
    mask = jnp.broadcast_to(gone.reshape(*gone.shape, *[1] * (x.ndim - gone.ndim)), x.shape)
    masked = jnp.where(mask, replace(x, mask, images, nothing).astype(x.dtype), x)
    return finite("masked inputs", keep_nan(masked, x))


def f_fidelity(
    f: Scores,
    key: jax.Array,
    x: jax.Array,
    attributions: jax.Array,
    target: jax.Array,
    *,
    sizes: Sequence[float] = _SIZES,
    alpha_plus: float = 0.5,
    alpha_minus: float = 0.5,
    beta: float = 0.1,
    num_samples: int = 50,
    baseline: Baseline = 0.0,
    chunk_size: int | None = None,
) -> FFidelity:
    """Score's drop without a few of the relevant features, of a network tuned on masks. Higher is better.

    FFid+ = f(x) − E[f(χ⁺(x))], and FFid- = f(x) − E[f(χ⁻(x))], which is to be low. The explanation is the s·d most
    relevant of d features, rounded. χ⁺ removes ⌊min(α⁺ s d, β d)⌋ of its features, drawn uniformly, χ⁻
    ⌊min(α⁻ (1 − s) d, β d)⌋ of the others; at least one. The authors' program draws each feature on its own, with the
    probability that gives this number on average. The paper's score is 1 where `target` is predicted and 0 elsewhere:
    give `lambda x: jax.nn.one_hot(f(x).argmax(-1), K)` for it, or a softmax; its table has means over the sizes.

    Args:
        f: from inputs (N, ...) to scores (N, K), tuned on `randomly_masked(..., share=beta)`. Another one makes this
            R-Fidelity, whose inputs are none of the network's.
        key: a random key; a mask depends on (key, input's place, size's place, sample's place) alone.
        x: inputs, (N, ..., C).
        attributions: of x's shape, or (N, ...) without its last axis; the largest value is the most relevant.
        target: the class whose score is read, (N,) integers.
        sizes: s, shares of the features within the explanation, each above 0 and below 1.
        alpha_plus: α⁺, the share of the explanation that goes, above 0 and at most 1; 0.5 in the authors' program.
        alpha_minus: α⁻, the share of the rest that goes, likewise.
        beta: β, the largest share of all features that goes, above 0 and at most 1; 0.1 in the authors' program.
        num_samples: masks a size, at least 1; 50 in the authors' program.
        baseline: what takes a feature's place: a number, (C,), whatever broadcasts to `x`, or a function
            (x, mask, key) -> x of one input, such as `mean_baseline()`. The same as when the network was tuned.
        chunk_size: inputs in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        FFid+ and FFid- by size, (N, S) each.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target, a size or a share is out of range, a count
            is below 1, or there are fewer than two features.

    References:
        F-Fidelity: A Robust Framework for Faithfulness Evaluation of Explainable AI, Zheng et al., 2025.
        Towards Robust Fidelity for Evaluating Explainability of Graph Neural Networks, Zheng et al., 2024.
    """
    x, target = as_batch(x, target, f=f)
    attributions = as_attributions(attributions, x)
    check_key(key)
    check_count("num_samples", num_samples)
    for name, value in (("alpha_plus", alpha_plus), ("alpha_minus", alpha_minus), ("beta", beta)):
        check_number(name, value, above=0, most=1)
    num_features = attributions[0].size
    within = _within(sizes, num_features)
    chosen = [(alpha_plus, count) for count in within]
    others = [(alpha_minus, num_features - count) for count in within]
    removed_counts = [
        max(1, _floor(min(share * count, beta * num_features))) for share, count in chosen + others
    ]
    # None first, then the samples of a size each, first those of the explanations.
    counts = jnp.asarray([0, *np.repeat(removed_counts, num_samples)], jnp.int32)
    limits = jnp.asarray([0, *np.repeat(within * 2, num_samples)], jnp.int32)
    half = len(within) * num_samples
    of_masks, of_baseline = jax.random.split(key)
    replace = as_replacement(baseline, x, of_baseline)
    ranks = removal_ranks(attributions)

    def removed(images: jax.Array, sets: jax.Array) -> jax.Array:
        trailing = [1] * (ranks.ndim - 1)
        inside = ranks[images] < limits[sets].reshape(-1, *trailing)
        allowed = inside ^ (sets > half).reshape(-1, *trailing)
        return _drawn(row_keys(of_masks, images, sets), allowed, counts[sets])

    scores = scores_without(f, x, target, removed, 1 + 2 * half, replace, chunk_size)
    means = scores[:, 1:].reshape(len(x), 2, len(within), num_samples).mean(axis=-1)
    drops = keep_nan(scores[:, :1, None] - means, attributions, x)
    return FFidelity(drops[:, 0], drops[:, 1])


def _within(sizes: Sequence[float], num_features: int) -> list[int]:
    """The features of an explanation, by size."""
    if not isinstance(sizes, Sequence | np.ndarray) or isinstance(sizes, str | bytes) or not len(sizes):
        raise InputError(f"expected sizes as shares, got {shown(sizes)}: give such as (0.1, 0.5)")
    for size in sizes:
        check_number("sizes", size, above=0, below=1)
    if num_features < 2:
        raise InputError(
            f"expected two features at least, got {num_features}: there is nothing beside the explanation"
        )
    return [min(max(1, round(size * num_features)), num_features - 1) for size in sizes]


def _floor(value: float) -> int:
    """The integer part; 0.29 · 100 is 29."""
    return math.floor(value + 1e-9)


def _drawn(keys: jax.Array, allowed: jax.Array, counts: jax.Array) -> jax.Array:
    """So many of the features allowed, drawn uniformly, booleans (c, ...)."""

    def one(key: jax.Array, allowed: jax.Array, count: jax.Array) -> jax.Array:
        flat = allowed.reshape(-1)
        place = jax.random.permutation(key, flat.size)
        order = jnp.argsort(jnp.where(flat, place, place + flat.size))
        first = jnp.arange(flat.size) < count
        return jnp.zeros_like(flat).at[order].set(first, unique_indices=True).reshape(allowed.shape)

    return jax.vmap(one)(keys, allowed, counts)
