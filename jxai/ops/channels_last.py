"""Convolutions of a loop's body in the one layout that XLA's CPU compiler runs fast there.

Outside of loops XLA turns any layout into (N, H, W, C) and (H, W, I, O) and calls Eigen. Inside of a loop's body it
does not, and the gradient of a convolution, which reads its kernel with inputs and outputs exchanged, falls to plain
nested loops: three to seven times slower (jax 0.10). The transpositions written out make them fast, and change
nothing else.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.extend import core


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
    y = lax.conv_general_dilated_p.bind(
        lax.transpose(x, of_x), lax.transpose(kernel, of_kernel), dimension_numbers=plain, **parameters
    )
    back = sorted(range(y.ndim), key=of_y.__getitem__)
    return lax.transpose(y, back)
