"""Which rule every operation of a function got."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jxai.lrp.engine.explain import explain
from jxai.lrp.html_table import html_table
from jxai.lrp.rules.base import Rule
from jxai.lrp.rules.composites import Composite
from jxai.lrp.rules.operation import Operation

_HEAD = ("path", "module", "operation", "rule", "shapes", "parameters")


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One operation with its rule.

    Attributes:
        operation: the operation.
        rule: its rule; None for a loop or branch, whose inside follows.
    """

    operation: Operation
    rule: Rule | None

    @property
    def cells(self) -> tuple[str, ...]:
        """Path, module, operation, rule, shapes, parameters, as words."""
        operation = self.operation
        module = "" if operation.module is None else type(operation.module).__name__
        shapes = (
            " ".join(_shape(s) for s in operation.inputs) + " -> " + " ".join(map(_shape, operation.outputs))
        )
        parameters = f"{operation.parameters:,}" if operation.parameters else ""
        return operation.place, module, _what(operation), _rule(self.rule), shapes, parameters


@dataclasses.dataclass(frozen=True, eq=False)
class Coverage:
    """Every operation of a function that carries relevance, in order; prints, and shows in notebooks, as a table.

    Attributes:
        rows: the operations with their rules.
    """

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        table = [_HEAD, *(row.cells for row in self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(_HEAD))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        return html_table(_HEAD, [row.cells for row in self.rows], left=5)


def coverage(f: Callable, *primals: Any, composite: Composite) -> Coverage:
    """Every operation of a function with the rule that a composite gives it, without running it.

    Example:
        >>> import jax.numpy as jnp
        >>> from jxai import lrp
        >>> kernel = jnp.ones((3, 2))
        >>> f = lambda x: jnp.tanh(x @ kernel)
        >>> print(lrp.coverage(f, jnp.ones((1, 3)), composite=lrp.EpsilonPlus()))
        path  module  operation         rule     shapes            parameters
        ----  ------  ----------------  -------  ----------------  ----------
                      dense             Epsilon  (1, 3) -> (1, 2)  6
                      activation: tanh  Pass     (1, 2) -> (1, 2)

    Args:
        f: as for `lrp.vjp`.
        *primals: arrays or trees of arrays (`jax.ShapeDtypeStruct`s do too).
        composite: the rules.

    Returns:
        The table, with a row for every operation through which relevance passes, or whose rule holds its results
        constant.

    Raises:
        ValueError: an operation has no rule.
        TypeError: as `lrp.vjp`.
    """
    plan = explain(f, primals, composite).plan
    return Coverage(
        tuple(Row(step.operation, step.rule) for step in plan.operations() if step.operation is not None)
    )


def _shape(shape: tuple[int, ...]) -> str:
    return str(tuple(shape)).replace(",)", ")")


def _what(operation: Operation) -> str:
    """The kind, and what it is made of where that says more."""
    kind, names = operation.kind.value, operation.primitives
    shown = ", ".join(dict.fromkeys(names)) if len(names) < 8 else f"{len(names)} operations"
    plain = {"dense": ("dot_general",), "convolution": ("conv_general_dilated",)}
    return kind if names == plain.get(kind) else f"{kind}: {shown}"


def _rule(rule: Rule | None) -> str:
    """The rule with what differs from its defaults."""
    if rule is None:
        return "(inside)"
    shown = []
    for field in dataclasses.fields(rule) if dataclasses.is_dataclass(rule) else ():
        value = getattr(rule, field.name)
        default = field.default
        if default is dataclasses.MISSING or not (value is default or bool(_same(value, default))):
            shown.append(f"{field.name}={value}")
    return type(rule).__name__ + (f"({', '.join(shown)})" if shown else "")


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)
