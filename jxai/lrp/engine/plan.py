"""From a function and a composite to a plan: traced, fused, then one loop that gives every operation its rule."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from jxai.lrp.engine import control_flow, gates
from jxai.lrp.engine.divide_first import divide_first
from jxai.lrp.engine.facts import Facts, Graph, Node, analyze, graph_of
from jxai.lrp.engine.fuse_entries import fuse_entries
from jxai.lrp.engine.fuse_layers import fuse_layers
from jxai.lrp.engine.fuse_modules import fuse_modules
from jxai.lrp.engine.fuse_statistics import fuse_statistics
from jxai.lrp.engine.fuse_sums import fuse_sums
from jxai.lrp.engine.graph import Equation, Flags, Loop, Program, Status, Value, as_float, evaluate_all
from jxai.lrp.engine.places import Context
from jxai.lrp.engine.primitives import Linear, is_relu, rectifies, row_of
from jxai.lrp.engine.steps import Function, Plan, Step, keep_zeros, rectified
from jxai.lrp.engine.trace import program_of
from jxai.lrp.rules.base import Rule, cut, default_rule
from jxai.lrp.rules.operation import Kind, Operation


def make_plan(
    program: Program,
    context: Context,
    flags: Iterable[Flags],
    taps: Mapping[Value, Iterable[str]] | None = None,
    weighing: Iterable[Value] = (),
) -> Plan:
    """Give every operation of a program its rule.

    Args:
        program: the operations.
        context: the composite.
        flags: of the program's inputs.
        taps: values that are watched or masked, with the paths of their places; by default what `context.places`
            names inside of the program.
        weighing: those of the outputs that multiply activations outside of the program.

    Returns:
        The plan.

    Raises:
        ValueError: an operation has no rule.
    """
    flags = list(flags)
    if not context.composite.relevance:
        return _gradient_plan(program, context, flags, context.taps(program) if taps is None else taps)
    program = divide_first(program)
    found = {v: tuple(paths) for v, paths in (context.taps(program) if taps is None else taps).items()}
    facts = analyze(program, flags)
    graph = fuse_modules(graph_of(program, facts), facts, context.claims(program))
    graph = fuse_statistics(graph, facts)
    graph = fuse_sums(graph, facts, functools.partial(context.has_rule, program))
    graph = fuse_layers(graph, facts, set(found), context.composite.merge_batch_norm)
    graph = fuse_entries(graph, facts, set(found))
    return _Planner(graph, facts, context, flags, _moved_to_ends(graph, found), weighing).plan()


class _Planner:
    """Gives every node of a graph its rule: once forward for what is held, once back for what is reached."""

    def __init__(
        self,
        graph: Graph,
        facts: Facts,
        context: Context,
        flags: list[Flags],
        taps: dict[Value, tuple[str, ...]],
        weighing: Iterable[Value],
    ):
        self.graph, self.facts, self.context, self.taps = graph, facts, context, taps
        self.program = graph.program
        self.weighing = gates.weighing(graph, weighing)
        self.held: set[Value] = {v for v, s in facts.status.items() if s is Status.HELD}
        self.deep = {v for v, flag in zip(graph.program.inputs, flags, strict=True) if flag.deep}
        self.nodes: list[tuple[Node, Operation]] = []
        self.loops: dict[Node, Loop] = {}
        self.holding: dict[Node, Rule] = {}

    def plan(self) -> Plan:
        for node in self.graph.nodes:
            self._meet(node)
        live = self._live()
        steps: list[Step] = self._watch(self.program.inputs, live)
        for node, operation in self.nodes:
            relevant = not live.isdisjoint(node.outputs) and (node.inputs or self._begins(node))
            steps += [self._step(node, operation)] if relevant else self._computing(node, operation)
            steps += self._watch(node.outputs, live)
        outputs = self.program.outputs
        steps = rectified(keep_zeros(steps, [v for v in outputs if self._carries(v)]), outputs)
        flags = tuple(map(self._flags, outputs))
        embeds = any(node.kind is Kind.EMBEDDING for node in self.graph.nodes) or any(
            plan.embeds for loop in self.loops.values() for plan in loop.plans
        )
        return Plan(self.program, tuple(steps), flags, frozenset(self.facts.tokens), embeds)

    def _begins(self, node: Node) -> bool:
        """Whether relevance ends in a node, at tokens."""
        return node.kind is Kind.EMBEDDING or node in self.loops

    def _flags(self, value: Value) -> Flags:
        """What is known of a value, for the inside of a loop or for what is around."""
        return Flags(
            Status.HELD if value in self.held else self.facts.status.get(value, Status.INDEPENDENT),
            value in self.facts.fixed or value.literal is not None,
            value in self.facts.nonnegative,
            value in self.deep,
            value in self.facts.tokens,
        )

    def _carries(self, value: Value) -> bool:
        return self.facts.varies(value) and value not in self.held

    def _meet(self, node: Node) -> None:
        """What of a node carries relevance, whether its rule holds its results, what lies behind a layer."""
        varying = node.kind is not Kind.EMBEDDING and any(self.facts.varies(v) for v in node.outputs)
        if varying and not any(map(self._carries, node.inputs)):
            node = _with_held(node, {*node.inputs})
        elif varying and node.layer is None and not all(map(self._carries, node.inputs)):
            node = _with_held(node, self.held)
        first = self.deep.isdisjoint(node.inputs)
        weighs = not self.weighing.isdisjoint(node.outputs)
        operation = self.context.operation(self.program, node, first, weighs)
        if (gate := self._held_gate(node, operation)) is not None:
            node = _with_held(node, {gate})
            operation = self.context.operation(self.program, node, first, weighs)
        if node.layer is not None and node.kind is not Kind.FIXED:
            parameters = [v for v in node.constants if not self.facts.varies(v) and v.is_float]
            operation = dataclasses.replace(operation, parameters=sum(math.prod(v.shape) for v in parameters))
        self.nodes.append((node, operation))
        if node.kind is Kind.NESTED and (varying or node.inputs):
            self._nested(node)
            return
        if (varying and not node.inputs) or (node.inputs and self._holds(node, operation)):
            self.held.update(v for v in node.outputs if self.facts.varies(v))
        if not first or node.kind in (Kind.CONVOLUTION, Kind.DENSE):
            self.deep.update(node.outputs)

    def _holds(self, node: Node, operation: Operation) -> bool:
        index = self.context.composite.find(operation) if node.rule is None else None
        rule = node.rule if index is None else self.context.composite.rules[index][1]
        if rule is None or not rule.holds:
            return False
        if index is not None:
            self.context.used.add(index)
        self.holding[node] = rule
        return True

    def _held_gate(self, node: Node, operation: Operation) -> Value | None:
        gate = gates.gate_of(self.graph, node)
        rule = None if gate is None else self.context.find(operation)
        return gate if rule is not None and rule.holds_gates else None

    def _live(self) -> set[Value]:
        """Values whose relevance reaches an output."""
        live = {v for v in self.program.outputs if self._carries(v)}
        for node, _ in reversed(self.nodes):
            if not live.isdisjoint(node.outputs):
                live.update(node.inputs)
        return live

    def _nested(self, node: Node) -> None:
        (equation,) = node.equations
        carried = control_flow.num_carried(equation)  # may be of use in the next iteration
        outside = [i < carried or v in self.weighing for i, v in enumerate(equation.outputs)]

        def inside(jaxpr: Any, flags: list[Flags]) -> Plan:
            program = program_of(jaxpr, self.context.records, (self.program, equation))
            ends = [v for v, weighs in zip(program.outputs, outside, strict=True) if weighs]
            return make_plan(program, self.context, flags, weighing=ends)

        loop = control_flow.plan(equation, [*map(self._flags, equation.inputs)], inside)
        self.loops[node] = loop
        for value, flag in zip(equation.outputs, control_flow.flags_of(loop), strict=True):
            if flag.deep:
                self.deep.add(value)
            if flag.nonnegative:
                self.facts.nonnegative.add(value)
            if flag.status is not Status.VARYING and self.facts.varies(value):
                self.held.add(value)

    # Steps.

    def _step(self, node: Node, operation: Operation) -> Step:
        tokens = node.kind is Kind.EMBEDDING
        rule: Rule | None = None
        if node.kind is not Kind.NESTED:
            rule = node.rule or self.context.find(operation)
            plain = all(_is_plain(one, node) for one in node.equations)
            rule = rule or default_rule(operation, plain)
            if rule is None:
                self.context.refuse(operation)
        names = node.constants
        held = (*names, *(v for v in node.inputs if not self._carries(v)))
        arrays = frozenset(v for v in held if not self.facts.independent(v) and v.is_float)
        known = bool(node.inputs) and all(v in self.facts.nonnegative for v in node.inputs)
        build = node.layer
        linear = None if build is None else lambda arrays, rectified: build(arrays, known, rectified)
        return Step(
            node.inputs,
            names,
            node.outputs,
            _function(self.facts, node, build),
            operation,
            rule,
            linear,
            held=arrays,
            loop=self.loops.get(node),
            equation=node.equations[-1] if tokens else None,
            tokens=tokens,
            relu=len(node.equations) == 1 and is_relu(node.equations[0]),
        )

    def _computing(self, node: Node, operation: Operation) -> list[Step]:
        """Steps that only compute; where a rule holds their results, with the rule, to be seen in coverage."""
        given = node.equations[0].inputs if node in self.loops else (*node.inputs, *node.constants)
        operands = tuple(dict.fromkeys(v for v in given if v.literal is None))
        one = node.equations[-1] if len(node.equations) == 1 else None
        rule = self.holding.get(node)
        return [
            Step(
                (),
                operands,
                node.outputs,
                _computing(node, operands),
                operation if rule is not None else None,
                rule,
                equation=one,
            )
        ]

    def _watch(self, values: Iterable[Value], live: set[Value]) -> list[Step]:
        return [Step((v,), (), (v,), taps=self.taps[v]) for v in values if v in self.taps and v in live]


def _with_held(node: Node, held: set[Value]) -> Node:
    """A node some of whose operands carry no relevance."""
    inputs = tuple(v for v in node.inputs if v not in held)
    constants = tuple(dict.fromkeys((*node.constants, *(v for v in node.inputs if v in held))))
    kind = node.kind
    if len(inputs) == 1:
        # A gate that is held scales, a term that is held shifts.
        kind = {Kind.PRODUCT: Kind.MOVE, Kind.SUM: Kind.SHIFT}.get(kind, kind)
        first, *others = node.equations
        known = row_of(first.primitive, first.params)
        divided = (
            known.scales and known.linear is Linear.FIRST and first.inputs[0] is inputs[0] and not others
        )
        kind = Kind.MOVE if kind is Kind.OTHER and divided else kind
    return dataclasses.replace(node, kind=kind, inputs=inputs, constants=constants)


def _is_plain(equation: Equation, node: Node) -> bool:
    """Whether an operation of single entries is linear on each side of zero: its plain derivative is LRP-0."""
    known = row_of(equation.primitive, equation.params)
    itself = known.scales and sum(v in node.inputs for v in equation.inputs) > 1
    return ((known.scales or known.copies) and not itself) or rectifies(equation)


def _function(facts: Facts, node: Node, build: Any) -> Function | None:
    if node.kind is Kind.NESTED:
        return None
    if build is not None:

        def of_layer(inputs: list[Any], arrays: list[Any]) -> list[Any]:
            whole = build(arrays, False, False)
            z = whole.map(inputs, whole.kernel)
            return [z if whole.bias is None else z + whole.bias]

        return of_layer

    def function(inputs: list[Any], arrays: list[Any]) -> list[Any]:
        found = evaluate_all(
            node.equations, [*node.inputs, *node.constants], [*inputs, *arrays], node.outputs
        )
        # Numbers that were rounded to integers are floats to relevance; places, as of a top-k, stay.
        return [
            as_float(y) if facts.varies(v) and not v.is_float and node.inputs else y
            for v, y in zip(node.outputs, found, strict=True)
        ]

    return function


def _computing(node: Node, operands: tuple[Value, ...]) -> Function:
    """The function of a step that only computes."""

    def function(_: list[Any], arrays: list[Any]) -> list[Any]:
        return evaluate_all(node.equations, operands, arrays, node.outputs)

    opaque = any(row_of(one.primitive, one.params).opaque for one in node.equations)
    return cut(function) if opaque else function


def _moved_to_ends(graph: Graph, taps: dict[Value, tuple[str, ...]]) -> dict[Value, tuple[str, ...]]:
    """Watched values inside of a layer are watched at its end."""
    found: dict[Value, tuple[str, ...]] = {}
    given = {*graph.program.inputs, *graph.producer}
    inside = {
        v: node
        for node in graph.nodes
        if node.layer is not None
        for one in node.equations
        for v in one.outputs
    }
    for value, paths in taps.items():
        end = value if value in given or value not in inside else inside[value].outputs[0]
        found[end] = (*found.get(end, ()), *paths)
    return found


# Gradients.


def _gradient_plan(
    program: Program, context: Context, flags: list[Flags], taps: Mapping[Value, Iterable[str]]
) -> Plan:
    """A plan under which gradients travel: only ReLU, max(x, 0), has a rule."""

    def watch(values: Iterable[Value]) -> list[Step]:
        return [Step((v,), (), (v,), taps=tuple(taps[v])) for v in values if v in taps]

    steps = watch(program.inputs)
    for equation in program.equations:
        given = tuple(v for v in equation.inputs if v.literal is None)
        nested = row_of(equation.primitive, equation.params).loop is not None
        node = Node(
            Kind.NESTED if nested else Kind.ACTIVATION, (equation,), given, (), tuple(equation.outputs)
        )
        operation = context.operation(program, node)

        def inside(jaxpr: Any, flags: list[Flags], equation: Equation = equation) -> Plan:
            return make_plan(program_of(jaxpr, context.records, (program, equation)), context, flags)

        flags = [Flags()] * len(equation.inputs)
        loop = control_flow.plan(equation, flags, inside) if nested else None
        rule = context.find(operation) if len(given) == 1 and is_relu(equation) else None
        function = _computing(node, given)
        if rule is not None or loop is not None:
            ruled = lambda inputs, _, function=function: function([], inputs)  # noqa: E731
            steps.append(Step(given, (), node.outputs, ruled, operation, rule, loop=loop))
        else:
            steps.append(Step((), given, node.outputs, function))
        steps += watch(node.outputs)
    return Plan(program, tuple(steps), (Flags(),) * len(program.outputs))
