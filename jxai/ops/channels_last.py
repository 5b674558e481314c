"""Convolutions of a loop's body in the forms that XLA's CPU compiler runs fast there.

Outside of loops XLA turns any layout into (N, H, W, C) and (H, W, I, O) and calls Eigen. Inside of a loop's body it
does not, and the gradient of a convolution, which reads its kernel with inputs and outputs exchanged, falls to plain
nested loops: three to seven times slower (jax 0.10). The transpositions written out make them fast, and change
nothing else.

Maps of four places or fewer are slow in any layout, fifty times slower than larger ones
(`experiments/benchmarks/convolutions.py`): there a convolution is one product of matrices.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

_FEW = 4  # places of a map


def with_plain_convolutions(function: Callable) -> Callable:
    """The function, its convolutions rewritten when it is compiled for a CPU.

    Args:
        function: of arrays to a tree of arrays.

    Returns:
        A function of the same arrays with the same values.
    """

    def rewritten(*arguments: Any) -> Any:
        if jax.default_backend() != "cpu":
            return function(*arguments)
        # A function of its own: JAX keeps what a function traced to by its identity, with what it closed over then.
        closed, shapes = jax.make_jaxpr(lambda *given: function(*given), return_shape=True)(*arguments)
        outputs = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return rewritten


def _evaluate(jaxpr: Any, constants: Any, arguments: Any) -> list[Any]:
    values: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    values.update(zip(jaxpr.constvars, constants, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        if equation.primitive is lax.conv_general_dilated_p:
            results = [_convolve(*operands, **equation.params)]
        elif equation.primitive.name == "jit":
            inner = equation.params["jaxpr"]
            results = _evaluate(inner.jaxpr, inner.consts, operands)
        else:
            parameters = equation.primitive.get_bind_params(equation.params)
            results = equation.primitive.bind(*operands, **parameters)
            results = results if equation.primitive.multiple_results else [results]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _convolve(x: jax.Array, kernel: jax.Array, *, dimension_numbers: Any, **parameters: Any) -> jax.Array:
    """The convolution with operands and result transposed to channels last."""
    of_x, of_kernel, of_y = (
        (spec[0], *spec[2:], spec[1])
        for spec in (dimension_numbers.lhs_spec, dimension_numbers.rhs_spec, dimension_numbers.out_spec)
    )
    # A kernel's specification begins with outputs, inputs: those go last, inputs first of the two.
    of_kernel = (*of_kernel[1:-1], of_kernel[-1], of_kernel[0])
    spatial = tuple(range(1, x.ndim - 1))
    plain = lax.ConvDimensionNumbers(
        (0, x.ndim - 1, *spatial), (x.ndim - 1, x.ndim - 2, *range(x.ndim - 2)), (0, x.ndim - 1, *spatial)
    )
    x, kernel = lax.transpose(x, of_x), lax.transpose(kernel, of_kernel)
    y = _as_product(x, kernel, **parameters)
    if y is None:
        y = lax.conv_general_dilated_p.bind(x, kernel, dimension_numbers=plain, **parameters)
    back = sorted(range(y.ndim), key=of_y.__getitem__)
    return lax.transpose(y, back)


def _as_product(
    x: jax.Array,
    kernel: jax.Array,
    *,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any,
    rhs_dilation: Any,
    feature_group_count: int,
    batch_group_count: int,
    precision: Any,
    preferred_element_type: Any,
    **_: Any,
) -> jax.Array | None:
    """The convolution of maps of few places, (N, ..., C), as neighborhoods times the kernel; None of other maps."""
    sides, sizes = x.shape[1:-1], kernel.shape[:-2]
    if not 0 < math.prod(sides) <= _FEW or feature_group_count * batch_group_count > 1:
        return None
    spatial = [*zip(sides, sizes, window_strides, padding, lhs_dilation, rhs_dilation, strict=True)]
    pads = [(low, high, apart - 1) for _, _, _, (low, high), apart, _ in spatial]
    padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    counts = [
        (length - 1 - (size - 1) * apart) // stride + 1
        for length, (_, size, stride, _, _, apart) in zip(padded.shape[1:-1], spatial, strict=True)
    ]
    reached, parts = [], []
    for place in itertools.product(*map(range, sizes)):
        starts = [at * apart for at, (*_, apart) in zip(place, spatial, strict=True)]
        ends = [
            start + (count - 1) * stride + 1
            for start, count, stride in zip(starts, counts, window_strides, strict=True)
        ]
        ranges = [range(*one) for one in zip(starts, ends, window_strides, strict=True)]
        # A place of the kernel that meets nothing but padding adds nothing.
        if all(
            any((at - low) % apart == 0 and 0 <= (at - low) // apart < side for at in there)
            for there, (side, _, _, (low, _), apart, _) in zip(ranges, spatial, strict=True)
        ):
            reached.append(kernel[place])
            parts.append(
                lax.slice(padded, (0, *starts, 0), (len(x), *ends, x.shape[-1]), (1, *window_strides, 1))
            )
    if not parts:
        return None
    return lax.dot_general(
        jnp.concatenate(parts, axis=-1),
        jnp.concatenate(reached, axis=0),
        (((x.ndim - 1,), (0,)), ((), ())),
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
