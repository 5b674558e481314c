"""Running a plan: every step by its rule, with probes where someone looks in."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jxai.lrp import nesting
from jxai.lrp.flow import Status
from jxai.lrp.graph import Value, widen
from jxai.lrp.operation import Application, Kind
from jxai.lrp.plan import Plan, Step
from jxai.lrp.ratio import to_relevance
from jxai.lrp.rule import hold, scale_ratio


@dataclasses.dataclass(frozen=True)
class Probes:
    """Arrays whose cotangents are what is asked for, and masks.

    Attributes:
        taps: zeros of the watched modules' outputs' shapes, by path; their cotangents are relevances.
        masks: by path, what relevance is multiplied by there.
        meters: for every operation four zeros: relevance in, out, absorbed by bias, by stabiliser.
        tokens: ones of the shapes of the inputs of integers, by index.
    """

    taps: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    masks: dict[str, Any] = dataclasses.field(default_factory=dict)
    meters: dict[Step, Any] = dataclasses.field(default_factory=dict)
    tokens: dict[int, jax.Array] = dataclasses.field(default_factory=dict)


def run(plan: Plan, arguments: list[Any], probes: Probes, *, gradients: bool = False) -> list[Any]:
    """Compute a plan's outputs, so that their VJP carries ratios by the rules.

    Args:
        plan: the plan.
        arguments: arrays in place of the graph's inputs.
        probes: where to look in.
        gradients: gradients travel instead of ratios.

    Returns:
        Arrays in place of the graph's outputs, then of its auxiliary ones.
    """
    known: dict[Value, Any] = dict(plan.graph.constants)
    known.update(zip(plan.graph.inputs, arguments, strict=True))
    for step in plan.steps:
        results = _run_step(step, known, probes, gradients)
        known.update(zip(step.outputs, results, strict=True))
    auxiliary = [(v, Status.INDEPENDENT) for v in plan.graph.auxiliary]
    return [
        v.literal if v.literal is not None else (hold(known[v]) if _is_held(v, status) else known[v])
        for v, status in (*zip(plan.graph.outputs, plan.statuses, strict=True), *auxiliary)
    ]


def _is_held(value: Value, status: Status) -> bool:
    """Whether relevance of a result goes nowhere."""
    return status is Status.HELD and bool(jnp.issubdtype(value.dtype, jnp.floating))


def _run_step(step: Step, known: dict[Value, Any], probes: Probes, gradients: bool) -> list[Any]:
    constants = [hold(known[v]) if v in step.held else known[v] for v in step.constants]
    if step.tap is not None:
        return [_tapped(known[step.inputs[0]], step.tap, probes)]
    if step.operation is None:
        assert step.function is not None
        return step.function([], constants)
    if step.nested is not None:
        arrays = dict(zip(step.constants, constants, strict=True))
        operands = [
            v.literal if v.literal is not None else arrays.get(v, known.get(v))
            for v in step.nested.equation.inputs
        ]

        def inside(plan: Plan, arguments: list[Any]) -> list[Any]:
            return run(plan, arguments, probes, gradients=gradients)

        return nesting.run(step.nested.equation, step.nested.plans, operands, inside)
    assert step.function is not None and step.rule is not None
    if step.operation.kind is Kind.EMBEDDING:
        return _embedded(step, constants, known, probes)
    inputs = [widen(known[v]) for v in step.inputs]
    meters = probes.meters.get(step)
    if meters is not None:
        inputs = [_metered(x, meters[0]) for x in inputs]
    linear = step.linear(constants, step.rectified) if step.linear is not None else None
    application = Application(
        step.operation, inputs, constants, step.function, linear, None if meters is None else meters[2:]
    )
    results = step.rule.apply(application)
    return results if meters is None else [_metered(y, meters[1]) for y in results]


def _tapped(x: jax.Array, path: str, probes: Probes) -> jax.Array:
    # The tap lies above the mask: it sees what arrives, the layers below what the mask lets through.
    if path in probes.masks:
        mask = jnp.asarray(probes.masks[path], x.dtype)
        try:
            mask = jnp.broadcast_to(mask, x.shape)
        except ValueError as error:
            raise ValueError(
                f"expected a mask of '{path}' that broadcasts to {x.shape}, got {mask.shape}: one a channel, or all"
            ) from error
        x = scale_ratio(x, mask)
    if path in probes.taps:
        x = _tap(x, probes.taps[path])
    return x


def _embedded(step: Step, constants: list[Any], known: dict[Value, Any], probes: Probes) -> list[Any]:
    assert step.function is not None
    (rows,) = step.function([], constants)
    rows = widen(rows)
    return [_embed(rows, probes.tokens[step.token])] if step.token in probes.tokens else [rows]


@jax.custom_vjp
def _embed(rows: jax.Array, ones: jax.Array) -> jax.Array:
    return rows


def _embed_bwd(residuals, ratio):
    rows, ones = residuals
    relevance = to_relevance(ratio, rows)
    return None, relevance.sum(axis=tuple(range(ones.ndim, rows.ndim)))


_embed.defvjp(lambda rows, ones: (rows, (rows, ones)), _embed_bwd)


@jax.custom_vjp
def _tap(x: jax.Array, zeros: jax.Array) -> jax.Array:
    return x


_tap.defvjp(lambda x, zeros: (x, x), lambda x, ratio: (ratio, to_relevance(ratio, x)))


@jax.custom_vjp
def _metered(x: jax.Array, zero: jax.Array) -> jax.Array:
    return x


_metered.defvjp(
    lambda x, zero: (x, x), lambda x, ratio: (ratio, jnp.sum(to_relevance(ratio, x)).astype(ratio.dtype))
)
