"""A function as the list of its operations: traced once, nested calls inlined, each operation with its modules.

All that differs between JAX's versions stays here and in `control_flow`: names and parameters of the primitives that
hold other jaxprs. Expressions written twice are one: what two equal operations of equal operands give is one value.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jxai.errors import InputError
from jxai.lrp.calls import ModuleCall
from jxai.lrp.engine.graph import Equation, Program, Value
from jxai.lrp.engine.marks import fixed_p, mark_p, recorded
from jxai.lrp.engine.primitives import Loop, row_of
from jxai.lrp.engine.scopes import CallKey, Scopes, Site, settle


def trace(f: Callable, primals: Sequence[Any]) -> tuple[Program, Any, list[ModuleCall]]:
    """Trace a function to its program.

    Args:
        f: function of the primals.
        primals: arrays or trees of arrays.

    Returns:
        (program with the primals' leaves as inputs, tree of the outputs' shapes and dtypes, calls of modules).
    """
    records: list[ModuleCall] = []
    # Traced anew: what jitted functions within `f` keep of other calls has no marks.
    closed, shapes = jax.make_jaxpr(recorded(f, records), return_shape=True)(*primals)
    return program_of(closed, records), shapes, records


def program_of(
    closed: ClosedJaxpr | Jaxpr, records: list[ModuleCall], within: tuple[Program, Equation] | None = None
) -> Program:
    """The program of a jaxpr.

    Args:
        closed: the jaxpr; an open one has no constants.
        records: the calls of modules met when it was traced.
        within: the program and the loop or branch that the jaxpr is inside of.

    Returns:
        The program.
    """
    closed = _closed(closed)
    inputs = [_value(var) for var in closed.jaxpr.invars]
    program = Program(inputs, [], [], {}, {})
    names = dict(zip(closed.jaxpr.invars, inputs, strict=True))
    _constants(program, names, closed.jaxpr, closed.consts)
    around: tuple[CallKey, ...] = ()
    site: Site = ()
    if within is not None:
        outer, loop = within
        around, site = loop.scopes, loop.site
        program.calls.update({k: dataclasses.replace(outer.calls[k], inputs={}, outputs={}) for k in around})
    program.outputs = _Inliner(program, records).inline(closed.jaxpr, names, around, site)
    program = program.pruned()
    made = {v: one.scopes for one in program.equations for v in one.outputs}
    used = [(v, one.scopes) for one in program.equations for v in one.inputs]
    used += [(v, around) for v in program.outputs]
    settle(program.calls, made, used, [*program.inputs, *program.constants])
    return program


class _Inliner:
    """Appends jaxprs' operations to a program."""

    def __init__(self, program: Program, records: list[ModuleCall]):
        self.program, self.scopes = program, Scopes(program.calls, records)
        self.seen: dict[Any, list[Value]] = {}

    def inline(
        self, jaxpr: Jaxpr, names: dict[Any, Value], around: tuple[CallKey, ...], called: Site
    ) -> list[Value]:
        """Append the jaxpr's operations, which stand in the calls `around`; gives the values of its outputs."""
        for position, eqn in enumerate(jaxpr.eqns):
            inside, site = self.scopes.inside(eqn.source_info.name_stack, around, called), (*called, position)
            inputs = [_read(names, atom) for atom in eqn.invars]
            if eqn.primitive is mark_p:
                outputs = inputs
                self.scopes.mark(eqn.params, inputs[0], inside, site)
            elif _pools_one(eqn):
                outputs = inputs
            elif (inner := _called(eqn)) is not None:
                inputs = inputs[len(inputs) - len(inner.jaxpr.invars) :]  # without the index of a choice
                within = dict(zip(inner.jaxpr.invars, inputs, strict=True))
                _constants(self.program, within, inner.jaxpr, inner.consts)
                outputs = self.inline(inner.jaxpr, within, inside, site)
            else:
                outputs = self._append(eqn, inputs, inside, site)
            names.update(zip(eqn.outvars, outputs, strict=True))
        return [_read(names, atom) for atom in jaxpr.outvars]

    def _append(self, eqn: Any, inputs: list[Value], scopes: tuple[CallKey, ...], site: Site) -> list[Value]:
        outputs = [_value(var) for var in eqn.outvars]
        equation = Equation(eqn.primitive, inputs, outputs, dict(eqn.params), scopes, site)
        key = _identity(equation)
        if key is not None and (known := self.seen.get(key)) is not None:
            return known
        if key is not None:
            self.seen[key] = outputs
        if eqn.primitive is fixed_p:
            self.program.fixed.update(outputs)
        self.program.equations.append(equation)
        return outputs


def _pools_one(eqn: Any) -> bool:
    """Whether an operation pools each entry by itself."""
    window = eqn.params.get("window_dimensions", ())
    same = len(eqn.invars) == 1 and eqn.invars[0].aval.shape == eqn.outvars[0].aval.shape
    return same and bool(window) and set(window) == {1}


def _identity(equation: Equation) -> Any:
    """What equal operations share, or None for those that stand for themselves: layers, loops, unknown ones."""
    row = row_of(equation.primitive, equation.params)
    if not (row.entrywise or row.moves or row.sums):
        return None
    operands = tuple(
        v if v.literal is None else (np.asarray(v.literal).tobytes(), v.dtype) for v in equation.inputs
    )
    # Where it stands belongs to it: rules are chosen by place.
    return (
        equation.name,
        operands,
        str(sorted(equation.params.items(), key=lambda item: item[0])),
        equation.scopes,
    )


def _read(names: dict[Any, Value], atom: Any) -> Value:
    if isinstance(atom, Literal):
        aval: Any = atom.aval
        return Value(aval.shape, aval.dtype, atom.val)
    return names[atom]


def _value(var: Any) -> Value:
    return Value(var.aval.shape, var.aval.dtype)


def _constants(program: Program, names: dict[Any, Value], jaxpr: Jaxpr, values: Sequence[Any]) -> None:
    for var, value in zip(jaxpr.constvars, values, strict=True):
        names[var] = _value(var)
        program.constants[names[var]] = value


def _called(eqn: Any) -> ClosedJaxpr | None:
    """The jaxpr that stands in an operation's place, or None."""
    row, params = row_of(eqn.primitive, eqn.params), eqn.params
    if row.means is not None:
        return _meant(eqn, row.means)
    # Code written for each device: the default is what it computes, the others how it is fast there.
    if row.loop is Loop.BRANCH and None in (params.get("branches_platforms") or ()):
        return _closed(params["branches"][params["branches_platforms"].index(None)])
    return _closed(params[row.inside]) if row.inside is not None else None


def _meant(eqn: Any, means: Callable) -> ClosedJaxpr:
    """What a declared primitive means, with those of its parameters that the function takes."""
    kinds = inspect.signature(means).parameters
    every = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in kinds.values())
    params = {name: value for name, value in eqn.params.items() if every or name in kinds}
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
    found = jax.make_jaxpr(lambda *operands: means(*operands, **params))(*shapes)
    given, expected = [v.aval.shape for v in found.jaxpr.outvars], [v.aval.shape for v in eqn.outvars]
    if given != expected:
        raise InputError(
            f"expected what {eqn.primitive.name} means to give arrays of its own shapes {expected}, got {given}: "
            "declare another function, see lrp.declare"
        )
    return found


def _closed(jaxpr: ClosedJaxpr | Jaxpr) -> ClosedJaxpr:
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, [])
