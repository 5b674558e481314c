"""Plans under which gradients travel: guided backpropagation and the deconvolution network."""

from jxai.lrp import nesting
from jxai.lrp.flow import Flow, Status, is_rectifier, kind_of
from jxai.lrp.graph import Graph
from jxai.lrp.operation import Kind
from jxai.lrp.places import Places
from jxai.lrp.plan import Context, Nested, Plan, Step, computing


def gradient_plan(graph: Graph, context: Context) -> Plan:
    """A plan under which gradients travel: only ReLU, max(x, 0), has a rule.

    Args:
        graph: the operations.
        context: the composite.

    Returns:
        The plan.
    """
    steps, places = [], Places(graph, context)
    for equation in graph.equations:
        given = [v for v in equation.inputs if v.literal is None]
        nested = None
        if kind_of(Flow(), equation) is Kind.NESTED:
            flags = [(Status.VARYING, False, False)] * len(equation.inputs)
            nested = Nested(equation, nesting.plan(equation, context, flags))
        kind = Kind.NESTED if nested else Kind.ACTIVATION
        operation = places.operation(kind, [equation], given, equation.outputs)
        relu = equation.name == "max" and len(given) == 1 and is_rectifier(equation)
        rule = context.find(operation) if relu else None
        function = computing(equation, given)
        if rule is not None or nested is not None:
            steps.append(Step(given, [], equation.outputs, function, operation, rule, nested=nested))
        else:
            steps.append(Step([], given, equation.outputs, function))
    known = [False] * len(graph.outputs)
    return Plan(graph, steps, [Status.VARYING] * len(graph.outputs), known, known)
