"""Occlusion: how much the score drops when a window of the image, or a few tokens in a row, are covered."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from jxai.attribution.gradients import Scores
from jxai.attribution.inputs import as_images
from jxai.batches.checks import as_baseline
from jxai.batches.chunks import sum_over_roots
from jxai.batches.targets import Target, as_scores
from jxai.checks import check_choice, check_count, finite, keep_nan
from jxai.errors import InputError


def occlusion(
    f: Scores,
    x: jax.Array,
    target: Target,
    *,
    window: int | None = None,
    stride: int | None = None,
    channel_axis: int = -1,
    baseline: ArrayLike = 0.0,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Mean over the windows that cover a pixel of f_t(x) − f_t(x with the window replaced by the baseline).

    Windows stand every `stride` pixels, and one more at the end of a side that they would not reach. Of tokens
    (N, T, C) `window=1, stride=1` covers one embedding after another, and volumes are as images. Of a table (N, D)
    windows are neighboring columns.

    Args:
        f: from images (N, H, W, C), or inputs (N, ..., C) with any number of sides, or tables (N, D), to scores
            (N, K).
        x: images, (N, H, W, C), or (N, ..., C), or (N, D), floats.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        window: side of the square window in pixels, at most the image's; by default 15, of tables 1.
        stride: pixels from a window to the next, from 1 to `window`; by default 8, or the window's side if that is
            less.
        channel_axis: where x holds its channels: -1, or 1 for images (N, C, H, W), which f gets as they are.
        baseline: what covers: a number, or an array that broadcasts to `x`.
        chunk_size: inputs in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; a pixel's drop is dealt out evenly to its channels, so that their sum is the drop.

    Raises:
        TypeError: `x` holds no floats, or `target` no integers.
        ValueError: `x` has no sides, the window does not fit, the stride leaves pixels out, values are not
            finite or a target is out of range (values are not seen under jit).

    References:
        Zeiler and Fergus, *Visualizing and Understanding Convolutional Networks*, 2014.
    """
    x = as_images(x, "inputs of shape (N, ..., C) or (N, D)")
    f, target = as_scores(f, x, target)
    check_choice("channel_axis", channel_axis, (-1, 1))
    if x.ndim < 3 and channel_axis == 1:
        raise InputError(f"expected channel_axis=1 for inputs (N, C, ...), got {x.shape}: leave it out")
    # Of a table each column is a place without channels.
    axis = x.ndim if x.ndim == 2 else channel_axis % x.ndim
    sides = tuple(side for place, side in enumerate(x.shape) if place not in (0, axis))
    channels = 1 if x.ndim == 2 else x.shape[axis]
    if window is None:
        window = 1 if x.ndim == 2 else 15
    check_count("window", window)
    if window > min(sides):
        raise InputError(
            f"expected a window of at most {min(sides)} pixels, got {window}: shrink it, or give channel_axis=1 for "
            "inputs (N, C, ...)"
        )
    stride = check_count("stride", min(8, window) if stride is None else stride)
    if stride > window:
        raise InputError(
            f"expected a stride from 1 to the window's {window}, got {stride}: every pixel is covered"
        )
    whole = as_baseline(baseline, x)
    starts = [_starts(side, window, stride) for side in sides]
    corners = jnp.array([*itertools.product(*starts)])

    def over_channels(places: jax.Array) -> jax.Array:
        return places if x.ndim == 2 else jnp.expand_dims(places, axis)

    def score(z: jax.Array, images: jax.Array) -> jax.Array:
        scores = jnp.take_along_axis(f(z), target[images][:, None], axis=1)[:, 0]
        return scores.astype(jnp.promote_types(x.dtype, jnp.float32))

    def initial(images: jax.Array, _: jax.Array) -> jax.Array:
        return score(x[images], images)

    def terms(images: jax.Array, positions: jax.Array) -> jax.Array:
        covered = jnp.ones((len(positions), *sides), bool)
        for number, side in enumerate(sides):
            start, place = corners[positions, number][:, None], jnp.arange(side)[None]
            inside = (place >= start) & (place < start + window)
            covered &= jnp.expand_dims(inside, [1 + other for other in range(len(sides)) if other != number])
        drop = before[images] - score(jnp.where(over_channels(covered), whole[images], x[images]), images)
        return jnp.where(covered, jnp.expand_dims(drop, [*range(1, covered.ndim)]), 0)

    before = sum_over_roots(initial, x, num_roots=1, chunk_size=chunk_size, mesh=mesh)
    total = sum_over_roots(terms, x, num_roots=len(corners), chunk_size=chunk_size, mesh=mesh)
    cover = [_cover(first, side, window) for first, side in zip(starts, sides, strict=True)]
    mean = total / functools.reduce(np.multiply.outer, cover)[None]
    attributions = jnp.broadcast_to(over_channels(mean / channels), x.shape).astype(x.dtype)
    return finite("attributions", keep_nan(attributions, x))


def _starts(side: int, window: int, stride: int) -> list[int]:
    starts = list(range(0, side - window + 1, stride))
    return starts if starts[-1] == side - window else [*starts, side - window]


def _cover(starts: list[int], side: int, window: int) -> np.ndarray:
    """How many windows cover each pixel of a side."""
    pixels = np.arange(side)
    first = np.array(starts)[:, None]
    return ((pixels >= first) & (pixels < first + window)).sum(axis=0).astype(np.float32)
