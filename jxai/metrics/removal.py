"""Pixels replaced in the order of their relevance, and what becomes of the score.

`f` maps a batch (N, H, W, C) to scores (N, K); heatmaps (N, H, W) are signed sums of attributions over channels, and
their sign counts: the largest value is replaced first, the most negative last. Curves are float32. Of embeddings
(N, T, C) heatmaps are (N, T), of tables (N, D) they are (N, D): tokens or columns are the pixels there.
"""

import jax
import jax.numpy as jnp

from jxai.batches.blur import gaussian_blur
from jxai.batches.checks import as_finite
from jxai.checks import check_count, finite, keep_nan
from jxai.errors import InputError
from jxai.metrics.features import (
    Baseline,
    Removed,
    Replacement,
    as_replacement,
    scores_and_probabilities,
    scores_without,
)
from jxai.metrics.inputs import Scores, as_batch, as_feature_map, probabilities
from jxai.metrics.pixels import removal_ranks

# Petsiuk's insertion starts from a blur of 5 pixels' standard deviation and 11 pixels' width.
_BLUR_SIGMA, _BLUR_RADIUS = 5.0, 5


def pixel_flipping(
    f: Scores,
    x: jax.Array,
    heatmap: jax.Array,
    target: jax.Array,
    *,
    baseline: Baseline = 0.0,
    key: jax.Array | None = None,
    num_steps: int = 100,
    chunk_size: int | None = None,
) -> jax.Array:
    """Score of the target while the most relevant pixels give way to a baseline. Lower is better.

    After step s the s·H·W // num_steps first pixels are gone. A heatmap is good if the curve falls early. Samek's
    area over the curve is `curve[:, :1] - curve`, averaged.

    Args:
        f: from images (N, H, W, C), or other inputs, to scores (N, K).
        x: images, (N, H, W, C), embeddings, (N, T, C), or a table, (N, D).
        heatmap: (N, H, W), (N, T) or (N, D), the largest value goes first.
        target: the class whose score is read, (N,) integers.
        baseline: what takes a pixel's place: a number, (C,), whatever broadcasts to `x`, or a function
            (x, mask, key) -> x of one image, such as `mean_baseline()`.
        key: what a function as `baseline` draws from, if it does; an image's step gets a key of its own.
        num_steps: steps from the whole image to the baseline, at least 1; by default each is 1 % of the pixels.
        chunk_size: images in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N, num_steps + 1), the first column the image's own score. `curve_area` makes a number of it.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target is out of range or a count below 1.

    References:
        On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation, Bach et
        al., 2015. Evaluating the Visualization of What a Deep Neural Network Has Learned, Samek et al., 2017.
    """
    x, target = as_batch(x, target, f=f)
    return _curve(f, x, heatmap, target, num_steps, as_replacement(baseline, x, key), chunk_size)


def deletion(
    f: Scores,
    x: jax.Array,
    heatmap: jax.Array,
    target: jax.Array,
    *,
    baseline: Baseline = 0.0,
    key: jax.Array | None = None,
    num_steps: int = 224,
    chunk_size: int | None = None,
) -> jax.Array:
    """Softmax probability of the target while the most relevant pixels are deleted. Lower is better.

    `pixel_flipping` with probabilities instead of scores.

    Args:
        f: from images (N, H, W, C), or other inputs, to scores (N, K), before the softmax.
        x: images, (N, H, W, C), embeddings, (N, T, C), or a table, (N, D).
        heatmap: (N, H, W), (N, T) or (N, D), the largest value goes first.
        target: the class whose probability is read, (N,) integers.
        baseline: what takes a pixel's place, as in `pixel_flipping`. The paper's is 0 in normalized images.
        key: what a function as `baseline` draws from, if it does; an image's step gets a key of its own.
        num_steps: steps from the whole image to the baseline, at least 1; by default those of the paper's program,
            224 pixels each in an image of 224 x 224.
        chunk_size: images in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N, num_steps + 1) in [0, 1]. `curve_area` gives the paper's number.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target is out of range or a count below 1.

    References:
        RISE: Randomized Input Sampling for Explanation of Black-box Models, Petsiuk et al., 2018.
    """
    x, target = as_batch(x, target, f=f)
    return _curve(
        probabilities(f), x, heatmap, target, num_steps, as_replacement(baseline, x, key), chunk_size
    )


def insertion(
    f: Scores,
    x: jax.Array,
    heatmap: jax.Array,
    target: jax.Array,
    *,
    baseline: Baseline | None = None,
    key: jax.Array | None = None,
    num_steps: int = 224,
    chunk_size: int | None = None,
) -> jax.Array:
    """Softmax probability of the target while the most relevant pixels enter a blurred image. Higher is better.

    Args:
        f: from images (N, H, W, C), or other inputs, to scores (N, K), before the softmax.
        x: images, (N, H, W, C), embeddings, (N, T, C), or a table, (N, D).
        heatmap: (N, H, W), (N, T) or (N, D), the largest value comes first.
        target: the class whose probability is read, (N,) integers.
        baseline: where the curve starts: a number, (C,), or whatever broadcasts to `x`. By default, of images, `x`
            blurred about as RISE's program does (standard deviation 5, windows of 11 x 11): its window is a reflected
            Gaussian, a little flatter, and it has zeros beyond the edges, which are repeated here. A function
            (x, mask, key) -> x of one image is asked at every step, with what is not yet there as `mask`.
        key: what a function as `baseline` draws from, if it does; an image's step gets a key of its own.
        num_steps: steps from the baseline to the whole image, at least 1; by default those of the paper's program.
        chunk_size: images in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N, num_steps + 1) in [0, 1]. `curve_area` gives the paper's number.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target is out of range or a count below 1.

    References:
        RISE: Randomized Input Sampling for Explanation of Black-box Models, Petsiuk et al., 2018.
    """
    x, target = as_batch(x, target, f=f)
    heatmap = as_feature_map(heatmap, x)  # before the blur, which wants images
    if baseline is None and x.ndim != 4:
        raise InputError(
            f"expected a baseline for inputs that are no images (N, H, W, C), got none for {x.shape}: give a "
            "number, an array or a function"
        )
    start = gaussian_blur(x, sigma=_BLUR_SIGMA, radius=_BLUR_RADIUS) if baseline is None else baseline
    replace = as_replacement(start, x, key)
    return _curve(probabilities(f), x, heatmap, target, num_steps, replace, chunk_size, inserted=True)


def curve_area(curve: jax.Array) -> jax.Array:
    """Area below a curve over the share of pixels in [0, 1], by the trapezoid rule.

    It is as good as its curve: lower for `pixel_flipping` and `deletion`, higher for `insertion`.

    Args:
        curve: (N, S), at least 2 points, at equal distances.

    Returns:
        (N,), float32.

    Raises:
        ValueError: if `curve` has another rank, fewer than 2 points, or values that are not finite.

    Example:
        >>> curve_area(jnp.array([[1.0, 0.5, 0.0]])).item()
        0.5
    """
    curve = as_finite("curve", curve).astype(jnp.float32)
    if curve.ndim != 2 or curve.shape[1] < 2:
        raise InputError(
            f"expected `curve` of shape (N, S), S at least 2, got {curve.shape}: one curve an image"
        )
    return finite("areas", ((curve[:, 1:] + curve[:, :-1]) / 2).mean(axis=1))


def _curve(
    f: Scores,
    x: jax.Array,
    heatmap: jax.Array,
    target: jax.Array,
    num_steps: int,
    replace: Replacement,
    chunk_size: int | None,
    *,
    inserted: bool = False,
) -> jax.Array:
    """Scores while pixels are removed, or inserted, the most relevant first: (N, num_steps + 1)."""
    heatmap = as_feature_map(heatmap, x)
    removed = _removed(heatmap, num_steps, inserted=inserted)
    curve = scores_without(f, x, target, removed, num_steps + 1, replace, chunk_size)
    return keep_nan(curve, heatmap)


def removal_curves(
    f: Scores,
    x: jax.Array,
    heatmap: jax.Array,
    target: jax.Array,
    *,
    baseline: Baseline = 0.0,
    num_steps: int,
) -> tuple[jax.Array, jax.Array]:
    """The curves of `pixel_flipping` and of `deletion` from the same scores, (N, num_steps + 1) both."""
    x, target = as_batch(x, target, f=f)
    heatmap = as_feature_map(heatmap, x)
    removed, replace = _removed(heatmap, num_steps), as_replacement(baseline, x, None)
    found = scores_and_probabilities(f, x, target, removed, num_steps + 1, replace, None)
    flipping, deleted = (keep_nan(curve, heatmap) for curve in found)
    return flipping, deleted


def _removed(heatmap: jax.Array, num_steps: int, *, inserted: bool = False) -> Removed:
    """Which pixels are gone, or not there yet, at a step."""
    check_count("num_steps", num_steps)
    num_pixels = heatmap[0].size
    ranks = removal_ranks(heatmap)
    counts = jnp.asarray([step * num_pixels // num_steps for step in range(num_steps + 1)], jnp.int32)

    def removed(images: jax.Array, steps: jax.Array) -> jax.Array:
        return (ranks[images] < counts[steps].reshape(-1, *[1] * (ranks.ndim - 1))) ^ inserted

    return removed
