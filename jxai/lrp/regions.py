"""Modules that a rule takes as a whole: their operations become one."""

import dataclasses
from typing import TYPE_CHECKING

from jxai.lrp.graph import CallKey, Equation, Graph, Value
from jxai.lrp.linear import LinearRule
from jxai.lrp.operation import Kind, Operation
from jxai.lrp.rule import Rule

if TYPE_CHECKING:
    from jxai.lrp.plan import Context


def collapse(graph: Graph, context: "Context") -> Graph:
    """Put one operation in the place of every module that the composite has a rule for as a whole.

    Args:
        graph: the operations.
        context: the composite.

    Returns:
        The graph, with equations without primitive whose parameter "rule" is the rule.
    """
    claims = _claims(graph, context)
    if not claims:
        return graph
    inside: dict[CallKey, list[Equation]] = {key: [] for key in claims}
    owner: dict[Equation, CallKey] = {}
    for equation in graph.equations:
        key = next((key for key in equation.scopes if key in claims), None)
        if key is not None:
            inside[key].append(equation)
            owner[equation] = key
    equations = []
    for equation in graph.equations:
        key = owner.get(equation)
        if key is None:
            equations.append(equation)
        elif equation is inside[key][-1]:
            equations.append(_whole(graph, key, inside[key], claims[key]))
    return dataclasses.replace(graph, equations=equations)


def _claims(graph: Graph, context: "Context") -> dict[CallKey, Rule]:
    claims: dict[CallKey, Rule] = {}
    scopes = {equation.scopes for equation in graph.equations}
    for key, call in graph.calls.items():
        around = next((s[: s.index(key)] for s in scopes if key in s), None)
        if around is None or any(outer in claims for outer in around):
            continue
        modules = context.modules(graph.calls[k].record for k in (*around, key))
        operation = Operation(Kind.MODULE, modules=modules, path=call.record.path)
        index = context.composite.find(operation)
        if index is not None and not isinstance(context.composite.rules[index][1], LinearRule):
            claims[key] = context.composite.rules[index][1]
            context.used.add(index)
    return claims


def _whole(graph: Graph, key: CallKey, body: list[Equation], rule: Rule) -> Equation:
    given = {v for equation in body for v in equation.outputs}
    inputs = dict.fromkeys(
        v for equation in body for v in equation.inputs if v not in given and v.literal is None
    )
    members = set(body)
    wanted: dict[Value, None] = dict.fromkeys(v for v in (*graph.outputs, *graph.auxiliary) if v in given)
    for equation in graph.equations:
        if equation not in members:
            wanted.update(dict.fromkeys(v for v in equation.inputs if v in given))
    # The module's first argument leads.
    leading = [v for _, v in sorted(graph.calls[key].inputs.items()) if v in inputs]
    ordered = list(dict.fromkeys((*leading, *inputs)))
    scopes = body[0].scopes[: body[0].scopes.index(key) + 1]
    return Equation(None, ordered, list(wanted), {"rule": rule}, scopes, tuple(body))
