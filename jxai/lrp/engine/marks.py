"""Where a traced operation stands in the model: calls of modules leave their marks in the jaxpr.

A call of a module puts its number into the name stack of every operation inside, and identities with it around its
first argument and its results; a value that `mark` names is such a result. Nothing else about the model changes.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive
from jax.extend.source_info_util import new_name_stack
from jax.interpreters import ad, batching, mlir

from jxai.checks import as_array
from jxai.errors import InputError
from jxai.jaxprs import opened
from jxai.lrp.calls import ModuleCall, intercepted, is_module

# An identity that says: this is leaf `leaf` of what call `index` gets ("in") or gives ("out"). Under `vmap` the batch
# comes first there, wherever an operation before has put its axis, as it does in what the function returns.
mark_p = Primitive("jxai_mark")
mark_p.def_impl(lambda x, **_: x)
mark_p.def_abstract_eval(lambda x, **_: x)
mlir.register_lowering(mark_p, lambda _, x, **__: [x])
ad.primitive_jvps[mark_p] = lambda primals, tangents, **place: (mark_p.bind(*primals, **place), *tangents)
batching.primitive_batchers[mark_p] = lambda args, axes, **place: (
    mark_p.bind(jnp.moveaxis(args[0], axes[0], 0), **place),
    0,
)


def recorded(f: Callable, records: list[ModuleCall]) -> Callable:
    """A function whose calls of modules are marked, and appended to `records`.

    Args:
        f: the function.
        records: filled as modules are called; a mark's number is an index into it.

    Returns:
        A function of f's arguments.
    """

    def marking(call: ModuleCall, function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        index = len(records)
        records.append(call)
        if call.module is None:
            return _marked(args[0], index, "out")
        if is_module(call.module, "flax.nnx"):
            _refuse_training(call, function, args, kwargs)
        with jax.named_scope(f"jxai:{index}"):
            if call.method != "__call__":
                return function(*args, **kwargs)
            # The first argument alone; where a rule takes the module as a whole, others come by the flow of values.
            if args:
                args = (_marked(args[0], index, "in"), *args[1:])
            elif kwargs:
                first = next(iter(kwargs))
                kwargs = kwargs | {first: _marked(kwargs[first], index, "in")}
            return _marked(function(*args, **kwargs), index, "out")

    return intercepted(f, marking)


def _marked(tree: Any, index: int, side: str) -> Any:
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda node: is_module(node, "flax.nnx"))
    if not any(isinstance(leaf, Tracer) for leaf in leaves):
        return tree
    return structure.unflatten(
        [
            mark_p.bind(leaf, index=index, side=side, leaf=k) if isinstance(leaf, Tracer) else leaf
            for k, leaf in enumerate(leaves)
        ]
    )


def _refuse_training(call: ModuleCall, function: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
    """Refuse NNX modules that draw at random, or take and keep the statistics of the batch."""
    module = call.module
    flags = {"use_running_average": True, "deterministic": _rate(module) > 0}
    flags = {name for name, matters in flags.items() if matters and hasattr(module, name)}
    if not flags or call.method != "__call__":
        return
    given = inspect.signature(function).bind(*args, **kwargs).arguments
    for name in flags:
        value = given.get(name)
        if (getattr(module, name) if value is None else value) is False:
            raise InputError(
                f"expected an NNX model that is evaluated, got {type(module).__name__} at {call.path!r} in training "
                f"mode ({name} is False): call model.eval() first"
            )


def _rate(module: Any) -> float:
    rates = (getattr(module, name, 0) for name in ("rate", "dropout_rate"))
    return max((rate for rate in rates if isinstance(rate, int | float)), default=0)


# An identity that says: these are no weights.
fixed_p = Primitive("jxai_fixed")
fixed_p.def_impl(lambda x: x)
fixed_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(fixed_p, lambda _, x: [x])
ad.deflinear2(fixed_p, lambda ct, _: [ct])
batching.primitive_batchers[fixed_p] = lambda args, axes: (fixed_p.bind(*args), axes[0])


def fixed(x: jax.Array) -> jax.Array:
    """x, said to be no weights: a contraction with it is a fixed map of the input and no layer.

    A layer's kernel is what depends on an array that the function closes over, or on an outer argument; what constant
    expressions give (resizing, one-hot masks, Fourier bases written out in the function) is none. This is for fixed
    matrices that were made outside: an adjacency, a filter bank, a basis.

    Example:
        >>> import jax.numpy as jnp
        >>> from jxai import lrp
        >>> adjacency = jnp.array([[0.5, 0.5], [0.0, 1.0]])
        >>> f = lambda nodes: lrp.fixed(adjacency) @ nodes
        >>> print(lrp.coverage(f, jnp.ones((2, 3)), composite=lrp.EpsilonPlus()).rows[0].operation.kind)
        Kind.FIXED

    Args:
        x: an array.

    Returns:
        The same.
    """
    return fixed_p.bind(as_array(x))


def without_marks(params: Any) -> Any:
    """An equation's parameters, their jaxprs without the marks and numbers of calls: for another trace to meet.

    Args:
        params: a dictionary or tuple of parameters, or one of them.

    Returns:
        The same, of the same object where no jaxpr has marks: what JAX has compiled for it is found again.
    """
    if type(params) is dict:
        changed = {name: without_marks(one) for name, one in params.items()}
        return changed if any(changed[name] is not one for name, one in params.items()) else params
    if type(params) is tuple:
        parts = tuple(map(without_marks, params))
        return parts if any(a is not b for a, b in zip(parts, params, strict=True)) else params
    if not isinstance(params, Jaxpr | ClosedJaxpr):
        return params
    jaxpr, _ = opened(params)
    same: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom if isinstance(atom, Literal) else same.get(atom, atom)

    equations = []
    for eqn in jaxpr.eqns:
        if eqn.primitive is mark_p:
            same[eqn.outvars[0]] = read(eqn.invars[0])
            continue
        inputs, inner, info = [read(atom) for atom in eqn.invars], without_marks(eqn.params), eqn.source_info
        if "jxai:" in str(info.name_stack):
            info = info.replace(name_stack=new_name_stack())
        if inner is not eqn.params or info is not eqn.source_info or inputs != list(eqn.invars):
            eqn = eqn.replace(invars=inputs, params=inner, source_info=info)
        equations.append(eqn)
    if all(a is b for a, b in zip(equations, jaxpr.eqns, strict=False)) and not same:
        return params
    bare = jaxpr.replace(eqns=equations, outvars=[read(atom) for atom in jaxpr.outvars])
    return bare if jaxpr is params else params.replace(jaxpr=bare)
