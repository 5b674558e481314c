"""Where operations stand in the model, and which rule a composite has for them there."""

import dataclasses
import warnings
from collections.abc import Iterable
from typing import Any, NoReturn

import jax

from jxai.errors import InputError
from jxai.lrp.calls import normal
from jxai.lrp.engine.facts import Node
from jxai.lrp.engine.graph import CallKey, Program, Value
from jxai.lrp.engine.primitives import named_row, row_of
from jxai.lrp.engine.scopes import find
from jxai.lrp.rules.base import Rule
from jxai.lrp.rules.operation import Kind, Operation


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """What plans of one function share.

    Attributes:
        composite: the rules.
        records: the calls of modules, name scopes and marks.
        places: paths that are watched or masked.
        used: indices of the composite's rules that were met.
    """

    composite: Any
    records: list[Any]
    places: frozenset[str] = frozenset()
    used: set[int] = dataclasses.field(default_factory=set)

    def find(self, operation: Operation) -> Rule | None:
        """The composite's rule for an operation."""
        index = self.composite.find(operation)
        if index is None:
            return None
        self.used.add(index)
        return self.composite.rules[index][1]

    def place(self, program: Program, scopes: Iterable[CallKey]) -> dict[str, Any]:
        """The fields of an `Operation` that say where it stands."""
        calls = [program.calls[key] for key in scopes]
        modules = {id(call.record.module or call): call.record.module for call in calls}
        path, number = (calls[-1].record.path, calls[-1].number) if calls else ("", None)
        return {"modules": tuple(modules.values()), "path": path, "call": number}

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
                stacklevel=5,
            )

    def operation(self, program: Program, node: Node, first: bool = False, weighs: bool = False) -> Operation:
        """A node as patterns and reports see it; its place is that of its last equation."""
        return Operation(
            node.kind,
            node.primitives,
            **self.place(program, node.scopes),
            first=first,
            inputs=tuple(v.shape for v in node.inputs),
            outputs=tuple(v.shape for v in node.outputs),
            entrywise=all(row_of(one.primitive, one.params).scales for one in node.equations),
            weighs=weighs,
        )

    def has_rule(self, program: Program, node: Node) -> bool:
        """Whether the composite has a rule for a node."""
        return self.find(self.operation(program, node)) is not None

    def claims(self, program: Program) -> dict[CallKey, Rule]:
        """The calls of modules that a rule takes as a whole."""
        claims: dict[CallKey, Rule] = {}
        around: dict[CallKey, tuple[CallKey, ...]] = {}
        for scopes in {equation.scopes: None for equation in program.equations}:
            for i, key in enumerate(scopes):
                around.setdefault(key, scopes[: i + 1])
        for key in program.calls:
            if key not in around or any(outer in claims for outer in around[key]):
                continue
            operation = Operation(Kind.MODULE, **self.place(program, around[key]))
            index = self.composite.find(operation)
            if index is not None and self.composite.rules[index][1].takes_modules:
                claims[key] = self.composite.rules[index][1]
                self.used.add(index)
        return claims

    def taps(self, program: Program) -> dict[Value, list[str]]:
        """The values of the places that are watched or masked, with their paths."""
        found: dict[Value, list[str]] = {}
        for path in sorted(self.places):
            if any(
                call.outputs and normal(path) in (call.path, call.record.path)
                for call in program.calls.values()
            ):
                (value,) = find(program.calls.values(), path).outputs.values()
                found.setdefault(value, []).append(path)
        return found

    def refuse(self, operation: Operation) -> NoReturn:
        """Say that an operation has no rule, and what to do.

        Args:
            operation: the operation.

        Raises:
            ValueError: always.
        """
        layer = operation.kind in (Kind.CONVOLUTION, Kind.DENSE)
        what = "every linear layer" if layer else "every operation"
        opaque = any(named_row(name).opaque for name in operation.primitives)
        example = "lrp.Epsilon()" if layer else "lrp.Constant()" if opaque else "lrp.Gradient()"
        pattern = f"lrp.{operation.kind}"
        if operation.kind is Kind.OTHER and hasattr(jax.lax, f"{operation.primitives[-1]}_p"):
            pattern = f"jax.lax.{operation.primitives[-1]}_p"
        if operation.modules:
            # A path alone would take the whole module where the rule is for any operation.
            pattern = f"'{operation.place}'" if layer else f"('{operation.place}', {pattern})"
        raise InputError(
            f"expected a rule for {what}, got none for {operation} in {self.composite.name}: put one in front, for "
            f"example lrp.Composite((({pattern}, {example}),)) | composite"
        )
