"""How one value depends on another: homogeneously or not, by the rows of what lies between.

A value d is homogeneous of degree k in a value e where d(t·e) = t^k d(e) for t > 0, small stabilizers aside.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from jxai.lrp.engine.graph import Equation, Value
from jxai.lrp.engine.primitives import Linear, degree_of, row

# Added constants up to this are stabilizers.
_SMALL = 1.1e-2


@dataclasses.dataclass(frozen=True)
class Form:
    """How a value depends on another one.

    Attributes:
        degree: of homogeneity.
        reduced: whether several entries enter each.
        linear: whether it is linear.
        reciprocal: whether it is a constant over something linear.
    """

    degree: float
    reduced: bool = False
    linear: bool = True
    reciprocal: bool = False


CONSTANT = Form(0.0, linear=False)


def form_of(facts: Any, value: Value, origin: Value) -> Form | None:
    """How a value depends on another, by the rows of what lies between; None where not homogeneously."""
    begin = facts.producer.get(origin)
    first = -1 if begin is None else facts.order[begin]
    memo: dict[Value, Form | None] = {origin: Form(1.0)}

    def known(one: Value) -> bool:
        return one in memo or not facts.varies(one)

    pending = [value]
    while pending:
        one = pending[-1]
        equation = facts.producer.get(one)
        if known(one):
            pending.pop()
            memo.setdefault(one, CONSTANT)
        elif equation is None or facts.order[equation] <= first:
            return None
        elif (power := _power(facts, equation)) is not None:
            of, exponent = power
            if of not in memo and not known(of):
                pending.append(of)
                continue
            pending.pop()
            form = memo.get(of) or CONSTANT
            memo[one] = Form(form.degree * exponent, form.reduced, linear=False)
        elif not _may_be_homogeneous(equation):
            return None
        elif missing := [v for v in equation.inputs if v.literal is None and v not in memo and not known(v)]:
            pending += missing
        else:
            pending.pop()
            forms = [(memo.get(v) if v.literal is None else None) or CONSTANT for v in equation.inputs]
            memo[one] = _combined(facts, equation, forms)
            if memo[one] is None:
                return None
    return memo[value]


def _combined(facts: Any, equation: Equation, forms: list[Form]) -> Form | None:
    """The form of an operation's result from those of its operands; None where it has none."""
    known = row(equation)
    operands = list(zip(equation.inputs, forms, strict=True))[known.selects : known.values]
    moving = [(v, form) for v, form in operands if form is not CONSTANT]
    if not moving:
        return CONSTANT
    reduced = any(form.reduced for _, form in moving)
    if known.contracts and any(facts.given(v) for v in equation.inputs):
        return None  # a layer, no statistic
    if known.scales or known.contracts:
        reduced = reduced or known.contracts
        if known.linear is Linear.FIRST:
            above, below = forms
            if above is CONSTANT:
                return Form(-below.degree, reduced, linear=False, reciprocal=below.linear)
            one = above if below is CONSTANT else CONSTANT
            return Form(above.degree - below.degree, reduced, one.linear, one.reciprocal)
        alone = len(moving) == 1
        degree = sum(form.degree for _, form in moving)
        return Form(degree, reduced, alone and moving[0][1].linear, alone and moving[0][1].reciprocal)
    degrees = {form.degree for _, form in moving}
    if len(degrees) > 1:
        return None
    (degree,) = degrees
    linear, reciprocal = all(form.linear for _, form in moving), all(form.reciprocal for _, form in moving)
    power = None if known.shifts or known.moves or not known.entrywise else degree_of(equation)
    if power is not None and len(moving) == 1:
        if known.copies or (equation.name == "abs" and moving[0][0] in facts.nonnegative):
            return Form(degree, reduced, linear, reciprocal)
        return Form(degree * power, reduced, linear=False, reciprocal=linear and power == -1)
    constants = [v for v, form in operands if form is CONSTANT]
    if known.shifts or equation.name in ("max", "min"):
        if not all(_is_small(facts, v) for v in constants):
            return None
        largest = equation.name in ("max", "min")
        same = not largest or (len(moving) == 1 and moving[0][0] in facts.nonnegative)
        return Form(degree, reduced, linear and same, reciprocal and same and not constants)
    if known.sums:
        return Form(degree, True, linear)
    if known.moves:
        chosen = known.linear is Linear.NO
        adds = equation.name.startswith("scatter") and equation.name.endswith("add")
        return Form(degree, reduced or chosen or adds, linear and not chosen, reciprocal and not chosen)
    return None


def _may_be_homogeneous(equation: Equation) -> bool:
    known = row(equation)
    linear = known.linear is not Linear.NO or known.moves or known.sums or known.contracts
    return known.loop is None and (linear or degree_of(equation) is not None)


def _power(facts: Any, equation: Equation) -> tuple[Value, float] | None:
    """(v, k) of exp(k log v), or None."""
    if equation.name != "exp":
        return None
    value, exponent = equation.inputs[0], 1.0
    while (one := facts.producer.get(value)) is not None:
        if one.name == "log":
            return one.inputs[0], exponent
        numbers = [v.literal for v in one.inputs if v.literal is not None and not np.ndim(v.literal)]
        if one.name == "neg":
            exponent, value = -exponent, one.inputs[0]
        elif row(one).scales and len(numbers) == 1 and sum(facts.varies(v) for v in one.inputs) == 1:
            factor = float(numbers[0])
            exponent = exponent / factor if row(one).linear is Linear.FIRST else exponent * factor
            (value,) = (v for v in one.inputs if v.literal is None)
        else:
            return None
    return None


def _is_small(facts: Any, value: Value) -> bool:
    """Whether a constant is a stabilizer: a small number, or zero."""
    while value.literal is None:
        equation = facts.producer.get(value)
        if equation is None or not row(equation).moves or not equation.inputs:
            return False
        value = equation.inputs[0]
    return bool(np.all(np.abs(np.asarray(value.literal, float)) <= _SMALL))


def origins(facts: Any, value: Value, limit: int = 16) -> Iterator[Value]:
    """A value and what it is linear in, by moves, sums, scales and contractions, nearest first."""
    seen, pending = {value}, [value]
    while pending and limit:
        one = pending.pop(0)
        limit -= 1
        yield one
        equation = facts.producer.get(one)
        if equation is None:
            continue
        known = row(equation)
        if known.linear is Linear.NO and not known.moves:
            continue
        operands = (
            equation.inputs[:1]
            if known.linear is Linear.FIRST
            else equation.inputs[known.selects : known.values]
        )
        for operand in operands:
            if facts.varies(operand) and operand not in seen:
                seen.add(operand)
                pending.append(operand)
