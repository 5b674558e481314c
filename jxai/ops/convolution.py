"""Convolutions at a CPU's full speed: their derivatives of any order, small maps, and those inside of loops.

XLA's compiler for CPUs leaves two kinds of convolutions to plain nested loops, thirty to a hundred times slower (jax
0.10). It exchanges the roles of maps and kernel where the kernel is the larger of the two, to save operations on
zeros, and nothing runs the exchanged form, which reads its kernel backwards: so with maps of 2 x 2 and kernels of
3 x 3, and where a strided convolution's gradient is differentiated by the kernel, for which the maps are the kernel.
And inside of a loop's body it runs no layout but channels last. So a convolution is an operation of its own here,
with `lax`'s rules, written out for a CPU when it is compiled: channels last, the larger of the two as the maps. Other
devices have kernels for all of this, and get what `lax` says.
"""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jxai.jaxprs import evaluated
from jxai.ops.depthwise import called_alone, depthwise_p, is_depthwise


def convolution(
    lhs: jax.Array, rhs: jax.Array, window_strides: Sequence[int], padding: Any, **options: Any
) -> jax.Array:
    """`lax.conv_general_dilated`, on a CPU in the form that is fast there.

    Made to be handed to `flax.linen.Conv(conv_general_dilated=...)`.

    Args:
        lhs: maps.
        rhs: kernel.
        window_strides: as in `lax`.
        padding: as in `lax`.
        **options: as in `lax`.

    Returns:
        Maps.
    """
    of_lax = functools.partial(
        lax.conv_general_dilated, window_strides=window_strides, padding=padding, **options
    )
    return _rewritten(of_lax, lhs, rhs)


def with_fast_convolutions(function: Callable) -> Callable:
    """The function, each `lax.conv_general_dilated` in it, outside of its own loops, by `convolution` on a CPU.

    Args:
        function: of arrays to a tree of arrays.

    Returns:
        A function of the same arrays with the same values.
    """

    def rewritten(*arguments: Any) -> Any:
        on_cpu = jax.default_backend() == "cpu"
        return _rewritten(function, *arguments) if on_cpu else function(*arguments)

    return rewritten


def _rewritten(function: Callable, *arguments: Any) -> Any:
    # A function of its own: JAX keeps what a function traced to by its identity, with what it closed over then.
    closed, shapes = jax.make_jaxpr(lambda *given: function(*given), return_shape=True)(*arguments)
    outputs = evaluated(closed, jax.tree.leaves(arguments), _apply)
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs)


def _apply(equation: Any, operands: list[Any]) -> Sequence[Any]:
    params = equation.primitive.get_bind_params(equation.params)
    if equation.primitive is lax.conv_general_dilated_p:
        return [_chosen(*operands, **equation.params)]
    if equation.primitive.name == "jit":
        return evaluated(equation.params["jaxpr"], operands, _apply)
    results = equation.primitive.bind(*operands, **params)
    return results if equation.primitive.multiple_results else [results]


def _chosen(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    if is_depthwise(lhs, rhs, **params):
        own = {
            "strides": params["window_strides"],
            "padding": params["padding"],
            "precision": params["precision"],
        }
        return depthwise_p.bind(lhs, rhs, **own)
    floats = jnp.issubdtype(lhs.dtype, jnp.floating)
    return (convolution_p if floats else lax.conv_general_dilated_p).bind(lhs, rhs, **params)


# One spatial axis.


class _Axis(NamedTuple):
    """Sizes along one spatial axis: the window at i reads maps at stride * i + reach * k - before.

    Attributes:
        maps: of the maps.
        kernel: of the kernel.
        out: of the result.
        stride: from a window to the next.
        before: zeros in front of the maps, or entries left out if negative.
        spread: from one entry of the maps to the next (1: side by side).
        reach: from one entry of the kernel to the next.
    """

    maps: int
    kernel: int
    out: int
    stride: int
    before: int
    spread: int
    reach: int

    @property
    def padding(self) -> tuple[int, int]:
        """Before and after, as little as there can be."""
        after = self._read() - self.before - self._width()
        return self.before, max(after, min(0, after + self.stride - 1))

    @property
    def is_left_out(self) -> bool:
        """Whether XLA takes it for one of groups, which it would not exchange."""
        spread = self.spread == self.kernel == self.stride + 1
        return spread and self.reach == 1 and self.padding == (0, 0)

    def _read(self) -> int:
        return self.stride * (self.out - 1) + self.reach * (self.kernel - 1) + 1

    def _width(self) -> int:
        return self.spread * (self.maps - 1) + 1

    def cut_kernel(self) -> tuple["_Axis", slice]:
        """Without the kernel's entries that meet nothing but zeros."""
        first = -((self.stride * (self.out - 1) - self.before) // self.reach)
        last = (self._width() - 1 + self.before) // self.reach
        first, last = _within(first, last, self.kernel)
        cut = self._replace(kernel=last - first + 1, before=self.before - self.reach * first)
        return cut, slice(first, last + 1)

    def cut_maps(self) -> tuple["_Axis", slice]:
        """Without the maps' entries that no window reads."""
        first = -(self.before // self.spread)
        last = (self._read() - 1 - self.before) // self.spread
        first, last = _within(first, last, self.maps)
        cut = self._replace(maps=last - first + 1, before=self.before + self.spread * first)
        return cut, slice(first, last + 1)

    def padded(self) -> tuple["_Axis", tuple[int, int]]:
        """With zeros around as entries of the maps, as many as fit."""
        before, after = (max(0, zeros) // self.spread for zeros in self.padding)
        more = self._replace(maps=self.maps + before + after, before=self.before - before * self.spread)
        return more, (before, after)

    def exchanged(self) -> "_Axis":
        """With the maps as the kernel, both turned around."""
        kernel_width = self.reach * (self.kernel - 1) + 1
        return self._replace(
            maps=self.kernel,
            kernel=self.maps,
            before=self.before + self._width() - kernel_width,
            spread=self.reach,
            reach=self.spread,
        )


def _within(first: int, last: int, size: int) -> tuple[int, int]:
    """The range of at least one entry."""
    first = min(max(first, 0), size - 1)
    return first, min(max(last, first), size - 1)


# The form for a CPU.


def _written_out(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """With maps (N, ..., C) and kernel (..., I, O), the larger of the two as the maps."""
    numbers = params["dimension_numbers"]
    maps = lax.transpose(lhs, _spatial_inside(numbers.lhs_spec))
    out, into, *spatial = numbers.rhs_spec
    kernel = lax.transpose(rhs, (*spatial, into, out))
    y = _channels_last(maps, kernel, _out_sides(lhs, rhs, params), params)
    back = sorted(range(y.ndim), key=_spatial_inside(numbers.out_spec).__getitem__)
    return lax.transpose(y, back)


def _spatial_inside(spec: Sequence[int]) -> tuple[int, ...]:
    return (spec[0], *spec[2:], spec[1])


def _out_sides(lhs: jax.Array, rhs: jax.Array, params: dict[str, Any]) -> list[int]:
    shape = jax.eval_shape(functools.partial(lax.conv_general_dilated_p.bind, **params), lhs, rhs).shape
    return [shape[axis] for axis in params["dimension_numbers"].out_spec[2:]]


def _channels_last(maps: jax.Array, kernel: jax.Array, sides: list[int], params: dict[str, Any]) -> jax.Array:
    geometry = zip(
        maps.shape[1:-1],
        kernel.shape[:-2],
        sides,
        params["window_strides"],
        [before for before, _ in params["padding"]],
        params["lhs_dilation"],
        params["rhs_dilation"],
        strict=True,
    )
    axes = [_Axis(*sizes) for sizes in geometry]
    if 0 in (*maps.shape, *kernel.shape, *sides):
        return _convolve(maps, kernel, axes, params)
    axes, slices = zip(*[axis.cut_kernel() for axis in axes], strict=True)
    kernel = kernel[slices]
    axes, slices = zip(*[axis.cut_maps() for axis in axes], strict=True)
    maps = maps[:, *slices]
    grouped = params["feature_group_count"] * params["batch_group_count"] > 1
    if grouped or not _is_exchanged(axes):
        return _convolve(maps, kernel, axes, params)
    more, zeros = zip(*[axis.padded() for axis in axes], strict=True)
    if not _is_exchanged(more):
        padded = lax.pad(maps, jnp.zeros((), maps.dtype), [(0, 0, 0), *((*z, 0) for z in zeros), (0, 0, 0)])
        # Or XLA would put the zeros back into the convolution.
        return _convolve(lax.optimization_barrier(padded), kernel, more, params)
    rank = len(axes)
    turned_kernel = lax.rev(kernel, range(rank)).transpose(rank + 1, *range(rank), rank)
    turned_maps = lax.rev(maps, range(1, rank + 1)).transpose(*range(1, rank + 2), 0)
    precision = params["precision"]
    precision = precision[::-1] if isinstance(precision, tuple) else precision
    y = _convolve(
        turned_kernel, turned_maps, [axis.exchanged() for axis in axes], {**params, "precision": precision}
    )
    return y.transpose(rank + 1, *range(1, rank + 1), 0)


def _is_exchanged(axes: Sequence[_Axis]) -> bool:
    """Whether XLA would exchange maps and kernel (`SwapConvolutionOperandsIfBeneficial`)."""
    counted = [axis for axis in axes if not axis.is_left_out]
    return math.prod(axis.kernel for axis in counted) > math.prod(axis.maps for axis in counted)


def _convolve(maps: jax.Array, kernel: jax.Array, axes: Sequence[_Axis], params: dict[str, Any]) -> jax.Array:
    last = (0, maps.ndim - 1, *range(1, maps.ndim - 1))
    layout = lax.ConvDimensionNumbers(last, (maps.ndim - 1, maps.ndim - 2, *range(maps.ndim - 2)), last)
    return lax.conv_general_dilated_p.bind(
        maps,
        kernel,
        **{
            **params,
            "padding": tuple(axis.padding for axis in axes),
            "lhs_dilation": tuple(axis.spread for axis in axes),
            "rhs_dilation": tuple(axis.reach for axis in axes),
            "dimension_numbers": layout,
        },
    )


# The operation.


def _transpose_maps(ct: jax.Array, lhs: Any, rhs: jax.Array, **params: Any) -> jax.Array:
    of_maps = functools.partial(lax.conv_general_dilated_p.bind, **params)
    return _rewritten(
        lambda ct, rhs: jax.linear_transpose(lambda x: of_maps(x, rhs), lhs.aval)(ct)[0], ct, rhs
    )


def _transpose_kernel(ct: jax.Array, lhs: jax.Array, rhs: Any, **params: Any) -> jax.Array:
    of_kernel = functools.partial(lax.conv_general_dilated_p.bind, **params)
    return _rewritten(
        lambda ct, lhs: jax.linear_transpose(lambda k: of_kernel(lhs, k), rhs.aval)(ct)[0], ct, lhs
    )


def _batch(operands: Any, axes: Any, **params: Any) -> tuple[jax.Array, int]:
    return _rewritten(
        jax.vmap(functools.partial(lax.conv_general_dilated_p.bind, **params), axes), *operands
    ), 0


def _abstract(lhs: Any, rhs: Any, **params: Any) -> Any:
    return lax.conv_general_dilated_p.abstract_eval(lhs, rhs, **params)[0]


_PARAMETERS = tuple(inspect.signature(lax.conv_general_dilated).parameters)[2:]
convolution_p = Primitive("convolution")
convolution_p.def_impl(called_alone(convolution_p, _PARAMETERS))
convolution_p.def_abstract_eval(_abstract)
ad.defbilinear(convolution_p, _transpose_maps, _transpose_kernel)
batching.primitive_batchers[convolution_p] = _batch
mlir.register_lowering(convolution_p, mlir.lower_fun(lax.conv_general_dilated_p.bind, multiple_results=False))
mlir.register_lowering(convolution_p, mlir.lower_fun(_written_out, multiple_results=False), platform="cpu")
