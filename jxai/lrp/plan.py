"""From a graph and a composite to steps: every operation with its rule, in an order in which they can run."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import flax.linen as nn
import jax.numpy as jnp

from jxai.lrp.composites import Composite
from jxai.lrp.flow import COPIES, RECTIFIERS, SCALES, SHIFTS, Flow, Status, analyse, kind_of
from jxai.lrp.graph import Equation, Graph, Value, evaluate_all
from jxai.lrp.interception import ModuleCall
from jxai.lrp.merging import Layer, find_layer, merge_before
from jxai.lrp.operation import Kind, Linear, Operation
from jxai.lrp.regions import collapse
from jxai.lrp.rule import Constant, Gradient, Norm, Pass, Rule, Split
from jxai.lrp.rules import LinearRule
from jxai.lrp.signs import nonnegative

Function = Callable[[list[Any], list[Any]], list[Any]]

# What becomes of operations for which the composite has no rule.
_DEFAULTS: dict[Kind, Rule] = {
    Kind.SUM: Gradient(),
    Kind.MEAN: Gradient(),
    Kind.MOVE: Gradient(),
    Kind.SHIFT: Gradient(),
    Kind.NORMALISATION: Gradient(),
    Kind.SOFTMAX: Gradient(),
    Kind.PRODUCT: Split(),
    Kind.CONTRACTION: Split(),
    Kind.ACTIVATION: Pass(),
    Kind.AFFINE: Pass(),
}


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
            if i not in self.used and (isinstance(p, str) or (self.composite.complete and not self.used))
        ]
        if idle:
            warnings.warn(
                f"expected every pattern of {self.composite.name} to match an operation, got none for {idle}: see "
                "lrp.coverage for what the function holds",
                stacklevel=4,
            )


def make_plan(
    graph: Graph,
    context: Context,
    statuses: Iterable[Status],
    *,
    tokens: dict[Value, int] | None = None,
    nonnegative: Iterable[bool] | None = None,
    deep: Iterable[bool] | None = None,
    taps: dict[Value, str] | None = None,
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
        return _gradient_plan(graph, context)
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
        taps: dict[Value, str],
    ):
        self.graph, self.context, self.taps = graph, context, dict(taps)
        self.steps: list[Step] = []
        self.available = {*graph.inputs, *graph.constants}
        self.explained: set[Value] = set(graph.inputs)
        self.nonnegative: set[Value] = set()
        self.deep: set[Value] = set()
        self.order = {equation: i for i, equation in enumerate(graph.equations)}
        self.flow = analyse(graph, statuses, tokens, self._holding_rule)
        self.layers = self._find_layers()
        self.groups = self._find_groups()

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
        outputs = self.graph.outputs
        _settle(self.steps, [v for v in outputs if self.flow.varies(v)])
        _find_rectified(self.steps, outputs)
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
        operation = self._operation(kind, [equation], carriers, equation.outputs)
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
            # What follows a normalisation is another operation.
            if not affine and self._chain_kind(value) is Kind.NORMALISATION:
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
        equations = self._sorted(self.flow.chain(value))
        kind = self._chain_kind(value)
        inside = {v for one in equations for v in one.outputs} | {root}
        constants = [v for one in equations for v in one.inputs if v not in inside and v.literal is None]
        operation = self._operation(kind, equations, [root], [value])
        rule = self.context.find(operation)
        if rule is None:
            rule = Gradient() if _homogeneous(self.flow, equations) else _DEFAULTS[kind]
        self._emit([root], list(dict.fromkeys(constants)), [value], equations, operation, rule)

    def _chain_kind(self, value: Value) -> Kind:
        equations = self.flow.chain(value)
        names = {one.name for one in equations}
        if not names:
            return Kind.MOVE
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
        operation = self._operation(kind, [*layer.before, *layer.equations], carriers, outputs)
        kernel = layer.equation.inputs[layer.kernel]
        sizes = [kernel, *(v for v in layer.constants(flow)[1:] if v.literal is None)]
        first = self.deep.isdisjoint(carriers)
        operation = dataclasses.replace(
            operation, first=first, parameters=sum(_size(v) for v in sizes), modules=self._modules(layer.equation)
        )
        operation = dataclasses.replace(operation, path=self._path(layer.equation))
        rule = self.context.find(operation)
        if rule is None:
            self._refuse(operation, "every linear layer", "lrp.Epsilon()")
        constants = layer.constants(flow)
        build, known = layer.builder(flow), all(v in self.nonnegative for v in carriers)

        def linear(arrays: list[Any], rectified: bool) -> Linear:
            given = iter(arrays)
            return build([next(given) if v.literal is None else v.literal for v in constants], known, rectified)

        def function(inputs: list[Any], arrays: list[Any]) -> list[Any]:
            whole = linear(arrays, False)
            z = whole.map(inputs, whole.kernel)
            return [z if whole.bias is None else z + whole.bias]

        for value in carriers:
            self._operand(value)
        self._append(carriers, [v for v in constants if v.literal is None], outputs, function, operation, rule)
        self.steps[-1].linear = linear
        self.deep.update(outputs)

    def _group(self, kind: Kind, equations: list[Equation]) -> None:
        inside = {v for one in equations for v in one.outputs}
        operands = dict.fromkeys(v for one in equations for v in one.inputs if v not in inside)
        carriers = [v for v in operands if self.flow.varies(v)]
        constants = [v for v in operands if v not in carriers and v.literal is None]
        outputs = equations[-1].outputs
        self.flow.root.update({v: v for v in outputs})
        operation = self._operation(kind, equations, carriers, outputs)
        self._emit(carriers, constants, outputs, equations, operation, self._rule(operation))

    def _embedding(self, equation: Equation, operation: Operation) -> None:
        for value in equation.inputs:
            self._need(value)
        token = next(self.flow.tokens[v] for v in equation.inputs if v in self.flow.tokens)
        integers = self.graph.inputs[token].shape
        (rows,) = equation.outputs
        if rows.shape[: len(integers)] != integers:
            self._refuse(operation, "an embedding that looks up one row an integer", "lrp.Gradient()")
        constants = [v for v in equation.inputs if v.literal is None]
        self._emit([], constants, equation.outputs, [equation], operation, Gradient())
        self.steps[-1].token = token

    def _nested(self, equation: Equation) -> None:
        from jxai.lrp import nesting

        context = dataclasses.replace(self.context, outer=self._modules(equation))
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
        operation = self._operation(Kind.NESTED, [equation], carriers, equation.outputs)
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
            self.steps.append(Step([], inputs, one.outputs, _computing(one, inputs)))
            self.available.update(one.outputs)

    def _tap(self, value: Value) -> None:
        if value in self.taps:
            self.steps.append(Step([value], [], [value], tap=self.taps[value]))
            self.flow.root[value] = value

    # What belongs together.

    def _find_layers(self) -> dict[Equation, Layer]:
        found: dict[Equation, Layer] = {}
        merge, ends = self.context.composite.merge_batch_norm, set(self.graph.outputs)
        for equation in self.graph.equations:
            if equation in found or self.flow.live.isdisjoint(equation.outputs):
                continue
            if kind_of(self.flow, equation) in (Kind.CONVOLUTION, Kind.DENSE):
                layer = find_layer(self.flow, equation, ends, merge)
                found.update(dict.fromkeys(layer.equations, layer))
                for one in layer.equations[:-1]:
                    for value in one.outputs:
                        if value in self.taps:
                            self.taps[layer.output] = self.taps.pop(value)
        return found

    def _find_groups(self) -> dict[Equation, tuple[Kind, list[Equation]]]:
        """Sums of more than two terms and means with their division, where the composite has a rule for them.

        A stabiliser sees the whole sum then, no partial one, and the mean, not the sum that it is made of.
        """
        found: dict[Equation, tuple[Kind, list[Equation]]] = {}
        flow, ends = self.flow, {*self.graph.outputs, *self.taps}
        for equation in self.graph.equations:
            if equation in self.layers or flow.live.isdisjoint(equation.outputs):
                continue
            kind = kind_of(flow, equation)
            if kind not in (Kind.SUM, Kind.MEAN):
                continue
            operation = self._operation(kind, [equation], equation.inputs, equation.outputs)
            if self.context.find(operation) is None:
                continue
            group = [equation]
            if kind is Kind.SUM:
                for value in reversed(equation.inputs):
                    before = found.get(flow.producer.get(value))
                    if before and before[0] is kind and value not in ends and len(flow.uses[value]) == 1:
                        group = before[1] + group
            else:
                (value,) = equation.outputs
                uses = flow.uses.get(value, [])
                if value not in ends and len(uses) == 1 and uses[0].name in ("div", "mul"):
                    if flow.elementwise(uses[0]) and uses[0].inputs[0] is value:
                        group.append(uses[0])
            found.update(dict.fromkeys(group, (kind, group)))
        return found

    # Looking up.

    def _holding_rule(self, equation: Equation, kind: Kind) -> Rule | None:
        if equation.primitive is None:
            return equation.params["rule"]
        if not any(isinstance(rule, Constant) for _, rule in self.context.composite.rules):
            return None
        return self.context.find(self._operation(kind, [equation], equation.inputs, equation.outputs))

    def _rule(self, operation: Operation) -> Rule:
        rule = self.context.find(operation) or _DEFAULTS.get(operation.kind)
        return rule or self._refuse(operation, "every operation", "lrp.Gradient()")

    def _refuse(self, operation: Operation, what: str, example: str) -> NoReturn:
        module = operation.module
        pattern = f"'{operation.path}'" if module is not None and operation.path else f"lrp.{operation.kind}"
        raise ValueError(
            f"expected a rule for {what}, got none for {operation} in {self.context.composite.name}: put one in front, "
            f"for example lrp.Composite((({pattern}, {example}),)) | composite"
        )

    def _operation(
        self, kind: Kind, equations: list[Equation], inputs: Iterable[Value], outputs: Iterable[Value]
    ) -> Operation:
        names = tuple(one.name for one in equations for one in (one.body or (one,)))
        return Operation(
            kind,
            names,
            self._modules(equations[-1]),
            self._path(equations[-1]),
            inputs=tuple(v.shape for v in inputs),
            outputs=tuple(v.shape for v in outputs),
        )

    def _modules(self, equation: Equation) -> tuple[nn.Module, ...]:
        return self.context.modules(self.graph.calls[key].record for key in equation.scopes)

    def _path(self, equation: Equation) -> str:
        modules = self._modules(equation)
        return "/".join(modules[-1].path) if modules else ""

    def _sorted(self, equations: Iterable[Equation]) -> list[Equation]:
        return sorted(equations, key=self.order.__getitem__)


def _computing(equation: Equation, inputs: list[Value]) -> Function:
    return lambda _, arrays: evaluate_all([equation], inputs, arrays, equation.outputs)


def _size(value: Value) -> int:
    size = 1
    for side in value.shape:
        size *= side
    return size


def _homogeneous(flow: Flow, equations: list[Equation]) -> bool:
    """Whether a chain is linear on each side of zero: its plain derivative is LRP-0."""
    return all(
        one.name in SCALES | COPIES
        or (
            one.name in RECTIFIERS
            and any(v.literal is not None and not v.shape and v.literal == 0 for v in one.inputs)
        )
        for one in equations
    )


def _settle(steps: list[Step], outputs: list[Value]) -> None:
    """Where a value that is exactly zero may carry relevance, have it handed on rather than lost."""
    loose = set(outputs)
    for step in reversed(steps):
        rule = step.rule
        if rule is None or step.operation is None:
            if step.nested is not None:
                loose.update(step.inputs)
            continue
        if isinstance(rule, LinearRule):
            if not rule.proportional:
                loose.update(step.inputs)
            continue
        if loose.isdisjoint(step.outputs):
            continue
        loose.update(step.inputs)
        if isinstance(rule, Gradient):
            if step.operation.kind is Kind.ACTIVATION:
                step.rule = Pass()
            elif step.operation.kind in (Kind.SUM, Kind.MEAN):
                step.rule = Norm()


def _find_rectified(steps: list[Step], outputs: list[Value]) -> None:
    """Layers whose result goes to a ReLU alone, which hands nothing on where it is negative."""
    uses: dict[Value, list[Step | None]] = {v: [None] for v in outputs}
    for step in steps:
        for value in (*step.inputs, *step.constants):
            uses.setdefault(value, []).append(step)
    for step in steps:
        if step.linear is not None and len(using := uses.get(step.outputs[0], [])) == 1:
            (after,) = using
            step.rectified = after is not None and after.rule == Gradient() and _is_relu(after)


def _is_relu(step: Step) -> bool:
    return step.operation is not None and step.operation.primitives == ("max",) and not step.constants


def _gradient_plan(graph: Graph, context: Context) -> Plan:
    """A plan under which gradients travel: only ReLU, max(x, 0), has a rule."""
    steps = []
    for equation in graph.equations:
        given = [v for v in equation.inputs if v.literal is None]
        nested = None
        if kind_of(Flow(), equation) is Kind.NESTED:
            from jxai.lrp import nesting

            flags = [(Status.VARYING, False, False)] * len(equation.inputs)
            nested = Nested(equation, nesting.plan(equation, context, flags))
        modules = context.modules(graph.calls[key].record for key in equation.scopes)
        operation = Operation(
            Kind.NESTED if nested else Kind.ACTIVATION,
            (equation.name,),
            modules,
            "/".join(modules[-1].path) if modules else "",
            inputs=tuple(v.shape for v in given),
            outputs=tuple(v.shape for v in equation.outputs),
        )
        relu = equation.name == "max" and len(given) == 1 and _homogeneous(Flow(), [equation])
        rule = context.find(operation) if relu else None
        function = _computing(equation, given)
        if rule is not None or nested is not None:
            steps.append(Step(given, [], equation.outputs, function, operation, rule, nested=nested))
        else:
            steps.append(Step([], given, equation.outputs, function))
    known = [False] * len(graph.outputs)
    return Plan(graph, steps, [Status.VARYING] * len(graph.outputs), known, known)
