"""Depthwise convolution at a CPU's full speed.

XLA runs a convolution of as many groups as channels on a CPU five to twenty times slower than the sum of shifted maps
that it is, and its gradients too. Other devices have kernels for it. So it is an operation of its own here, bilinear,
with its own transposes, which becomes one or the other when it is compiled. `jxai.models` convolves by it; `jxai.lrp`
sees the convolution that it is, and evaluates it by this.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Strides = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


def depthwise_convolution(
    lhs: jax.Array, rhs: jax.Array, window_strides: Sequence[int], padding: Any, **options: Any
) -> jax.Array:
    """`lax.conv_general_dilated`, on a CPU as a sum of shifted maps where it is depthwise.

    z[n, i, c] = Σ_k x[n, stride·i + k - before, c] · kernel[k, 0, c], with i and k over all spatial axes.

    Made to be handed to `flax.linen.Conv(conv_general_dilated=...)`. Depthwise is: channels last, one input and one
    output channel a group, no dilation, at its default precision; all else goes to `lax` as it is.

    Args:
        lhs: maps (N, ..., C).
        rhs: kernel (..., 1, C).
        window_strides: as in `lax`.
        padding: as in `lax`.
        **options: as in `lax`.

    Returns:
        Maps (N, ..., C).
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not (_is_well_formed(lhs, rhs, window_strides, padding, given) and _is_depthwise(lhs, rhs, given)):
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
    sides, sizes, strides = lhs.shape[1:-1], rhs.shape[:-2], tuple(map(int, window_strides))
    pads = lax.padtype_to_pads(sides, sizes, strides, padding) if isinstance(padding, str) else padding
    pads = tuple((int(before), int(after)) for before, after in pads)
    fits = all(side + sum(pad) >= size for side, pad, size in zip(sides, pads, sizes, strict=True))
    if not fits:
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
    return depthwise_p.bind(lhs, rhs, strides=strides, padding=pads)


def _is_well_formed(lhs: Any, rhs: Any, strides: Any, padding: Any, options: dict[str, Any]) -> bool:
    """Whether nothing here can go wrong; `lax` says what is wrong of all else."""
    if not all(isinstance(maps, jax.Array | np.ndarray) for maps in (lhs, rhs)):
        return False
    rank = lhs.ndim - 2
    pads = [(0, 0)] * rank if isinstance(padding, str) else padding
    each = [strides, *(options[name] for name in ("lhs_dilation", "rhs_dilation") if name in options)]
    return (
        rank > 0
        and rhs.ndim == lhs.ndim
        and 0 not in rhs.shape
        and all(isinstance(values, Sequence) and len(values) == rank for values in (*each, pads))
        and all(isinstance(n, int | np.integer) and n > 0 for values in each for n in values)
        and all(isinstance(pad, Sequence) and len(pad) == 2 for pad in pads)
        and all(isinstance(n, int | np.integer) for pad in pads for n in pad)
    )


def _is_depthwise(lhs: jax.Array, rhs: jax.Array, options: dict[str, Any]) -> bool:
    rank = lhs.ndim - 2
    layout = lax.conv_dimension_numbers(lhs.shape, rhs.shape, options.get("dimension_numbers"))
    last = (0, rank + 1, *range(1, rank + 1))
    return (
        (layout.lhs_spec, layout.rhs_spec, layout.out_spec) == (last, (rank + 1, rank, *range(rank)), last)
        and options.get("feature_group_count", 1) == lhs.shape[-1] == rhs.shape[-1]
        and options.get("batch_group_count", 1) == 1
        and {*options.get("lhs_dilation", ()), *options.get("rhs_dilation", ())} <= {1}
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and lhs.dtype == rhs.dtype == options.get("preferred_element_type", lhs.dtype)
        and "precision" not in options
    )


def grouped(x: jax.Array, kernel: jax.Array, *, strides: Strides, padding: Padding) -> jax.Array:
    """The same as a convolution of groups.

    Args:
        x: maps (N, ..., C).
        kernel: (..., 1, C).
        strides: one a spatial axis.
        padding: zeros (before, after) on each spatial axis.

    Returns:
        Maps (N, ..., C).
    """
    axes = tuple(range(x.ndim))
    last = (0, axes[-1], *axes[1:-1])
    layout = lax.ConvDimensionNumbers(last, (axes[-1], axes[-2], *axes[:-2]), last)
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=layout, feature_group_count=x.shape[-1]
    )


def shifted(x: jax.Array, kernel: jax.Array, *, strides: Strides, padding: Padding) -> jax.Array:
    """The same as the sum over the kernel's places of shifted maps times one number a channel, in float32 at least.

    Args:
        x: maps (N, ..., C).
        kernel: (..., 1, C).
        strides: one a spatial axis.
        padding: zeros (before, after) on each spatial axis.

    Returns:
        Maps (N, ..., C).
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    terms = [
        maps.astype(wide) * kernel[place][0].astype(wide)
        for place, maps in _shifts(x, kernel.shape[:-2], strides, padding)
    ]
    return functools.reduce(jnp.add, terms).astype(x.dtype)


def _shifts(x: jax.Array, sizes: Sequence[int], strides: Strides, padding: Padding) -> list[Any]:
    """(place in the kernel, the maps that it multiplies) for all places."""
    padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*pad, 0) for pad in padding), (0, 0, 0)])
    counts = _counts(x.shape, sizes, strides, padding)
    found = []
    for place in np.ndindex(*sizes):
        ends = [p + stride * (n - 1) + 1 for p, stride, n in zip(place, strides, counts, strict=True)]
        found.append(
            (place, lax.slice(padded, (0, *place, 0), (len(x), *ends, x.shape[-1]), (1, *strides, 1)))
        )
    return found


def _counts(shape: Sequence[int], sizes: Sequence[int], strides: Strides, padding: Padding) -> list[int]:
    """The result's sides."""
    return [
        (side + sum(pad) - size) // stride + 1
        for side, pad, size, stride in zip(shape[1:-1], padding, sizes, strides, strict=True)
    ]


def _transposed_maps(
    ct: jax.Array, kernel: jax.Array, *, shape: Any, strides: Strides, padding: Padding
) -> jax.Array:
    """Of the maps: input a + stride·i gets Σ_q ct[i - q] · kernel[a + stride·q], one depthwise convolution a phase a.

    What automatic transposition of the sum gives, a sum of padded maps, takes three times as long.
    """
    lengths = [
        -(-(side + sum(pad)) // stride)
        for side, pad, stride in zip(shape[1:-1], padding, strides, strict=True)
    ]
    phases = []
    for phase in np.ndindex(*strides):
        taps = kernel[tuple(slice(a, None, stride) for a, stride in zip(phase, strides, strict=True))]
        sizes = taps.shape[:-2]
        around = [
            (size - 1, length - n) for size, length, n in zip(sizes, lengths, ct.shape[1:-1], strict=True)
        ]
        if 0 in sizes:  # a stride longer than the kernel leaves inputs out
            phases.append(jnp.zeros((len(ct), *lengths, ct.shape[-1]), ct.dtype))
        else:
            turned = jnp.flip(taps, range(len(sizes)))
            phases.append(depthwise_p.bind(ct, turned, strides=(1,) * len(sizes), padding=tuple(around)))
    rank = len(strides)
    grid = jnp.stack(phases, axis=-2).reshape(len(ct), *lengths, *strides, ct.shape[-1])
    order = (0, *(axis for i in range(rank) for axis in (1 + i, 1 + rank + i)), 2 * rank + 1)
    sides = [length * stride for length, stride in zip(lengths, strides, strict=True)]
    whole = grid.transpose(order).reshape(len(ct), *sides, ct.shape[-1])
    return whole[:, *(slice(pad[0], pad[0] + side) for pad, side in zip(padding, shape[1:-1], strict=True))]


def _transposed_kernel(
    ct: jax.Array, x: jax.Array, *, shape: Any, strides: Strides, padding: Padding
) -> jax.Array:
    """Of the kernel: at each place, the products of cotangent and shifted maps summed over images and positions."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    axes = tuple(range(x.ndim - 1))
    sums = [
        (maps.astype(wide) * ct.astype(wide)).sum(axis=axes)
        for _, maps in _shifts(x, shape[:-2], strides, padding)
    ]
    return jnp.stack(sums).reshape(shape).astype(x.dtype)


def _on_cpu(fast: Any, argnum: int, ct: jax.Array, other: jax.Array, **params: Any) -> jax.Array:
    """The transpose for one operand: written out on a CPU, the grouped convolution's own elsewhere."""

    def elsewhere(ct: jax.Array, other: jax.Array) -> jax.Array:
        def map_of(operand: jax.Array) -> jax.Array:
            operands = (operand, other) if argnum == 0 else (other, operand)
            return grouped(*operands, strides=params["strides"], padding=params["padding"])

        return jax.linear_transpose(map_of, jax.ShapeDtypeStruct(params["shape"], other.dtype))(ct)[0]

    return lax.platform_dependent(ct, other, cpu=functools.partial(fast, **params), default=elsewhere)


def _transpose_maps(ct: jax.Array, x: Any, kernel: jax.Array, **params: Any) -> jax.Array:
    return _on_cpu(_transposed_maps, 0, ct, kernel, shape=x.aval.shape, **params)


def _transpose_kernel(ct: jax.Array, x: jax.Array, kernel: Any, **params: Any) -> jax.Array:
    return _on_cpu(_transposed_kernel, 1, ct, x, shape=kernel.aval.shape, **params)


def _batch(operands: Any, axes: Any, **params: Any) -> tuple[jax.Array, int]:
    """A batch of maps goes to the images' axis; with a batch of kernels, both go to the channels' axis."""
    (x, kernel), (of_x, of_kernel) = operands, axes
    if of_kernel is None:
        x = jnp.moveaxis(x, of_x, 0)
        y = depthwise_p.bind(x.reshape(-1, *x.shape[2:]), kernel, **params)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0
    count = kernel.shape[of_kernel]
    kernel = jnp.moveaxis(kernel, of_kernel, -2)
    if of_x is None:
        x = jnp.broadcast_to(x[..., None, :], (*x.shape[:-1], count, x.shape[-1]))
    else:
        x = jnp.moveaxis(x, of_x, -2)
    y = depthwise_p.bind(x.reshape(*x.shape[:-2], -1), kernel.reshape(*kernel.shape[:-2], -1), **params)
    return y.reshape(*y.shape[:-1], count, -1), y.ndim - 1


def _abstract(x: Any, kernel: Any, *, strides: Strides, padding: Padding) -> Any:
    counts = _counts(x.shape, kernel.shape[:-2], strides, padding)
    return x.update(shape=(x.shape[0], *counts, x.shape[-1]))


depthwise_p = Primitive("depthwise_convolution")
depthwise_p.def_impl(jax.jit(depthwise_p.bind, static_argnames=("strides", "padding")))
depthwise_p.def_abstract_eval(_abstract)
ad.defbilinear(depthwise_p, _transpose_maps, _transpose_kernel)
batching.primitive_batchers[depthwise_p] = _batch
mlir.register_lowering(depthwise_p, mlir.lower_fun(grouped, multiple_results=False))
mlir.register_lowering(depthwise_p, mlir.lower_fun(shifted, multiple_results=False), platform="cpu")
