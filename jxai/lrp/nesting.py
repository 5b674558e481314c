"""Loops and branches: `scan`, `cond` and rematerialisation, planned and run with the rules inside of them."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from jxai.lrp.flow import Status
from jxai.lrp.graph import Equation, graph_of, scan_operands, widen

if TYPE_CHECKING:
    from jxai.lrp.plan import Context, Plan

# Of an operand: status, whether non-negative, whether behind a linear layer.
Flags = tuple[Status, bool, bool]


def plan(equation: Equation, context: "Context", flags: list[Flags]) -> "list[Plan]":
    """Plan what is inside of a loop or branch.

    Args:
        equation: the loop or branch.
        context: the composite.
        flags: of the equation's operands.

    Returns:
        A plan for each function inside.
    """
    if equation.name == "scan":
        return [_plan_scan(equation, context, flags)]
    if equation.name == "cond":
        return [_plan(branch, context, flags[1:]) for branch in equation.params["branches"]]
    return [_plan(equation.params["jaxpr"], context, flags)]


def run(equation: Equation, plans: "list[Plan]", arguments: list[Any], inside: Any) -> list[Any]:
    """Run a loop or branch.

    Args:
        equation: the loop or branch.
        plans: of the functions inside.
        arguments: arrays in place of the equation's operands.
        inside: function of (plan, arrays) to results.

    Returns:
        Its results.
    """
    params = equation.params
    if equation.name == "scan":
        return _run_scan(equation, plans[0], arguments, inside)
    if equation.name == "cond":
        index, *operands = arguments

        def branch(plan: "Plan") -> Any:
            return lambda *operands: [widen(y) for y in inside(plan, list(operands))]

        return lax.switch(jnp.asarray(index, jnp.int32), [branch(p) for p in plans], *operands)
    again = jax.checkpoint(
        lambda *arguments: inside(plans[0], list(arguments)),
        prevent_cse=params["prevent_cse"],
        policy=params["policy"],
    )
    return again(*arguments)


def _plan(jaxpr: Any, context: "Context", flags: list[Flags]) -> "Plan":
    from jxai.lrp.planner import make_plan  # which plans what is nested by this module

    graph = graph_of(jaxpr, context.records)
    statuses, signs, deep = zip(*flags, strict=True) if flags else ((), (), ())
    return make_plan(graph, context, statuses, nonnegative=signs, deep=deep)


def _plan_scan(equation: Equation, context: "Context", flags: list[Flags]) -> "Plan":
    start, count = scan_operands(equation)
    flags = list(flags)
    # What is carried may become anything that an iteration makes of it.
    carried = [(status, False, deep) for status, _, deep in flags[start : start + count]]
    while True:
        flags[start : start + count] = carried
        found = _plan(equation.params["jaxpr"], context, flags)
        after = [
            (Status(max(c[0], s)), False, c[2] or d)
            for c, s, d in zip(carried, found.statuses[:count], found.deep[:count], strict=True)
        ]
        if after == carried:
            return found
        carried = after


def _run_scan(equation: Equation, plan: "Plan", arguments: list[Any], inside: Any) -> list[Any]:
    params = equation.params
    start, count = scan_operands(equation)
    stop = start + count
    constants = arguments[:start]

    def body(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        results = inside(plan, [*constants, *carry, *xs])
        after = [jnp.asarray(y, c.dtype) for y, c in zip(results, carry, strict=False)]
        return after, results[len(carry) :]

    initial = [
        jnp.asarray(widen(x) if status is Status.VARYING else x)
        for x, status in zip(arguments[start:stop], plan.statuses, strict=False)
    ]
    carry, ys = lax.scan(
        body,
        initial,
        arguments[stop:],
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *ys]
