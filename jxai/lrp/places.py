"""Where operations stand in the model, and which rule they have there."""

import dataclasses
from collections.abc import Iterable
from typing import Any, NoReturn

import jax

from jxai.lrp.graph import Equation, Graph, Value
from jxai.lrp.operation import Kind, Operation
from jxai.lrp.plan import Context
from jxai.lrp.rule import Rule


@dataclasses.dataclass(frozen=True)
class Places:
    """The operations of a graph as patterns see them.

    Attributes:
        graph: the graph.
        context: the composite.
    """

    graph: Graph
    context: Context

    def modules(self, equation: Equation) -> tuple[Any, ...]:
        """The modules around an equation, outermost first."""
        return self.context.modules(self.graph.calls[key].record for key in equation.scopes)

    def operation(
        self, kind: Kind, equations: list[Equation], inputs: Iterable[Value], outputs: Iterable[Value]
    ) -> Operation:
        """One operation made of some equations; its place is that of the last."""
        modules, scopes = self.modules(equations[-1]), equations[-1].scopes
        call = self.graph.calls[scopes[-1]] if scopes else None
        # In a loop or branch, outside of all that is called there, the innermost module around it.
        around = [record.path for record in self.context.records if modules and record.module is modules[-1]]
        return Operation(
            kind,
            tuple(one.name for one in equations for one in (one.body or (one,))),
            modules,
            call.record.path if call is not None else "".join(around[:1]),
            call.number if call is not None else None,
            inputs=tuple(v.shape for v in inputs),
            outputs=tuple(v.shape for v in outputs),
        )

    def rule(self, kind: Kind, equation: Equation) -> Rule | None:
        """The composite's rule for an equation on its own."""
        return self.context.find(self.operation(kind, [equation], equation.inputs, equation.outputs))

    def refuse(self, operation: Operation, what: str, example: str) -> NoReturn:
        """Say that an operation has no rule, and what to do.

        Args:
            operation: the operation.
            what: of which every one needs a rule.
            example: of a rule, as one would write it.

        Raises:
            ValueError: always.
        """
        name = self.context.composite.name
        pattern = f"lrp.{operation.kind}"
        if operation.path:
            pattern = f"'{operation.path}'"
        elif operation.kind is Kind.OTHER and hasattr(jax.lax, f"{operation.primitives[0]}_p"):
            pattern = f"jax.lax.{operation.primitives[0]}_p"
        raise ValueError(
            f"expected a rule for {what}, got none for {operation} in {name}: put one in front, for example "
            f"lrp.Composite((({pattern}, {example}),)) | composite"
        )
