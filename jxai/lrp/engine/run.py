"""Running a plan: every step by its rule, with probes where someone looks in."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jxai.errors import InputError
from jxai.lrp.engine import control_flow
from jxai.lrp.engine.graph import Equation, Status, Tokens, Value, as_float, evaluate
from jxai.lrp.engine.primitives import row_of
from jxai.lrp.rules.base import hold, scale_ratio
from jxai.lrp.rules.operation import Application
from jxai.lrp.rules.ratio import to_relevance


@dataclasses.dataclass(frozen=True)
class Probes:
    """Arrays whose cotangents are what is asked for, and masks.

    Attributes:
        taps: by path, two arrays of zeros of the watched module's output's shape; their cotangents are its relevance
            and its ratio.
        values: by path, zeros likewise; their cotangents are the outputs themselves.
        masks: by path, what relevance is multiplied by there.
        meters: for every operation four zeros: relevance in, out, absorbed by bias, by stabilizer.
        weights: whether ratios of weights are wanted too.
    """

    taps: dict[str, tuple[jax.Array, jax.Array]] = dataclasses.field(default_factory=dict)
    values: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    masks: dict[str, Any] = dataclasses.field(default_factory=dict)
    meters: dict[Any, Any] = dataclasses.field(default_factory=dict)
    weights: bool = False


def run(plan: Any, arguments: list[Any], probes: Probes, *, gradients: bool = False) -> list[Any]:
    """Compute a plan's outputs, so that their VJP carries ratios by the rules.

    Args:
        plan: the plan.
        arguments: arrays, or `Tokens`, in place of the program's inputs.
        probes: where to look in.
        gradients: gradients travel instead of ratios.

    Returns:
        Arrays in place of the program's outputs, then of its auxiliary ones.
    """
    program = plan.program
    known: dict[Value, Any] = dict(program.constants)
    known.update(zip(program.inputs, arguments, strict=True))
    for step in plan.steps:
        results = _run_step(step, known, plan.tokens, probes, gradients)
        known.update(zip(step.outputs, results, strict=True))
    found = []
    for value, flag in zip(program.outputs, plan.flags, strict=True):
        array = known[value] if value.literal is None else value.literal
        held = flag.status is Status.HELD and value.is_float and value.literal is None
        found.append(hold(array) if held else array)
    return found + [_array(known[v]) if v.literal is None else v.literal for v in program.auxiliary]


def _array(x: Any) -> Any:
    return x.array if isinstance(x, Tokens) else x


def _run_step(
    step: Any, known: dict[Value, Any], tokens: frozenset[Value], probes: Probes, gradients: bool
) -> list[Any]:
    if step.taps:
        return [_tapped(known[step.inputs[0]], step.taps, probes)]
    if step.computes and step.equation is not None and not tokens.isdisjoint(step.outputs):
        return _moved_tokens(step.equation, known, tokens)
    if step.loop is not None:
        return _run_loop(step, known, probes, gradients)
    constants = [hold(_array(known[v])) if v in step.held else _array(known[v]) for v in step.constants]
    if step.computes:
        return step.function([], constants)
    if step.tokens:
        return _looked_up(step, constants, known)
    inputs = [as_float(hold(known[v]) if v in step.held else known[v]) for v in step.inputs]
    meters = probes.meters.get(step)
    if meters is not None:
        inputs = [_metered(x, meters[0]) for x in inputs]
    linear = step.linear(constants, step.rectified) if step.linear is not None else None
    application = Application(
        step.operation,
        inputs,
        constants,
        step.function,
        linear,
        None if meters is None else meters[2:],
        probes.weights,
    )
    results = step.rule.apply(application)
    return results if meters is None else [_metered(y, meters[1]) for y in results]


def _run_loop(step: Any, known: dict[Value, Any], probes: Probes, gradients: bool) -> list[Any]:
    operands = [
        v.literal if v.literal is not None else hold(known[v]) if v in step.held else known[v]
        for v in step.loop.equation.inputs
    ]
    paths = {path for plan in step.loop.plans for path in plan.watched()}
    here = [{path: of[path] for path in sorted(paths & set(of))} for of in (probes.taps, probes.values)]

    def inside(plan: Any, arguments: list[Any], here: Any) -> list[Any]:
        within = dataclasses.replace(probes, taps=here[0], values=here[1])
        return run(plan, arguments, within, gradients=gradients)

    return control_flow.run(step.loop, operands, inside, here)


# Tokens.


def _moved_tokens(equation: Equation, known: dict[Value, Any], tokens: frozenset[Value]) -> list[Any]:
    """Integers that follow from tokens: their places follow as numbers do."""
    operands = [known[v] if v.literal is None else v.literal for v in equation.inputs]
    results = evaluate(equation, [_array(x) for x in operands])
    (value,) = equation.outputs
    if row_of(equation.primitive, equation.params).entrywise:
        # Answers and arithmetic: each entry is of the tokens at its place.
        of = [x.place for x in operands if isinstance(x, Tokens)]
        place = sum(jnp.broadcast_to(p, value.shape) for p in of) / len(of)
    else:
        known_row = row_of(equation.primitive, equation.params)
        moved = set(range(len(operands))[known_row.selects : known_row.values]) - {known_row.where}
        places = [
            x.place
            if isinstance(x, Tokens) and i in moved
            else jnp.zeros(jnp.shape(_array(x)))
            if i in moved
            else _array(x)
            for i, x in enumerate(operands)
        ]
        (place,) = evaluate(equation, places)
    return [Tokens(results[0], place) if value in tokens else results[0]]


def _looked_up(step: Any, constants: list[Any], known: dict[Value, Any]) -> list[Any]:
    """Rows of a table, or numbers, whose relevance goes to the tokens' places."""
    (rows,) = step.function([], constants)
    rows = as_float(rows)
    of = [known[v].place for v in step.equation.inputs if v.literal is None and isinstance(known[v], Tokens)]
    numbers = step.equation.params.get("dimension_numbers")
    for place in of:
        if place.shape == rows.shape:  # the tokens' own values
            rows = _embed(rows, place)
        elif numbers is not None:
            # An index has one number an axis of the table: relevance is of those that are tokens.
            count = jnp.maximum(jax.lax.stop_gradient(place != 0).sum(-1), 1)
            indices = place.sum(-1) / count
            within = [a for a in range(rows.ndim) if a not in numbers.offset_dims]
            rows = _embed_rows(rows, indices, tuple(within))
        else:
            rows = _embed_rows(rows, place.reshape(()), ())
    return [rows]


def _embed_rows(rows: jax.Array, place: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    spread = lambda p: jax.lax.broadcast_in_dim(p, rows.shape, axes)  # noqa: E731
    return _embed(rows, spread(place))


@jax.custom_vjp
def _embed(rows: jax.Array, place: jax.Array) -> jax.Array:
    return rows


_embed.defvjp(
    lambda rows, place: (rows, (rows, place)),
    lambda residuals, ratio: (None, to_relevance(ratio, residuals[0]).astype(residuals[1].dtype)),
)


# Probes.


def _tapped(x: jax.Array, paths: tuple[str, ...], probes: Probes) -> jax.Array:
    # A tap lies above the mask: it sees what arrives, the layers below what the mask lets through.
    for path in paths:
        if path in probes.masks:
            mask = jnp.asarray(probes.masks[path], x.dtype)
            try:
                mask = jnp.broadcast_to(mask, x.shape)
            except ValueError as error:
                raise InputError(
                    f"expected a mask of '{path}' that broadcasts to {x.shape}, got {mask.shape}: one a channel"
                ) from error
            x = scale_ratio(x, mask)
        if path in probes.taps:
            x = _tap(x, *probes.taps[path])
        if path in probes.values:
            x = _shown(x, probes.values[path])
    return x


def _arriving(ratio: jax.Array, x: jax.Array) -> jax.Array:
    """Relevance by its ratio; 0 where none arrives at an infinite x, such as a mask of -inf."""
    return jnp.where(jnp.isinf(x) & (ratio == 0), 0, to_relevance(ratio, x))


@jax.custom_vjp
def _tap(x: jax.Array, of_relevance: jax.Array, of_ratio: jax.Array) -> jax.Array:
    return x


_tap.defvjp(lambda x, *_: (x, x), lambda x, ratio: (ratio, _arriving(ratio, x), ratio))


@jax.custom_vjp
def _shown(x: jax.Array, zeros: jax.Array) -> jax.Array:
    return x


_shown.defvjp(lambda x, _: (x, x), lambda x, ratio: (ratio, x))


@jax.custom_vjp
def _metered(x: jax.Array, zero: jax.Array) -> jax.Array:
    return x


_metered.defvjp(
    lambda x, zero: (x, x), lambda x, ratio: (ratio, jnp.sum(_arriving(ratio, x)).astype(ratio.dtype))
)
