"""A function traced and planned: what `vjp`, `coverage` and `conservation` share."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import as_array, finite
from jxai.errors import InputError, InputTypeError
from jxai.lrp.calls import normal
from jxai.lrp.engine.graph import Flags, Status, Tokens, widen
from jxai.lrp.engine.places import Context
from jxai.lrp.engine.plan import make_plan
from jxai.lrp.engine.run import Probes, run
from jxai.lrp.engine.scopes import find
from jxai.lrp.engine.steps import Plan
from jxai.lrp.engine.trace import trace
from jxai.lrp.rules.composites import Composite, check_composite


@dataclasses.dataclass(frozen=True)
class Explained:
    """A traced function with its plan.

    Attributes:
        plan: its steps.
        leaves: the primals' leaves, at least float32; integers stay.
        structure: of the primals.
        outputs: tree of the outputs' shapes.
        num_outputs: how many of the plan's outputs are not auxiliary.
        auxiliary: tree of the auxiliary outputs, `ARRAY` in the place of arrays.
        composite: the rules.
    """

    plan: Plan
    leaves: list[Any]
    structure: Any
    outputs: Any
    num_outputs: int
    auxiliary: Any
    composite: Composite

    def run(
        self, floats: list[Any], probes: Probes, places: dict[int, Any] | None = None
    ) -> tuple[list[Any], list[Any]]:
        """(outputs, auxiliary outputs) as lists, for the primals' leaves of floats and the places of tokens."""
        given = iter(floats)
        arguments = [
            next(given)
            if is_float(x)
            else Tokens(jnp.asarray(x), places[i] if places else jnp.ones(jnp.shape(x)))
            for i, x in enumerate(self.leaves)
        ]
        results = run(self.plan, arguments, probes, gradients=not self.composite.relevance)
        return results[: self.num_outputs], results[self.num_outputs :]


def explain(
    f: Callable,
    primals: Sequence[Any],
    composite: Composite,
    *,
    has_aux: bool = False,
    start: str | None = None,
    taps: Sequence[str] = (),
) -> Explained:
    """Trace a function and give every operation its rule; for the arguments see `vjp`."""
    check_composite(composite)
    leaves, structure = jax.tree.flatten(tuple(primals))
    for leaf in leaves:
        _check_leaf(leaf)
    kept: list[Any] = []

    def traced(*primals):
        if not has_aux:
            return f(*primals), ()
        y, aux = f(*primals)
        arrays, rest = _split(aux)
        kept.append(rest)
        return y, arrays

    program, (outputs, _), records = trace(traced, primals)
    num_outputs = len(jax.tree.leaves(outputs))
    if start is not None:
        value = next(iter(find(program.calls.values(), start).outputs.values()))
        outputs, values = jax.ShapeDtypeStruct(value.shape, value.dtype), [value]
    else:
        values = program.outputs[:num_outputs]
    auxiliary = program.outputs[num_outputs:]
    program = dataclasses.replace(program, outputs=values, auxiliary=auxiliary).pruned()
    context = Context(composite, records, frozenset(taps))
    places = context.taps(program)
    flags = [Flags() if is_float(x) else Flags(Status.HELD, token=True) for x in leaves]
    plan = make_plan(program, context, flags, places)
    if unmet := sorted(set(taps) - set(plan.watched())):
        for path in unmet:
            if not any(record.path == normal(path).partition("#")[0] for record in records):
                find(program.calls.values(), path)
        raise InputError(
            f"expected to watch or mask modules on the way from the inputs to the outputs, got {', '.join(unmet)}, "
            "where no relevance passes: leave them out"
        )
    if any(not is_float(x) for x in leaves) and not plan.embeds:
        x = next(x for x in leaves if not is_float(x))
        raise InputTypeError(
            f"expected integers to be looked up in a table, as nn.Embed does, got {jnp.result_type(x)} of shape "
            f"{jnp.shape(x)} in no embedding: convert the input to floats, or close over it"
        )
    context.warn()
    _warn_if_held(plan, composite)
    rest = kept[0] if has_aux else None
    # Shapes alone do where nothing is run.
    leaves = [x if isinstance(x, jax.ShapeDtypeStruct) else widen(x) for x in leaves]
    return Explained(plan, leaves, structure, outputs, len(values), rest, composite)


# Stands for an array among auxiliary outputs.
ARRAY = object()


def _split(tree: Any) -> tuple[list[Any], Any]:
    """(arrays among the leaves, the tree with `ARRAY` in their place)."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
    rest = structure.unflatten(
        [ARRAY if is_array else leaf for leaf, is_array in zip(leaves, arrays, strict=True)]
    )
    return [leaf for leaf, is_array in zip(leaves, arrays, strict=True) if is_array], rest


def _warn_if_held(plan: Plan, composite: Composite) -> None:
    """Warn where rules hold all of the outputs constant, so that no relevance passes."""
    held = [str(step.operation) for step in plan.operations() if step.computes]
    if held and all(flag.status is Status.HELD for flag in plan.flags):
        warnings.warn(
            f"expected relevance to reach the inputs, got none: {composite.name} holds constant what all outputs "
            f"come from, {', '.join(held[-3:])}; explain what comes before, such as logits, or give it another rule",
            stacklevel=4,
        )


def is_float(x: Any) -> bool:
    """Whether a primal holds floats."""
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def _check_leaf(x: Any) -> None:
    dtype = jnp.result_type(x if isinstance(x, jax.ShapeDtypeStruct) else as_array(x))
    if dtype == np.float16 or not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise InputTypeError(
            f"expected primals of float32, float64 or bfloat16, or integers for an embedding, got {dtype}: "
            "convert them to float32, or close over them"
        )
    if 0 in (shape := jnp.shape(x)):
        raise InputError(
            f"expected primals with values, got an array of shape {shape}: give one image at least"
        )
    if not isinstance(x, jax.ShapeDtypeStruct):
        finite("primals", as_array(x))
