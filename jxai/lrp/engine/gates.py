"""What multiplies activations: gates, and weights such as attention's."""

from collections.abc import Iterable

from jxai.lrp.engine.facts import Graph, Node
from jxai.lrp.engine.graph import Value
from jxai.lrp.rules.operation import Kind

_PRODUCTS = (Kind.PRODUCT, Kind.CONTRACTION)
# What weights may go through on their way: dropout, masks, top-k, the mixing of heads.
_ON_THE_WAY = (Kind.MOVE, Kind.SHIFT, Kind.FIXED, Kind.SUM, Kind.MEAN, Kind.DENSE, Kind.SOFTMAX)


def gate_of(graph: Graph, node: Node) -> Value | None:
    """The one factor of a product that an activation function gives; None where there is none, or two."""
    gates = [v for v in node.inputs if _is_activation(graph, v)]
    return gates[0] if node.kind in _PRODUCTS and len(gates) == 1 < len(node.inputs) else None


def _is_activation(graph: Graph, value: Value) -> bool:
    node = graph.producer.get(value)
    while node is not None and node.kind in (Kind.MOVE, Kind.NORMALIZATION) and len(node.inputs) == 1:
        node = graph.producer.get(node.inputs[0])
    return node is not None and node.kind is Kind.ACTIVATION


def weighing(graph: Graph, ends: Iterable[Value]) -> set[Value]:
    """The values that multiply others on their way to the program's outputs.

    Args:
        graph: the nodes.
        ends: those of the outputs that do so outside of the program.
    """
    found = set(ends)
    for node in reversed(graph.nodes):
        product = node.kind in _PRODUCTS
        on = (product or node.kind in _ON_THE_WAY) and not found.isdisjoint(node.outputs)
        if on or node.kind is Kind.NESTED or (product and len(node.inputs) > 1):
            found.update(node.inputs)
    return found
