"""A function as the list of its operations: traced once, nested calls inlined, each operation with its modules.

All that differs between JAX's versions stays here: names and parameters of the primitives that hold other jaxprs.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive

from jxai.depthwise import conv_general_dilated, depthwise_p, grouped
from jxai.lrp.calls import ModuleCall
from jxai.lrp.interception import mark_p, recorded
from jxai.lrp.scopes import Call, CallKey, Scopes, Site, find, settle

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

# Jitted functions of this name are single linear operations of (inputs..., kernel); see `linear_operation`.
LINEAR_NAME = "jxai_linear_operation"


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

    def output(self, path: str) -> Value:
        """The value that the one call of a path gives; see `find`."""
        return next(iter(find(self.calls.values(), path).outputs.values()))


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
    graph.outputs = _Walk(graph, Scopes(graph.calls, records)).inline(jaxpr, names, (), ())
    graph = graph.pruned()
    made = {v: equation.scopes for equation in graph.equations for v in equation.outputs}
    used = [(v, equation.scopes) for equation in graph.equations for v in equation.inputs]
    settle(graph.calls, made, [*used, *((v, ()) for v in graph.outputs)], [*graph.inputs, *graph.constants])
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

    def __init__(self, graph: Graph, scopes: Scopes):
        self.graph = graph
        self.scopes = scopes

    def inline(
        self, jaxpr: Jaxpr, names: dict[Any, Value], around: tuple[CallKey, ...], called: Site
    ) -> list[Value]:
        """Append the jaxpr's operations, which stand in the calls `around`; gives the values of its outputs."""

        def read(atom: Any) -> Value:
            if isinstance(atom, Literal):
                return dataclasses.replace(_value(atom), literal=atom.val)
            return names[atom]

        for position, eqn in enumerate(jaxpr.eqns):
            inside = self.scopes.inside(eqn.source_info.name_stack, around, called)
            inputs, primitive = [read(atom) for atom in eqn.invars], eqn.primitive.name
            if eqn.primitive is mark_p:
                names[eqn.outvars[0]] = inputs[0]
                self.scopes.mark(eqn.params, inputs[0], inside, (*called, position))
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
