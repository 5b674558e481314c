"""Linear layers with the affine operations around them: biases, and batch norm merged as values flow.

A convolution or dense layer z = W x is followed, as far as its result has one use alone, through sums with, and
products by, what does not depend on the input: these become the layer's bias and scale its kernel. The same goes for
such operations before it (Guillemot et al. 2020; Pahde et al. 2022). No name of a layer or variable is looked at.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jxai.lrp.flow import COPIES, SCALES, SHIFTS, Flow, kernel_index
from jxai.lrp.graph import LINEAR_NAME, Equation, Value, evaluate, widen
from jxai.lrp.operation import Linear

_MOVED = {"reshape", "squeeze", "expand_dims", "transpose", "broadcast_in_dim"}
_AFFINE = SHIFTS | SCALES | COPIES


@dataclasses.dataclass(eq=False)
class Layer:
    """A linear layer in the graph.

    Attributes:
        equation: the contraction.
        kernel: index of its kernel.
        before: affine operations that lead to its input, in order.
        padding: the operation that puts zeros around its input, which are no input of the layer, or None.
        moves: reshaping between the contraction and its bias.
        after: affine operations on its result, in order.
    """

    equation: Equation
    kernel: int
    before: list[Equation] = dataclasses.field(default_factory=list)
    padding: Equation | None = None
    moves: list[Equation] = dataclasses.field(default_factory=list)
    after: list[Equation] = dataclasses.field(default_factory=list)

    @property
    def equations(self) -> list[Equation]:
        """Everything that became part of the layer but what leads to it."""
        return [self.equation, *self.moves, *self.after]

    @property
    def output(self) -> Value:
        """Its result."""
        return self.equations[-1].outputs[0]

    @property
    def operands(self) -> list[Value]:
        """What the contraction takes beside its kernel."""
        if self.padding is not None:
            return [self.padding.inputs[0]]
        return [v for i, v in enumerate(self.equation.inputs) if i != self.kernel]

    def constants(self, flow: Flow) -> list[Value]:
        """The kernel, then what the affine operations take."""
        steps = [*self.before, *self.after]
        return [self.equation.inputs[self.kernel]] + [_constant(flow, one) for one in steps]

    def builder(self, flow: Flow) -> Callable[[list[Any], bool, bool], Linear]:
        """A function of (the constants' arrays, `nonnegative`, `rectified`) to the `Linear`."""
        before = [(one.name, _position(flow, one)) for one in self.before]
        after = [(one.name, _position(flow, one)) for one in self.after]
        equation, moves, at, padding = self.equation, self.moves, self.kernel, self.padding
        operands = self.operands
        (x_axes, y_axes), rank = kernel_axes(equation, at), len(equation.inputs[at].shape)
        channels = batch = None
        if equation.name == "conv_general_dilated" and at == 1 and not moves and x_axes:
            channels = (*next(iter(x_axes.items())), *next(iter(y_axes.items())))
            batch = equation.params["dimension_numbers"].lhs_spec[0]

        def contract(inputs: list[jax.Array], kernel: jax.Array) -> jax.Array:
            if padding is not None:
                inputs = evaluate(padding, [*inputs, jnp.zeros((), inputs[0].dtype)])
            arguments = [*inputs[:at], kernel, *inputs[at:]]
            (z,) = evaluate(equation, arguments)
            for move in moves:
                (z,) = evaluate(move, [z])
            return z

        def build(constants: list[Any], nonnegative: bool, rectified: bool) -> Linear:
            kernel, *rest = [widen(c) for c in constants]
            scale, shift = _affine(before, rest[: len(before)])
            bias = None
            if shift is not None:
                dtype = kernel.dtype
                given = [jnp.broadcast_to(jnp.asarray(shift, dtype), operands[0].shape)]
                bias = contract(given, kernel)
            kernel = kernel if scale is None else kernel * _onto_kernel(scale, x_axes, rank)
            scale, shift = _affine(after, rest[len(before) :])
            if scale is not None:
                kernel = kernel * _onto_kernel(scale, y_axes, rank)
                bias = None if bias is None else bias * scale
            if shift is not None:
                bias = shift if bias is None else bias + shift
            return Linear(contract, kernel, bias, nonnegative, rectified, channels, batch)

        return build


def find_layer(flow: Flow, equation: Equation, ends: set[Value], merge: bool, taps: set[Value]) -> Layer:
    """The layer that begins with a contraction.

    Args:
        flow: what is known of the values.
        equation: the contraction; one of its operands is a kernel.
        ends: values that have to stay (the graph's outputs).
        merge: whether scales are merged, or only biases.
        taps: values that are watched: padding that gives one stays apart.

    Returns:
        The layer, with what follows the contraction.
    """
    kernel = kernel_index(flow, equation)
    assert kernel is not None
    layer = Layer(equation, kernel)
    if equation.name == "conv_general_dilated" and kernel == 1:
        padding = flow.producer.get(equation.inputs[0])
        apart = equation.inputs[0] in ends | taps
        if padding is not None and not apart and padding.name == "pad" and _is_zero(flow, padding.inputs[1]):
            layer.padding = padding
    _, axes = kernel_axes(equation, kernel)
    value, moves = equation.outputs[0], []
    while value not in ends and len(uses := flow.uses.get(value, [])) == 1:
        (following,) = uses
        name = following.name
        if name in _MOVED and not layer.after and len(following.inputs) == 1:
            moves.append(following)
        elif name in _AFFINE and following.outputs[0].shape == value.shape and _fits(flow, following, value):
            scales = name in SCALES - {"neg"}
            # A shift that is no bias belongs to what is not merged, such as a batch norm's mean.
            if name == "sub" and not merge:
                break
            if scales and not (
                merge and not (moves or layer.moves) and _on_axes(_constant(flow, following), axes)
            ):
                break
            layer.moves += moves
            moves = []
            layer.after.append(following)
        else:
            break
        value = following.outputs[0]
    # Copies at the end that lead to no bias stay with what follows.
    while layer.after and layer.after[-1].name in COPIES:
        layer.after.pop()
    if not layer.after:
        layer.moves = []
    return layer


def merge_before(flow: Flow, layer: Layer) -> None:
    """Take affine operations before a layer into it, where they scale and are used by it alone.

    Args:
        flow: what is known of the values.
        layer: the layer; `before` is filled.
    """
    axes, _ = kernel_axes(layer.equation, layer.kernel)
    found: list[Equation] = []
    value = layer.operands[0]
    if len(layer.operands) != 1:
        return
    while flow.root[value] is not value and len(flow.uses[value]) == 1:
        equation = flow.producer[value]
        if equation.name not in _AFFINE or not _fits(flow, equation, value):
            return
        if equation.name in SCALES - {"neg"} and not _on_axes(_constant(flow, equation), axes):
            return
        found.append(equation)
        value = flow.carriers(equation)[0]
    scaled = any(one.name in SCALES for one in found)
    if flow.root[value] is value and scaled and value.shape == layer.operands[0].shape:
        layer.before = found[::-1]


def kernel_axes(equation: Equation, kernel: int) -> tuple[dict[int, int], dict[int, int]]:
    """Which axes of the operand, and of the result, are axes of the kernel.

    Args:
        equation: a contraction.
        kernel: index of its kernel.

    Returns:
        (operand's axis -> kernel's axis, result's axis -> kernel's axis).
    """
    params = equation.params
    if params.get("name") == LINEAR_NAME:
        return {}, {}
    if equation.name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        alone = params["feature_group_count"] == params["batch_group_count"] == 1
        out = {numbers.out_spec[1]: numbers.rhs_spec[0]} if params["batch_group_count"] == 1 else {}
        return ({numbers.lhs_spec[1]: numbers.rhs_spec[1]} if alone else {}), out
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


def _is_zero(flow: Flow, value: Value) -> bool:
    """Whether a value is the number 0 as it is written, or converted from that."""
    while value.literal is None and (equation := flow.producer.get(value)) is not None:
        if equation.name not in COPIES | {"broadcast_in_dim"}:
            return False
        value = equation.inputs[0]
    return value.literal is not None and not jnp.shape(value.literal) and value.literal == 0


def _fits(flow: Flow, equation: Equation, value: Value) -> bool:
    """Whether an affine operation has only independent operands beside one, which may not be a divisor."""
    others = [v for v in equation.inputs if not flow.independent(v)]
    if len(others) != 1 or (equation.name == "div" and not flow.independent(equation.inputs[1])):
        return False
    return others[0].shape == value.shape


def _constant(flow: Flow, equation: Equation) -> Value:
    constants = [v for v in equation.inputs if flow.independent(v)]
    return constants[0] if constants else Value((), jnp.float32, 0.0)


def _position(flow: Flow, equation: Equation) -> int:
    """Index of the operand that is no constant."""
    return next(i for i, v in enumerate(equation.inputs) if not flow.independent(v))


def _on_axes(constant: Value, axes: dict[int, int]) -> bool:
    return all(size == 1 or axis in axes for axis, size in enumerate(constant.shape))


def _affine(steps: list[tuple[str, int]], constants: list[Any]) -> tuple[Any, Any]:
    """Scale and shift of a chain of affine operations, None where there is none."""
    scale = shift = None

    def by(x: Any, factor: Any) -> Any:
        return factor if x is None else x * factor

    for (name, position), constant in zip(steps, constants, strict=True):
        if name in SCALES:
            factor = -1.0 if name == "neg" else (1 / constant if name == "div" else constant)
            scale, shift = by(scale, factor), None if shift is None else shift * factor
        elif name in SHIFTS:
            sign = -1.0 if name == "sub" else 1.0
            if name == "sub" and position == 1:
                scale, shift = by(scale, -1.0), None if shift is None else -shift
                sign = 1.0
            shift = sign * constant if shift is None else shift + sign * constant
    return scale, shift


def _onto_kernel(scale: Any, axes: dict[int, int], rank: int) -> Any:
    """The scale of an operand's or result's axes as an array that broadcasts over the kernel."""
    if jnp.ndim(scale) == 0:
        return scale
    order = sorted(axes, key=lambda axis: axes[axis])
    kept = jnp.transpose(scale, [*(a for a in range(scale.ndim) if a not in axes), *order])
    sizes = [1] * rank
    for axis in order:
        sizes[axes[axis]] = scale.shape[axis]
    return kept.reshape(sizes)
