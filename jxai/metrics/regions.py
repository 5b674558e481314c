"""Regions replaced in the order of their relevance: squares of a grid, superpixels, or the caller's own.

Images are (N, H, W, C), heatmaps (N, H, W) signed sums of attributions over channels. Regions are a label map of
integers (`segments`), each of its labels a region; what is replaced stays so.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai.checks import check_choice, check_count, check_key, finite, keep_nan
from jxai.errors import InputError
from jxai.metrics.baselines import mean_baseline
from jxai.metrics.features import Baseline, as_replacement, scores_without
from jxai.metrics.inputs import Scores, as_batch, as_heatmap, probabilities
from jxai.metrics.pixels import removal_ranks
from jxai.metrics.segments import as_segments, grid_segments, slic_segments

Order = Literal["most_relevant", "least_relevant", "random"]


def region_perturbation(
    f: Scores,
    x: jax.Array,
    heatmap: jax.Array,
    target: jax.Array,
    *,
    patch_size: int = 9,
    num_regions: int | None = None,
    order: Order = "most_relevant",
    segments: ArrayLike | None = None,
    num_segments: int | None = None,
    baseline: Baseline = 0.0,
    key: jax.Array | None = None,
    chunk_size: int | None = None,
) -> jax.Array:
    """How far the score has fallen as region after region is replaced. Higher is better.

    f(x_0) − f(x_k), x_k the image without the first k regions, in the order of the sums of relevance in them. The
    mean over k = 0 ... L is the paper's area over the curve, AOPC. With the least relevant first it is the other way
    round. The paper replaces squares of a grid by uniform noise, `noise_baseline`. Quantus leaves k = 0 out.

    Args:
        f: from images (N, H, W, C) to scores (N, K).
        x: images, (N, H, W, C).
        heatmap: (N, H, W).
        target: the class whose score is read, (N,) integers.
        patch_size: side of the grid's squares, in pixels; 9 as published.
        num_regions: L, how many are replaced; by default 100 as published, or all if there are fewer.
        order: whether the regions with the most relevance are replaced first ("most_relevant", MoRF), those with the
            least ("least_relevant", LeRF), or any ("random", by `key`).
        segments: labels of the caller's own regions instead of the grid, (H, W) or (N, H, W) integers.
        num_segments: how many labels `segments` has; by default the largest and one. Needed under `jit`.
        baseline: what takes a pixel's place: a number, (C,), whatever broadcasts to `x`, or a function
            (x, mask, key) -> x of one image, such as `blur_baseline(sigma=4.0)`.
        key: of the random order and of what a function as `baseline` draws; each step gets a key of its own.
        chunk_size: images in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N, L + 1), float32, the first column 0. Where an image has fewer regions, its last value stays.

    Raises:
        TypeError: if `target` or `segments` hold no integers, `x` no floats, or `key` is missing for a random order.
        ValueError: if shapes do not fit, values are not finite, a target or label is out of range, a count below 1,
            or there are fewer regions than `num_regions`.

    References:
        Evaluating the Visualization of What a Deep Neural Network Has Learned, Samek et al., 2017, equations 2
        and 12.
    """
    x, target = as_batch(x, target, f=f)
    heatmap = as_heatmap(heatmap, x)
    labels, count = _labels(segments, num_segments, patch_size, x)
    most = min(100, count) if num_regions is None else check_count("num_regions", num_regions)
    if most > count:
        raise InputError(f"expected at most {count} regions, got num_regions={num_regions}: lower it")
    check_choice("order", order, ("most_relevant", "least_relevant", "random"))
    regions = _ranked(heatmap, labels, count, order, key)
    curve = _curve(f, x, target, regions, most, baseline, key, chunk_size)
    return keep_nan(finite("drops", curve[:, :1] - curve), regions.right, heatmap)


def selectivity(
    f: Scores,
    x: jax.Array,
    heatmap: jax.Array,
    target: jax.Array,
    *,
    patch_size: int = 9,
    segments: ArrayLike | None = None,
    num_segments: int | None = None,
    baseline: Baseline = 0.0,
    key: jax.Array | None = None,
    chunk_size: int | None = None,
) -> jax.Array:
    """Score of the target as all regions give way to a baseline, the most relevant first. Lower is better.

    f(x_k) after k regions, until none is left; `curve_area` is the paper's area under the curve. Quantus leaves k = 0
    out.

    Args:
        f: from images (N, H, W, C) to scores (N, K).
        x: images, (N, H, W, C).
        heatmap: (N, H, W).
        target: the class whose score is read, (N,) integers.
        patch_size: side of the grid's squares, in pixels.
        segments: labels of the caller's own regions instead of the grid, (H, W) or (N, H, W) integers.
        num_segments: how many labels `segments` has; by default the largest and one. Needed under `jit`.
        baseline: what takes a pixel's place: a number, (C,), whatever broadcasts to `x`, or a function
            (x, mask, key) -> x of one image, such as `blur_baseline(sigma=4.0)`.
        key: what a function as `baseline` draws from, if it does; each step gets a key of its own.
        chunk_size: images in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N, number of regions + 1), float32, the first column the image's own score. Where an image has fewer regions,
        its last value stays.

    Raises:
        TypeError: if `target` or `segments` hold no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target or label is out of range, or a count is
            below 1.

    References:
        Methods for Interpreting and Understanding Deep Neural Networks, Montavon et al., 2018, section 7.2.
    """
    x, target = as_batch(x, target, f=f)
    heatmap = as_heatmap(heatmap, x)
    labels, count = _labels(segments, num_segments, patch_size, x)
    regions = _ranked(heatmap, labels, count, "most_relevant", None)
    curve = _curve(f, x, target, regions, count, baseline, key, chunk_size)
    return keep_nan(curve, regions.right, heatmap)


def irof(
    f: Scores,
    x: jax.Array,
    heatmap: jax.Array,
    target: jax.Array,
    *,
    segments: ArrayLike | None = None,
    num_segments: int | None = None,
    baseline: Baseline | None = None,
    key: jax.Array | None = None,
    chunk_size: int | None = None,
) -> jax.Array:
    """Iterative removal of features: area over the curve as superpixels are replaced. Higher is better.

    1 − ∫ p(x_l) / p(x_0) over the share l / L of the segments in [0, 1], by the trapezoid rule: x_l is the image
    without the l segments of the largest mean relevance, p the softmax probability of the target. Quantus gives L
    times as much for L segments: its integral has steps of 1.

    Args:
        f: from images (N, H, W, C) to scores (N, K), before the softmax.
        x: images, (N, H, W, C).
        heatmap: (N, H, W).
        target: the class whose probability is read, (N,) integers.
        segments: labels of the caller's own segments, (H, W) or (N, H, W) integers; by default those of
            `slic_segments`.
        num_segments: how many labels `segments` has: by default the largest and one, needed under `jit`. Without
            `segments`, how many superpixels at most: by default 100, or one for 16 pixels of a small image.
        baseline: what takes a pixel's place: a number, (C,), whatever broadcasts to `x`, or a function
            (x, mask, key) -> x of one image. By default `mean_baseline()`, each image's own mean; the paper has that
            of the data.
        key: what a function as `baseline` draws from, if it does; each step gets a key of its own.
        chunk_size: images in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,), float32, at most 1; 0 for an image whose probability does not change, below 0 where it grows.

    Raises:
        TypeError: if `target` or `segments` hold no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target or label is out of range, a count is below
            1, there are more segments than pixels, or an image's own probability is 0.

    References:
        IROF: A Low Resource Evaluation Metric for Explanation Methods, Rieger and Hansen, 2020.
    """
    x, target = as_batch(x, target, f=f)
    heatmap = as_heatmap(heatmap, x)
    if segments is None:
        count = min(100, -(-heatmap[0].size // 16)) if num_segments is None else num_segments
        segments, num_segments = slic_segments(x, num_segments=count), count
    labels, count = as_segments(segments, num_segments, x)
    regions = _ranked(heatmap, labels, count, "most_relevant", None, mean=True)
    baseline = mean_baseline() if baseline is None else baseline
    curve = _curve(probabilities(f), x, target, regions, count, baseline, key, chunk_size)
    shares = finite("shares of the probability", curve / curve[:, :1])
    # Labels of no pixel come last and are no steps.
    inside = jnp.arange(count, dtype=jnp.float32)[None] < regions.present[:, None]
    area = jnp.where(inside, (shares[:, 1:] + shares[:, :-1]) / 2, 0).sum(axis=1) / regions.present
    return keep_nan(1 - area, shares, regions.right, heatmap)


class _Regions(NamedTuple):
    """Regions in their order.

    Attributes:
        places: of each pixel's region in the order, (N, H, W).
        present: how many regions an image has, (N,), float32, at least 1.
        right: (N,), 0, or NaN where a label was out of range.
    """

    places: jax.Array
    present: jax.Array
    right: jax.Array


def _labels(
    segments: ArrayLike | None, num_segments: int | None, patch_size: int, x: jax.Array
) -> tuple[jax.Array, int]:
    """The caller's labels, or those of the grid."""
    check_count("patch_size", patch_size)
    if segments is not None:
        return as_segments(segments, num_segments, x)
    if num_segments is not None:
        raise InputError(
            f"expected no num_segments with a grid, got {num_segments}: give `segments` or patch_size"
        )
    return as_segments(grid_segments(*x.shape[1:3], patch_size=patch_size), None, x)


def _ranked(
    heatmap: jax.Array,
    labels: jax.Array,
    count: int,
    order: Order,
    key: jax.Array | None,
    *,
    mean: bool = False,
) -> _Regions:
    """Regions by the sum or the mean of relevance in them, of equal ones the smaller label first."""
    right = ((labels >= 0) & (labels < count)).all(axis=(1, 2))
    flat = jnp.where(right[:, None, None], labels, 0).reshape(len(labels), -1)

    def sums(values: jax.Array) -> jax.Array:
        return jax.vmap(lambda one, to: jax.ops.segment_sum(one, to, count))(values, flat)

    sizes = sums(jnp.ones_like(flat, jnp.float32))
    relevance = sums(heatmap.reshape(flat.shape))
    if mean:
        relevance = relevance / jnp.maximum(sizes, 1)
    if order == "random":
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(check_key(key), jnp.arange(len(labels)))
        relevance = jax.vmap(lambda one: jax.random.uniform(one, (count,)))(keys)
    relevance = -relevance if order == "least_relevant" else relevance
    ranks = removal_ranks(jnp.where(sizes > 0, relevance, -jnp.inf))
    places = jnp.take_along_axis(ranks, flat, axis=1).reshape(labels.shape)
    present = jnp.maximum((sizes > 0).sum(axis=1, dtype=jnp.float32), 1)
    return _Regions(places, present, jnp.where(right, 0.0, jnp.nan))


def _curve(
    f: Scores,
    x: jax.Array,
    target: jax.Array,
    regions: _Regions,
    most: int,
    baseline: Baseline,
    key: jax.Array | None,
    chunk_size: int | None,
) -> jax.Array:
    """Scores once 0, 1, ... regions are replaced: (N, most + 1)."""

    def removed(images: jax.Array, steps: jax.Array) -> jax.Array:
        return regions.places[images] < steps[:, None, None]

    replace = as_replacement(baseline, x, key)
    return scores_without(f, x, target, removed, most + 1, replace, chunk_size)
