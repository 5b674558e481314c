"""A composite's numbers, layer by layer, as a tree of arrays that a gradient can be taken with respect to."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jxai.checks import as_array, check_number, shown
from jxai.errors import InputError, InputTypeError
from jxai.lrp.engine.explain import explain
from jxai.lrp.rules.composites import Composite, check_composite
from jxai.lrp.rules.linear import LinearRule
from jxai.lrp.rules.operation import Operation

Values = dict[str, dict[str, jax.Array]]


def rule_parameters(
    f: Callable, *primals: Any, composite: Composite
) -> tuple[Values, Callable[[Values], Composite]]:
    """γ, β = α − 1 and ε of every layer as a tree, and the function that makes a composite of such a tree.

    Relevance is differentiable in them, so that a composite can be learned. All are numbers from 0 on: take them as
    exponentials, under which what is 0 stays 0. Traced ones are computed with also where they are 0.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jxai import guidance, lrp
        >>> def f(x):
        ...     with jax.named_scope("hidden"):
        ...         x = jax.nn.relu(x @ jnp.array([[1.0, -1.0], [-2.0, 1.0]]))
        ...     with jax.named_scope("output"):
        ...         return x @ jnp.array([[1.0, 0.5], [0.0, 1.0]])
        >>> x, target = jnp.array([[1.0, 3.0]]), jnp.array([1])
        >>> composite = lrp.Composite(((lrp.Kind.DENSE, lrp.Gamma(0.25)),))
        >>> values, composed = lrp.rule_parameters(f, x, composite=composite)
        >>> sorted(values), sorted(values["hidden"])
        (['hidden', 'output'], ['epsilon', 'gamma'])
        >>> def loss(logs):
        ...     tuned = composed(jax.tree.map(jnp.exp, logs))
        ...     relevance = lrp.relevance(f, x, target, composite=tuned)
        ...     return guidance.unfaithfulness(f, x, relevance, target).mean()
        >>> gradient = jax.grad(loss)(jax.tree.map(jnp.log, values))

    Args:
        f: as for `lrp.vjp`.
        *primals: arrays or trees of arrays (`jax.ShapeDtypeStruct`s do too).
        composite: the rules; those that it gives to layers have the numbers, `Rule.tunable`, where the search starts.

    Returns:
        (values, composed). The values are by place ("encoder/conv1", and "conv#1" for one call of several), then by
        field, each of shape (). Layers without a module or name scope have "" as their place, and layers of one
        place share their rule's values. `composed(values)` is the composite, for any inputs of `f`.

    Raises:
        TypeError: as `lrp.vjp`.
        ValueError: under the composite gradients travel, no layer's rule has numbers, two layers of one place have
            different rules, or as `coverage`. `composed` refuses another tree, and numbers below 0 or not
            finite (not seen under jit).
    """
    check_composite(composite)
    if not composite.relevance:
        raise InputError(
            f"expected a composite of relevance, got {composite.name}, whose rules have no numbers to tune: take one "
            "such as lrp.EpsilonGammaBox"
        )
    layers = [
        (step.operation, step.rule)
        for step in explain(f, primals, composite).plan.operations()
        if step.operation is not None and isinstance(step.rule, LinearRule)
    ]
    rules: dict[str, LinearRule] = {}
    for operation, rule in layers:
        if (other := rules.setdefault(operation.place, rule)) is not rule:
            raise InputError(
                f"expected one rule a place, got {other} and {rule} at {operation.place!r}: tell its layers apart by "
                "jax.named_scope, or by modules"
            )
    rules = {place: rule for place, rule in rules.items() if rule.tunable}
    if not rules:
        raise InputError(
            f"expected layers whose rules have numbers to tune, got none under {composite.name}: give them "
            "lrp.Gamma, lrp.AlphaBeta or lrp.Epsilon"
        )
    places = dict.fromkeys((operation.place, operation.kind) for operation, _ in layers)

    # As tuples, of which nobody is warned where they match nothing: the tuned rules stand in their places.
    rest = tuple((one if isinstance(one, tuple) else (one,), rule) for one, rule in composite.rules)

    def composed(values: Values) -> Composite:
        _check(values, rules)
        tuned = {place: rule.tuned(**values[place]) for place, rule in rules.items()}
        return Composite(
            tuple(((_At(place), kind), tuned[place]) for place, kind in places if place in tuned) + rest,
            f"tuned {composite.name}",
            merge_batch_norm=composite.merge_batch_norm,
            complete=composite.complete,
        )

    values = {
        place: {name: jnp.asarray(getattr(rule, name), float) for name in rule.tunable}
        for place, rule in rules.items()
    }
    return values, composed


@dataclasses.dataclass(frozen=True)
class _At:
    """A pattern: the operations of one place, whatever characters its name has."""

    place: str

    def __call__(self, operation: Operation) -> bool:
        return operation.place == self.place


def _check(values: Any, rules: dict[str, LinearRule]) -> None:
    """Refuse another tree, and what is no number from 0 on."""
    wanted = {place: set(rule.tunable) for place, rule in rules.items()}
    given = {
        place: set(of) if isinstance(of, dict) else shown(of)
        for place, of in (values.items() if isinstance(values, dict) else ())
    }
    if given != wanted:
        raise InputTypeError(
            f"expected numbers by place and field for {', '.join(map(repr, wanted))}, got {shown(values)}: give a "
            "tree as rule_parameters gives it"
        )
    for place, of in values.items():
        for name, value in of.items():
            array = as_array(value)
            if array.shape or not jnp.issubdtype(array.dtype, jnp.floating):
                raise InputTypeError(
                    f"expected one float as {name} of {place!r}, got {array.dtype} {array.shape}: see rule_parameters"
                )
            check_number(f"{name} of {place!r}", value, least=0)
