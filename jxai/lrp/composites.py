"""Composites: which module gets which rule. The first match wins."""

import dataclasses
import fnmatch
from collections.abc import Callable

import flax.linen as nn

from jxai.lrp.rules import AlphaBeta, Epsilon, Pass, Rule

Pattern = type | str | Callable[[nn.Module], bool]


@dataclasses.dataclass(frozen=True)
class Composite:
    """Rules by module.

    Attributes:
        rules: pairs of a pattern and a rule, tried in order. A pattern is a module class, a path with
            wildcards such as "block3/*", or a predicate of the bound module.
        name: how the composite is called in messages.
    """

    rules: tuple[tuple[Pattern, Rule], ...]
    name: str = "composite"

    def rule(self, module: nn.Module) -> Rule | None:
        """The rule of the first pattern that matches.

        Args:
            module: a bound Flax module.

        Returns:
            Its rule, or None where nothing matches.
        """
        for pattern, rule in self.rules:
            if _matches(pattern, module):
                return rule
        return None

    def __or__(self, other: "Composite") -> "Composite":
        """Both composites' rules, this one's tried first."""
        return Composite(self.rules + other.rules, f"{self.name} | {other.name}")


def _matches(pattern: Pattern, module: nn.Module) -> bool:
    if isinstance(pattern, type):
        return isinstance(module, pattern)
    if isinstance(pattern, str):
        return fnmatch.fnmatchcase("/".join(module.path), pattern)
    return bool(pattern(module))


# The rules of the few-shot release (Sun et al., *Explanation-Guided Training for Cross-Domain Few-Shot
# Classification*, 2020): dense ε = 0.01 and convolution α1β0, both with the bias left out; batch norm identity.
# The release's rule for residual sums (proportional, ε = 0.01) is not here yet: a plain sum is LRP-0, which on
# ResNet10 down to pixels differs by up to 14 % of the largest relevance (tests/golden/resnet10_to_pixels.npz).
# The release moves exact-zero inputs of a dense layer to -1e-6; here they get no relevance, a difference below 1e-6.
SUN2020_DENSE = Epsilon(epsilon=0.01, bias=False)
SUN2020_CONVOLUTION = AlphaBeta(alpha=1.0, beta=0.0, epsilon=1e-7, bias=False, only_zeros=True)
sun2020 = Composite(
    rules=((nn.Dense, SUN2020_DENSE), (nn.Conv, SUN2020_CONVOLUTION), (nn.BatchNorm, Pass())),
    name="sun2020",
)
