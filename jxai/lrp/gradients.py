"""Plans under which gradients travel: guided backpropagation and the deconvolution network."""

from jxai.lrp import nesting
from jxai.lrp.flow import Flow, Status, kind_of
from jxai.lrp.graph import Graph
from jxai.lrp.operation import Kind, Operation
from jxai.lrp.plan import Context, Nested, Plan, Step, computing


def gradient_plan(graph: Graph, context: Context) -> Plan:
    """A plan under which gradients travel: only ReLU, max(x, 0), has a rule.

    Args:
        graph: the operations.
        context: the composite.

    Returns:
        The plan.
    """
    steps = []
    for equation in graph.equations:
        given = [v for v in equation.inputs if v.literal is None]
        nested = None
        if kind_of(Flow(), equation) is Kind.NESTED:
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
        zero = any(v.literal is not None and not v.shape and v.literal == 0 for v in equation.inputs)
        relu = equation.name == "max" and len(given) == 1 and zero
        rule = context.find(operation) if relu else None
        function = computing(equation, given)
        if rule is not None or nested is not None:
            steps.append(Step(given, [], equation.outputs, function, operation, rule, nested=nested))
        else:
            steps.append(Step([], given, equation.outputs, function))
    known = [False] * len(graph.outputs)
    return Plan(graph, steps, [Status.VARYING] * len(graph.outputs), known, known)
