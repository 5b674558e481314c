"""Equations that are one operation: layers with their biases, sums of many terms, means with their division."""

from jxai.lrp.flow import Flow, kind_of
from jxai.lrp.graph import Equation, Graph, Value
from jxai.lrp.merging import Layer, find_layer
from jxai.lrp.operation import Kind
from jxai.lrp.places import Places


def find_layers(graph: Graph, flow: Flow, taps: dict[Value, str], merge: bool) -> dict[Equation, Layer]:
    """The linear layers of a graph.

    Args:
        graph: the operations.
        flow: what is known of the values.
        taps: values that are watched; those inside of a layer are moved to its end.
        merge: whether batch norm is merged.

    Returns:
        The layer of every equation that belongs to one.
    """
    found: dict[Equation, Layer] = {}
    for equation in graph.equations:
        if equation in found or flow.live.isdisjoint(equation.outputs):
            continue
        if kind_of(flow, equation) in (Kind.CONVOLUTION, Kind.DENSE):
            layer = find_layer(flow, equation, set(graph.outputs), merge)
            found.update(dict.fromkeys(layer.equations, layer))
            for value in [v for one in layer.equations[:-1] for v in one.outputs if v in taps]:
                taps[layer.output] = taps.pop(value)
    return found


def find_groups(
    graph: Graph, flow: Flow, layers: dict[Equation, Layer], taps: dict[Value, str], places: Places
) -> dict[Equation, tuple[Kind, list[Equation]]]:
    """Sums of more than two terms and means with their division, where the composite has a rule for them.

    A stabiliser sees the whole sum then, no partial one, and the mean, not the sum that it is made of.

    Args:
        graph: the operations.
        flow: what is known of the values.
        layers: what is part of a linear layer.
        taps: values that are watched, which end a group.
        places: the composite's rules.

    Returns:
        (kind, group) of every equation that belongs to one.
    """
    found: dict[Equation, tuple[Kind, list[Equation]]] = {}
    ends = {*graph.outputs, *taps}
    for equation in graph.equations:
        if equation in layers or flow.live.isdisjoint(equation.outputs):
            continue
        kind = kind_of(flow, equation)
        if kind not in (Kind.SUM, Kind.MEAN) or places.rule(kind, equation) is None:
            continue
        group = [equation]
        if kind is Kind.SUM:
            for value in reversed(equation.inputs):
                producer = flow.producer.get(value)
                before = found.get(producer) if producer is not None else None
                if before and before[0] is kind and value not in ends and len(flow.uses[value]) == 1:
                    group = before[1] + group
        else:
            (value,) = equation.outputs
            uses = flow.uses.get(value, [])
            scaled = value not in ends and len(uses) == 1 and uses[0].name in ("div", "mul")
            if scaled and flow.elementwise(uses[0]) and uses[0].inputs[0] is value:
                group.append(uses[0])
        found.update(dict.fromkeys(group, (kind, group)))
    return found
