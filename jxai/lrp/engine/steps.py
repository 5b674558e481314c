"""What a plan is: steps, each an operation with its rule; and what is known of steps once all are."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from jxai.lrp.engine.graph import Equation, Flags, Loop, Program, Value
from jxai.lrp.rules.base import Rule, keeping_zeros
from jxai.lrp.rules.operation import Kind, Linear, Operation

Function = Callable[[list[Any], list[Any]], list[Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One operation to run.

    Attributes:
        inputs: values that carry relevance.
        constants: values that do not.
        outputs: results.
        function: of both lists of arrays to the list of results.
        operation: what it is; None for what only computes, unless a rule holds its results constant.
        rule: its rule; None for loops and branches, and with no operation.
        linear: of the constants' arrays and `rectified`, for linear layers.
        rectified: no relevance arrives where the result is negative.
        held: constants that depend on the input and are cut off here.
        loop: for loops and branches: the equation and the plans of what is inside.
        taps: for a value that is watched or masked: the paths of its places.
        equation: for what only computes, and what looks tokens up: the equation.
        tokens: whether it looks tokens up.
        relu: whether it is max(x, 0).
    """

    inputs: tuple[Value, ...]
    constants: tuple[Value, ...]
    outputs: tuple[Value, ...]
    function: Function | None = None
    operation: Operation | None = None
    rule: Rule | None = None
    linear: Callable[[list[Any], bool], Linear] | None = None
    rectified: bool = False
    held: frozenset[Value] = frozenset()
    loop: Loop | None = None
    taps: tuple[str, ...] = ()
    equation: Equation | None = None
    tokens: bool = False
    relu: bool = False

    @property
    def computes(self) -> bool:
        """Whether no relevance passes, so that it only computes."""
        return not self.inputs and not self.tokens and self.loop is None

    def __str__(self) -> str:
        """What it is, in a word or two."""
        if self.operation is None:
            return ""
        plain = self.operation.kind in (Kind.DENSE, Kind.CONVOLUTION)
        return (
            self.operation.kind.value
            if plain
            else f"{self.operation.kind.value} {self.operation.primitives[-1]}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Steps from a program's inputs to its outputs.

    Attributes:
        program: what was planned.
        steps: in order.
        flags: of the outputs.
        tokens: integers that stand for tokens.
        embeds: whether tokens are looked up, be it where no relevance passes.
    """

    program: Program
    steps: tuple[Step, ...]
    flags: tuple[Flags, ...]
    tokens: frozenset[Value] = frozenset()
    embeds: bool = False

    def operations(self) -> Iterator[Step]:
        """All steps with an operation, those inside of loops and branches after their step."""
        for step in self.steps:
            if step.operation is not None:
                yield step
            for plan in step.loop.plans if step.loop else ():
                yield from plan.operations()

    def metered(self) -> list[Step]:
        """The steps by whose rules relevance passes."""
        return [step for step in self.operations() if step.rule is not None and not step.computes]

    def watched(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the watched values by path, those inside of loops with an axis of iterations in front."""
        found: dict[str, tuple[int, ...]] = {}
        for step in self.steps:
            found.update(dict.fromkeys(step.taps, step.inputs[0].shape if step.taps else ()))
            for plan in step.loop.plans if step.loop else ():
                length = step.loop.length if step.loop else None
                front = () if length is None else (length,)
                found.update({path: (*front, *shape) for path, shape in plan.watched().items()})
        return found


def keep_zeros(steps: list[Step], outputs: list[Value]) -> list[Step]:
    """Where a value that is exactly zero may carry relevance, have it handed on rather than lost."""
    loose, free = set(outputs), set[Value]()
    found: list[Step] = []
    for step in reversed(steps):
        rule, inside = step.rule, not loose.isdisjoint(step.outputs)
        freed = not free.isdisjoint(step.outputs)
        if rule is not None and step.operation is not None and not step.computes:
            if inside:
                step = dataclasses.replace(
                    step, rule=keeping_zeros(rule, step.operation, bool(step.constants), freed)
                )
            if rule.gives_zeros or rule.frees or (inside and rule.hands_on_zeros):
                loose.update(step.inputs)
            if rule.frees or (freed and rule.hands_on_zeros):
                free.update(step.inputs)
        elif step.loop is not None or step.taps:
            loose.update(step.inputs if inside or step.loop is not None else ())
            free.update(step.inputs if freed else ())
        found.append(step)
    return found[::-1]


def rectified(steps: list[Step], outputs: list[Value]) -> list[Step]:
    """Layers whose result goes to a ReLU alone, which hands nothing on where it is negative."""
    uses: dict[Value, list[Step | None]] = {v: [None] for v in outputs}
    for step in steps:
        for value in (*step.inputs, *step.constants):
            uses.setdefault(value, []).append(step)

    def masks(step: Step) -> bool:
        using = uses.get(step.outputs[0], [])
        after = using[0] if len(using) == 1 else None
        return after is not None and after.relu and after.rule is not None and after.rule.masks_relu

    return [
        dataclasses.replace(step, rectified=True) if step.linear is not None and masks(step) else step
        for step in steps
    ]
