"""(e · v) / Σ e, as flash attention divides, written as (e / Σ e) · v: the weights are values then, a softmax's."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from jax import lax

from jxai.lrp.engine.graph import Equation, Program, Value, through
from jxai.lrp.engine.primitives import row_of


def divide_first(program: Program) -> Program:
    """The same function, with weights divided by their sum before they are multiplied.

    Args:
        program: the operations.

    Returns:
        The program; only quotients of a contraction by the sum of one of its exponential operands are rewritten.
    """
    producer = {v: one for one in program.equations for v in one.outputs}
    equations: list[Equation] = []
    for equation in program.equations:
        equations += _rewritten(producer, equation) or [equation]
    return dataclasses.replace(program, equations=equations).pruned()


def _rewritten(producer: dict[Value, Equation], quotient: Equation) -> list[Equation] | None:
    numerator, (spread, total) = _quotient(producer, quotient)
    moves, product = _behind(producer, numerator) if numerator is not None else ([], None)
    if (
        product is None
        or total is None
        or product.name != "dot_general"
        or total.name != "reduce_sum"
        or moves
    ):
        return None
    summed = _uncopied(producer, total.inputs[0])
    for side, weights in enumerate(product.inputs):
        exponential = producer.get(_uncopied(producer, weights))
        if (
            exponential is None
            or exponential.name not in ("exp", "exp2")
            or summed is not exponential.outputs[0]
        ):
            continue
        contracting = product.params["dimension_numbers"][0][side]
        axes = set(total.params["axes"])
        if axes != set(contracting) or not _aligned(product, side, total, spread):
            continue
        shape = tuple(1 if a in axes else size for a, size in enumerate(weights.shape))
        kept, divided = Value(shape, total.outputs[0].dtype), Value(weights.shape, weights.dtype)
        scopes = product.scopes
        same = Value(shape, weights.dtype)
        params = {
            "shape": shape,
            "broadcast_dimensions": tuple(a for a in range(len(shape)) if a not in axes),
        }
        first = [
            Equation(lax.broadcast_in_dim_p, [total.outputs[0]], [kept], {**params, "sharding": None}, scopes)
        ]
        if same.dtype != kept.dtype:
            convert = {"new_dtype": same.dtype, "weak_type": False, "sharding": None}
            first.append(Equation(lax.convert_element_type_p, [kept], [same], convert, scopes))
        else:
            same = kept
        operands = [divided if i == side else v for i, v in enumerate(product.inputs)]
        return [
            *first,
            Equation(lax.div_p, [weights, same], [divided], {}, scopes),
            dataclasses.replace(product, inputs=operands, outputs=list(quotient.outputs)),
        ]
    return None


def _quotient(producer: dict[Value, Equation], equation: Equation) -> tuple[Value | None, Any]:
    """(what is divided, what it is divided by, see `_behind`) of n / d and of n · (1 / d); (None, ...) of others."""
    if equation.name == "div":
        return equation.inputs[0], _behind(producer, equation.inputs[1])
    for value, other in (equation.inputs, equation.inputs[::-1]) if equation.name == "mul" else ():
        after, one = _behind(producer, other)
        if one is None:
            continue
        inverse = one.name == "integer_pow" and one.params["y"] == -1
        if inverse or (
            one.name == "div" and one.inputs[0].literal is not None and one.inputs[0].literal == 1
        ):
            before, total = _behind(producer, one.inputs[-1])
            return value, ([*before, *after], total)
    return None, ([], None)


def _chain(producer: dict[Value, Equation], value: Value) -> Iterator[Equation]:
    """The equations that move one operand alone, from a value back."""
    while (equation := producer.get(value)) is not None:
        yield equation
        if not row_of(equation.primitive, equation.params).moves or len(equation.inputs) != 1:
            return
        value = equation.inputs[0]


def _behind(producer: dict[Value, Equation], value: Value) -> tuple[list[Equation], Equation | None]:
    """(moves that lead to a value, in order, the operation in front of them)."""
    chain = list(_chain(producer, value))
    moves = [one for one in chain if row_of(one.primitive, one.params).moves and len(one.inputs) == 1]
    rest = [one for one in chain if one not in moves]
    return moves[::-1], rest[0] if rest else None


def _uncopied(producer: dict[Value, Equation], value: Value) -> Value:
    for equation in _chain(producer, value):
        if not row_of(equation.primitive, equation.params).copies:
            break
        value = equation.inputs[0]
    return value


def _aligned(product: Equation, side: int, total: Equation, spread: list[Equation]) -> bool:
    """Whether each of the sum's axes divides that axis of the product that comes from that of the weights."""
    contracting, batch = product.params["dimension_numbers"]
    rank = len(product.inputs[side].shape)
    free = [a for a in range(rank) if a not in (*contracting[side], *batch[side])]
    others = len(product.inputs[0].shape) - len(contracting[0]) - len(batch[0])
    start = len(batch[side]) + (others if side else 0)
    of_product = {a: b for b, a in enumerate(batch[side])} | {a: start + i for i, a in enumerate(free)}
    left = [a for a in range(rank) if a not in total.params["axes"]]
    of_sum = through(spread, dict(enumerate(range(len(left)))))
    shape = total.outputs[0].shape
    return all(shape[i] == 1 or of_sum.get(i) == of_product[a] for i, a in enumerate(left))
