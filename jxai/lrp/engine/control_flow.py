"""Loops and branches: `scan`, `cond` and rematerialization, planned and run with the rules inside of them.

How what is inside is planned and run comes as a function. A loop's first iterations have plans of their own where
another rule holds there, as for the first layer of a stack of layers.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jxai.jaxprs import scan_operands
from jxai.lrp.engine import primitives
from jxai.lrp.engine.graph import Equation, Flags, Loop, Status, Tokens, widen

Inside = Callable[[Any, list[Flags]], Any]


def plan(equation: Equation, flags: list[Flags], inside: Inside) -> Loop:
    """Plan what is inside of a loop or branch.

    Args:
        equation: the loop or branch.
        flags: of the equation's operands.
        inside: function of (a jaxpr, its inputs' flags) to its plan.

    Returns:
        The loop with its plans.
    """
    params = equation.params
    loop = Loop(equation, ())
    if _what(loop) is primitives.Loop.SCAN:
        plans = _plans_of_scan(equation, params["jaxpr"], flags, inside)
    elif _what(loop) is primitives.Loop.BRANCH:
        plans = [inside(branch, flags[1:]) for branch in params["branches"]]
    else:
        plans = [inside(params["jaxpr"], flags)]
    return dataclasses.replace(loop, plans=tuple(plans))


def num_carried(equation: Equation) -> int:
    """How many of a loop's first results each iteration hands to the next."""
    scans = primitives.row(equation).loop is primitives.Loop.SCAN
    return scan_operands(equation.params)[1] if scans else 0


def _what(loop: Loop) -> primitives.Loop | None:
    """How it runs what is inside."""
    return primitives.row(loop.equation).loop


def flags_of(loop: Loop) -> list[Flags]:
    """What is known of a loop's results."""

    def joined(flags: tuple[Flags, ...]) -> Flags:
        return Flags(
            Status(max(f.status for f in flags)),
            False,
            all(f.nonnegative for f in flags),
            any(f.deep for f in flags),
            any(f.token for f in flags),
        )

    return [joined(flags) for flags in zip(*(plan.flags for plan in loop.plans), strict=True)]


def run(loop: Loop, arguments: list[Any], inside: Any, taps: Any) -> list[Any]:
    """Run a loop or branch.

    Args:
        loop: the loop or branch.
        arguments: arrays in place of the equation's operands.
        inside: function of (plan, arrays, taps) to results.
        taps: a tree of arrays whose cotangents are asked for; for a scan, one an iteration along the first axis.

    Returns:
        Its results.
    """
    params = loop.equation.params
    if _what(loop) is primitives.Loop.SCAN:
        return _run_scan(loop, arguments, inside, taps)
    if _what(loop) is primitives.Loop.BRANCH:
        index, *operands = arguments
        tokens = [flags.token for flags in flags_of(loop)]

        def branch(plan: Any) -> Any:
            def run_branch(operands: list[Any], taps: Any) -> list[Any]:
                found = inside(plan, list(operands), taps)
                return [_as_tokens(y) if token else widen(y) for y, token in zip(found, tokens, strict=True)]

            return run_branch

        index = jnp.asarray(index.array if isinstance(index, Tokens) else index, jnp.int32)
        return lax.switch(index, [branch(p) for p in loop.plans], operands, taps)
    again = jax.checkpoint(
        lambda arguments, taps: inside(loop.plans[0], list(arguments), taps),
        prevent_cse=params["prevent_cse"],
        policy=params["policy"],
    )
    return again(arguments, taps)


def _as_tokens(x: Any) -> Tokens:
    return x if isinstance(x, Tokens) else Tokens(jnp.asarray(x), jnp.zeros(jnp.shape(x)))


def _plans_of_scan(equation: Equation, jaxpr: Any, flags: list[Flags], inside: Inside) -> list[Any]:
    start, count = scan_operands(equation.params)
    length = equation.params["length"]
    # What is carried may become anything that an iteration makes of it.
    carried = [dataclasses.replace(f, nonnegative=False) for f in flags[start : start + count]]

    def planned(carried: list[Flags]) -> Any:
        return inside(jaxpr, [*flags[:start], *carried, *flags[start + count :]])

    found: list[Any] = []
    while True:
        first, general, settled = planned(carried), None, carried
        while general is None:
            attempt = first if settled is carried else planned(settled)
            after = [_joined(c, f) for c, f in zip(settled, attempt.flags[:count], strict=True)]
            general, settled = (attempt, settled) if after == settled else (None, after)
        if len(found) + 1 == length:
            return [*found, first]
        if length == 0 or not _first_differs(first, general):
            return [*found, general]
        found.append(first)
        carried = [dataclasses.replace(f, nonnegative=False) for f in first.flags[:count]]


def _joined(carried: Flags, after: Flags) -> Flags:
    return Flags(
        Status(max(carried.status, after.status)),
        carried.fixed and after.fixed,
        False,
        carried.deep or after.deep,
        carried.token or after.token,
    )


def _first_differs(first: Any, general: Any) -> bool:
    """Whether a layer is the first one in the first iteration alone, and has another rule there."""
    others = dict(_rules(general, ()))
    return any(
        step.operation.first and key in others and others[key].rule is not step.rule
        for key, step in _rules(first, ())
    )


def _rules(plan: Any, prefix: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Any]]:
    places = {v: i for i, one in enumerate(plan.program.equations) for v in one.outputs}
    for step in plan.steps:
        key = (*prefix, places.get(step.outputs[0], -1)) if step.outputs else prefix
        if step.operation is not None and step.linear is not None:
            yield key, step
        for i, inner in enumerate(step.loop.plans if step.loop else ()):
            yield from _rules(inner, (*key, i))


def _run_scan(loop: Loop, arguments: list[Any], inside: Any, taps: Any) -> list[Any]:
    params = loop.equation.params
    *firsts, general = loop.plans
    start, count = scan_operands(loop.equation.params)
    constants, carry, xs = arguments[:start], arguments[start : start + count], arguments[start + count :]
    reverse, length = params["reverse"], params["length"]
    flags = flags_of(loop)

    def body(carry: list[Any], scanned: tuple[list[Any], dict[str, jax.Array]], plan: Any = general) -> Any:
        xs, taps = scanned
        results = inside(plan, [*constants, *carry, *xs], taps)
        return _like(results[: len(carry)], carry), results[len(carry) :]

    carry = [_initial(x, flag) for x, flag in zip(carry, flags, strict=False)]
    done: list[list[Any]] = []
    for i, first in enumerate(firsts):
        at = length - 1 - i if reverse else i
        carry, ys = body(carry, jax.tree.map(lambda x, at=at: x[at], (xs, taps)), first)
        done.append(ys)
    span = slice(None, length - len(firsts)) if reverse else slice(len(firsts), None)
    scanned = jax.tree.map(lambda x: x[span], (xs, taps))
    carry, ys = lax.scan(
        body, carry, scanned, length=length - len(firsts), reverse=reverse, unroll=params["unroll"]
    )
    for ys_of_one in done[::-1]:
        more = jax.tree.map(lambda y: y[None], ys_of_one)
        pairs = (ys, more) if reverse else (more, ys)
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, jnp.asarray(b, a.dtype)]), *pairs)
    return [*carry, *ys]


def _initial(x: Any, flag: Flags) -> Any:
    if flag.token:
        return _as_tokens(x)
    return jnp.asarray(widen(x) if flag.status is Status.VARYING else x)


def _like(results: Sequence[Any], carry: Sequence[Any]) -> list[Any]:
    found = []
    for y, c in zip(results, carry, strict=True):
        if isinstance(c, Tokens):
            found.append(_as_tokens(y))
        else:
            found.append(jnp.asarray(y.array if isinstance(y, Tokens) else y, c.dtype))
    return found
