"""A program as an accelerator computes it by default: operands of products in fewer bits, sums in float32.

TPUs round the operands of a float32 product to bfloat16 (8 bits of exponent, 7 of mantissa), NVIDIA's tensor cores to
TensorFloat-32 (8 and 10), and both add the products up in float32. Elsewhere the same is had by rounding the operands
before every product that does not ask for more.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

_EXPONENT_BITS = 8
_PRODUCTS = ("dot_general", "conv_general_dilated", "convolution", "depthwise_convolution")


def rounded(f: Callable, *, mantissa_bits: int) -> Callable:
    """The function with the operands of its products rounded; to be jitted, and not differentiated.

    A product is left as it is where its `precision` is more than the default: the program asks for it, and gets it.

    Args:
        f: of trees of arrays to a tree of arrays.
        mantissa_bits: that are kept: 7 as bfloat16 does, 10 as TensorFloat-32.

    Returns:
        A function of the same arguments.
    """

    def emulated(*arguments: Any) -> Any:
        program, shape = jax.make_jaxpr(f, return_shape=True)(*arguments)
        results = _evaluate(program, jax.tree.leaves(arguments), mantissa_bits)
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return emulated


def _evaluate(program: ClosedJaxpr, arguments: Sequence[Any], bits: int) -> list[Any]:
    jaxpr = program.jaxpr
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*program.consts, *arguments], strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        results = _apply(equation, [value(atom) for atom in equation.invars], bits)
        known.update(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _apply(equation: Any, arguments: list[Any], bits: int) -> Sequence[Any]:
    """An equation's results; programs inside of it are rounded too."""
    name, params = equation.primitive.name, equation.params
    if name in _PRODUCTS and _by_default(params.get("precision")):
        arguments = [_round(x, bits) for x in arguments]
    # Functions with derivatives of their own, whose derivatives nobody takes any more.
    if "call_jaxpr" in params:
        return _evaluate(params["call_jaxpr"], arguments, bits)
    if isinstance(params.get("jaxpr"), Jaxpr):  # jax.checkpoint
        return _evaluate(ClosedJaxpr(params["jaxpr"], ()), arguments, bits)
    inner = {key: _rewritten(param, bits) for key, param in params.items()}
    results = equation.primitive.bind(*arguments, **equation.primitive.get_bind_params(inner))
    return results if equation.primitive.multiple_results else [results]


def _rewritten(param: Any, bits: int) -> Any:
    """A parameter of a loop, a branch or a jitted function with its programs rounded."""
    if isinstance(param, tuple) and param and isinstance(param[0], ClosedJaxpr):
        return tuple(_rewritten(one, bits) for one in param)
    if not isinstance(param, ClosedJaxpr):
        return param
    return jax.make_jaxpr(lambda *arguments: _evaluate(param, arguments, bits))(*param.in_avals)


def _by_default(precision: Any) -> bool:
    """Whether a product's precision is left to the device."""
    of_operands = precision if isinstance(precision, tuple) else (precision,)
    return all(one in (None, jax.lax.Precision.DEFAULT) for one in of_operands)


def _round(x: Any, bits: int) -> Any:
    floating = jnp.issubdtype(jnp.result_type(x), jnp.floating)
    return jax.lax.reduce_precision(x, _EXPONENT_BITS, bits) if floating else x
