"""Modules that a rule takes as a whole: their operations become one node."""

from collections.abc import Mapping

from jxai.lrp.engine.facts import Facts, Graph, Node
from jxai.lrp.engine.graph import CallKey, Equation, Program, Value
from jxai.lrp.rules.operation import Kind


def fuse_modules(graph: Graph, facts: Facts, claims: Mapping[CallKey, object]) -> Graph:
    """One node in the place of every module that a rule takes as a whole.

    Args:
        graph: the nodes.
        facts: of the program.
        claims: the rule of each module's call; none lies inside of another.

    Returns:
        The graph.
    """
    found: dict[Value, Node] = {}
    for key, rule in claims.items():
        body = [one for one in graph.program.equations if key in one.scopes]
        if body:
            node = _whole(graph.program, facts, key, body, rule)
            found.update(dict.fromkeys(node.outputs, node))
    return graph.with_nodes(found)


def _whole(program: Program, facts: Facts, key: CallKey, body: list[Equation], rule: object) -> Node:
    given, members = {v for one in body for v in one.outputs}, set(body)
    wanted = {
        v: None
        for one in body
        for v in one.outputs
        if v in facts.ends or any(use not in members for use in facts.uses.get(v, []))
    }
    inputs = dict.fromkeys(v for one in body for v in one.inputs if v not in given and v.literal is None)
    # The module's first argument leads.
    leading = [v for _, v in sorted(program.calls[key].inputs.items()) if v in inputs]
    ordered = list(dict.fromkeys((*leading, *inputs)))
    carriers = tuple(v for v in ordered if facts.varies(v))
    rest = tuple(v for v in ordered if not facts.varies(v))
    return Node(Kind.MODULE, tuple(body), carriers, rest, tuple(wanted), rule=rule)
