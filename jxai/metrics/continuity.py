"""Continuity: how fast an explanation changes while its image moves aside."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jxai.batches.checks import as_baseline
from jxai.checks import shown
from jxai.errors import InputError
from jxai.metrics.inputs import as_batch
from jxai.metrics.neighbors import Distance, Seen, norm, over_neighbors

_PER_SIDE = 14  # shifts to the left, and to the right, by default


def continuity(
    explain: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    target: jax.Array,
    *,
    shifts: Iterable[tuple[int, int]] | None = None,
    baseline: ArrayLike = 0.0,
    explained: jax.Array | None = None,
    chunk_size: int | None = None,
) -> jax.Array:
    """Strongest variation of an explanation among shifted copies of the image. Lower is better.

    max over x' of ‖e(x) − e(x')‖₁ / ‖x − x'‖₂.

    Quantus' `Continuity` has horizontal shifts, absolute heatmaps and, for what moves in, each image's least value:
    give those `shifts`, an `explain` that ends in `jnp.abs` and `baseline=x.min(axis=(1, 2, 3), keepdims=True)`.

    Args:
        explain: from images (n, H, W, C) and their targets (n,) to attributions or heatmaps (n, ...); each image on
            its own.
        x: images, (N, H, W, C).
        target: the classes explained, (N,) integers.
        shifts: pairs (down, right) in pixels, negative for up and left; none is (0, 0). By default horizontal ones,
            up to 14 to each side, evenly spaced up to the image's width less 1.
        baseline: what moves in: a number, (C,), or whatever broadcasts to `x`.
        explained: the explanations of `x`, where they are known.
        chunk_size: images explained at once. By default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,), float32, in units of the explanation per unit of `x`; 0 where no explanation changes, infinite where one
        does and its image does not.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, or `shifts` are no pairs of integers but (0, 0).

    References:
        Methods for Interpreting and Understanding Deep Neural Networks, Montavon et al., 2018.
    """
    x, target = as_batch(x, target)
    if x.ndim != 4:
        raise InputError(f"expected `x` of shape (N, H, W, C), got {x.shape}: shifts are of images")
    height, width = x.shape[1:3]
    steps = _checked(_horizontal(width) if shifts is None else shifts)
    filled = as_baseline(baseline, x)

    def move(inputs: jax.Array, images: jax.Array, number: jax.Array) -> jax.Array:
        down, right = jnp.asarray(steps)[number - 1]
        rows, columns = jnp.arange(height) - down, jnp.arange(width) - right
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None]
        moved = inputs[:, jnp.clip(rows, 0, height - 1)][:, :, jnp.clip(columns, 0, width - 1)]
        return jnp.where(inside[None, :, :, None], moved, filled[images])

    def distance(start: Seen, seen: Seen) -> Distance:
        change = jnp.abs(seen.explanation - start.explanation)
        return Distance(change.reshape(len(change), -1).sum(axis=1), norm(seen.x - start.x))

    return over_neighbors(
        explain,
        move,
        distance,
        x,
        target,
        num_neighbors=len(steps),
        explained=explained,
        chunk_size=chunk_size,
    )


def _horizontal(width: int) -> list[tuple[int, int]]:
    """Pairs (0, right), evenly spaced up to the width less 1."""
    rights = np.unique(np.round(np.linspace(0, width - 1, _PER_SIDE + 1)).astype(int))[1:].tolist()
    return [(0, sign * right) for right in rights for sign in (-1, 1)]


def _checked(shifts: Iterable[tuple[int, int]]) -> np.ndarray:
    """The shifts as an array (S, 2), integers."""
    try:
        steps: np.ndarray = np.asarray(list(shifts))
    except (TypeError, ValueError):
        steps = np.zeros(0)
    if (
        steps.dtype.kind not in "iu"
        or steps.ndim != 2
        or steps.shape[1:] != (2,)
        or not steps.any(axis=1).all()
        or np.abs(steps).max() >= 2**30
    ):
        raise InputError(
            f"expected shifts as pairs (down, right) of integers other than (0, 0), got {shown(shifts)}: "
            "give at least one"
        )
    return steps.astype(np.int32)
