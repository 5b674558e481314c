"""Equations that are one operation: layers with their biases, sums of many terms, means with their division."""

from jxai.lrp.flow import Flow, kind_of
from jxai.lrp.graph import Equation, Graph, Value
from jxai.lrp.merging import Layer, find_layer
from jxai.lrp.operation import Kind
from jxai.lrp.places import Places


def find_layers(graph: Graph, flow: Flow, taps: dict[Value, list[str]], merge: bool) -> dict[Equation, Layer]:
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
    ends = set(graph.outputs)
    for equation in graph.equations:
        if equation in found or flow.live.isdisjoint(equation.outputs):
            continue
        if kind_of(flow, equation) in (Kind.CONVOLUTION, Kind.DENSE):
            layer = find_layer(flow, equation, ends, merge, set(taps))
            found.update(dict.fromkeys(layer.equations, layer))
            for value in [v for one in layer.equations[:-1] for v in one.outputs if v in taps]:
                taps.setdefault(layer.output, []).extend(taps.pop(value))
    return found


def find_groups(
    graph: Graph, flow: Flow, layers: dict[Equation, Layer], taps: dict[Value, list[str]], places: Places
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
            group += _division(flow, equation.outputs[0], ends)
        found.update(dict.fromkeys(group, (kind, group)))
    return found


def _division(flow: Flow, value: Value, ends: set[Value]) -> list[Equation]:
    """What makes a mean of a sum: the division by the count, behind kept axes."""
    found: list[Equation] = []
    while value not in ends and len(uses := flow.uses.get(value, [])) == 1:
        (following,) = uses
        found.append(following)
        if following.name in ("div", "mul") and following.inputs[0] is value and flow.elementwise(following):
            return found
        if following.name not in ("broadcast_in_dim", "reshape") or flow.carriers(following) != [value]:
            break
        (value,) = following.outputs
    return []
