"""DeepLIFT's rules: a function's finite change from a reference to x, split operation by operation.

Every value has one at x, one at the reference, and a tangent, which moves through linear operations as JAX has it and
through others by a slope that makes the change exact: where tangents at the inputs are their changes, each value's
tangent is its own change. That is the paper's summation to delta; its multipliers are this linear map, transposed.

- Of one entry alone (activations, powers): the secant's slope Δy / Δx; the derivative where x hardly changes. That is
  the rescale rule.
- Products (gates, attention): the derivative halfway between.
- The largest of several (max pooling): what rises above the reference goes to the entry that is largest at x, what
  falls to the one that was at the reference.
- Choices by a condition (`jnp.where`): as the case chosen where both agree; else the two cases share the change.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from jxai.errors import InputError
from jxai.jaxprs import CALLS, evaluated


class _Moved(NamedTuple):
    """A value that depends on x: there, at the reference, and its tangent; None of what is no float."""

    value: Any
    reference: Any
    tangent: Any


# What gives each entry by one entry of an operand.
_ENTRYWISE = frozenset(
    [
        "abs",
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "cbrt",
        "ceil",
        "clamp",
        "cos",
        "cosh",
        "digamma",
        "erf",
        "erf_inv",
        "erfc",
        "exp",
        "exp2",
        "expm1",
        "floor",
        "integer_pow",
        "lgamma",
        "log",
        "log1p",
        "logistic",
        "max",
        "min",
        "pow",
        "rem",
        "round",
        "rsqrt",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "tan",
        "tanh",
    ]
)
_PRODUCTS = frozenset(("mul", "dot_general", "conv_general_dilated", "convolution"))
_LARGEST = frozenset(("max", "reduce_max", "reduce_window_max", "cummax"))
_SMALLEST = frozenset(("min", "reduce_min", "reduce_window_min", "cummin"))
# What hides a value from derivatives: its change counts all the same.
_IDENTITIES = frozenset(("stop_gradient", "optimization_barrier"))


def multipliers(f: Callable[[jax.Array], jax.Array], x: jax.Array, reference: jax.Array, ct: Any) -> Any:
    """What each entry's change counts for that of f's output, weighted by `ct`.

    Args:
        f: a function of one array to one array.
        x: where it is explained.
        reference: what it is compared with, of x's shape and dtype.
        ct: of the output's shape.

    Returns:
        (f(x), multipliers of x's shape): their sum over (x − reference) is that of ct · (f(x) − f(reference)).

    Raises:
        ValueError: f holds an operation of no rule: loops, sorting, products of more than two values.
    """
    closed = jax.make_jaxpr(f)(jax.ShapeDtypeStruct(x.shape, x.dtype))

    def moved(tangent: jax.Array) -> tuple[jax.Array, jax.Array]:
        (output,) = evaluated(closed, [_Moved(x, reference, tangent)], _apply)
        if isinstance(output, _Moved):
            return output.tangent, output.value
        return jnp.zeros_like(output), output

    _, pullback, value = jax.vjp(moved, jnp.zeros_like(x), has_aux=True)
    return value, pullback(ct)[0]


def _apply(equation: Any, operands: list[Any]) -> list[Any]:
    """What an equation gives for values, of which some move."""
    name, params = equation.primitive.name, equation.params
    moving = [isinstance(one, _Moved) for one in operands]
    if name in CALLS and any(moving):
        return evaluated(params[CALLS[name]], operands, _apply)

    def evaluate(*given: Any) -> list[Any]:
        results = equation.primitive.bind(*given, **equation.primitive.get_bind_params(params))
        return list(results) if equation.primitive.multiple_results else [results]

    if not any(moving):
        return evaluate(*operands)
    if name in _IDENTITIES:
        return operands
    at = [one.value if isinstance(one, _Moved) else one for one in operands]
    before = [one.reference if isinstance(one, _Moved) else one for one in operands]
    found, reference = evaluate(*at), evaluate(*before)
    floats = [jnp.issubdtype(one.dtype, jnp.floating) for one in found]
    if not any(floats):
        return [_Moved(one, then, None) for one, then in zip(found, reference, strict=True)]
    hidden = [one.tangent is None for one in operands if isinstance(one, _Moved)]
    if name == "select_n" and isinstance(operands[0], _Moved):
        return [_Moved(found[0], reference[0], _chosen(operands, found[0], reference[0]))]
    if any(hidden) or not all(floats) or name in ("while", "scan", "cond"):
        raise _unknown(name, equation)

    def push(given: list[Any], tangents: list[Any]) -> list[Any]:
        """The operation's derivative at `given`, along tangents of what moves."""

        def of_moving(*moved: Any) -> list[Any]:
            rest = iter(moved)
            return evaluate(*(next(rest) if m else g for m, g in zip(moving, given, strict=True)))

        own = [g for m, g in zip(moving, given, strict=True) if m]
        return jax.jvp(of_moving, own, tangents)[1]

    tangents = [one.tangent for one in operands if isinstance(one, _Moved)]
    changes = [now - then for now, then, m in zip(at, before, moving, strict=True) if m]
    if sum(moving) == 1 and name in _ENTRYWISE:
        slope = _slope(
            found[0] - reference[0],
            changes[0],
            at[moving.index(True)],
            push(at, [jnp.ones_like(changes[0])])[0],
        )
        tangent = [slope * tangents[0]]
    elif name in _PRODUCTS and sum(moving) == 2:
        middle = [(now + then) / 2 if m else now for now, then, m in zip(at, before, moving, strict=True)]
        tangent = push(middle, tangents)
    elif name == "div" and moving[1]:
        tangent = [_quotient(operands, at, before)]
    elif name in _LARGEST | _SMALLEST:
        sign = 1 if name in _LARGEST else -1
        change = found[0] - reference[0]
        shares = [_divided(t, change) for t, change in zip(tangents, changes, strict=True)]
        outward = jnp.where(sign * change > 0, change, 0) * push(at, shares)[0]
        tangent = [outward + jnp.where(sign * change > 0, 0, change) * push(before, shares)[0]]
    elif _is_linear(push, at, moving):
        tangent = push(at, tangents)
    else:
        raise _unknown(name, equation)
    return [_Moved(*one) for one in zip(found, reference, tangent, strict=True)]


def _divided(numerator: jax.Array, change: jax.Array) -> jax.Array:
    """The quotient, and 0 where nothing changes."""
    still = change == 0
    return jnp.where(still, 0, numerator / jnp.where(still, 1, change))


def _slope(rise: jax.Array, change: jax.Array, at: jax.Array, derivative: jax.Array) -> jax.Array:
    """The secant's slope; the derivative where the change is of the size of rounding."""
    small = jnp.abs(change) <= 16 * jnp.finfo(change.dtype).eps * jnp.abs(at)
    return jnp.where(small, derivative, rise / jnp.where(small, 1, change))


def _quotient(operands: list[Any], at: list[Any], before: list[Any]) -> jax.Array:
    """The tangent of a / b, as the product of a and 1 / b."""
    upper, lower = operands
    inverse = (1 / at[1] + 1 / before[1]) / 2
    tangent = -(at[0] + before[0]) / 2 * lower.tangent / (at[1] * before[1])
    return tangent + upper.tangent * inverse if isinstance(upper, _Moved) else tangent


def _chosen(operands: list[Any], found: jax.Array, reference: jax.Array) -> jax.Array:
    """The tangent of a choice among cases whose condition moves."""
    condition, *cases = operands
    whole = [c if isinstance(c, _Moved) else _Moved(c, c, jnp.zeros_like(c)) for c in cases]
    changes = [c.value - c.reference for c in whole]
    tangents = [c.tangent for c in whole]
    shares = [_divided(t, change) for t, change in zip(tangents, changes, strict=True)]
    moves = [(change != 0).astype(found.dtype) for change in changes]

    def chosen(which: jax.Array, parts: list[jax.Array]) -> jax.Array:
        return jax.lax.select_n(which, *parts)

    now, then = condition.value, condition.reference
    both = chosen(now, shares) + chosen(then, shares)
    count = jnp.maximum(chosen(now, moves) + chosen(then, moves), 1)
    shared = (found - reference) * both / count
    return jnp.where(now == then, chosen(now, tangents), shared)


def _is_linear(push: Callable, at: list[Any], moving: list[bool]) -> bool:
    """Whether an operation's derivative is the same wherever it is taken."""
    own = [a for a, m in zip(at, moving, strict=True) if m]

    def derivative(values: list[Any], tangents: list[Any]) -> list[Any]:
        rest = iter(values)
        return push([next(rest) if m else a for a, m in zip(at, moving, strict=True)], tangents)

    shapes = [jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)) for a in own]
    jaxpr = jax.make_jaxpr(derivative)(shapes, shapes).jaxpr
    needed = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)}
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            needed.update(atom for atom in equation.invars if not isinstance(atom, core.Literal))
    return not needed.intersection(jaxpr.invars[: len(own)])


def _unknown(name: str, equation: Any) -> InputError:
    shapes = ", ".join(str(getattr(atom, "aval", "")) for atom in equation.invars)
    return InputError(
        f"expected operations that DeepLIFT has a rule for, got {name} of {shapes} on the way from x: unroll loops, "
        "or take integrated_gradients, whose path needs no rules"
    )
