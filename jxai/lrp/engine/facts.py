"""What is known of the values of a program: one pass in order, by the rows of its primitives, never changed after.

A value is independent of the inputs, or held (it depends on them but carries no relevance, as what a comparison
gives), or it varies. An independent value is fixed where constant expressions alone give it: what depends on an array
that the function closes over, or on an outer argument, may be a layer's kernel, a fixed one is none.

A `Graph` is the program as nodes, each one operation to a rule; the passes `fuse_*` take a graph and these facts to a
graph in which several equations are one node.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jxai.lrp.engine.graph import CallKey, Equation, Flags, Program, Status, Value
from jxai.lrp.engine.primitives import Linear, Row, never_negative, row
from jxai.lrp.rules.operation import Kind


@dataclasses.dataclass(frozen=True, eq=False)
class Facts:
    """What is known of a program's values.

    Attributes:
        status: of every value.
        fixed: independent values of constant expressions.
        nonnegative: values that hold no negative number.
        tokens: integers that stand for tokens.
        producer: the equation that gives a value.
        uses: the equations that take a value.
        order: place of every equation.
        ends: values that have to stay: results of the program, watched ones.
    """

    status: dict[Value, Status]
    fixed: set[Value]
    nonnegative: set[Value]
    tokens: set[Value]
    producer: dict[Value, Equation]
    uses: dict[Value, list[Equation]]
    order: dict[Equation, int]
    ends: set[Value]

    def varies(self, value: Value) -> bool:
        """Whether a value varies."""
        return self.status.get(value, Status.INDEPENDENT) is Status.VARYING

    def independent(self, value: Value) -> bool:
        """Whether a value does not depend on the inputs."""
        return self.status.get(value, Status.INDEPENDENT) is Status.INDEPENDENT

    def given(self, value: Value) -> bool:
        """Whether a value is independent and no constant: it may be weights."""
        return self.independent(value) and value.literal is None and value not in self.fixed

    def carriers(self, equation: Equation) -> list[Value]:
        """The operands that carry relevance, each once."""
        return list(dict.fromkeys(v for v in equation.inputs if self.varies(v)))

    def used_once(self, value: Value) -> Equation | None:
        """The one equation that takes a value, where nothing else does."""
        uses = self.uses.get(value, [])
        return uses[0] if len(uses) == 1 and value not in self.ends else None

    def back(self, value: Value, stop: Callable[[Value], bool]) -> list[Equation]:
        """The equations that give a value from where `stop` says so, in order."""
        found: set[Equation] = set()
        pending = [value]
        while pending:
            one = pending.pop()
            equation = self.producer.get(one)
            if one.literal is not None or equation is None or equation in found or stop(one):
                continue
            found.add(equation)
            pending.extend(equation.inputs)
        return sorted(found, key=self.order.__getitem__)


def analyze(program: Program, flags: Iterable[Flags], ends: Iterable[Value] = ()) -> Facts:
    """Follow a program's values from the inputs on.

    Args:
        program: the operations.
        flags: of its inputs.
        ends: values that have to stay beside the program's results.

    Returns:
        What was found.
    """
    facts = Facts({}, set(), set(), set(), {}, {}, {}, {*program.outputs, *ends})
    for value, flag in zip(program.inputs, flags, strict=True):
        facts.status[value] = flag.status
        for known, found in (
            (flag.fixed, facts.fixed),
            (flag.nonnegative, facts.nonnegative),
            (flag.token, facts.tokens),
        ):
            if known:
                found.add(value)
    facts.status.update(dict.fromkeys(program.constants, Status.INDEPENDENT))
    for place, equation in enumerate(program.equations):
        facts.order[equation] = place
        facts.producer.update(dict.fromkeys(equation.outputs, equation))
        for value in equation.inputs:
            facts.uses.setdefault(value, []).append(equation)
        _follow(facts, equation, program.fixed)
    return facts


def _follow(facts: Facts, equation: Equation, declared: set[Value]) -> None:
    inputs, known = equation.inputs, row(equation)
    status = Status(
        max((facts.status.get(v, Status.INDEPENDENT) for v in inputs), default=Status.INDEPENDENT)
    )
    tokens = [v in facts.tokens for v in inputs]
    rounded = any(facts.varies(v) and not jnp.issubdtype(v.dtype, jnp.inexact) for v in inputs)
    constant = not known.drawn and all(v.literal is not None or v in facts.fixed for v in inputs)
    if status is Status.VARYING and known.holds:
        status = Status.HELD
    looked_up = status is Status.HELD and any(tokens) and looks_up(facts, equation)

    def holds_none(value: Value) -> bool:
        if value.literal is not None:
            with np.errstate(invalid="ignore"):  # bfloat16's NaN warns where it is compared, unlike float32's
                return bool(np.all(np.asarray(value.literal) >= 0))
        return value in facts.nonnegative

    for index, value in enumerate(equation.outputs):
        facts.status[value] = status
        if status is Status.VARYING and not jnp.issubdtype(value.dtype, jnp.inexact):
            # Rounding to integers is a function of each entry; choices and answers are no numbers.
            number = value.dtype != bool and not known.compares and index == 0 and (known.copies or rounded)
            facts.status[value] = Status.VARYING if number and _has_row(known) else Status.HELD
        if looked_up or (known.loop is not None and any(tokens) and value.is_float):
            facts.status[value] = Status.VARYING
        elif any(tokens) and status is Status.HELD and _stands_for_tokens(facts, equation, value):
            facts.tokens.add(value)
        if status is Status.INDEPENDENT and (constant or value in declared or _of_integers(facts, equation)):
            facts.fixed.add(value)
        if never_negative(equation, holds_none):
            facts.nonnegative.add(value)


def _has_row(known: Row) -> bool:
    return known.entrywise or known.moves or known.sums or known.contracts


def _of_integers(facts: Facts, equation: Equation) -> bool:
    """Whether an independent result is made of counts or answers: an adjacency, a mask. (int8 may be weights.)"""
    counts = (np.bool_, np.int32, np.int64)
    return (
        not row(equation).drawn
        and any(v.literal is None for v in equation.inputs)
        and all(v.literal is not None or v in facts.fixed or v.dtype in counts for v in equation.inputs)
    )


def looks_up(facts: Facts, equation: Equation) -> bool:
    """Whether an operation turns tokens into numbers: rows of a table, or their own values (one-hot, ...)."""
    known, first = row(equation), equation.inputs[0]
    if not all(jnp.issubdtype(v.dtype, jnp.inexact) for v in equation.outputs):
        return False
    if known.copies:
        return first in facts.tokens
    positions = equation.inputs[known.values :] if known.values is not None else []
    return known.moves and facts.independent(first) and any(v in facts.tokens for v in positions)


def _stands_for_tokens(facts: Facts, equation: Equation, value: Value) -> bool:
    """Whether integers that follow from tokens still stand for them."""
    known = row(equation)
    if known.loop is not None or jnp.issubdtype(value.dtype, jnp.inexact):
        return False
    if known.compares:
        # One-hot: an answer for each of several given numbers. Others are masks.
        return value.dtype == bool and any(
            v in facts.fixed and math.prod(v.shape) > 1 for v in equation.inputs
        )
    return known.moves or known.entrywise


# The program as nodes.


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One operation to a rule.

    Attributes:
        kind: what it is.
        equations: what it is made of, in order; nodes may share some.
        inputs: values that carry relevance.
        constants: values that it needs and that carry none.
        outputs: results.
        layer: for a layer, a function of (the constants' arrays, whether inputs are non-negative, whether no
            relevance arrives at negative results) to its `Linear`.
        rule: for a module that a rule takes as a whole: that rule.
        main: the equation whose place is its own, where that is not the last one.
    """

    kind: Kind
    equations: tuple[Equation, ...]
    inputs: tuple[Value, ...]
    constants: tuple[Value, ...]
    outputs: tuple[Value, ...]
    layer: Callable[[list[Any], bool, bool], Any] | None = None
    rule: Any = None
    main: Equation | None = None

    @property
    def scopes(self) -> tuple[CallKey, ...]:
        """The calls of modules around it."""
        return (self.main or self.equations[-1]).scopes

    @property
    def primitives(self) -> tuple[str, ...]:
        """The names of the primitives that it is made of, in order."""
        return tuple(one.name for one in self.equations)


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A program as nodes, in order.

    Attributes:
        program: what it is of.
        nodes: its operations.
    """

    program: Program
    nodes: tuple[Node, ...]

    @functools.cached_property
    def producer(self) -> dict[Value, Node]:
        """The node that gives a value."""
        return {value: node for node in self.nodes for value in node.outputs}

    def with_nodes(self, found: dict[Value, Node]) -> "Graph":
        """The graph with other nodes for some values; those without a use are left out.

        Args:
            found: the nodes, each by one of its outputs.
        """
        if not found:
            return self
        at: dict[Value, Node] = {value: node for node in found.values() for value in node.outputs}
        nodes: dict[Node, None] = {}
        for node in self.nodes:
            replaced = [at[v] for v in node.outputs if v in at]
            # A module as a whole stands where its last part did.
            late = [one for one in replaced if one.outputs[-1] in node.outputs]
            nodes.update(dict.fromkeys(late or (() if replaced else (node,))))
        needed, kept = {*self.program.outputs, *self.program.auxiliary}, []
        for node in reversed(nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(node.inputs)
                needed.update(node.constants)
        return dataclasses.replace(self, nodes=tuple(kept[::-1]))


def make_node(
    facts: Facts,
    kind: Kind,
    equations: Iterable[Equation],
    outputs: Iterable[Value],
    held: Iterable[Value] = (),
) -> Node:
    """The node of some equations, which are in order.

    Args:
        facts: of the program.
        kind: what it is.
        equations: what it is made of.
        outputs: its results.
        held: operands that carry no relevance here although they vary.

    Returns:
        The node; its operands are what the equations do not give themselves.
    """
    equations, held = tuple(equations), set(held)
    inside = {v for one in equations for v in one.outputs}
    operands = dict.fromkeys(
        v for one in equations for v in one.inputs if v not in inside and v.literal is None
    )
    inputs = tuple(v for v in operands if facts.varies(v) and v not in held)
    constants = tuple(v for v in operands if v not in inputs)
    return Node(kind, equations, inputs, constants, tuple(outputs))


def graph_of(program: Program, facts: Facts) -> Graph:
    """The program with a node an equation."""
    nodes = [make_node(facts, kind_of(facts, one), [one], one.outputs) for one in program.equations]
    return Graph(program, tuple(nodes))


def kind_of(facts: Facts, equation: Equation) -> Kind:
    """What an equation is to a rule, on its own."""
    known, carriers = row(equation), facts.carriers(equation)
    if known.loop is not None:
        return Kind.NESTED
    if known.contracts:
        return _kind_of_contraction(facts, equation)
    if not carriers and facts.varies(equation.outputs[0]):
        return Kind.EMBEDDING
    several = len(carriers) > 1
    if known.shifts:
        alone = len(equation.inputs) == 1 or all(facts.varies(v) for v in equation.inputs)
        return Kind.SUM if several or alone else Kind.SHIFT
    if known.scales:
        if not several and sum(facts.varies(v) for v in equation.inputs) == 1:
            # One divided by an activation is a function of each entry.
            divided = known.linear is Linear.FIRST and facts.varies(equation.inputs[1])
            return Kind.ACTIVATION if divided else Kind.MOVE
        return Kind.PRODUCT if known.linear is Linear.EACH else Kind.ACTIVATION if not several else Kind.OTHER
    if known.sums:
        return Kind.MEAN
    mask = known.selects and not chosen_by(facts, equation.inputs[0], equation.inputs[1:])
    if rounds(equation):
        return Kind.ACTIVATION
    if known.copies or mask or (known.moves and not (known.entrywise and not several)):
        return Kind.MOVE
    if known.entrywise:
        whole = all(_is_real(v) for v in (*equation.inputs, *equation.outputs))
        return Kind.ACTIVATION if whole and not several else Kind.OTHER
    if known.linear is not Linear.NO and _is_linear_here(facts, equation):
        return Kind.MOVE
    return Kind.OTHER


def chosen_by(facts: Facts, answer: Value, values: Iterable[Value]) -> bool:
    """Whether a choice is made entry by entry by what some values are there, and not by a mask or other entries."""
    pending, found, ends = [answer], False, {*values}
    while pending:
        value = pending.pop()
        if value.literal is not None or facts.independent(value):
            continue
        found, equation = True, facts.producer.get(value)
        if value in ends:
            continue
        if (
            equation is None
            or not row(equation).entrywise
            or any(v.shape != value.shape for v in equation.inputs if v.shape)
        ):
            return False
        pending += equation.inputs
    return found


def _is_real(value: Value) -> bool:
    return not jnp.issubdtype(value.dtype, jnp.complexfloating)


def rounds(equation: Equation) -> bool:
    """Whether an operation turns numbers into integers."""
    if not row(equation).copies:
        return False
    before, after = equation.inputs[0], equation.outputs[0]
    return before.is_float and not jnp.issubdtype(after.dtype, jnp.inexact)


def _is_linear_here(facts: Facts, equation: Equation) -> bool:
    """Whether what varies is where the primitive is linear."""
    if row(equation).linear is Linear.FIRST:
        return not any(facts.varies(v) for v in equation.inputs[1:])
    # A solve is linear in the right-hand side for a given matrix.
    return not facts.varies(equation.inputs[0]) or len(equation.inputs) == 1


def _kind_of_contraction(facts: Facts, equation: Equation) -> Kind:
    index = kernel_index(facts, equation)
    if index is None:
        return Kind.CONTRACTION
    if not _is_real(equation.outputs[0]) or not facts.given(equation.inputs[index]):
        return Kind.FIXED
    return Kind.DENSE if row(equation).dense else Kind.CONVOLUTION


def kernel_index(facts: Facts, equation: Equation) -> int | None:
    """Which operand of a contraction is its kernel, or None where no operand is independent of the inputs."""
    known = row(equation)
    if known.kernel is not None:
        index = known.kernel % len(equation.inputs)
        return index if facts.independent(equation.inputs[index]) else None
    return next((i for i, v in enumerate(equation.inputs[: known.values]) if facts.independent(v)), None)
