"""A function as the list of its operations: traced once, nested calls inlined, each operation with its modules.

All that differs between JAX's versions stays here: names and parameters of the primitives that hold other jaxprs.
"""

import dataclasses
import difflib
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive
from jax.extend.source_info_util import new_name_stack

from jxai.depthwise import conv_general_dilated, depthwise_p, grouped
from jxai.lrp.calls import ModuleCall, normal
from jxai.lrp.interception import mark_p, recorded

# Calls that are looked into: primitive -> the parameter that holds what is called. A custom derivative rule gives way
# to the rules of the operations inside.
_INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
_SCOPE = re.compile(r"jxai:(\d+)")
_Scope = type(new_name_stack("one").stack[0])  # `jax.named_scope`'s entry; transformations have others

# So many paths an error lists.
_LISTED = 20

# Jitted functions of this name are single linear operations of (inputs..., kernel); see `linear_operation`.
LINEAR_NAME = "jxai_linear_operation"

# Where an operation stands in a jaxpr and those that it calls: its number in the last, behind those of the calls.
Site = tuple[int, ...]
# One call in the traced function: the index of its record, and the site of the call of the jaxpr that it is in.
CallKey = tuple[int, Site]


@dataclasses.dataclass(eq=False)
class Value:
    """An array of the traced function.

    Attributes:
        shape: its shape.
        dtype: its dtype.
        literal: the number it is, where it is written into the program.
    """

    shape: tuple[int, ...]
    dtype: Any
    literal: Any = None


@dataclasses.dataclass(eq=False)
class Equation:
    """One operation of the traced function.

    Attributes:
        primitive: of JAX; None for a module that its rule takes as a whole.
        inputs: operands.
        outputs: results.
        params: the primitive's parameters.
        scopes: the calls of modules around it, outermost first.
        body: the operations of a module taken as a whole.
    """

    primitive: Primitive | None
    inputs: list[Value]
    outputs: list[Value]
    params: dict[str, Any]
    scopes: tuple[CallKey, ...] = ()
    body: "tuple[Equation, ...]" = ()

    @property
    def name(self) -> str:
        """The primitive's name."""
        return "module" if self.primitive is None else self.primitive.name


@dataclasses.dataclass(eq=False)
class Call:
    """A module's call, a name scope or a mark, with the values that it got and gave.

    Attributes:
        record: the module (None of a scope or mark) and its path, as it is here: where a jitted function is traced
            once and called by several modules, the path of each.
        outer: the calls around it, outermost first.
        inputs: leaves of a module's first argument, by number.
        outputs: leaves of its results, by number; of a scope, what is used outside of it.
        site: where a module's or mark's result is marked.
        number: which of the graph's calls of this path it is, where there are several.
    """

    record: ModuleCall
    outer: tuple[CallKey, ...] = ()
    inputs: dict[int, Value] = dataclasses.field(default_factory=dict)
    outputs: dict[int, Value] = dataclasses.field(default_factory=dict)
    site: Site | None = None
    number: int | None = None

    @property
    def path(self) -> str:
        """The record's path, with the number where there are several calls: "conv#1"."""
        return self.record.path + ("" if self.number is None else f"#{self.number}")


@dataclasses.dataclass(eq=False)
class Graph:
    """The operations of a function in order.

    Attributes:
        inputs: the function's arguments.
        outputs: its results.
        equations: its operations.
        constants: arrays that the function closes over.
        calls: of modules, name scopes and marks, in order, outermost first.
        auxiliary: values that are wanted as well, but not explained.
    """

    inputs: list[Value]
    outputs: list[Value]
    equations: list[Equation]
    constants: dict[Value, Any]
    calls: dict[CallKey, Call]
    auxiliary: list[Value] = dataclasses.field(default_factory=list)

    def pruned(self) -> "Graph":
        """The graph without the operations that no output needs."""
        needed, kept = {*self.outputs, *self.auxiliary}, []
        for equation in reversed(self.equations):
            if needed.intersection(equation.outputs):
                kept.append(equation)
                needed.update(equation.inputs)
        return dataclasses.replace(self, equations=kept[::-1])

    def call(self, path: str) -> Call:
        """The one call of this path that gives one array.

        Args:
            path: of a module, name scope or mark; "conv#1" for one call of several.

        Returns:
            The call.

        Raises:
            ValueError: there is none, or there are several, or it gives several arrays.
        """
        known = {call.path: call for call in self.calls.values() if call.outputs}
        found = [call for call in known.values() if normal(path) in (call.path, call.record.path)]
        if len(found) == 1 == len(found[0].outputs):
            return found[0]
        what = f"{len(found)} calls" if found else "no call"
        if len(found) == 1:
            what = f"{len(found[0].outputs)} arrays (`lrp.mark` names one)"
        names = [call.path for call in found] if len(found) > 1 else list(known)
        # The most similar, where there are many.
        listed = sorted(difflib.get_close_matches(path, names, _LISTED, 0.0))
        others = f" or {len(names) - len(listed)} others" if len(names) > len(listed) else ""
        raise ValueError(
            "expected the path of a module, name scope or mark that is called once (outside of loops) and gives one "
            f"array, got '{path}' with {what}: take one of "
            + (", ".join(listed) + others or "no path; the function calls no module that is known")
        )

    def output(self, path: str) -> Value:
        """The value that the call of this path gives; see `call`."""
        return next(iter(self.call(path).outputs.values()))


def trace(f: Callable, primals: Sequence[Any]) -> tuple[Graph, Any, list[ModuleCall]]:
    """Trace a function to its graph.

    Args:
        f: function of the primals.
        primals: arrays or trees of arrays.

    Returns:
        (graph with the primals' leaves as inputs, tree of the outputs' shapes and dtypes, calls of modules).
    """
    records: list[ModuleCall] = []
    closed, shapes = jax.make_jaxpr(recorded(f, records), return_shape=True)(*primals)
    return graph_of(closed, records), shapes, records


def graph_of(closed: ClosedJaxpr | Jaxpr, records: list[ModuleCall]) -> Graph:
    """The graph of a jaxpr.

    Args:
        closed: the jaxpr; an open one has no constants.
        records: the calls of modules met when it was traced.

    Returns:
        The graph.
    """
    jaxpr, values = (closed.jaxpr, closed.consts) if isinstance(closed, ClosedJaxpr) else (closed, [])
    inputs = [_value(var) for var in jaxpr.invars]
    graph = Graph(inputs, [], [], {}, {})
    names = dict(zip(jaxpr.invars, inputs, strict=True))
    _constants(graph, names, jaxpr, values)
    graph.outputs = _Walk(graph, records).inline(jaxpr, names, (), ())
    graph = graph.pruned()
    _scope_outputs(graph)
    _number(graph)
    return graph


def scan_operands(equation: Equation) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many are carried.

    Args:
        equation: the scan.

    Returns:
        Both counts; what follows is scanned over.
    """
    params = equation.params
    if "ft_in" in params:  # since jax 0.11, a tree of the three
        constants, carried, _ = (len(list(part.vals)) for part in params["ft_in"].unpack())
        return constants, carried
    return params["num_consts"], params["num_carry"]


def evaluate(equation: Equation, arguments: Sequence[Any]) -> list[Any]:
    """Run one operation as it stands; operands wider than traced (float32 for bfloat16) give wider results.

    Args:
        equation: the operation.
        arguments: arrays in place of its inputs.

    Returns:
        Its results.
    """
    if equation.primitive is None:
        return evaluate_all(equation.body, equation.inputs, arguments, equation.outputs)
    params = equation.params
    if any(jnp.result_type(a) != v.dtype for a, v in zip(arguments, equation.inputs, strict=True)):
        if any(isinstance(p, ClosedJaxpr | Jaxpr) for p in _flat(params.values())):
            arguments = [jnp.asarray(a, v.dtype) for a, v in zip(arguments, equation.inputs, strict=True)]
        else:
            arguments = [widen(a) for a in arguments]
            params = {k: _wide_dtype(p) if k in _DTYPE_PARAMS else p for k, p in params.items()}
    elif equation.name == "convert_element_type" and jnp.issubdtype(equation.inputs[0].dtype, jnp.floating):
        params = {**params, "new_dtype": _wide_dtype(params["new_dtype"])}
    if equation.name == "conv_general_dilated":
        return [conv_general_dilated(*arguments, **params)]  # as it is, or its fast form
    return _bind(equation.primitive, arguments, params)


def bind(eqn: Any, arguments: Sequence[Any]) -> list[Any]:
    """Run one operation of a jaxpr as it stands.

    Args:
        eqn: the operation, as JAX has it.
        arguments: arrays in place of its inputs.

    Returns:
        Its results.
    """
    return _bind(eqn.primitive, arguments, eqn.params)


def _bind(primitive: Primitive, arguments: Sequence[Any], params: dict[str, Any]) -> list[Any]:
    results = primitive.bind(*arguments, **primitive.get_bind_params(params))
    return list(results) if primitive.multiple_results else [results]


def evaluate_all(
    equations: Iterable[Equation],
    inputs: Sequence[Value],
    arguments: Sequence[Any],
    outputs: Sequence[Value],
) -> list[Any]:
    """Run several operations in order; for the arguments see `evaluate`."""
    known = dict(zip(inputs, arguments, strict=True))
    for equation in equations:
        given = [known[v] if v.literal is None else v.literal for v in equation.inputs]
        known.update(zip(equation.outputs, evaluate(equation, given), strict=True))
    return [known[value] for value in outputs]


def widen(x: Any) -> Any:
    """x in float32 where it is of fewer bits; other dtypes stay."""
    return jnp.asarray(x, _wide_dtype(jnp.result_type(x)))


_DTYPE_PARAMS = ("new_dtype", "preferred_element_type", "dtype")


def _wide_dtype(dtype: Any) -> Any:
    return jnp.float32 if dtype is not None and dtype in (jnp.bfloat16, jnp.float16) else dtype


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        yield from value if isinstance(value, tuple | list) else (value,)


def _value(var: Any) -> Value:
    return Value(var.aval.shape, var.aval.dtype)


def _constants(graph: Graph, names: dict[Any, Value], jaxpr: Jaxpr, values: Sequence[Any]) -> None:
    for var, value in zip(jaxpr.constvars, values, strict=True):
        names[var] = _value(var)
        graph.constants[names[var]] = value


def _called(eqn: Any) -> Any:
    """The jaxpr that stands in an operation's place, or None."""
    name, params = eqn.primitive.name, eqn.params
    if eqn.primitive is depthwise_p:
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
        return jax.make_jaxpr(functools.partial(grouped, **params))(*shapes)
    # Code written for each device: the default is what it computes, the others how it is fast there.
    if name == "cond" and None in (params.get("branches_platforms") or ()):
        return params["branches"][params["branches_platforms"].index(None)]
    return params[_INLINED[name]] if name in _INLINED and params.get("name") != LINEAR_NAME else None


class _Walk:
    """The walk over a jaxpr and those that it calls, which appends their operations to a graph."""

    def __init__(self, graph: Graph, records: list[ModuleCall]):
        self.graph = graph
        self.records = records
        self.last: tuple[CallKey, ...] = ()  # the calls around the operation before

    def inline(
        self, jaxpr: Jaxpr, names: dict[Any, Value], around: tuple[CallKey, ...], called: Site
    ) -> list[Value]:
        """Append the jaxpr's operations, which stand in the calls `around`; gives the values of its outputs."""

        def read(atom: Any) -> Value:
            if isinstance(atom, Literal):
                return dataclasses.replace(_value(atom), literal=atom.val)
            return names[atom]

        for position, eqn in enumerate(jaxpr.eqns):
            inside = self.last = self.inside(eqn.source_info.name_stack.stack, around, called)
            inputs, primitive = [read(atom) for atom in eqn.invars], eqn.primitive.name
            if eqn.primitive is mark_p:
                names[eqn.outvars[0]] = inputs[0]
                call = self.call((eqn.params["index"], called), inside)
                (call.inputs if eqn.params["side"] == "in" else call.outputs)[eqn.params["leaf"]] = inputs[0]
                call.site = (*called, position)
                continue
            if (inner := _called(eqn)) is not None:
                inputs = inputs[1:] if primitive == "cond" else inputs
                inner, values = (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, [])
                within = dict(zip(inner.invars, inputs, strict=True))
                _constants(self.graph, within, inner, values)
                outputs = self.inline(inner, within, inside, (*called, position))
                names.update(zip(eqn.outvars, outputs, strict=True))
                continue
            outputs = [_value(var) for var in eqn.outvars]
            names.update(zip(eqn.outvars, outputs, strict=True))
            self.graph.equations.append(Equation(eqn.primitive, inputs, outputs, dict(eqn.params), inside))
        return [read(atom) for atom in jaxpr.outvars]

    def inside(self, stack: Any, around: tuple[CallKey, ...], called: Site) -> tuple[CallKey, ...]:
        """The calls around an operation, by the name stack of its own jaxpr."""
        found = around
        entries = [entry.name for entry in stack if isinstance(entry, _Scope)]
        for name, after in itertools.pairwise([*entries, ""]):
            if match := _SCOPE.fullmatch(name):
                key = (int(match[1]), called)
                self.call(key, found)
            elif not self.of_library(name, found, after):
                key = self.scope(name, found)
            else:
                continue
            found = found if key in found else (*found, key)
        return found

    def call(self, key: CallKey, around: tuple[CallKey, ...]) -> Call:
        """The call of a module or mark."""
        if key not in self.graph.calls:
            record, outer = self.records[key[0]], tuple(one for one in around if one != key)
            modules = [one for one in outer if self.graph.calls[one].record.module is not None]
            parent = record.parent
            if modules and parent is not None and self.records[modules[-1][0]] is not parent:
                base, below = self.graph.calls[modules[-1]].record.path, record.path.removeprefix(parent.path)
                if record.path.startswith(parent.path):
                    record = dataclasses.replace(record, path=f"{base}/{below.strip('/')}".strip("/"))
            self.graph.calls[key] = Call(record, outer)
        return self.graph.calls[key]

    def scope(self, name: str, around: tuple[CallKey, ...]) -> CallKey:
        """The key of a name scope: the same as of the operation before, if that stands in it too."""
        outer = self.graph.calls[around[-1]].record.path if around else ""
        path, depth = f"{outer}/{name}" if outer else name, len(around)
        if len(self.last) > depth and self.last[:depth] == around:
            before = self.graph.calls[self.last[depth]].record
            if (before.method, before.path) == ("scope", path):
                return self.last[depth]
        self.records.append(ModuleCall(None, path, "scope"))
        key = (len(self.records) - 1, ())
        self.graph.calls[key] = Call(self.records[-1], around)
        return key

    def of_library(self, name: str, around: tuple[CallKey, ...], after: str) -> bool:
        """Whether a name scope is one that a library opens by itself: around or in a module's call, or for einsum."""
        if "->" in name or "," in name:
            return True
        near = [int(match[1])] if (match := _SCOPE.fullmatch(after)) else []
        near += [around[-1][0]] if around else []
        records = [record for i in near if (record := self.records[i]).module is not None]
        return any(name in _own_names(record) or name.startswith("eqx.nn.") for record in records)


def _own_names(record: ModuleCall) -> set[str]:
    """What a library calls the scope of a module's method."""
    module, method = record.module, record.method
    known = (record.path.rpartition("/")[2], getattr(module, "name", None), type(module).__name__)
    names = {name for name in known if isinstance(name, str)}
    return names | {method} | {f"{name}.{method}" for name in names}


def _scope_outputs(graph: Graph) -> None:
    """What a name scope gives: its values that are used outside of it."""
    scopes = {key for key, call in graph.calls.items() if call.record.method == "scope"}
    if not scopes:
        return
    made = {v: (one, [k for k in one.scopes if k in scopes]) for one in graph.equations for v in one.outputs}
    used = [(v, one.scopes) for one in graph.equations for v in one.inputs]
    for value, around in [*used, *((v, ()) for v in graph.outputs)]:
        for key in made[value][1] if value in made else ():
            outputs = graph.calls[key].outputs
            if key not in around and value not in outputs.values():
                outputs[len(outputs)] = value


def _number(graph: Graph) -> None:
    """Number the calls of one path whose results are of use; refuse a mark that is given twice."""
    calls: dict[str, list[Call]] = {}
    used = {*graph.inputs, *graph.constants, *(v for one in graph.equations for v in one.outputs)}
    for call in graph.calls.values():
        if used.isdisjoint(call.outputs.values()):
            call.outputs.clear()  # such as of a module's `init`
        else:
            calls.setdefault(call.record.path, []).append(call)
    for path, alike in calls.items():
        marks = [call.outer for call in alike if (call.record.module, call.record.method) == (None, "mark")]
        if len(set(marks)) < len(marks):
            raise ValueError(
                f"expected one value with the mark '{path}', got {len(marks)}: give each a name of its own"
            )
        for number, call in enumerate(alike if len(alike) > 1 else ()):
            call.number = number


def linear_operation(
    function: Callable[[Any, jax.Array], jax.Array],
) -> Callable[[Any, jax.Array], jax.Array]:
    """Have the walk take a function as one linear layer, however it computes.

    For example a convolution by Fourier or Winograd transforms, whose inner products mean nothing to a rule.

    Args:
        function: of (inputs, kernel) to one array, linear in the inputs (an array or a tree of arrays) for a given
            kernel, and in the kernel (one array) for given inputs.

    Returns:
        The function, jitted, which rules meet as `Kind.CONVOLUTION`.
    """

    @functools.wraps(function)
    def named(inputs, kernel):
        return function(inputs, kernel)

    named.__name__ = named.__qualname__ = LINEAR_NAME
    return jax.jit(named)
