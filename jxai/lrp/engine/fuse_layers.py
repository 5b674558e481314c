"""Linear layers with what belongs to them: biases, batch norm merged as values flow, padding, extraction of patches.

A convolution or dense layer z = W x is followed, as far as its result has one use alone, through moves, and sums
with, and products by, what does not depend on the input: these become the layer's bias and scale its kernel. The
same goes for such operations before it (Guillemot et al. 2020; Pahde et al. 2022). What is given, as a batch norm's
numbers are, is merged where z is used elsewhere too: that use has a z of its own. No name of a layer or variable is
looked at.

A shift is a bias where it is given, as weights are. A constant of the program is one only where no function of each
entry follows: `sigmoid(z + 1)`, `relu6(z + 3)` are functions of z, however they are written.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jxai.lrp.engine.facts import Facts, Graph, Node, kernel_index, rounds
from jxai.lrp.engine.fuse_maps import Layer, builder
from jxai.lrp.engine.graph import (
    Equation,
    Value,
    evaluate_all,
    kernel_axes,
    through,
)
from jxai.lrp.engine.primitives import row
from jxai.lrp.rules.operation import Kind

_KINDS = (Kind.CONVOLUTION, Kind.DENSE, Kind.FIXED)


def fuse_layers(graph: Graph, facts: Facts, watched: set[Value], merge: bool) -> Graph:
    """Linear layers as one node each.

    Args:
        graph: the nodes.
        facts: of the program.
        watched: values that someone looks at: nothing in front of a layer is merged across them.
        merge: whether scales are merged, or only biases.

    Returns:
        The graph.
    """
    found: dict[Value, Node] = {}
    producer = dict(graph.producer)
    for node in graph.nodes:
        if node.kind in _KINDS and len(node.equations) == 1 and node.inputs:
            layer = _found(facts, producer, node, watched, merge)
            kind = node.kind if not _is_convolution(layer) else Kind.CONVOLUTION
            made = _node(facts, layer, kind)
            found[layer.output] = made
            for short in _used_elsewhere(facts, layer):
                found[short.output] = _node(facts, short, kind)
            # What belongs to one layer belongs to no other.
            producer.update(dict.fromkeys((v for one in made.equations for v in one.outputs), made))
    return graph.with_nodes(found)


def _is_convolution(layer: Layer) -> bool:
    """Whether it is a contraction of patches."""
    return any(row(one).contracts for one in layer.front)


def _found(facts: Facts, producer: dict[Value, Node], node: Node, watched: set[Value], merge: bool) -> Layer:
    (equation,) = node.equations
    kernel = kernel_index(facts, equation)
    assert kernel is not None
    layer = Layer(equation, kernel)
    if node.kind is Kind.FIXED:
        return layer
    _follow(facts, producer, layer, watched, merge)
    if len(node.inputs) == 1:
        _precede(facts, producer, layer, node.inputs[0], watched, merge)
    return layer


# What comes after.


def _follow(
    facts: Facts, producer: dict[Value, Node], layer: Layer, watched: set[Value], merge: bool
) -> None:
    of_kernel = kernel_axes(layer.equation, layer.kernel)[1]
    pending: list[Equation] = []
    value = layer.equation.outputs[0]
    while (one := _next(facts, value, watched)) is not None and _alone(producer, one):
        known = row(one)
        moved = through([*layer.after, *pending], {a: a for a in of_kernel})
        axes = {b: of_kernel[a] for a, b in moved.items()}
        if known.moves and not known.entrywise and len(one.inputs) == 1 and _as_many(one):
            pending.append(one)
        elif known.affine and one.outputs[0].shape == value.shape and _fits(facts, one, value):
            constant = _constant(facts, one)
            if known.scales and not (merge and _on_axes(constant, axes)):
                break
            if known.shifts and not _is_bias(facts, one, constant, value, merge):
                break
            # Copies and moves that lead to no bias or scale stay with what follows.
            pending.append(one)
            if known.shifts or known.scales:
                layer.after += pending
                pending = []
        else:
            break
        value = one.outputs[0]


def _node(facts: Facts, layer: Layer, kind: Kind) -> Node:
    """The node of a layer."""
    inputs = layer.operands(facts)
    equations = (*layer.before, *layer.front, layer.equation, *layer.after)
    constants = [layer.equation.inputs[layer.kernel]]
    for one in equations:
        constants += [
            v
            for v in one.inputs
            if v.literal is None and not facts.varies(v) and v not in (*constants, *inputs)
        ]
    return Node(
        kind,
        equations,
        tuple(inputs),
        tuple(constants),
        (layer.output,),
        layer=builder(facts, layer, constants),
        main=layer.equation,
    )


def _used_elsewhere(facts: Facts, layer: Layer) -> list[Layer]:
    """The layer as it is for other uses of what it gives on its way."""
    lengths = range(len(layer.after))
    shorter = [dataclasses.replace(layer, after=layer.after[:length]) for length in lengths]
    return [one for one in shorter if facts.used_once(one.output) is None]


def _next(facts: Facts, value: Value, watched: set[Value]) -> Equation | None:
    """The equation that may belong to what gives a value: its only use, or of several the one with what is given."""
    if (one := facts.used_once(value)) is not None or value in watched:
        return one
    affine = [one for one in facts.uses.get(value, []) if _merges_given(facts, one, value)]
    return affine[0] if len(affine) == 1 else None


def _merges_given(facts: Facts, equation: Equation, value: Value) -> bool:
    """Whether an operation scales or shifts by what is given."""
    known = row(equation)
    affine = known.affine and (known.scales or known.shifts) and _fits(facts, equation, value)
    return affine and facts.given(_constant(facts, equation))


def _is_bias(facts: Facts, equation: Equation, constant: Value, value: Value, merge: bool) -> bool:
    # A shift that is no bias belongs to what is not merged, such as a batch norm's mean.
    if not merge and equation.inputs[0] is value and equation.name == "sub":
        return False
    return facts.given(constant) or not _enters_function(facts, equation.outputs[0])


def _enters_function(facts: Facts, value: Value) -> bool:
    """Whether a value goes on, scaled and shifted by constants, into a function of each entry."""
    seen, pending = {value}, [value]
    while pending:
        for one in facts.uses.get(pending.pop(), []):
            known, (result, *_) = row(one), one.outputs
            if not known.entrywise or known.compares:
                continue
            if not known.affine:
                return True
            if result not in seen and not any(facts.given(v) for v in one.inputs):
                seen.add(result)
                pending.append(result)
    return False


# What comes before.


def _precede(
    facts: Facts, producer: dict[Value, Node], layer: Layer, value: Value, watched: set[Value], merge: bool
) -> None:
    of_kernel = kernel_axes(layer.equation, layer.kernel)[0]
    front: list[Equation] = []
    while value not in watched and facts.used_once(value) is not None:
        one = facts.producer.get(value)
        if one is None or not _alone(producer, one) or facts.carriers(one) != one.inputs[:1]:
            break
        if not (_pads_with_zeros(facts, one) or _selects(facts, one) or _just_moves(one)):
            break
        front.insert(0, one)
        value = one.inputs[0]
    patches = next((i for i, one in enumerate(front) if row(one).contracts), None)
    padding = front[-1:] if front and front[-1].name == "pad" and row(layer.equation).kernel == 1 else []
    layer.front = front[patches:] if patches is not None else padding
    if not merge:
        return
    found: list[Equation] = []
    start = value
    while start not in watched:
        one = facts.producer.get(start)
        if one is None or not _alone(producer, one):
            break
        if facts.used_once(start) is None and not _merges_given(facts, one, one.outputs[0]):
            break
        known = row(one)
        if not known.affine or known.holds or rounds(one) or not _fits(facts, one, one.outputs[0]):
            break
        moved = through(front, dict(enumerate(range(len(one.outputs[0].shape)))))
        axes = {a: of_kernel[b] for a, b in moved.items() if b in of_kernel}
        if known.scales and not _on_axes(_constant(facts, one), axes):
            break
        found.insert(0, one)
        (start,) = facts.carriers(one)
    if not any(row(one).scales for one in found) or start.shape != value.shape:
        return
    below = producer.get(start)
    if below is not None:
        if below.kind in (Kind.NORMALIZATION, Kind.CENTERING):
            return  # their scale and shift are theirs
        constants = any(row(one).shifts and not facts.given(_constant(facts, one)) for one in found)
        if constants and row(below.equations[-1]).entrywise and below.kind is not Kind.SUM:
            return  # the end of a function of each entry
    layer.before, layer.front = found, front


def _pads_with_zeros(facts: Facts, equation: Equation) -> bool:
    return equation.name == "pad" and _is_zero(facts, equation.inputs[1])


def _just_moves(equation: Equation) -> bool:
    known = row(equation)
    return known.moves and not known.entrywise and len(equation.inputs) == 1 and _as_many(equation)


def _as_many(equation: Equation) -> bool:
    sizes = [int(np.prod(v.shape)) for v in (equation.inputs[0], equation.outputs[0])]
    return len(equation.outputs) == 1 and sizes[0] == sizes[1]


def _selects(facts: Facts, equation: Equation) -> bool:
    """Whether a contraction with a fixed kernel takes entries as they are: extraction of patches."""
    known = row(equation)
    if known.kernel is None or not known.contracts or equation.inputs[-1] not in facts.fixed:
        return False
    kernel = equation.inputs[-1]
    body = facts.back(kernel, lambda v: False)
    if sum(int(np.prod(v.shape)) for one in body for v in one.outputs) > 1e7 or any(
        v.literal is None and v not in facts.producer for one in body for v in one.inputs
    ):
        return False
    with jax.ensure_compile_time_eval():
        (values,) = evaluate_all(body, [], [], [kernel])
    values = np.asarray(values)
    out = equation.params["dimension_numbers"].rhs_spec[0]
    each = np.moveaxis(values, out, 0).reshape(values.shape[out], -1)
    return bool(((each == 0) | (each == 1)).all() and (each.sum(1) == 1).all())


def _alone(producer: dict[Value, Node], equation: Equation) -> bool:
    """Whether an equation is a node of its own still."""
    node = producer.get(equation.outputs[0])
    return node is not None and node.equations == (equation,)


def _is_zero(facts: Facts, value: Value) -> bool:
    """Whether a value is the number 0 as it is written, or converted from that."""
    while value.literal is None and (equation := facts.producer.get(value)) is not None:
        if not (row(equation).copies or equation.name == "broadcast_in_dim"):
            return False
        value = equation.inputs[0]
    return value.literal is not None and not jnp.shape(value.literal) and value.literal == 0


def _fits(facts: Facts, equation: Equation, value: Value) -> bool:
    """Whether an affine operation has only independent operands beside one, which may not be a divisor."""
    others = [v for v in equation.inputs if not facts.independent(v)]
    if len(others) != 1 or not facts.varies(others[0]):
        return False
    divisor = row(equation).scales and equation.name == "div" and others[0] is equation.inputs[1]
    return not divisor and others[0].shape == value.shape and others[0].is_float


def _constant(facts: Facts, equation: Equation) -> Value:
    constants = [v for v in equation.inputs if facts.independent(v)]
    return constants[0] if constants else Value((), jnp.float32, 0.0)


def _on_axes(constant: Value, axes: dict[int, int]) -> bool:
    return all(size == 1 or axis in axes for axis, size in enumerate(constant.shape))
