"""Calls of modules, whichever library's: who is called, where it stands, and a hook around the call.

A path is made of the names by which a module's owner knows it, from the outermost module that is called, whose path
is "": "encoder/layers/0". Haiku's modules have the names of their parameters, without "~".

Linen and Haiku hand calls to interceptors. The classes of NNX, Equinox and Keras are wrapped while some thread's
calls are intercepted, and as they were afterwards; in other threads a wrapper passes calls on. None of these
libraries is imported here: a program that uses one has done so.
"""

import contextlib
import dataclasses
import functools
import inspect
import itertools
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jxai.checks import as_array, shown
from jxai.errors import InputError, InputTypeError


@dataclasses.dataclass(frozen=True, eq=False)
class ModuleCall:
    """One call of a module, one value that `mark` names, or one name scope that is entered.

    Attributes:
        module: the module; None for values and scopes.
        path: where it stands in the model, such as "encoder/block3/conv1".
        method: the method that is called; "mark" for a value, "scope" for a scope.
        parent: the call of a module that it is made in.
    """

    module: Any
    path: str
    method: str = "__call__"
    parent: "ModuleCall | None" = None


# Of (the call, the function, its arguments by position and by name) to the call's result.
Hook = Callable[[ModuleCall, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@dataclasses.dataclass(frozen=True)
class _Library:
    """How one library's modules are found.

    Attributes:
        name: of what is imported where it is used.
        base: the class of all its modules.
        path: for modules that know their names: of one, the call that its call is made in, and `_Calls.running`.
        inside: of the library and a module to pairs of a name and a module in it, for those that do not.
        wrapped: of the library to the classes that are wrapped; None where it has interceptors.
    """

    name: str
    base: str
    path: Callable[[Any, ModuleCall | None, Callable[[], list[Any]]], str] | None = None
    inside: Callable[[Any, Any], Iterator[tuple[str, Any]]] = lambda library, module: iter(())
    wrapped: Callable[[Any], Iterator[type]] | None = None


def _subclasses(kind: type) -> Iterator[type]:
    for one in type.__subclasses__(kind):
        yield one
        yield from _subclasses(one)


def _inside_nnx(nnx: Any, module: Any) -> Iterator[tuple[str, Any]]:
    for path, one in nnx.iter_modules(module):
        yield "/".join(map(str, path)), one


def _inside_equinox(equinox: Any, module: Any) -> Iterator[tuple[str, Any]]:
    def is_module(node: Any) -> bool:
        return isinstance(node, equinox.Module) and node is not module

    for path, one in (
        jax.tree_util.tree_flatten_with_path(module, is_module)[0] if _of_model(type(module)) else ()
    ):
        if is_module(one):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            yield name, one
            yield from ((f"{name}/{below}", inner) for below, inner in _inside_equinox(equinox, one))


def _of_model(kind: type) -> bool:
    """Whether a class is no transformation of Equinox, such as filter_jit, which are modules too."""
    return not kind.__module__.startswith(("equinox._", "equinox.internal", "equinox.debug"))


def _path_in_keras(layer: Any, outer: ModuleCall | None, running: Callable[[], list[Any]]) -> str:
    # `stateless_call` of a model is no call of it.
    within = outer is not None or any(is_module(one, "keras") and one is not layer for one in running())
    return _below(outer, layer.name) if within else ""


_LIBRARIES = (
    _Library("flax.linen", "Module", path=lambda module, *_: "/".join(module.path)),
    _Library("haiku", "Module", path=lambda module, *_: normal(module.module_name)),
    _Library("flax.nnx", "Module", inside=_inside_nnx, wrapped=lambda nnx: _subclasses(nnx.Module)),
    _Library(
        "equinox",
        "Module",
        inside=_inside_equinox,
        wrapped=lambda equinox: filter(_of_model, _subclasses(equinox.Module)),
    ),
    # Below `Layer.__call__`, which gives masks to what it returns.
    _Library(
        "keras",
        "Layer",
        path=_path_in_keras,
        wrapped=lambda keras: iter((keras.Operation,)),
    ),
)
_local = threading.local()
_trace_number = jax.make_user_context(0)
_trace_numbers = itertools.count(1)


def is_module_class(kind: type) -> bool:
    """Whether objects of a class are called as modules of a library."""
    return any(issubclass(kind, base) for _, _, base in _imported())


def is_module(value: Any, library: str) -> bool:
    """Whether a value is a module of a library, such as "flax.nnx"."""
    return any(one.name == library and isinstance(value, base) for one, _, base in _imported())


def normal(path: str) -> str:
    """A path as it is written here, of one with Haiku's "~"."""
    return path.replace("~/", "")


def intercepted(f: Callable, hook: Hook) -> Callable:
    """A function whose calls of modules, in the thread that runs it, go through a hook.

    Where such a function calls another, the other's hook alone is called within.

    Args:
        f: the function.
        hook: of (call, function, args, kwargs); what it returns takes the place of function(*args, **kwargs).

    Returns:
        A function of f's arguments.
    """

    def running(*args, **kwargs):
        outer, own = getattr(_local, "calls", None), _Calls(hook, running.__code__)

        def interceptor(next_fun, args, kwargs, context):
            if _local.calls is not own or context.method_name in ("setup", "__init__"):
                return next_fun(*args, **kwargs)
            return own(context.module, context.method_name, context.orig_method, next_fun, args, kwargs)

        with contextlib.ExitStack() as stack:
            for one, library, _ in _imported():
                if one.wrapped is None:
                    stack.enter_context(library.intercept_methods(interceptor))
            stack.enter_context(_wrapped())
            # Jitted functions keep what they were traced to: the context makes JAX trace them anew.
            stack.enter_context(_trace_number(next(_trace_numbers)))
            stack.callback(setattr, _local, "calls", outer)
            _local.calls = own
            return f(*args, **kwargs)

    return running


def mark(x: jax.Array, name: str) -> jax.Array:
    """Name a value, so that `start`, `watch` and `masks` of `lrp.vjp`, and `models.split`, know it by its path.

    The path is the name, behind the path of the module in which it is given: in "encoder", a mark "hidden" is
    "encoder/hidden". Outside of an explanation nothing happens.

    Example:
        >>> import jax.numpy as jnp
        >>> from jxai import lrp
        >>> f = lambda x: lrp.mark(jnp.tanh(x), "hidden").sum(1)
        >>> _, pullback = lrp.vjp(f, jnp.ones((2, 3)), composite=lrp.AttnLRP(), watch=["hidden"])
        >>> pullback(jnp.ones(2))[1]["hidden"].shape
        (2, 3)

    Args:
        x: the value, an array of any shape.
        name: its name, a text; once in a call of a module.

    Returns:
        x.

    Raises:
        TypeError: x is no array, or the name no text.
        ValueError: the name is empty, or holds "#", which numbers calls. Later, in an explanation, where one name is
            given to two values.
    """
    x = as_array(x)
    if not isinstance(name, str):
        raise InputTypeError(f"expected a name as text, got {shown(name)}: give one such as 'hidden'")
    if not name or "#" in name:
        raise InputError(f"expected a name without '#', got {name!r}: give one such as 'hidden'")
    calls = getattr(_local, "calls", None)
    return x if calls is None else calls.mark(x, name)


class _Calls:
    """The calls that are being made, outermost first, and the hook that they go through."""

    def __init__(self, hook: Hook, start: types.CodeType):
        self.hook = hook
        self.start = start
        self.open: list[ModuleCall] = []
        self.tables: dict[int, tuple[Any, dict[int, str], list[tuple[str, Any]]]] = {}

    def mark(self, x: Any, name: str) -> Any:
        outer = self.open[-1] if self.open else None
        call = ModuleCall(None, _below(outer, name), "mark", outer)
        return self.hook(call, lambda x: x, (x,), {})

    def __call__(self, module, method, original, function, args, kwargs):
        outer = self.open[-1] if self.open else None
        if outer is not None and outer.module is module and outer.method in ("__call__", method):
            return function(*args, **kwargs)  # what a module calls of itself
        call = ModuleCall(module, self.path(module), method, outer)
        self.open.append(call)
        try:
            return self.hook(call, function, args, _in_order(original, kwargs))
        finally:
            self.open.pop()

    def path(self, module: Any) -> str:
        """Where a module stands that is called now."""
        library, imported = _library(module)
        outer = self.open[-1] if self.open else None
        if library.path is not None:
            return library.path(module, outer, self.running)
        # What it stands in: modules whose calls are open, or, where f calls another method, or JAX rebuilt a module
        # under jit, vmap or scan, those whose methods are running.
        kind = getattr(imported, library.base) if outer is None else type(outer.module)
        held = [(call, call.module) for call in self.open]
        held += [(outer, one) for one in self.running() if isinstance(one, kind)]
        for call, one in held:
            if id(module) in (table := self.table(library, imported, one)[0]):
                return _below(call, table[id(module)])
        if outer is None:
            return ""
        modules = self.table(library, imported, outer.module)[1]
        alike = [name for name, one in modules if type(one) is type(module)]
        return _below(outer, alike[0] if len(alike) == 1 else type(module).__name__)

    def running(self) -> list[Any]:
        """The first arguments of the functions that run inside of the innermost open call, outermost first."""
        found, frame, own = [], sys._getframe(), type(self).__call__.__code__
        while frame.f_code is not own and frame.f_back is not None:
            frame = frame.f_back  # to the call whose path is asked for
        while (frame := frame.f_back) is not None and frame.f_code not in (self.start, own):
            written = frame.f_code
            if written.co_argcount and (first := written.co_varnames[0]) in frame.f_locals:
                found.append(frame.f_locals[first])
        return found[::-1]

    def table(self, library, imported, module) -> tuple[dict[int, str], list[tuple[str, Any]]]:
        if id(module) not in self.tables:
            inside = isinstance(module, getattr(imported, library.base))
            modules = [
                pair for pair in (library.inside(imported, module) if inside else ()) if pair[1] is not module
            ]
            names: dict[int, str] = {}
            for name, one in modules:
                names.setdefault(id(one), name)
            self.tables[id(module)] = module, names, modules
        return self.tables[id(module)][1:]


def _below(outer: ModuleCall | None, name: str) -> str:
    return f"{outer.path}/{name}" if outer is not None and outer.path else name


def _in_order(function: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name in the order of the signature."""
    if len(kwargs) < 2:
        return kwargs
    try:
        order = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # no signature is known
        return kwargs
    ordered = [name for name in order if name in kwargs]
    return {name: kwargs[name] for name in dict.fromkeys([*ordered, *kwargs])}


def _imported() -> list[tuple[_Library, Any, type]]:
    """(library, what is imported, the class of its modules) for those that the program uses."""
    found = [(one, sys.modules.get(one.name)) for one in _LIBRARIES]
    # A library that is being imported lacks its class still.
    return [(one, m, getattr(m, one.base)) for one, m in found if m is not None and hasattr(m, one.base)]


def _library(module: Any) -> tuple[_Library, Any]:
    return next((one, library) for one, library, base in _imported() if isinstance(module, base))


_lock = threading.Lock()
_threads = 0
_originals: dict[type, Any] = {}


@contextlib.contextmanager
def _wrapped() -> Iterator[None]:
    """The classes of libraries without interceptors hand calls to their thread's `_Calls`."""
    global _threads
    with _lock:
        _threads += 1
        for one, library, base in _imported():
            for kind in one.wrapped(library) if one.wrapped is not None else ():
                if kind not in _originals and "__call__" in vars(kind):
                    _originals[kind] = vars(kind)["__call__"]
                    type.__setattr__(kind, "__call__", _passing(_originals[kind], base))
    try:
        yield
    finally:
        with _lock:
            _threads -= 1
            while not _threads and _originals:
                kind, method = _originals.popitem()
                type.__setattr__(kind, "__call__", method)


def _passing(method: Any, base: type) -> Callable[..., Any]:
    @functools.wraps(method)
    def passing(self, *args, **kwargs):
        function = method.__get__(self, type(self)) if hasattr(method, "__get__") else method
        calls = getattr(_local, "calls", None)
        if calls is None or not isinstance(self, base):
            return function(*args, **kwargs)
        return calls(self, "__call__", function, function, args, kwargs)

    return passing
