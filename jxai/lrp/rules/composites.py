"""Composites: which operation gets which rule. The first match wins."""

import dataclasses
import fnmatch
from collections.abc import Callable
from typing import Any, ClassVar

from jax.extend.core import Primitive

from jxai.checks import shown
from jxai.errors import InputError, InputTypeError
from jxai.lrp.calls import is_module_class, normal
from jxai.lrp.rules.base import Rule
from jxai.lrp.rules.operation import Kind, Operation

Pattern = Kind | Primitive | type | str | Callable[[Operation], bool] | tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Composite:
    """Rules by operation.

    A pattern is a `Kind`, a primitive of JAX such as `jax.lax.tanh_p`, a class of modules of Linen, NNX, Equinox,
    Haiku or Keras (of any module around the operation), a path with wildcards such as "block3/*" or, of one call of
    several, "conv#1", a predicate of the `Operation`, or a tuple of patterns all of which must match. A rule is
    passed over where it is not for the operation's kind. `Pass`, `Constant`, `Gradient` and a rule of one's own with
    `propagate` take a whole module that is matched by class, path or predicate, or a name scope.

    Attributes:
        rules: pairs of a pattern and a rule, tried in order.
        name: how the composite is called in messages.
        merge_batch_norm: whether scales and shifts next to a linear layer become part of it.
        complete: whether to warn where no rule at all meets an operation.
        relevance: whether ratios of relevance travel, or, as in guided backpropagation, gradients.
    """

    rules: tuple[tuple[Pattern, Rule], ...] = ()
    name: str = "composite"
    merge_batch_norm: bool = dataclasses.field(default=True, kw_only=True)
    complete: bool = dataclasses.field(default=True, kw_only=True)

    relevance: ClassVar[bool] = True

    def __post_init__(self):
        if not isinstance(self.rules, tuple | list):
            raise InputTypeError(
                f"expected pairs of a pattern and a rule, got {shown(self.rules)}: see lrp.Composite"
            )
        for entry in self.rules:
            if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], Rule)):
                raise InputTypeError(
                    f"expected pairs of a pattern and a rule, got {entry!r}: see lrp.Composite"
                )
            if isinstance(entry[0], type) and not is_module_class(entry[0]):
                raise InputTypeError(
                    f"expected a class of modules (of Linen, NNX, Equinox, Haiku or Keras) as a pattern, got "
                    f"{entry[0]}: functions are matched by lrp.Kind, a path, a primitive or a predicate"
                )
            for pattern in entry[0] if isinstance(entry[0], tuple) else entry[:1]:
                if not (isinstance(pattern, Kind | Primitive | str | tuple) or callable(pattern)):
                    raise InputTypeError(f"expected a pattern, got {shown(pattern)}: see lrp.Composite")

    def find(self, operation: Operation) -> int | None:
        """The first pair whose pattern matches, and whose rule is for the operation's kind.

        Args:
            operation: the operation.

        Returns:
            Its index in `rules`, or None where nothing matches.
        """
        for index, (pattern, rule) in enumerate(self.rules):
            if _is_for(rule, pattern, operation.kind) and matches(pattern, operation):
                return index
        return None

    def __or__(self, other: "Composite") -> "Composite":
        """Both composites' rules, this one's tried first; batch norm is merged unless one of them says no."""
        if self.relevance != other.relevance:
            raise InputError(
                f"expected composites of one sort, got {self.name} and {other.name}, of which one carries gradients "
                "and one relevance: they do not mix"
            )
        kind = type(other) if not other.relevance else Composite
        joined = object.__new__(kind)
        merge = self.merge_batch_norm and other.merge_batch_norm
        values = {"rules": self.rules + other.rules, "name": f"{self.name} | {other.name}"}
        complete = self.complete and other.complete
        for name, value in {**values, "merge_batch_norm": merge, "complete": complete}.items():
            object.__setattr__(joined, name, value)
        return joined


def _is_for(rule: Rule, pattern: Pattern, kind: Kind) -> bool:
    """Whether a rule is for a kind: of a fixed map a linear layer's too, where the pattern says so by name."""
    if kind is Kind.FIXED and Kind.DENSE in rule.kinds and not rule.takes_modules:
        return kind in (pattern if isinstance(pattern, tuple) else (pattern,))
    return kind in rule.kinds


def check_composite(composite: Any) -> None:
    """Refuse what is no composite."""
    if not isinstance(composite, Composite):
        raise InputTypeError(
            f"expected a composite, got {shown(composite)}: take one such as lrp.EpsilonPlus()"
        )


def matches(pattern: Pattern, operation: Operation) -> bool:
    """Whether a pattern matches an operation; see `Composite`.

    Args:
        pattern: the pattern.
        operation: the operation.

    Returns:
        The answer.
    """
    whole = operation.kind is Kind.MODULE
    if isinstance(pattern, tuple):
        return all(matches(one, operation) for one in pattern)
    if isinstance(pattern, Kind):
        return operation.kind is pattern
    if isinstance(pattern, Primitive):
        return not whole and pattern.name in operation.primitives
    if isinstance(pattern, type):
        return any(isinstance(m, pattern) for m in operation.modules[-1 if whole else 0 :])
    if isinstance(pattern, str):
        places = {operation.path, operation.place} if operation.modules else ()
        return any(fnmatch.fnmatchcase(place, normal(pattern)) for place in places)
    return bool(pattern(operation))
