"""Sums of more than two terms, and means with their division, as one node each."""

from collections.abc import Callable

from jxai.lrp.engine.facts import Facts, Graph, Node, make_node
from jxai.lrp.engine.graph import Equation, Value
from jxai.lrp.engine.primitives import row
from jxai.lrp.rules.operation import Kind


def fuse_sums(graph: Graph, facts: Facts, ruled: Callable[[Node], bool]) -> Graph:
    """One node for a sum of several terms, and for a mean, where the composite has a rule for them.

    A stabilizer sees the whole sum then, no partial one, and the mean, not the sum that it is made of.

    Args:
        graph: the nodes.
        facts: of the program.
        ruled: whether the composite has a rule for a node.

    Returns:
        The graph.
    """
    found: dict[Value, Node] = {}
    for node in graph.nodes:
        if node.kind not in (Kind.SUM, Kind.MEAN) or not ruled(node):
            continue
        (value,) = node.outputs
        if node.kind is Kind.SUM:
            body = list(node.equations)
            for operand in reversed(body[-1].inputs):
                before = found.get(operand)
                if before is not None and before.kind is Kind.SUM and facts.used_once(operand):
                    body = [*before.equations, *body]
        else:
            body = [*node.equations, *_division(facts, value)]
            value = body[-1].outputs[0]
        found[value] = make_node(facts, node.kind, body, [value])
    return graph.with_nodes({v: node for v, node in found.items() if len(node.equations) > 1})


def _division(facts: Facts, value: Value) -> list[Equation]:
    """What makes a mean of a sum: the division by the count, behind kept axes."""
    found: list[Equation] = []
    while (following := facts.used_once(value)) is not None:
        found.append(following)
        known = row(following)
        if known.scales and following.inputs[0] is value and facts.independent(following.inputs[1]):
            return found
        if not (known.moves and not known.entrywise) or facts.carriers(following) != [value]:
            break
        (value,) = following.outputs
    return []
