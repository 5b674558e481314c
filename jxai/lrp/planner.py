"""From a graph and a composite to a plan: one walk over the operations, in order."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp

from jxai.lrp import nesting
from jxai.lrp.flow import (
    COPIES,
    OPAQUE,
    SCALES,
    SHIFTS,
    Status,
    analyse,
    homogeneous,
    kind_of,
    of_itself,
)
from jxai.lrp.gradients import gradient_plan
from jxai.lrp.graph import Equation, Graph, Value, evaluate_all
from jxai.lrp.grouping import find_groups, find_layers
from jxai.lrp.merging import Layer, merge_before
from jxai.lrp.operation import Kind, Linear, Operation
from jxai.lrp.places import Places
from jxai.lrp.plan import Context, Function, Nested, Plan, Step, computing
from jxai.lrp.regions import collapse
from jxai.lrp.rule import DEFAULT, Constant, Gradient, Pass, Rule, Split, cut
from jxai.lrp.settling import find_rectified, keep_zeros
from jxai.lrp.signs import nonnegative

# What becomes of operations for which the composite has no rule.
_DEFAULTS: dict[Kind, Rule] = {
    Kind.SUM: DEFAULT,
    Kind.MEAN: DEFAULT,
    Kind.MOVE: DEFAULT,
    Kind.SHIFT: DEFAULT,
    Kind.NORMALISATION: DEFAULT,
    Kind.SOFTMAX: DEFAULT,
    Kind.PRODUCT: Split(),
    Kind.CONTRACTION: Split(),
    Kind.ACTIVATION: Pass(),
    Kind.AFFINE: Pass(),
}


def make_plan(
    graph: Graph,
    context: Context,
    statuses: Iterable[Status],
    *,
    tokens: dict[Value, int] | None = None,
    nonnegative: Iterable[bool] | None = None,
    deep: Iterable[bool] | None = None,
    taps: dict[Value, list[str]] | None = None,
) -> Plan:
    """Give every operation of a graph its rule.

    Args:
        graph: the operations.
        context: the composite.
        statuses: of the graph's inputs.
        tokens: inputs of integers, with their indices.
        nonnegative: which inputs hold no negative number.
        deep: which inputs lie behind a linear layer.
        taps: values that are watched or masked, with their modules' paths.

    Returns:
        The plan.

    Raises:
        ValueError: an operation has no rule.
    """
    if not context.composite.relevance:
        return gradient_plan(graph, context)
    graph = collapse(graph, context)
    planner = _Planner(graph, context, list(statuses), tokens or {}, taps or {})
    planner.nonnegative = {v for v, known in zip(graph.inputs, nonnegative or (), strict=False) if known}
    planner.deep = {v for v, known in zip(graph.inputs, deep or (), strict=False) if known}
    return planner.plan()


class _Planner:
    """Walks over a graph once, in order."""

    def __init__(
        self,
        graph: Graph,
        context: Context,
        statuses: list[Status],
        tokens: dict[Value, int],
        taps: dict[Value, list[str]],
    ):
        self.graph, self.context = graph, context
        self.taps = {value: list(paths) for value, paths in taps.items()}
        self.places = Places(graph, context)
        self.steps: list[Step] = []
        self.available = {*graph.inputs, *graph.constants}
        self.explained: set[Value] = set(graph.inputs)
        self.nonnegative: set[Value] = set()
        self.deep: set[Value] = set()
        self.order = {equation: i for i, equation in enumerate(graph.equations)}
        self.flow = analyse(graph, statuses, tokens, self._holding_rule)
        self.layers = find_layers(graph, self.flow, self.taps, context.composite.merge_batch_norm)
        self.groups = find_groups(graph, self.flow, self.layers, self.taps, self.places)

    def plan(self) -> Plan:
        for value in self.graph.inputs:
            self._tap(value)
        for equation in self.graph.equations:
            self._visit(equation)
            for value in equation.outputs:
                if nonnegative(equation, self.nonnegative):
                    self.nonnegative.add(value)
                if not self.deep.isdisjoint(self.flow.carriers(equation)):
                    self.deep.add(value)
                if value in self.taps and self.flow.varies(value) and value in self.flow.live:
                    self._explain(value)
                    self._tap(value)
        for value in self.graph.outputs:
            if self.flow.varies(value):
                self._explain(value)
            else:
                self._need(value)
        for value in self.graph.auxiliary:
            self._need(value)
        outputs = self.graph.outputs
        keep_zeros(self.steps, [v for v in outputs if self.flow.varies(v)])
        find_rectified(self.steps, outputs)
        return Plan(
            self.graph,
            self.steps,
            [self.flow.status.get(v, Status.INDEPENDENT) for v in outputs],
            [v in self.nonnegative for v in outputs],
            [v in self.deep for v in outputs],
        )

    # What each operation becomes.

    def _visit(self, equation: Equation) -> None:
        flow = self.flow
        if not any(flow.varies(v) and v in flow.live for v in equation.outputs):
            return self._need_all(equation)
        if (layer := self.layers.get(equation)) is not None:
            return self._layer(layer) if equation is layer.equations[-1] else None
        if equation in self.groups:
            kind, equations = self.groups[equation]
            return self._group(kind, equations) if equation is equations[-1] else None
        if flow.elementwise(equation):
            return self._extend_chain(equation)
        flow.root.update({v: v for v in equation.outputs})
        kind = kind_of(flow, equation)
        if kind is Kind.NESTED:
            return self._nested(equation)
        carriers = list(dict.fromkeys(flow.carriers(equation)))
        constants = [v for v in dict.fromkeys(equation.inputs) if v not in carriers and v.literal is None]
        operation = self.places.operation(kind, [equation], carriers, equation.outputs)
        if kind is Kind.MODULE:
            rule, constants = equation.params["rule"], list(constants)
        elif kind is Kind.EMBEDDING:
            return self._embedding(equation, operation)
        else:
            rule = self._rule(operation)
        return self._emit(carriers, constants, equation.outputs, [equation], operation, rule)

    def _extend_chain(self, equation: Equation) -> None:
        flow = self.flow
        affine = equation.name in SHIFTS | SCALES | COPIES
        for value in flow.carriers(equation):
            # What follows a normalisation is another operation; a shift alone, as in logsumexp, is part of it.
            scaled = any(one.name in SCALES for one in flow.chain(value))
            if not affine and scaled and self._chain_kind(value) is Kind.NORMALISATION:
                self._explain(value)
                flow.root[value] = value
        if flow.elementwise(equation):
            flow.root.update(dict.fromkeys(equation.outputs, flow.root[flow.carriers(equation)[0]]))

    def _explain(self, value: Value) -> None:
        """Make a varying value one that hands on relevance, by a rule for the chain from its root."""
        if value in self.explained:
            return
        if self.flow.root[value] is value:
            self._need(value)
            self.explained.add(value)
            return
        root = self.flow.root[value]
        self._explain(root)
        equations = sorted(self.flow.chain(value), key=self.order.__getitem__)
        kind = self._chain_kind(value)
        inside = {v for one in equations for v in one.outputs} | {root}
        constants = [v for one in equations for v in one.inputs if v not in inside and v.literal is None]
        operation = self.places.operation(kind, equations, [root], [value])
        rule = self.context.find(operation)
        plain = homogeneous(self.flow, equations)
        if rule is None:
            rule = DEFAULT if plain else _DEFAULTS[kind]
        self._emit([root], list(dict.fromkeys(constants)), [value], equations, operation, rule)
        self.steps[-1].relu = plain and operation.primitives == ("max",)

    def _chain_kind(self, value: Value) -> Kind:
        equations = self.flow.chain(value)
        names = {one.name for one in equations}
        if not names:
            return Kind.MOVE
        if any(of_itself(self.flow, one) for one in equations):
            return Kind.ACTIVATION
        if names <= SHIFTS | SCALES | COPIES:
            held = any(
                not self.flow.independent(v) and v not in self.flow.carriers(one)
                for one in equations
                for v in one.inputs
            )
            if held:
                return Kind.NORMALISATION
            if names.isdisjoint(SHIFTS):
                return Kind.MOVE
            return Kind.SHIFT if names.isdisjoint({"mul", "div"}) else Kind.AFFINE
        return Kind.ACTIVATION

    def _layer(self, layer: Layer) -> None:
        flow, outputs = self.flow, [layer.output]
        if self.context.composite.merge_batch_norm:
            merge_before(flow, layer)
        flow.root.update({v: v for v in outputs})
        kind = kind_of(flow, layer.equation)
        carriers = [flow.root[layer.operands[0]]] if layer.before else layer.operands
        constants = layer.constants(flow)
        arrays = [v for v in constants if v.literal is None]
        operation = dataclasses.replace(
            self.places.operation(kind, [layer.equation], carriers, outputs),
            primitives=tuple(one.name for one in (*layer.before, *layer.equations)),
            first=self.deep.isdisjoint(carriers),
            parameters=sum(math.prod(v.shape) for v in arrays),
        )
        rule = self.context.find(operation)
        if rule is None:
            self.places.refuse(operation, "every linear layer", "lrp.Epsilon()")
        build, known = layer.builder(flow), all(v in self.nonnegative for v in carriers)

        def linear(arrays: list[Any], rectified: bool) -> Linear:
            given = iter(arrays)
            return build(
                [next(given) if v.literal is None else v.literal for v in constants], known, rectified
            )

        def function(inputs: list[Any], arrays: list[Any]) -> list[Any]:
            whole = linear(arrays, False)
            z = whole.map(inputs, whole.kernel)
            return [z if whole.bias is None else z + whole.bias]

        for value in carriers:
            self._operand(value)
        self._append(carriers, arrays, outputs, function, operation, rule)
        self.steps[-1].linear = linear
        self.deep.update(outputs)

    def _group(self, kind: Kind, equations: list[Equation]) -> None:
        inside = {v for one in equations for v in one.outputs}
        operands = dict.fromkeys(v for one in equations for v in one.inputs if v not in inside)
        carriers = [v for v in operands if self.flow.varies(v)]
        constants = [v for v in operands if v not in carriers and v.literal is None]
        outputs = equations[-1].outputs
        self.flow.root.update({v: v for v in outputs})
        operation = self.places.operation(kind, equations, carriers, outputs)
        self._emit(carriers, constants, outputs, equations, operation, self._rule(operation))

    def _embedding(self, equation: Equation, operation: Operation) -> None:
        for value in equation.inputs:
            self._need(value)
        token = next(self.flow.tokens[v] for v in equation.inputs if v in self.flow.tokens)
        integers = self.graph.inputs[token].shape
        (rows,) = equation.outputs
        if rows.shape[: len(integers)] != integers:
            self.places.refuse(operation, "an embedding that looks up one row an integer", "lrp.Gradient()")
        constants = [v for v in equation.inputs if v.literal is None]
        self._emit([], constants, equation.outputs, [equation], operation, Gradient())
        self.steps[-1].token = token

    def _nested(self, equation: Equation) -> None:
        context = dataclasses.replace(self.context, outer=self.places.modules(equation))
        flags = [
            (
                Status.HELD
                if self.flow.varies(v) and v not in self.flow.live
                else self.flow.status.get(v, Status.INDEPENDENT),
                v in self.nonnegative,
                v in self.deep,
            )
            for v in equation.inputs
        ]
        plans = nesting.plan(equation, context, flags)
        carriers = list(dict.fromkeys(self.flow.carriers(equation)))
        constants = [v for v in dict.fromkeys(equation.inputs) if v not in carriers and v.literal is None]
        for value in carriers:
            self._operand(value)
        for value in constants:
            self._need(value)
        operation = self.places.operation(Kind.NESTED, [equation], carriers, equation.outputs)
        self._append(carriers, constants, equation.outputs, None, operation, None)
        self.steps[-1].nested = Nested(equation, plans)
        for index, value in enumerate(equation.outputs):
            if all(plan.nonnegative[index] for plan in plans):
                self.nonnegative.add(value)
            if any(plan.deep[index] for plan in plans):
                self.deep.add(value)

    # Appending steps.

    def _emit(
        self,
        carriers: list[Value],
        constants: list[Value],
        outputs: list[Value],
        equations: list[Equation],
        operation: Operation,
        rule: Rule,
    ) -> None:
        def function(inputs: list[Any], arrays: list[Any]) -> list[Any]:
            return evaluate_all(equations, [*carriers, *constants], [*inputs, *arrays], outputs)

        for value in carriers:
            self._operand(value)
        for value in constants:
            self._need(value)
        self._append(carriers, constants, outputs, function, operation, rule)

    def _append(
        self,
        carriers: list[Value],
        constants: list[Value],
        outputs: list[Value],
        function: Function | None,
        operation: Operation,
        rule: Rule | None,
    ) -> None:
        held = frozenset(
            v for v in constants if not self.flow.independent(v) and jnp.issubdtype(v.dtype, jnp.floating)
        )
        self.steps.append(
            Step(list(carriers), list(constants), list(outputs), function, operation, rule, held=held)
        )
        self.available.update(outputs)
        self.explained.update(outputs)

    def _operand(self, value: Value) -> None:
        if self.flow.varies(value):
            self._explain(value)
        else:
            self._need(value)

    def _need(self, value: Value) -> None:
        """Have a value computed, with or without relevance."""
        if value.literal is None and value not in self.available:
            self._need_all(self.flow.producer[value])

    def _need_all(self, equation: Equation) -> None:
        pending = [equation]
        while pending:
            one = pending[-1]
            missing = [
                self.flow.producer[v] for v in one.inputs if v.literal is None and v not in self.available
            ]
            if missing:
                pending += missing
                continue
            pending.pop()
            if self.available.issuperset(one.outputs):
                continue
            inputs = [v for v in one.inputs if v.literal is None]
            function = computing(one, inputs)
            if one.name in OPAQUE:
                function = cut(function)
            self.steps.append(Step([], inputs, one.outputs, function))
            self.available.update(one.outputs)

    def _tap(self, value: Value) -> None:
        if value in self.taps:
            self.steps += [Step([value], [], [value], tap=path) for path in self.taps[value]]
            self.flow.root[value] = value

    # Looking up.

    def _holding_rule(self, equation: Equation, kind: Kind) -> Rule | None:
        if equation.primitive is None:
            return equation.params["rule"]
        if not any(isinstance(rule, Constant) for _, rule in self.context.composite.rules):
            return None
        return self.places.rule(kind, equation)

    def _rule(self, operation: Operation) -> Rule:
        rule = self.context.find(operation) or _DEFAULTS.get(operation.kind)
        example = "lrp.Gradient()" if OPAQUE.isdisjoint(operation.primitives) else "lrp.Constant()"
        return rule or self.places.refuse(operation, "every operation", example)
