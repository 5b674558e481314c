"""Max pooling whose gradient is fast on a CPU."""

import functools

import jax
import jax.numpy as jnp
from jax import lax


def max_pool(
    x: jax.Array, size: int, *, padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
) -> jax.Array:
    """Max pooling of square windows with stride 2; rows and columns that fill no window are left out.

    The maximum of slices, along the columns of the maximum along the rows, because the gradient of `nn.max_pool` is
    about three times (3x3) and eighteen times (2x2) slower on a CPU. Equal winners share the gradient: of two that
    are compared, each gets half of what the two get together. `nn.max_pool` gives all to the first.

    Args:
        x: maps (N, H, W, C).
        size: height and width of a window.
        padding: rows above and below, columns before and after, that never win; fewer than `size` each.

    Returns:
        Maps (N, (H + rows - size) // 2 + 1, (W + columns - size) // 2 + 1, C), rows and columns of padding summed.
    """
    return _maxima(_maxima(x, 1, size, padding[0]), 2, size, padding[1])


def _maxima(x: jax.Array, axis: int, size: int, padding: tuple[int, int]) -> jax.Array:
    """Maxima of windows along one axis."""
    side, before = x.shape[axis], padding[0]
    count = (side + sum(padding) - size) // 2 + 1
    half = -(-min(side, 2 * count + size - 2 - before) // 2)  # pairs of entries that windows reach
    cut = functools.partial(lax.slice_in_dim, axis=axis)
    # Padding is the nearest entry, which its window holds as well.
    first, last = cut(x, 0, 1), cut(x, side - 1, side)
    x = jnp.concatenate([x, last], axis) if 2 * half > side else cut(x, 0, 2 * half)
    pairs = x.reshape(*x.shape[:axis], half, 2, *x.shape[axis + 1 :])
    # A split's transpose is one concatenation, where that of strided slices would be a sum of padded arrays.
    phases = [jnp.squeeze(phase, axis + 1) for phase in lax.split(pairs, (1, 1), axis + 1)]

    def entries(offset: int) -> jax.Array:
        """The entry at the offset of every window."""
        start, phase = divmod(offset - before, 2)
        above, below = min(count, max(0, -start)), min(count, max(0, start + count - half))
        pieces = [first] * above + [last] * below
        if above + below < count:
            pieces.insert(above, cut(phases[phase], start + above, start + count - below))
        return jnp.concatenate(pieces, axis) if len(pieces) > 1 else pieces[0]

    return functools.reduce(jnp.maximum, [entries(offset) for offset in range(size)])
