"""Images cut into segments, as label maps of integers: squares of a grid, and superpixels by SLIC.

A label map is (H, W), or (N, H, W) with one for each image; labels are 0, 1, ... and a label may be of no pixel.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jxai.batches.checks import check_finite
from jxai.checks import as_array, check_count, check_number, values
from jxai.errors import InputError, InputTypeError


def grid_segments(height: int, width: int, *, patch_size: int) -> jax.Array:
    """Squares of a grid from the top left corner; those at the right and at the bottom may be cut off.

    Args:
        height: of the images, in pixels.
        width: of the images, in pixels.
        patch_size: side of the squares, in pixels.

    Returns:
        (height, width), int32, labels in reading order.

    Raises:
        ValueError: a count is less than 1.

    Example:
        >>> grid_segments(2, 3, patch_size=2).tolist()
        [[0, 0, 1], [0, 0, 1]]
    """
    for name, count in (("height", height), ("width", width), ("patch_size", patch_size)):
        check_count(name, count)
    columns = -(-width // patch_size)
    rows, places = np.arange(height)[:, None] // patch_size, np.arange(width)[None] // patch_size
    return as_array(rows * columns + places, jnp.int32)  # known, also while a caller's jit traces


def slic_segments(
    x: jax.Array, *, num_segments: int = 100, compactness: float = 0.5, num_iterations: int = 10
) -> jax.Array:
    """Superpixels: pixels that are near one another and alike in color.

    k-means from the centers of a grid's cells. A pixel chooses among the centers of its own cell and the eight around
    it by |c − c'|² / σ² + compactness² |p − p'|² / S², c its color, σ² the image's variance, p its place and S² the
    cells' area. Unlike the authors' program, colors are as they are in `x`, seeds are not moved to the smallest
    gradient, and islands that are cut off from the rest of their segment stay with it.

    Args:
        x: images, (N, H, W, C), floats.
        num_segments: how many at most; it is rounded down to a grid's rows times columns.
        compactness: how much nearness counts beside color, above 0: large for squares.
        num_iterations: of k-means, at least 1; 10 as published.

    Returns:
        (N, H, W), int32, labels in [0, num_segments), in the reading order of the seeds; under `jit` -1 all over an
        image that is not finite.

    Raises:
        TypeError: `x` holds no floats.
        ValueError: `x` is no finite batch of images, a count is less than 1, there are more segments than pixels, or
            `compactness` is not above 0.

    References:
        SLIC Superpixels Compared to State-of-the-art Superpixel Methods, Achanta et al., 2012.
    """
    x = as_array(x)
    check_finite("x", x)
    if x.ndim != 4:
        raise InputError(f"expected images of shape (N, H, W, C), got {x.shape}: add or merge leading axes")
    check_count("num_segments", num_segments)
    check_count("num_iterations", num_iterations)
    check_number("compactness", compactness, above=0)
    if num_segments > math.prod(x.shape[1:3]):
        raise InputError(
            f"expected at most {math.prod(x.shape[1:3])} segments, one a pixel, got num_segments={num_segments}: "
            "lower it"
        )
    grid = _grid(num_segments, *x.shape[1:3])
    return _slic(x.astype(jnp.float32), jnp.float32(compactness), grid, int(num_iterations))


def as_segments(segments: ArrayLike, num_segments: int | None, x: jax.Array) -> tuple[jax.Array, int]:
    """A label map for each image, and how many labels there may be.

    Args:
        segments: (H, W) or (N, H, W), integers.
        num_segments: how many labels, or None: as many as the largest says.
        x: images, (N, H, W, C).

    Returns:
        int32, (N, H, W), and the number.

    Raises:
        TypeError: no integers.
        ValueError: another shape, a label out of range, or no number where labels are not known, under `jit`.
    """
    labels = as_array(segments)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputTypeError(f"expected `segments` of integers, got {labels.dtype}: give labels 0, 1, ...")
    if labels.shape not in (x.shape[1:3], x.shape[:3]):
        raise InputError(
            f"expected `segments` of shape {x.shape[1:3]} or {x.shape[:3]}, got {labels.shape}: one label a pixel"
        )
    known = values(labels)
    if num_segments is not None:
        check_count("num_segments", num_segments)
    elif known is None:
        raise InputError(
            "expected num_segments with labels that are traced, got none: say how many there may be under jit"
        )
    else:
        num_segments = max(1, int(known.max()) + 1)
    if known is not None and not 0 <= known.min() <= known.max() < num_segments:
        raise InputError(
            f"expected labels in [0, {num_segments}), got {known.min()} to {known.max()}: number them from 0"
        )
    if num_segments > (most := x.shape[1] * x.shape[2]):
        raise InputError(
            f"expected at most {most} segments, one a pixel, got {num_segments}: number them from 0"
        )
    return jnp.broadcast_to(labels.astype(jnp.int32), x.shape[:3]), num_segments


def _grid(num_segments: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of about square cells, at most so many."""
    rows = min(height, max(1, round(math.sqrt(num_segments * height / width))), num_segments)
    return rows, min(width, num_segments // rows)


@functools.partial(jax.jit, static_argnames=("grid", "num_iterations"))
def _slic(x: jax.Array, compactness: jax.Array, grid: tuple[int, int], num_iterations: int) -> jax.Array:
    (height, width), (rows, columns) = x.shape[1:3], grid
    row = (np.arange(height) * rows) // height
    column = (np.arange(width) * columns) // width
    home = jnp.asarray(row[:, None] * columns + column[None])
    offsets = np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1), indexing="ij"), axis=-1).reshape(9, 2)
    near_rows = np.clip(row[:, None] + offsets[:, 0], 0, rows - 1)
    near_columns = np.clip(column[:, None] + offsets[:, 1], 0, columns - 1)
    near = jnp.asarray(near_rows[:, None] * columns + near_columns[None])  # (H, W, 9)
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1)
    # Distances in units of a cell's side.
    places = jnp.asarray(places / math.sqrt(height * width / (rows * columns)), jnp.float32)

    def of_image(image: jax.Array) -> jax.Array:
        scale = jnp.abs(image).max()
        image = image / jnp.where(scale > 0, scale, 1)
        spread = jnp.sqrt(((image - image.mean(axis=(0, 1), keepdims=True)) ** 2).mean())
        points = jnp.concatenate([image / jnp.where(spread > 0, spread, 1), compactness * places], axis=-1)
        points = points.reshape(height * width, -1)

        def means(labels: jax.Array, before: jax.Array) -> jax.Array:
            labels = labels.ravel()
            sums = jax.ops.segment_sum(points, labels, rows * columns)
            counts = jax.ops.segment_sum(jnp.ones(len(points)), labels, rows * columns)[:, None]
            return jnp.where(counts > 0, sums / jnp.maximum(counts, 1), before)

        def chosen(centers: jax.Array) -> jax.Array:
            away = points.reshape(height, width, 1, -1) - centers[near]
            best = jnp.argmin((away**2).sum(axis=-1), axis=-1)
            return jnp.take_along_axis(near, best[..., None], axis=-1)[..., 0]

        start = means(home, jnp.zeros((rows * columns, points.shape[1])))
        centers = jax.lax.fori_loop(1, num_iterations, lambda _, now: means(chosen(now), now), start)
        return jnp.where(jnp.isfinite(image).all(), chosen(centers), -1).astype(jnp.int32)

    return jax.lax.map(of_image, x)  # an image at a time: each looks at nine centers a pixel
