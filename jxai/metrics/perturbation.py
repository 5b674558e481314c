"""The perturbation curve: how fast a score falls when the regions that a heatmap ranks first are destroyed.

Images are (N, H, W, C), as the network gets them. Heatmaps are signed sums of attributions over channels, (N, H, W).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jxai.batches.checks import as_grays
from jxai.batches.chunks import map_chunks, rows_in_flight
from jxai.checks import as_array, check_count, check_key, finite, keep_nan
from jxai.compiled import run_compiled
from jxai.errors import InputError
from jxai.metrics.inputs import as_batch, as_heatmap, target_scores
from jxai.metrics.simpson import simpson
from jxai.ops.convolution import with_fast_convolutions


def perturbation_positions(heatmap: ArrayLike, *, window: int = 15, num_regions: int = 30) -> jax.Array:
    """The windows that a heatmap ranks first, by mean magnitude, none touching another's pixels.

    Greedy: always the best window that overlaps none of those chosen; of equal ones the first in reading order. As
    released, the last position of each axis is never tried: corners lie in [0, H − window) x [0, W − window).

    Args:
        heatmap: signed sums of attributions over channels, (N, H, W).
        window: side of the square windows, in pixels; 15 as published.
        num_regions: how many windows to choose, S; 30 as published.

    Returns:
        (N, S, 2), int32: row and column of the top left corners, in the order chosen. Where those chosen leave no
        room, the rest is (-1, -1); under `jit`, so are all those of a heatmap that holds NaN.

    Raises:
        ValueError: `heatmap` is not a finite array (N, H, W), a count is less than 1, or the windows do not fit in,
            however they are laid.

    Example:
        >>> perturbation_positions(jnp.eye(5)[None], window=2, num_regions=2).tolist()
        [[[0, 0], [2, 2]]]

    References:
        Samek, Binder, Montavon, Lapuschkin and Müller, "Evaluating the Visualization of What a Deep Neural Network
        Has Learned", 2017.
    """
    magnitude = jnp.abs(as_heatmap(heatmap))
    check_count("window", window)
    check_count("num_regions", num_regions)
    height, width = magnitude.shape[1] - window, magnitude.shape[2] - window
    if min(height, width) < 1:
        raise InputError(
            f"expected a window smaller than the heatmap, got {window} for {magnitude.shape[1:]}: lower window"
        )
    most = ((height + window - 1) // window) * ((width + window - 1) // window)
    if num_regions > most:
        raise InputError(
            f"expected at most {most} windows of {window} x {window} in a heatmap of {magnitude.shape[1:]}, whose "
            f"last row and column are left out, got num_regions={num_regions}: lower it or window"
        )
    # Rows, then columns: 2·window additions a position and not window².
    sums = lax.reduce_window(magnitude, 0.0, lax.add, (1, window, 1), (1, 1, 1), "VALID")
    sums = lax.reduce_window(sums, 0.0, lax.add, (1, 1, window), (1, 1, 1), "VALID")[:, :height, :width]
    # No window is the best of a heatmap that holds NaN.
    sums = jnp.nan_to_num(keep_nan(sums, magnitude), nan=-1)
    rows, columns = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None]

    def choose(free: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        flat = free.reshape(free.shape[0], -1)
        best = jnp.argmax(flat, axis=1).astype(jnp.int32)
        row, column = best // width, best % width
        far = (jnp.abs(rows - row[:, None, None]) >= window) | (
            jnp.abs(columns - column[:, None, None]) >= window
        )
        found = (flat.max(axis=1) >= 0)[:, None]
        return jnp.where(far, free, -1), jnp.where(found, jnp.stack([row, column], axis=1), -1)

    corners = run_compiled(lambda: lax.scan(choose, sums, None, length=num_regions)[1])
    return jnp.swapaxes(corners, 0, 1)


def perturbation_curve(
    f: Callable[[jax.Array], jax.Array],
    key: jax.Array,
    x: ArrayLike,
    heatmap: ArrayLike,
    target: ArrayLike,
    *,
    low: ArrayLike,
    high: ArrayLike,
    window: int = 15,
    num_regions: int = 30,
    num_draws: int = 50,
    chunk_size: int | None = None,
) -> jax.Array:
    """Scores as window after window of `perturbation_positions` is replaced by noise. Lower is better.

    Each window is replaced by `num_draws` draws of uniform noise. The step's score is the mean logit over them; the
    draw with the median logit stays (of an even number the lower of the two in the middle, of equal ones the first),
    and the next window is replaced on top of it. The curve is the initial logit and the steps', over
    |initial logit|. Where no window is left, the image stays as it is and so does its logit.

    Args:
        f: from a batch (M, H, W, C) to logits (M, K).
        key: random key. The noise depends on it, on image, region and draw alone.
        x: the images, (N, H, W, C).
        heatmap: what ranks their regions, (N, H, W).
        target: the explained class of each image, (N,) ints.
        low: what black is in `x`: a number or one a channel, (C,). With ImageNet's normalization (0 − mean) / std.
        high: what white is in `x`, likewise, (1 − mean) / std.
        window: side of the windows, in pixels; 15 as published.
        num_regions: how many windows, S; 30 as published.
        num_draws: draws of noise a window; 50 as published.
        chunk_size: how many perturbed images are in flight, by default about 2.4 million numbers on a CPU and 40
            million elsewhere. It changes rounding alone (which may settle which of two logits is the median).

    Returns:
        (N, S + 1), float32; the first is 1 or -1, and not a number where the initial logit is 0.

    Raises:
        TypeError: `x` holds no floats, or `target` no integers.
        ValueError: shapes do not fit, a value is not finite, a target is out of range, low exceeds high, or as
            `perturbation_positions` does.

    References:
        Goh, Lapuschkin, Weber, Samek and Binder, "Understanding Integrated Gradients with SmoothTaylor for Deep
        Neural Network Attribution", 2020.
        Samek, Binder, Montavon, Lapuschkin and Müller, "Evaluating the Visualization of What a Deep Neural Network
        Has Learned", 2017.
    """
    heatmap = as_heatmap(heatmap, as_array(x))
    x, target = as_batch(x, target, f=f)
    check_key(key)
    check_count("num_draws", num_draws)
    chunk_size = rows_in_flight(x, chunk_size)
    f = with_fast_convolutions(f)
    black, white = as_grays(low, high, x)
    count, images = x.shape[0], jnp.arange(x.shape[0])
    # Under vmap other generators give a row other numbers than alone, and the draw that stays is made a second time.
    key = jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl="threefry2x32")
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, images)

    def perturb(image: jax.Array, key: jax.Array, region: jax.Array, draw: jax.Array, corner: jax.Array):
        """The image with one draw in the window; as it is where the corner is (-1, -1)."""
        start = (*jnp.maximum(corner, 0), jnp.zeros((), corner.dtype))
        shape = (window, window, image.shape[-1])
        key = jax.random.fold_in(jax.random.fold_in(key, region), draw)
        # Drawn flat: XLA takes three times as long to compile a draw of three axes.
        unit = jax.random.uniform(key, (window * window * image.shape[-1],), jnp.float32).reshape(shape)
        noise = (black[0] + (white - black)[0] * unit).astype(image.dtype)
        patch = jnp.where(corner[0] < 0, lax.dynamic_slice(image, start, shape), noise)
        return lax.dynamic_update_slice(image, patch, start)

    perturb_all = jax.vmap(perturb, in_axes=(0, 0, None, 0, 0))

    def step(current: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        region, corners = inputs
        empty = corners[:, 0] < 0

        def logits(rows: jax.Array) -> jax.Array:
            n, draw = rows % count, rows // count

            def evaluate() -> jax.Array:
                perturbed = perturb_all(current[n], keys[n], region, draw, corners[n])
                return target_scores(f, perturbed, n, target)

            # Without a window all draws are the same: the first is enough.
            needed = (rows[0] < count) | ~empty[n].all()
            return lax.cond(needed, evaluate, lambda: jnp.zeros(rows.shape, jnp.float32))

        scores = map_chunks(logits, num_draws * count, chunk_size).reshape(num_draws, count)
        median = jnp.sort(scores, axis=0)[(num_draws - 1) // 2]
        kept = jnp.argmin(jnp.abs(scores - median[None]), axis=0)
        current = perturb_all(current, keys, region, kept, corners)
        return current, jnp.where(empty, scores[0], scores.mean(axis=0))

    corners = jnp.swapaxes(perturbation_positions(heatmap, window=window, num_regions=num_regions), 0, 1)
    # The initial score is a step without a window, so that `f` is compiled once.
    corners = jnp.concatenate([jnp.full((1, count, 2), -1, corners.dtype), corners])
    curve = run_compiled(lambda: lax.scan(step, x, (jnp.arange(num_regions + 1), corners))[1])
    curve = finite("scores", curve)
    return keep_nan((curve / jnp.abs(curve[:1])).T, heatmap, x)


def aupc(curve: ArrayLike) -> jax.Array:
    """Area under the perturbation curve: Simpson's integral with unit steps. Lower is better.

    Args:
        curve: of `perturbation_curve`, (N, S + 1).

    Returns:
        (N,), float32; S for a curve that stays at 1.

    Raises:
        ValueError: there is no point.

    References:
        Goh, Lapuschkin, Weber, Samek and Binder, "Understanding Integrated Gradients with SmoothTaylor for Deep
        Neural Network Attribution", 2020.
    """
    return simpson(curve)
