"""A traced function: its values, its operations in order, the modules that it calls; and how an operation is run."""

import dataclasses
import enum
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Primitive

from jxai.ops.convolution import convolution

# One call of a module, and where an equation stands in a jaxpr and those that it calls; see `scopes`.
CallKey = tuple[int, tuple[int, ...]]
Site = tuple[int, ...]


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

    @property
    def is_float(self) -> bool:
        """Whether it holds real numbers."""
        return bool(jnp.issubdtype(self.dtype, jnp.floating))


@dataclasses.dataclass(eq=False)
class Equation:
    """One operation of the traced function.

    Attributes:
        primitive: of JAX.
        inputs: operands.
        outputs: results.
        params: the primitive's parameters.
        scopes: the calls of modules around it, outermost first.
        site: where it stands in the jaxpr and those that it calls.
    """

    primitive: Primitive
    inputs: list[Value]
    outputs: list[Value]
    params: dict[str, Any]
    scopes: tuple[CallKey, ...] = ()
    site: Site = ()

    @property
    def name(self) -> str:
        """The primitive's name."""
        return self.primitive.name


@dataclasses.dataclass(eq=False)
class Program:
    """The operations of a function in order.

    Attributes:
        inputs: the function's arguments.
        outputs: its results.
        equations: its operations.
        constants: arrays that the function closes over.
        calls: the modules it calls, outermost first.
        fixed: values that the function says are no weights (`lrp.fixed`).
        auxiliary: values that are wanted as well, but not explained.
    """

    inputs: list[Value]
    outputs: list[Value]
    equations: list[Equation]
    constants: dict[Value, Any]
    calls: dict[CallKey, Any]
    fixed: set[Value] = dataclasses.field(default_factory=set)
    auxiliary: list[Value] = dataclasses.field(default_factory=list)

    def pruned(self) -> "Program":
        """The program without the operations that no output needs."""
        needed, kept = {*self.outputs, *self.auxiliary}, []
        for equation in reversed(self.equations):
            if needed.intersection(equation.outputs):
                kept.append(equation)
                needed.update(equation.inputs)
        return dataclasses.replace(self, equations=kept[::-1])


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """A loop or a branch, planned.

    Attributes:
        equation: the loop or branch.
        plans: of the functions inside; of a scan, those of the first iterations, then that of all others.
    """

    equation: Equation
    plans: tuple[Any, ...]

    @property
    def length(self) -> int | None:
        """How many iterations a scan has; None of what is no scan."""
        return self.equation.params.get("length")


class Status(enum.IntEnum):
    """What a value is to relevance."""

    INDEPENDENT = 0
    HELD = 1
    VARYING = 2


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is known of an input of a program, or of a result of what is inside of a loop.

    Attributes:
        status: what it is to relevance.
        fixed: independent, and given by constant expressions alone.
        nonnegative: it holds no negative number.
        deep: it lies behind a layer.
        token: integers that stand for tokens, or follow from them.
    """

    status: Status = Status.VARYING
    fixed: bool = False
    nonnegative: bool = False
    deep: bool = False
    token: bool = False


def evaluate(equation: Equation, arguments: Sequence[Any]) -> list[Any]:
    """Run one operation as it stands; operands wider than traced (float32 for bfloat16) give wider results.

    Args:
        equation: the operation.
        arguments: arrays in place of its inputs.

    Returns:
        Its results.
    """
    params = equation.params
    if any(jnp.result_type(a) != v.dtype for a, v in zip(arguments, equation.inputs, strict=True)):
        if any(isinstance(p, ClosedJaxpr | Jaxpr) for p in _flat(params.values())):
            arguments = [jnp.asarray(a, v.dtype) for a, v in zip(arguments, equation.inputs, strict=True)]
        else:
            # Integers that came from rounding are floats here, so that their operations have derivatives.
            rounded = any(
                jnp.issubdtype(v.dtype, jnp.integer) and jnp.issubdtype(jnp.result_type(a), jnp.floating)
                for a, v in zip(arguments, equation.inputs, strict=True)
            )
            arguments = [
                as_float(a)
                if rounded and jnp.issubdtype(v.dtype, jnp.integer) and _is_value(equation, i)
                else widen(a)
                for i, (a, v) in enumerate(zip(arguments, equation.inputs, strict=True))
            ]
            params = {k: wide_dtype(p, rounded) if k in _DTYPE_PARAMS else p for k, p in params.items()}
    elif equation.name == "convert_element_type" and equation.inputs[0].is_float:
        params = {**params, "new_dtype": wide_dtype(params["new_dtype"])}
    if equation.name == "conv_general_dilated":
        return [convolution(*arguments, **params)]
    results = equation.primitive.bind(*arguments, **equation.primitive.get_bind_params(params))
    return list(results) if equation.primitive.multiple_results else [results]


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
    """x in float32 where it is a float of fewer bits; other dtypes stay."""
    return jnp.asarray(x, wide_dtype(jnp.result_type(x)))


def as_float(x: Any) -> Any:
    """x as `widen` has it, and integers as floats too."""
    x = widen(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))


_DTYPE_PARAMS = ("new_dtype", "preferred_element_type", "dtype")


def _is_value(equation: Equation, index: int) -> bool:
    """Whether an operand of integers may as well be of floats: it is no position."""
    if equation.name.startswith("scatter"):
        return index != 1
    return index == 0 or not equation.name.startswith(("gather", "dynamic_"))


def wide_dtype(dtype: Any, rounded: bool = False) -> Any:
    """What a dtype is computed in: float32 for floats of fewer bits, and for what was rounded to integers."""
    if dtype is None:
        return None
    if rounded and jnp.issubdtype(dtype, np.integer):
        return jnp.result_type(float)
    return jnp.float32 if dtype in (jnp.bfloat16, jnp.float16) else dtype


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        yield from value if isinstance(value, tuple | list) else (value,)


def axes_kept(equation: Equation, index: int = 0) -> dict[int, int]:
    """Which axes of an operand of an operation that moves entries are axes of its result, entries in the same order.

    Args:
        equation: the operation.
        index: of the operand.

    Returns:
        Operand's axis -> result's axis, for those of more than one entry that survive whole.
    """
    before, after = equation.inputs[index].shape, equation.outputs[0].shape
    name, params = equation.name, equation.params
    if name == "broadcast_in_dim":
        return {a: b for a, b in enumerate(params["broadcast_dimensions"]) if before[a] == after[b]}
    if name == "transpose":
        return {a: b for b, a in enumerate(params["permutation"])}
    if before == after:
        return dict(enumerate(range(len(before))))
    if name == "pad":
        return {a: a for a, size in enumerate(before) if size == after[a]}
    if name not in ("reshape", "squeeze", "expand_dims"):
        return {}
    # An axis survives a reshape where as many entries lie in front of it as before.
    starts = {int(np.prod(after[:b])): b for b in range(len(after)) if after[b] != 1}
    found = {}
    for a, size in enumerate(before):
        b = starts.get(int(np.prod(before[:a])))
        if size != 1 and b is not None and after[b] == size:
            found[a] = b
    return found


def through(moves: Iterable[Equation], axes: dict[int, int]) -> dict[int, int]:
    """`axes`, whose values are axes of what moves begin with, carried to what the moves make of it."""
    for move in moves:
        kept = axes_kept(move)
        axes = {a: kept[b] for a, b in axes.items() if b in kept}
    return axes


def same_shapes(shape: tuple[int, ...]) -> Any:
    """A small array of as many axes, which broadcasts to an array of this shape."""
    return jnp.zeros((1,) * len(shape), jax.dtypes.canonicalize_dtype(float))


def kernel_axes(equation: Equation, kernel: int) -> tuple[dict[int, int], dict[int, int]]:
    """Which axes of the operand, and of the result, are axes of the kernel.

    Args:
        equation: a contraction.
        kernel: index of its kernel.

    Returns:
        (operand's axis -> kernel's axis, result's axis -> kernel's axis).
    """
    params = equation.params
    if equation.name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        alone = params["feature_group_count"] == params["batch_group_count"] == 1
        out = {numbers.out_spec[1]: numbers.rhs_spec[0]} if params["batch_group_count"] == 1 else {}
        return ({numbers.lhs_spec[1]: numbers.rhs_spec[1]} if alone else {}), out
    if equation.name != "dot_general":
        return {}, {}
    contracting, batch = params["dimension_numbers"]
    other = 1 - kernel
    of_input = dict(zip(contracting[other], contracting[kernel], strict=True))
    of_input |= dict(zip(batch[other], batch[kernel], strict=True))

    def free(index: int) -> list[int]:
        bound = {*contracting[index], *batch[index]}
        return [axis for axis in range(len(equation.inputs[index].shape)) if axis not in bound]

    start = len(batch[0]) + (0 if kernel == 0 else len(free(0)))
    of_output = dict(enumerate(batch[kernel])) | {start + i: a for i, a in enumerate(free(kernel))}
    return of_input, of_output


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tokens:
    """Integers that stand for tokens, with the place of their relevance.

    Attributes:
        array: the integers.
        place: ones, and zeros where no token stands, moved as the integers are: their cotangents are relevance.
    """

    array: Any
    place: Any
