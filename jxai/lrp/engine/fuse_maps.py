"""A linear layer as it is found: what belongs to it, and its map, kernel and bias from the arrays at hand."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jxai.lrp.engine.graph import (
    Equation,
    Value,
    evaluate,
    kernel_axes,
    same_shapes,
    through,
    wide_dtype,
    widen,
)
from jxai.lrp.engine.primitives import row
from jxai.lrp.rules.operation import Linear


@dataclasses.dataclass(eq=False)
class Layer:
    """A linear layer as it is found: affine operations, moves (padding, patches), the contraction, both again."""

    equation: Equation
    kernel: int
    before: list[Equation] = dataclasses.field(default_factory=list)
    front: list[Equation] = dataclasses.field(default_factory=list)
    after: list[Equation] = dataclasses.field(default_factory=list)

    @property
    def output(self) -> Value:
        """What the layer gives."""
        return self.after[-1].outputs[0] if self.after else self.equation.outputs[0]

    def operands(self, facts: Any) -> list[Value]:
        """What carries relevance into it."""
        begin = [*self.before, *self.front]
        if begin:
            return facts.carriers(begin[0])
        # What is given takes part too: a rule sees the signs of all that the kernel multiplies.
        return [
            v
            for i, v in enumerate(self.equation.inputs)
            if i != self.kernel and v.is_float and v.literal is None
        ]


def builder(facts: Any, layer: Layer, names: list[Value]) -> Callable[[list[Any], bool, bool], Linear]:
    """The function of (constants' arrays, whether inputs are nonnegative, whether a ReLU follows) to the layer.

    Args:
        facts: of the program.
        layer: as it was found.
        names: of the constants, the kernel first.
    """
    equation, at = layer.equation, layer.kernel
    inputs = layer.operands(facts)
    x_axes, y_axes = kernel_axes(equation, at)
    rank = len(equation.inputs[at].shape)
    channels = batch = None
    moved = any(not row(one).affine for one in (*layer.front, *layer.after) if one.name != "pad")
    if (
        row(equation).kernel == 1
        and not moved
        and x_axes
        and y_axes
        and "dimension_numbers" in equation.params
    ):
        channels = (*next(iter(x_axes.items())), *next(iter(y_axes.items())))
        batch = equation.params["dimension_numbers"].lhs_spec[0]
    moves = [one for one in layer.after if not row(one).affine]
    wide = wide_dtype(layer.output.dtype)

    def build(arrays: list[Any], nonnegative: bool, rectified: bool) -> Linear:
        known = dict(
            zip(
                names,
                [widen(a) if v.is_float else a for v, a in zip(names, arrays, strict=True)],
                strict=True,
            )
        )

        def run(one: Equation, x: Any, of: Value) -> Any:
            given = [x if v is of else known[v] if v.literal is None else v.literal for v in one.inputs]
            return evaluate(one, given)[0]

        def contract(inputs: list[jax.Array], kernel: jax.Array) -> jax.Array:
            z = _contracted(inputs, kernel)
            for move in moves:
                (z,) = evaluate(move, [z])
            return z.astype(wide)  # layers of several dtypes

        def _contracted(xs: list[jax.Array], kernel: jax.Array) -> jax.Array:
            if layer.front:
                (x,) = xs
                for one in layer.front:
                    x = run(one, x, facts.carriers(one)[0])
                xs = [x]
            rest = iter(xs)
            return evaluate(
                equation, [kernel if i == at else _operand(rest, v) for i, v in enumerate(equation.inputs)]
            )[0]

        def _operand(rest: Any, v: Value) -> Any:
            return (
                next(rest) if v in inputs or facts.varies(v) else known[v] if v.literal is None else v.literal
            )

        def affine(steps: list[Equation]) -> tuple[Any, Any]:
            """(scale, shift) of a chain, each None where there is none."""

            def chain(x: Any) -> Any:
                for one in steps:
                    x = run(one, x, next(v for v in one.inputs if not facts.independent(v)))
                return x

            before = next(v for v in steps[0].inputs if not facts.independent(v))
            x = same_shapes(before.shape).astype(wide_dtype(before.dtype))
            shift, scale = jax.jvp(chain, (x,), (jnp.ones_like(x),))
            scales = any(row(one).scales or (row(one).copies and not row(one).moves) for one in steps)
            turned = scales or any(one.name == "sub" and facts.independent(one.inputs[0]) for one in steps)
            return scale if turned else None, shift if any(row(one).shifts for one in steps) else None

        kernel_of = known[names[0]]
        kernel, bias = kernel_of, None
        if layer.before:
            scale, shift = affine(layer.before)
            if shift is not None:
                bias = _contracted([jnp.broadcast_to(shift.astype(kernel.dtype), inputs[0].shape)], kernel)
            if scale is not None:
                onto = through(layer.front, dict(enumerate(range(len(inputs[0].shape)))))
                kernel = kernel * _onto_kernel(
                    scale, {a: x_axes[b] for a, b in onto.items() if b in x_axes}, rank
                )
        done: list[Equation] = []
        for one in layer.after:
            if not row(one).affine:
                if bias is not None:
                    (bias,) = evaluate(one, [jnp.broadcast_to(bias, one.inputs[0].shape)])
                done.append(one)
                continue
            scale, shift = affine([one])
            if scale is not None:
                onto = through(done, {a: a for a in y_axes})
                kernel = kernel * _onto_kernel(scale, {b: y_axes[a] for a, b in onto.items()}, rank)
                bias = None if bias is None else bias * scale
            if shift is not None:
                bias = shift if bias is None else bias + shift
        return Linear(contract, kernel, bias, nonnegative, rectified, channels, batch)

    return build


def _onto_kernel(scale: Any, axes: dict[int, int], rank: int) -> Any:
    """The scale of an operand's or result's axes as an array that broadcasts over the kernel."""
    order = sorted(axes, key=lambda axis: axes[axis])
    kept = jnp.transpose(scale, [*(a for a in range(scale.ndim) if a not in axes), *order])
    sizes = [1] * rank
    for axis in order:
        sizes[axes[axis]] = scale.shape[axis]
    return kept.reshape(sizes)
