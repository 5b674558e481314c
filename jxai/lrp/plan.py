"""A plan: the steps from a graph's inputs to its outputs, every operation with its rule."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flax.linen as nn

from jxai.lrp.composites import Composite
from jxai.lrp.flow import Status
from jxai.lrp.graph import Equation, Graph, Value, evaluate_all
from jxai.lrp.interception import ModuleCall
from jxai.lrp.operation import Linear, Operation
from jxai.lrp.rule import Rule

Function = Callable[[list[Any], list[Any]], list[Any]]


@dataclasses.dataclass(eq=False)
class Step:
    """One operation to run.

    Attributes:
        inputs: values that carry relevance.
        constants: values that do not.
        outputs: results.
        function: of both lists of arrays to the list of results.
        operation: what it is; None for what only computes.
        rule: its rule; None for what only computes, and for loops and branches.
        linear: of the constants' arrays and `rectified`, for linear layers.
        rectified: no relevance arrives where the result is negative.
        relu: whether it is max(x, 0).
        held: constants that depend on the input and are cut off here.
        nested: for loops and branches: what is inside.
        tap: for the output of a module that is watched or masked: its path.
        token: for an embedding: index of the input of integers that it looks up.
    """

    inputs: list[Value]
    constants: list[Value]
    outputs: list[Value]
    function: Function | None = None
    operation: Operation | None = None
    rule: Rule | None = None
    linear: Callable[[list[Any], bool], Linear] | None = None
    rectified: bool = False
    relu: bool = False
    held: frozenset[Value] = frozenset()
    nested: "Nested | None" = None
    tap: str | None = None
    token: int | None = None


@dataclasses.dataclass(eq=False)
class Nested:
    """A loop or a branch: its equation, where its operands come from, and the plans of what is inside."""

    equation: Equation
    plans: "list[Plan]"


@dataclasses.dataclass(eq=False)
class Plan:
    """Steps from a graph's inputs to its outputs.

    Attributes:
        graph: what was planned.
        steps: in order.
        statuses: of the outputs.
        nonnegative: which outputs hold no negative number.
        deep: which outputs lie behind a linear layer.
    """

    graph: Graph
    steps: list[Step]
    statuses: list[Status]
    nonnegative: list[bool]
    deep: list[bool]

    def operations(self) -> Iterator[Step]:
        """All steps with an operation, those inside of loops and branches after their step."""
        for step in self.steps:
            if step.operation is not None:
                yield step
            for plan in step.nested.plans if step.nested else ():
                yield from plan.operations()


@dataclasses.dataclass(frozen=True)
class Context:
    """What plans of one function share.

    Attributes:
        composite: the rules.
        records: the calls of modules.
        used: indices of the composite's rules that were met.
        outer: modules around a loop or branch.
    """

    composite: Composite
    records: list[ModuleCall]
    used: set[int] = dataclasses.field(default_factory=set)
    outer: tuple[nn.Module, ...] = ()

    def find(self, operation: Operation) -> Rule | None:
        """The composite's rule for an operation."""
        index = self.composite.find(operation)
        if index is None:
            return None
        self.used.add(index)
        return self.composite.rules[index][1]

    def modules(self, records: Iterable[ModuleCall]) -> tuple[nn.Module, ...]:
        """The modules around an operation, outermost first, each once."""
        found = (*self.outer, *(record.module for record in records))
        return tuple({id(module): module for module in found}.values())

    def warn(self) -> None:
        """Warn of patterns that matched nothing."""
        rules = self.composite.rules
        idle = [
            p
            for i, (p, _) in enumerate(rules)
            if i not in self.used
            and (isinstance(p, str | type) or (self.composite.complete and not self.used))
        ]
        if idle:
            warnings.warn(
                f"expected every pattern of {self.composite.name} to match an operation, got none for {idle}: see "
                "lrp.coverage for what the function holds",
                stacklevel=4,
            )


def computing(equation: Equation, inputs: list[Value]) -> Function:
    """The function of a step that only computes an operation."""
    return lambda _, arrays: evaluate_all([equation], inputs, arrays, equation.outputs)
