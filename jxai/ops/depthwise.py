"""Depthwise convolution at a CPU's full speed.

XLA runs a convolution of as many groups as channels on a CPU five to twenty times slower than the sum of shifted maps
that it is, and its gradients too. Other devices have kernels for it. So it is an operation of its own here, bilinear,
with its own transposes, which becomes one or the other when it is compiled. `jxai.models` convolves by it; `jxai.lrp`
sees the convolution that it is, and evaluates it by this.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Strides = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


def is_depthwise(lhs: jax.Array, rhs: jax.Array, **params: Any) -> bool:
    """Whether `depthwise_p` does what a convolution of `lax` does.

    That is: channels last, one input and one output channel a group, no dilation, no kernel larger than the maps.

    Args:
        lhs: maps.
        rhs: kernel.
        **params: of `lax.conv_general_dilated_p`.
    """
    rank = lhs.ndim - 2
    last = (0, rank + 1, *range(1, rank + 1))
    layout = params["dimension_numbers"]
    return (
        (layout.lhs_spec, layout.rhs_spec, layout.out_spec) == (last, (rank + 1, rank, *range(rank)), last)
        and params["feature_group_count"] == lhs.shape[-1] == rhs.shape[-1]
        and params["batch_group_count"] == 1
        and tuple(params["lhs_dilation"]) == tuple(params["rhs_dilation"]) == (1,) * rank
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and params["preferred_element_type"] in (None, lhs.dtype)
        and rank > 0
        and 0 not in rhs.shape
        and all(
            side + sum(pad) >= size
            for side, pad, size in zip(lhs.shape[1:-1], params["padding"], rhs.shape[:-2], strict=True)
        )
    )


def grouped(
    x: jax.Array, kernel: jax.Array, *, strides: Strides, padding: Padding, precision: Any
) -> jax.Array:
    """The same as a convolution of groups.

    Args:
        x: maps (N, ..., C).
        kernel: (..., 1, C).
        strides: one a spatial axis.
        padding: zeros (before, after) on each spatial axis.
        precision: as in `lax`.

    Returns:
        Maps (N, ..., C).
    """
    axes = tuple(range(x.ndim))
    last = (0, axes[-1], *axes[1:-1])
    layout = lax.ConvDimensionNumbers(last, (axes[-1], axes[-2], *axes[:-2]), last)
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=layout,
        feature_group_count=x.shape[-1],
        precision=precision,
    )


def shifted(
    x: jax.Array, kernel: jax.Array, *, strides: Strides, padding: Padding, precision: Any = None
) -> jax.Array:
    """The same as the sum over the kernel's places of shifted maps times one number a channel, in float32 at least.

    Args:
        x: maps (N, ..., C).
        kernel: (..., 1, C).
        strides: one a spatial axis.
        padding: zeros (before, after) on each spatial axis.
        precision: at any, a CPU's products are whole.

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
    ct: jax.Array, kernel: jax.Array, *, shape: Any, strides: Strides, padding: Padding, precision: Any
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
            options = {"strides": (1,) * len(sizes), "padding": tuple(around), "precision": precision}
            phases.append(depthwise_p.bind(ct, turned, **options))
    rank = len(strides)
    grid = jnp.stack(phases, axis=-2).reshape(len(ct), *lengths, *strides, ct.shape[-1])
    order = (0, *(axis for i in range(rank) for axis in (1 + i, 1 + rank + i)), 2 * rank + 1)
    sides = [length * stride for length, stride in zip(lengths, strides, strict=True)]
    whole = grid.transpose(order).reshape(len(ct), *sides, ct.shape[-1])
    return whole[:, *(slice(pad[0], pad[0] + side) for pad, side in zip(padding, shape[1:-1], strict=True))]


def _transposed_kernel(
    ct: jax.Array, x: jax.Array, *, shape: Any, strides: Strides, padding: Padding, precision: Any
) -> jax.Array:
    """Of the kernel: at each place, the products of cotangent and shifted maps summed over images and positions."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    axes = tuple(range(x.ndim - 1))
    sums = [
        (maps.astype(wide) * ct.astype(wide)).sum(axis=axes)
        for _, maps in _shifts(x, shape[:-2], strides, padding)
    ]
    return jnp.stack(sums).reshape(shape).astype(x.dtype)


def _on_cpu(
    fast: Any, argnum: int, ct: jax.Array, other: jax.Array, *, shape: Any, **params: Any
) -> jax.Array:
    """The transpose for one operand: written out on a CPU, the grouped convolution's own elsewhere."""

    def elsewhere(ct: jax.Array, other: jax.Array) -> jax.Array:
        def map_of(operand: jax.Array) -> jax.Array:
            operands = (operand, other) if argnum == 0 else (other, operand)
            return grouped(*operands, **params)

        return jax.linear_transpose(map_of, jax.ShapeDtypeStruct(shape, other.dtype))(ct)[0]

    on_cpu = functools.partial(fast, shape=shape, **params)
    return lax.platform_dependent(ct, other, cpu=on_cpu, default=elsewhere)


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


def _abstract(x: Any, kernel: Any, *, strides: Strides, padding: Padding, precision: Any) -> Any:
    counts = _counts(x.shape, kernel.shape[:-2], strides, padding)
    return x.update(shape=(x.shape[0], *counts, x.shape[-1]))


def called_alone(primitive: Primitive, parameters: Sequence[str]) -> Callable[..., jax.Array]:
    """What a primitive gives where nothing is traced: by its own program, under `jax.disable_jit` too.

    Args:
        primitive: with a lowering.
        parameters: its parameters' names.

    Returns:
        A function as `primitive.bind`.
    """
    run = jax.jit(primitive.bind, static_argnames=tuple(parameters))

    def found(*operands: jax.Array, **given: Any) -> jax.Array:
        with jax.disable_jit(False):
            return run(*operands, **given)

    return found


depthwise_p = Primitive("depthwise_convolution")
depthwise_p.def_impl(called_alone(depthwise_p, ("strides", "padding", "precision")))
depthwise_p.def_abstract_eval(_abstract)
ad.defbilinear(depthwise_p, _transpose_maps, _transpose_kernel)
batching.primitive_batchers[depthwise_p] = _batch
mlir.register_lowering(depthwise_p, mlir.lower_fun(grouped, multiple_results=False))
mlir.register_lowering(depthwise_p, mlir.lower_fun(shifted, multiple_results=False), platform="cpu")
