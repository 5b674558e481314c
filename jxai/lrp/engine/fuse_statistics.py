"""Softmax and normalization, recognized by what is computed, not by how it is written.

A value that is homogeneous in a value e (see `forms`) is a statistic of e where it also adds up or compares
several entries of e and is never negative: a norm, a maximum, a deviation, a sum of what is not negative.

- A quotient n / d, or a product n · r with r = 1 / d, in which n is linear in e and the degrees cancel, is a
  normalization: its statistic is a constant to relevance (Achtibat et al. 2024, section 3.3.2).
- Where e = exp(u) and d is linear in e, it is a softmax of u, and so is exp(u - log d). Its plain derivative is the
  softmax's rule, R_in = u (R - s ΣR), however it is written; what is constant along the sum changes nothing.
- x less its own mean is centering, which is linear.
- What normalizes in one place is a constant wherever else it scales: x / s, rounded, times s.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np

from jxai.lrp.engine.facts import Facts, Graph, Node, make_node
from jxai.lrp.engine.forms import CONSTANT, Form, form_of, origins
from jxai.lrp.engine.graph import Equation, Value
from jxai.lrp.engine.primitives import Linear, row
from jxai.lrp.rules.operation import Kind


def fuse_statistics(graph: Graph, facts: Facts) -> Graph:
    """Softmaxes, normalizations and centerings as one node each.

    Args:
        graph: the nodes.
        facts: of the program.

    Returns:
        The graph.
    """
    return _Recognizer(graph, facts).fuse()


class _Recognizer:
    """Meets the program's equations in order, with what it found so far."""

    def __init__(self, graph: Graph, facts: Facts):
        self.graph, self.facts = graph, facts
        self.found: dict[Value, Node] = {}
        self.statistics: set[Value] = set()
        self.softmaxes: set[Value] = set()

    def fuse(self) -> Graph:
        apart = {
            v
            for node in self.graph.nodes
            if node.kind is Kind.MODULE
            for one in node.equations
            for v in one.outputs
        }
        for equation in self.graph.program.equations:
            if self.facts.varies(equation.outputs[0]) and equation.outputs[0] not in apart:
                self._meet(equation)
        return self.graph.with_nodes(self.found)

    def _meet(self, equation: Equation) -> None:
        known = row(equation)
        value = equation.outputs[0]
        if known.scales and len(self.facts.carriers(equation)) == 2:
            self._scaled(equation)
        elif equation.name == "sub":
            self._difference(equation)
        elif equation.name in ("exp", "exp2") and (of := self._log_of(equation.inputs[0])) is not None:
            if of[1] is None:
                self.found[value] = make_node(self.facts, Kind.OTHER, [equation], equation.outputs)
            else:
                self._softmax(value, of[1])
        elif equation.name == "add" and len(self.facts.carriers(equation)) == 2:
            # The maximum that was taken off before the exponential comes back behind the logarithm.
            for value, other in (equation.inputs, equation.inputs[::-1]):
                if self._is_log(other) and _is_maximum(self.facts, value):
                    self.found[equation.outputs[0]] = make_node(
                        self.facts, Kind.SHIFT, [equation], equation.outputs, held=[value]
                    )

    # Products and quotients.

    def _scaled(self, equation: Equation) -> None:
        first, second = equation.inputs
        pairs = (
            [(first, second)] if row(equation).linear is Linear.FIRST else [(first, second), (second, first)]
        )
        for value, other in pairs:
            form, origin = self._statistic(value, other, divides=len(pairs) == 1)
            if form is None:
                continue
            if form.linear if len(pairs) == 1 else form.reciprocal:
                base = self._exponential(origin)
                if base is not None:
                    if not _contracts_between(self.facts, value, origin):
                        return self._softmax(equation.outputs[0], base)
                    continue  # refused as it stands
                if any(v in self.softmaxes for v in _moved_from(self.facts, origin)):
                    return self._softmax(equation.outputs[0], origin)
            self.statistics.update(self._scale_of(other))
            self._held_factor(value, other)
            self.found[equation.outputs[0]] = make_node(
                self.facts, Kind.NORMALIZATION, [equation], equation.outputs, held=[other]
            )
            return
        for value, other in pairs:
            if other is not value and any(v in self.statistics for v in self._scale_of(other)):
                self.found[equation.outputs[0]] = make_node(
                    self.facts, Kind.NORMALIZATION, [equation], equation.outputs, held=[other]
                )
                return

    def _held_factor(self, product: Value, other: Value) -> None:
        """In (x · g) / d, g / d may be a statistic of x though g alone is none: a norm over the mean of all norms."""
        equation = self.facts.producer.get(product)
        if equation is None or equation.name != "mul" or len(self.facts.carriers(equation)) != 2:
            return
        for value, factor in (equation.inputs, equation.inputs[::-1]):
            for origin in origins(self.facts, value):
                above, below = form_of(self.facts, factor, origin), form_of(self.facts, other, origin)
                if above and below and above.reduced and above.degree <= below.degree:
                    self.statistics.add(factor)
                    self.found[product] = make_node(
                        self.facts, Kind.NORMALIZATION, [equation], equation.outputs, held=[factor]
                    )
                    return

    def _statistic(self, value: Value, other: Value, divides: bool) -> tuple[Form | None, Value]:
        """What `other` is of something that `value` is linear in, where the two make a normalization."""
        for origin in origins(self.facts, value):
            form = form_of(self.facts, other, origin)
            if form is None or not form.reduced:
                continue
            positive = any(v in self.facts.nonnegative for v in self._scale_of(other))
            if positive and ((form.degree > 0) if divides else (form.degree <= 0)):
                return form, origin
        if divides and (factors := self._factors(other)) is not None:
            forms = [self._statistic(value, one, divides)[0] for one in factors]
            if all(form is not None for form in forms):
                return dataclasses.replace(CONSTANT, reduced=True), value
        return None, value

    def _factors(self, value: Value) -> list[Value] | None:
        """The varying factors of a product, as the lengths of two vectors; None of anything else."""
        for one in _moved_from(self.facts, value):
            equation = self.facts.producer.get(one)
            if (
                equation is not None
                and equation.name in ("mul", "max")
                and len(self.facts.carriers(equation)) == 2
            ):
                return self.facts.carriers(equation)
        return None

    def _scale_of(self, value: Value) -> Iterator[Value]:
        """A value and what it is a multiple of."""
        while True:
            yield value
            equation = self.facts.producer.get(value)
            if equation is None or not (row(equation).scales or row(equation).moves):
                return
            carriers = self.facts.carriers(equation)
            if len(carriers) != 1:
                return
            (value,) = carriers  # also of 1 / value

    # Softmax.

    def _exponential(self, origin: Value) -> Value | None:
        """What a value is the exponential of, up to a shift that is the same along the sum; None if it is none."""
        for value in _moved_from(self.facts, origin):
            equation = self.facts.producer.get(value)
            if equation is not None and equation.name in ("exp", "exp2"):
                return _unshifted(self.facts, equation.inputs[0])
            if equation is not None and equation.name == "pow" and self.facts.independent(equation.inputs[0]):
                return _unshifted(self.facts, equation.inputs[1])
        return None

    def _softmax(self, value: Value, base: Value) -> None:
        equations = self.facts.back(value, lambda v: v is base or not self.facts.varies(v))
        equations += [one for one in self._held_between(equations, base) if one not in equations]
        equations.sort(key=self.facts.order.__getitem__)
        self.softmaxes.add(value)
        self.found[value] = make_node(self.facts, Kind.SOFTMAX, equations, [value])

    def _held_between(self, equations: Iterable[Equation], base: Value) -> list[Equation]:
        """Equations of maxima behind `stop_gradient` that only the body needs: they belong to it."""
        given = {v for one in equations for v in one.outputs}
        held = [
            v
            for one in equations
            for v in one.inputs
            if v.literal is None and v not in given and v is not base and not self.facts.independent(v)
        ]
        found: list[Equation] = []
        for value in held:
            body = self.facts.back(value, lambda v: v is base or self.facts.independent(v))
            inside = {v for one in body for v in one.outputs} | {base}
            if body and all(
                v in inside or v.literal is not None or self.facts.independent(v)
                for one in body
                for v in one.inputs
            ):
                found += [one for one in body if one not in found]
        return found

    def _difference(self, equation: Equation) -> None:
        facts, (value, other) = self.facts, equation.inputs
        output = equation.outputs
        if not facts.varies(other):
            return
        if (of := self._log_of(output[0])) is not None and of[1] is not None:
            return self._softmax(output[0], of[1])
        if not facts.varies(value):
            return
        if _is_mean_of(facts, other, value):
            body = facts.back(output[0], lambda v: v is value or not facts.varies(v))
            node = make_node(facts, Kind.CENTERING, body, output)
            if node.inputs == (value,):
                self.found[output[0]] = node
        elif _is_maximum(facts, other) and _depends_on(facts, other, value):
            self.found[output[0]] = make_node(facts, Kind.SHIFT, [equation], output, held=[other])

    def _log_of(self, value: Value) -> tuple[Value, Value | None] | None:
        """For u - log Σ exp(u): (it, u); (it, None) for x less some other logarithm of a sum; else None."""
        equation = self.facts.producer.get(value)
        if equation is None or equation.name != "sub" or not all(map(self.facts.varies, equation.inputs)):
            return None
        value, other = equation.inputs
        logs = list(_logarithms(self.facts, other))
        if not logs:
            return None
        for log in logs:
            for origin in origins(self.facts, _positive(self.facts, log.inputs[0])):
                form, base = (
                    form_of(self.facts, _positive(self.facts, log.inputs[0]), origin),
                    self._exponential(origin),
                )
                same = base is not None and base is _unshifted(self.facts, value)
                if form is not None and form.linear and form.reduced and same:
                    return value, base
        return value, None

    def _is_log(self, value: Value) -> bool:
        return any(True for _ in _logarithms(self.facts, value))


def _moved_from(facts: Facts, value: Value) -> Iterator[Value]:
    """A value and what it comes from by moves, copies and scales of one carrier, nearest first."""
    while True:
        yield value
        equation = facts.producer.get(value)
        if equation is None:
            return
        known, carriers = row(equation), facts.carriers(equation)
        if len(carriers) != 1 or not (known.moves or known.copies or known.scales) or known.sums:
            return
        (value,) = carriers


def _without_copies(facts: Facts, value: Value) -> Value:
    while (
        (equation := facts.producer.get(value)) is not None and row(equation).copies and row(equation).moves
    ):
        value = equation.inputs[0]
    return value


def _unshifted(facts: Facts, value: Value) -> Value:
    """What a value is before a shift that all entries share, and a scale: a maximum, a number, what is held."""
    value = inner = _without_copies(facts, value)
    while (equation := facts.producer.get(inner)) is not None and row(equation).scales:
        numbers = [v for v in equation.inputs if not facts.varies(v) and _is_number(v)]
        if len(numbers) != 1 or len(facts.carriers(equation)) != 1:
            return value
        inner = _without_copies(facts, facts.carriers(equation)[0])
    if (
        equation is None
        or not row(equation).shifts
        or (equation.name == "sub" and not facts.varies(equation.inputs[0]))
    ):
        return value
    before, shift = equation.inputs if facts.varies(equation.inputs[0]) else equation.inputs[::-1]
    if facts.independent(shift):
        return _without_copies(facts, before) if _is_number(shift) else value
    if not facts.varies(shift) or (_is_maximum(facts, shift) and _depends_on(facts, shift, before)):
        return _without_copies(facts, before)
    return value


def _is_number(value: Value) -> bool:
    """Whether a value is one number, the same for all entries."""
    return math.prod(value.shape) == 1


def _is_maximum(facts: Facts, value: Value) -> bool:
    return _maximum(facts, value) is not None


def _maximum(facts: Facts, value: Value) -> Equation | None:
    """The maximum over several entries that a value is, moved and held as it may be."""
    while (equation := facts.producer.get(value)) is not None:
        known = row(equation)
        if known.moves and known.linear is Linear.NO and not known.entrywise:
            return equation if "max" in equation.name else None
        operands = [v for v in equation.inputs[known.selects : known.values] if not facts.independent(v)]
        if len(operands) != 1 or not (known.moves or known.holds):
            return None
        (value,) = operands
    return None


def _depends_on(facts: Facts, shift: Value, value: Value) -> bool:
    """Whether a maximum is one of a value's own entries."""
    equation = _maximum(facts, shift)
    assert equation is not None
    of = {v for operand in equation.inputs for v in _moved_from(facts, operand)}
    return not of.isdisjoint(_moved_from(facts, value))


def _logarithms(facts: Facts, value: Value) -> Iterator[Equation]:
    """The logarithms of sums of exponentials that a value is made of by moves and sums."""
    pending = [value]
    while pending:
        equation = facts.producer.get(pending.pop())
        if equation is None or not facts.varies(equation.outputs[0]):
            continue
        known = row(equation)
        if equation.name == "log":
            body = itertools.islice(origins(facts, _positive(facts, equation.inputs[0])), 16)
            made = [facts.producer.get(v) for v in body]
            if any(one is not None and one.name in ("exp", "exp2") for one in made):
                yield equation
        elif known.shifts or known.moves or known.copies:
            pending += equation.inputs


def _positive(facts: Facts, value: Value) -> Value:
    equation = facts.producer.get(value)
    return equation.inputs[0] if equation is not None and equation.name == "abs" else value


def _contracts_between(facts: Facts, value: Value, origin: Value) -> bool:
    return any(row(one).contracts for one in facts.back(value, lambda v: v is origin or not facts.varies(v)))


def _is_mean_of(facts: Facts, mean: Value, value: Value) -> bool:
    """Whether `mean` is the mean of `value` over some axes, moved as it may be."""
    whole = set(_moved_from(facts, value))
    scale = 1.0
    while (equation := facts.producer.get(mean)) is not None:
        known, carriers = row(equation), facts.carriers(equation)
        if len(carriers) != 1:
            return False
        if known.sums:
            count = math.prod(equation.inputs[0].shape) / max(1, math.prod(equation.outputs[0].shape))
            return abs(scale * count - 1) < 1e-3 and not whole.isdisjoint(
                _moved_from(facts, equation.inputs[0])
            )
        if known.scales:
            numbers = [v.literal for v in equation.inputs if v.literal is not None]
            if len(numbers) != 1 or np.ndim(numbers[0]):
                return False
            scale = scale / float(numbers[0]) if known.linear is Linear.FIRST else scale * float(numbers[0])
        elif not (known.moves or known.copies):
            return False
        (mean,) = carriers
    return False
