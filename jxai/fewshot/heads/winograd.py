"""The 3x3 convolution of small maps on a CPU, by Winograd's minimal filtering.

RelationNet convolves hundreds of 7x7 maps a step. There, direct convolution is bound by arithmetic, and the
exact rearrangement F(m x m, 3 x 3) of Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*
(2016), needs two to four times fewer multiplications, for the forward pass and both gradients alike.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jxai import lrp
from jxai.ops.convolution import convolution

# Evaluation points beside infinity, by tile size; chosen among the usual sets for the smallest float32 error
# (4e-6 of the largest output at tile size 4 and 1024 channels, 7e-7 at 2).
_POINTS = {2: (0, 1, -1), 3: (0, 1, -1, 0.5), 4: (0, 1, -1, 0.5, -2)}

# Below this many channels (in + out) the transforms cost as much as the multiplications they save.
_FEWEST_CHANNELS = 1024

# Smaller maps gain nothing; larger ones would have to be held whole in their transformed shape.
_SIDES = range(4, 17)

_CHANNELS_LAST = lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), ("NHWC", "HWIO", "NHWC"))


def small_map_convolution(
    lhs: jax.Array, rhs: jax.Array, window_strides: Any, padding: Any, **options: Any
) -> jax.Array:
    """`lax.conv_general_dilated`, rearranged where that is exact and faster (3x3, stride 1, same size, CPU).

    Made to be handed to `flax.linen.Conv(conv_general_dilated=...)`.

    Args:
        lhs: maps (N, H, W, C).
        rhs: kernel (3, 3, C, D) for the rearranged form; otherwise any.
        window_strides: as in `lax`.
        padding: as in `lax`; ((1, 1), (1, 1)) for the rearranged form.
        **options: as in `lax`.

    Returns:
        Maps (N, H, W, D).
    """
    plain = (
        lhs.ndim == 4
        and rhs.shape[:2] == (3, 3)
        and tuple(window_strides) == (1, 1)
        and not isinstance(padding, str)
        and [tuple(p) for p in padding] == [(1, 1), (1, 1)]
        and options.get("feature_group_count", 1) == 1
        and set(options.get("lhs_dilation") or (1,)) == {1}
        and set(options.get("rhs_dilation") or (1,)) == {1}
        and options.get("batch_group_count", 1) == 1
        and lax.conv_dimension_numbers(lhs.shape, rhs.shape, options.get("dimension_numbers"))
        == _CHANNELS_LAST
    )
    small = set(lhs.shape[1:3]) <= set(_SIDES) and sum(rhs.shape[2:]) >= _FEWEST_CHANNELS
    # Accelerators' own libraries choose such algorithms themselves.
    if plain and small and jax.default_backend() == "cpu" and lhs.dtype in (jnp.float32, jnp.float64):
        return winograd(lhs, rhs)
    return convolution(lhs, rhs, window_strides, padding, **options)


@lrp.linear_operation  # rules see the convolution that it is, not the products inside
def winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Cross-correlation with a 3x3 kernel, stride 1, zero padding 1.

    Args:
        x: maps (N, H, W, C).
        kernel: (3, 3, C, D).

    Returns:
        Maps (N, H, W, D).
    """
    n, height, width, channels = x.shape
    g_rows, d_rows, e_rows = _transforms(height)
    g_cols, d_cols, e_cols = _transforms(width)
    (p, s), (q, t) = d_rows.shape[:2], d_cols.shape[:2]
    u = jnp.einsum("pi,qj,ijcd->pqcd", g_rows.astype(x.dtype), g_cols.astype(x.dtype), kernel)
    v = _combine(d_cols, _combine(d_rows, x, axis=1), axis=3)  # (q, t, p, s, n, c)
    v = v.transpose(2, 0, 3, 1, 4, 5).reshape(p * q, s * t * n, channels)
    m = jnp.einsum("brc,bcd->brd", v, u.reshape(p * q, channels, -1))
    m = m.reshape(p, q, s, t, n, -1).transpose(0, 2, 1, 3, 4, 5).reshape(p * s, q * t, n, -1)
    y = _combine(e_cols.reshape(1, width, -1), m, axis=1)[0]  # (w, ps, n, d)
    y = _combine(e_rows.reshape(1, height, -1), y, axis=1)[0]  # (h, w, n, d)
    return y.transpose(2, 0, 1, 3)


def multiplications(side: int) -> int:
    """Multiplications a pair of channels for one map of side x side by `winograd` (direct: 9·side²).

    Args:
        side: height and width of the map.

    Returns:
        The count of the tile size that `winograd` takes.
    """
    return (_tiles(side) * (_tile_size(side) + 2)) ** 2


def _combine(rows: np.ndarray, x: jax.Array, axis: int) -> jax.Array:
    """Sums of x's slices along `axis`, one for each of the first two axes of `rows`, which lead."""
    # Written out, so that XLA fuses each sum into one pass; a matrix product with 4 to 7 terms would not be.
    # A split's transpose is one concatenation, where that of single slices would be a sum of padded arrays.
    slices = [jnp.squeeze(one, axis) for one in lax.split(x, (1,) * x.shape[axis], axis)]
    return jnp.stack([jnp.stack([_weighted_sum(row, slices) for row in block]) for block in rows])


def _weighted_sum(weights: np.ndarray, terms: list[jax.Array]) -> jax.Array:
    kept = [w * t for w, t in zip(weights.tolist(), terms, strict=True) if w]
    return functools.reduce(jnp.add, kept) if kept else jnp.zeros_like(terms[0])


def _tile_size(side: int) -> int:
    return min(_POINTS, key=lambda m: -(-side // m) * (m + 2))


def _tiles(side: int) -> int:
    return -(-side // _tile_size(side))


@functools.cache
def _transforms(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(G, D, E) along one axis: kernel (α, 3), tiled input (α, tiles, side), output (side, α, tiles).

    Correlation is the transpose of Toom and Cook's polynomial product: with Vandermonde matrices V_k (k
    columns) at α = m + 2 points, y = V_mᵀ[(V_3 g) ⊙ (V_α⁻ᵀ d)].
    """
    m, tiles = _tile_size(side), _tiles(side)
    points = np.array(_POINTS[m], float)

    def vandermonde(columns: int) -> np.ndarray:
        return np.concatenate([points[:, None] ** np.arange(columns), np.eye(1, columns, columns - 1)])

    kernel, inputs = vandermonde(3), np.linalg.inv(vandermonde(m + 2)).T
    inputs[np.abs(inputs) < 1e-12] = 0
    scale = np.abs(kernel).sum(axis=1, keepdims=True)
    kernel, inputs = kernel / scale, inputs * scale
    tiled = np.zeros((m + 2, tiles, side))
    output = np.zeros((side, m + 2, tiles))
    for tile in range(tiles):
        for a in range(m + 2):
            position = tile * m + a - 1
            if 0 <= position < side:
                tiled[:, tile, position] = inputs[:, a]
        for row in range(min(m, side - tile * m)):
            output[tile * m + row, :, tile] = vandermonde(m)[:, row]
    return kernel, tiled, output
