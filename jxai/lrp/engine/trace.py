"""A function as the list of its operations: traced once, nested calls inlined, each operation with its modules.

All that differs between JAX's versions stays here and in `control_flow`: names and parameters of the primitives that
hold other jaxprs. Expressions written twice are one: what two equal operations of equal operands give is one value.
"""

import inspect
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jxai.lrp.engine.graph import Call, CallKey, Equation, Program, Value
from jxai.lrp.engine.marks import FIXED, ModuleCall, recording
from jxai.lrp.engine.primitives import Loop, row_of

_SCOPE = re.compile(r"jxai:(\d+)")
_MARK = re.compile(r"jxai:(\d+):(in|out):(\d+)")

_trace_number = jax.make_user_context(0)
_trace_numbers = itertools.count(1)


def trace(f: Callable, primals: Sequence[Any]) -> tuple[Program, Any, list[ModuleCall]]:
    """Trace a function to its program.

    Args:
        f: function of the primals.
        primals: arrays or trees of arrays.

    Returns:
        (program with the primals' leaves as inputs, tree of the outputs' shapes and dtypes, calls of modules).
    """
    records: list[ModuleCall] = []

    def recorded(*primals):
        with recording(records):
            return f(*primals)

    # Jitted functions within `f` keep what they were traced to: the context makes JAX trace them anew.
    with _trace_number(next(_trace_numbers)):
        closed, shapes = jax.make_jaxpr(recorded, return_shape=True)(*primals)
    return program_of(closed, records), shapes, records


def program_of(closed: ClosedJaxpr | Jaxpr, records: list[ModuleCall]) -> Program:
    """The program of a jaxpr.

    Args:
        closed: the jaxpr; an open one has no constants.
        records: the calls of modules met when it was traced.

    Returns:
        The program.
    """
    jaxpr, values = (closed.jaxpr, closed.consts) if isinstance(closed, ClosedJaxpr) else (closed, [])
    inputs = [_value(var) for var in jaxpr.invars]
    program = Program(inputs, [], [], {}, {})
    names = dict(zip(jaxpr.invars, inputs, strict=True))
    _constants(program, names, jaxpr, values)
    program.outputs = _Inliner(program, records).inline(jaxpr, names, (), 0)
    program.calls = dict(sorted(program.calls.items()))
    return program.pruned()


class _Inliner:
    """Appends jaxprs' operations to a program."""

    def __init__(self, program: Program, records: list[ModuleCall]):
        self.program, self.records = program, records
        self.instances = itertools.count(1)
        self.seen: dict[Any, list[Value]] = {}

    def inline(
        self, jaxpr: Jaxpr, names: dict[Any, Value], scopes: tuple[CallKey, ...], instance: int
    ) -> list[Value]:
        """Append the jaxpr's operations; gives the values of its outputs."""
        for eqn in jaxpr.eqns:
            found = [(int(i), instance) for i in _SCOPE.findall(str(eqn.source_info.name_stack))]
            inside = tuple(dict.fromkeys((*scopes, *found)))
            for key in inside:
                self._call(key)
            inputs = [_read(names, atom) for atom in eqn.invars]
            if (marked := self._mark(eqn, inputs, instance)) is not None:
                names[eqn.outvars[0]] = marked
                continue
            if (inner := _called(eqn)) is not None:
                inputs = inputs[len(inputs) - len(inner.jaxpr.invars) :]  # without the index of a choice
                within = dict(zip(inner.jaxpr.invars, inputs, strict=True))
                _constants(self.program, within, inner.jaxpr, inner.consts)
                outputs = self.inline(inner.jaxpr, within, inside, next(self.instances))
            else:
                outputs = self._append(eqn, inputs, inside)
            names.update(zip(eqn.outvars, outputs, strict=True))
        return [_read(names, atom) for atom in jaxpr.outvars]

    def _call(self, key: CallKey) -> Call:
        return self.program.calls.setdefault(key, Call(self.records[key[0]]))

    def _mark(self, eqn: Any, inputs: list[Value], instance: int) -> Value | None:
        """The value that a mark stands for, or None where the operation is no mark."""
        name = eqn.params.get("name") if eqn.primitive.name == "name" else None
        if name == FIXED:
            value = self._append(eqn, inputs, ())[0]
            self.program.fixed.add(value)
            return value
        mark = _MARK.fullmatch(name) if isinstance(name, str) else None
        if mark is None:
            return None
        call = self._call((int(mark[1]), instance))
        (call.inputs if mark[2] == "in" else call.outputs)[int(mark[3])] = inputs[0]
        return inputs[0]

    def _append(self, eqn: Any, inputs: list[Value], scopes: tuple[CallKey, ...]) -> list[Value]:
        outputs = [_value(var) for var in eqn.outvars]
        equation = Equation(eqn.primitive, inputs, outputs, dict(eqn.params), scopes)
        key = _identity(equation)
        if key is not None and (known := self.seen.get(key)) is not None:
            return known
        if key is not None:
            self.seen[key] = outputs
        self.program.equations.append(equation)
        return outputs


def _identity(equation: Equation) -> Any:
    """What equal operations share, or None for those that stand for themselves: layers, loops, unknown ones."""
    row = row_of(equation.primitive, equation.params)
    if not (row.entrywise or row.moves or row.sums) or equation.name == "name":
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
        return Value(atom.aval.shape, atom.aval.dtype, atom.val)
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
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
        taken = params if _takes_params(row.means) else {}
        return jax.make_jaxpr(lambda *operands: row.means(*operands, **taken))(*shapes)
    # Code written for each device: the default is what it computes, the others how it is fast there.
    if row.loop is Loop.BRANCH and None in (params.get("branches_platforms") or ()):
        return _closed(params["branches"][params["branches_platforms"].index(None)])
    return _closed(params[row.inside]) if row.inside is not None else None


def _takes_params(function: Callable) -> bool:
    kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    return any(kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD) for kind in kinds)


def _closed(jaxpr: ClosedJaxpr | Jaxpr) -> ClosedJaxpr:
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, [])
