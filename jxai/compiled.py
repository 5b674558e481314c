"""Functions run by programs that are compiled once, however often a new closure comes with them.

Outside of `jax.jit` a loop of JAX (`lax.scan`, `lax.map`, `lax.while_loop`) whose body is a closure made anew is
compiled anew in every call, and JAX keeps each of these programs. A jitted closure kept instead would keep the arrays
that it closes over: an explanation of yesterday's weights, without a word. So a function is traced in each call,
which is cheap and sees what it closes over now, and programs are kept by what was traced: operations, shapes, dtypes,
numbers written in the code. Arrays, closed over or given, are a program's arguments.
"""

import collections
import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend import core

from jxai.jaxprs import CALLS, opened, scan_operands

Result = TypeVar("Result")

# How many programs stay: more than the functions that somebody compares, less than is felt in memory.
_MOST = 64

_programs: collections.OrderedDict[Hashable, Callable] = collections.OrderedDict()
_lock = threading.Lock()


class Compiled:
    """What runs programs of its own: outside of a trace one calls it, instead of compiling it."""

    __call__: Callable[..., Any]


def run_compiled(function: Callable[..., Result], *arguments: Any) -> Result:
    """The function's result, by a program that all functions share which trace to the same operations.

    What the function closes over is looked at in every call: other weights are other arguments of the same program.
    Within a caller's `jit`, `vmap` or `grad`, and under `jax.disable_jit`, the function is called as it is. Nothing
    is shared by functions with a callback made anew (`jax.pure_callback` of a lambda).

    Args:
        function: of arrays to a tree of arrays; traceable, as under `jax.jit`. It is traced once a call.
        *arguments: trees of arrays. To close over them does as well.

    Returns:
        The tree of arrays.
    """
    return prepared(function, *arguments)(*arguments)


def prepared(function: Callable[..., Result], *arguments: Any) -> Callable[..., Result]:
    """The function as `run_compiled` runs it, traced once: for a loop in which it changes by its arguments alone.

    Args:
        function: as in `run_compiled`; what it closes over is looked at now.
        *arguments: trees of arrays with the shapes and dtypes of those that will come.

    Returns:
        Of such trees to the function's tree of arrays.
    """
    if jax.config.jax_disable_jit or is_traced():  # type: ignore[attr-defined]
        return function
    # A function of its own: JAX keeps what a function traced to by its identity, with the arrays it closed over then.
    closed, shapes = jax.make_jaxpr(lambda *given: function(*given), return_shape=True)(*arguments)
    holders = []
    key = _describe(closed, holders)
    constants = [_held(holder) for holder in holders]
    if key is None or any(isinstance(x, Tracer) for x in jax.tree.leaves((arguments, constants))):
        return function
    structure = jax.tree.structure(shapes)

    def run(*given: Any) -> Result:
        results = _program(key)((closed, holders), constants, jax.tree.leaves(given))
        return jax.tree.unflatten(structure, results)

    return run


def _outside() -> Any:
    """The state in which nothing is traced: a new thread's, whoever imports this."""
    found = []
    thread = threading.Thread(target=lambda: found.append(core.get_opaque_trace_state()))
    thread.start()
    thread.join()
    return found[0]


_OUTSIDE = _outside()


def is_traced() -> bool:
    """Whether some transformation of JAX is calling."""
    return core.get_opaque_trace_state() != _OUTSIDE


def _program(key: Hashable) -> Callable:
    """The program of a description, of (what was traced, constants, arguments); compiled when it is first called."""
    with _lock:
        program = _programs.pop(key, None)
        _programs[key] = program = _new_program() if program is None else program
        while len(_programs) > _MOST:
            _programs.popitem(last=False)
    return program


def _new_program() -> Callable:
    # What was traced is seen while JAX traces the program, and not kept: it holds arrays. One a thread.
    seen = threading.local()

    @jax.jit
    def run(constants: list[list[Any]], leaves: list[Any]) -> list[Any]:
        closed, holders = seen.traced
        given = {id(holder): values for holder, values in zip(holders, constants, strict=True)}
        return _evaluate(closed, leaves, given)

    def program(traced: tuple, constants: list[list[Any]], leaves: list[Any]) -> list[Any]:
        before, seen.traced = getattr(seen, "traced", None), traced
        try:
            return run(constants, leaves)
        finally:
            seen.traced = before

    return program


# Constants. A jaxpr holds arrays in two places: a ClosedJaxpr's `consts`, a Literal's `val`.


def _held(holder: Any) -> list[Any]:
    return [holder.val] if isinstance(holder, core.Literal) else list(holder.consts)


def _is_array(atom: Any) -> bool:
    """Whether an operand is an array written into the program, and no number."""
    return isinstance(atom, core.Literal) and np.ndim(atom.val) > 0


_LOOPS = ("scan", "while", "cond")


class _Unknown(Exception):
    """What a program's description cannot hold."""


def _describe(closed: core.ClosedJaxpr, holders: list[Any]) -> Hashable | None:
    """What two functions that may share a program have in common, or None; the holders of constants are appended."""
    parts: list[Hashable] = []
    numbers: dict[Any, int] = {}
    contexts: dict[int, str] = {}
    closed_to_us: list[core.JaxprEqn] = []

    def number(jaxpr: Any) -> int:
        """The place of a jaxpr's description in `parts`."""
        if id(jaxpr) not in numbers:
            inner, constants = opened(jaxpr)
            described = of_jaxpr(inner)
            if constants:
                holders.append(jaxpr)
            part: Hashable = (described, len(holders) if constants else None)
            numbers[id(jaxpr)] = len(parts)
            parts.append(part)
        return numbers[id(jaxpr)]

    def of_jaxpr(jaxpr: core.Jaxpr) -> Hashable:
        names: dict[Any, int] = {}
        inputs = [*jaxpr.constvars, *jaxpr.invars]
        for variable in inputs:
            names[variable] = len(names)

        def operand(atom: Any) -> Hashable:
            if not isinstance(atom, core.Literal):
                return names[atom]
            if not _is_array(atom):
                return atom.aval, np.asarray(atom.val).tobytes()
            holders.append(atom)
            return atom.aval, len(holders)

        equations = []
        for equation in jaxpr.eqns:
            operands = tuple(map(operand, equation.invars))
            params = of_params(equation)
            if equation.primitive.name not in (*CALLS, *_LOOPS):
                closed_to_us.append(equation)
            context = contexts.setdefault(id(equation.ctx), repr(equation.ctx))
            equations.append((equation.primitive, operands, params, context, len(equation.outvars)))
            for variable in equation.outvars:
                names[variable] = len(names)
        return (
            tuple(variable.aval for variable in inputs),
            tuple(equations),
            tuple(map(operand, jaxpr.outvars)),
        )

    def of_params(equation: core.JaxprEqn) -> Hashable:
        params = equation.params
        if equation.primitive.name.startswith("custom_") and equation.primitive.name in CALLS:
            return number(params[CALLS[equation.primitive.name]])
        # A reduction holds its function beside what it traced to.
        skipped = {"computation"} if "jaxpr" in params else set()
        return tuple((name, of_param(params[name])) for name in sorted(params) if name not in skipped)

    def of_param(value: Any) -> Hashable:
        match value:
            case core.ClosedJaxpr() | core.Jaxpr():
                return number(value)
            case tuple() | list():
                return type(value), tuple(map(of_param, value))
            case dict():
                return tuple((name, of_param(value[name])) for name in sorted(value))
            case float():  # 0.0 and -0.0 are equal
                return type(value), value.hex()
            case np.ndarray() | np.generic():
                return type(value), value.dtype, value.shape, value.tobytes()
            case Hashable():
                return type(value), value
        raise _Unknown

    try:
        number(closed)
        hash(key := tuple(parts))
    except (_Unknown, TypeError):  # also of what says that it can be hashed, and cannot
        return None
    given = {id(holder): [] for holder in holders}
    return None if any(_holds(equation, given) for equation in closed_to_us) else key


def _evaluate(closed: Any, arguments: list[Any], given: dict[int, list[Any]]) -> list[Any]:
    """The results of a closed jaxpr, or of a plain one, with the constants given in the place of its own."""
    jaxpr, own = opened(closed)
    values = dict(zip(jaxpr.constvars, given.get(id(closed), own), strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        if not isinstance(atom, core.Literal):
            return values[atom]
        return given[id(atom)][0] if id(atom) in given else atom.val

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        with equation.ctx.manager:
            if _holds(equation, given):
                results = _evaluate_inside(equation, operands, given)
            else:
                parameters = equation.primitive.get_bind_params(equation.params)
                results = equation.primitive.bind(*operands, **parameters)
                results = results if equation.primitive.multiple_results else [results]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _holds(equation: core.JaxprEqn, given: dict[int, list[Any]]) -> bool:
    """Whether one of the constants given lies inside of an equation."""

    def within(value: Any) -> bool:
        if isinstance(value, tuple | list):
            return any(map(within, value))
        if not isinstance(value, core.ClosedJaxpr | core.Jaxpr):
            return False
        atoms = [*value.eqns, *getattr(value, "jaxpr", value).outvars]
        return id(value) in given or any(
            within(list(inner.params.values())) or any(id(atom) in given for atom in inner.invars)
            for inner in atoms
            if isinstance(inner, core.JaxprEqn)
        )

    return within(list(equation.params.values()))


def _evaluate_inside(equation: core.JaxprEqn, operands: list[Any], given: dict[int, list[Any]]) -> list[Any]:
    """The results of an equation that calls others, with the constants given in the place of theirs."""
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        return _evaluate(params[CALLS[name]], operands, given)
    if name == "cond":
        index, *operands = operands
        branches = [
            lambda *xs, branch=branch: _evaluate(branch, [*xs], given) for branch in params["branches"]
        ]
        return lax.switch(index, branches, *operands)
    if name == "while":
        first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        return lax.while_loop(
            lambda carry: _evaluate(params["cond_jaxpr"], [*operands[:first], *carry], given)[0],
            lambda carry: _evaluate(params["body_jaxpr"], [*operands[first:second], *carry], given),
            operands[second:],
        )
    start, count = scan_operands(params)

    def body(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        results = _evaluate(params["jaxpr"], [*operands[:start], *carry, *xs], given)
        return results[:count], results[count:]

    carry, results = lax.scan(
        body,
        operands[start : start + count],
        operands[start + count :],
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *results]
