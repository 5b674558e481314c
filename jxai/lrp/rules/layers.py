"""The rules of linear layers: each says into which parts it takes z apart; the rest is `jxai.lrp.rules.linear`'s."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jxai.checks import as_numpy, check_number
from jxai.errors import InputError
from jxai.lrp.rules.linear import LinearRule, Of, Part, Term
from jxai.lrp.rules.operation import Linear
from jxai.lrp.rules.ratio import is_zero


def _positive(x: Any) -> Any:
    return None if x is None else jnp.maximum(x, 0)


def _negative(x: Any) -> Any:
    return None if x is None else jnp.minimum(x, 0)


@dataclasses.dataclass(frozen=True)
class Epsilon(LinearRule):
    """LRP-ε: R_in = x ⊙ Wᵀ(R_out / S(z)) (Bach et al. 2015, eq. 58); ε = 0 is LRP-0.

    Attributes:
        epsilon: the stabilizer, at least 0.
        bias: whether the denominator holds the bias, which then absorbs its share.
    """

    epsilon: float = 1e-6
    bias: bool = True

    def parts(self, linear: Linear) -> list[Part]:
        """One part: the layer itself; see `LinearRule`."""
        return [Part([Term(linear.kernel)], linear.bias if self.bias else None)]

    def output(self, denominators: list[jax.Array]) -> jax.Array | None:
        """The denominator, where it holds the bias; see `LinearRule`."""
        return denominators[0] if self.bias else None


@dataclasses.dataclass(frozen=True)
class AlphaBeta(LinearRule):
    """LRP-αβ (Bach et al. 2015, eq. 60) of inputs of either sign.

    R_in = α·(share of the positive contributions W⁺x⁺ + W⁻x⁻) - β·(share of the negative ones W⁻x⁺ + W⁺x⁻).

    Attributes:
        alpha: weight of the positive part.
        beta: weight of the negative part; α - β = 1.
        bias: whether the denominators hold the positive and the negative part of the bias.
    """

    alpha: float = 2.0
    beta: float = 1.0
    bias: bool = True
    tunable: ClassVar[tuple[str, ...]] = ("beta", "epsilon")

    def __post_init__(self):
        super().__post_init__()
        check_number("alpha", self.alpha)
        check_number("beta", self.beta)
        if isinstance(self.alpha, Tracer) or isinstance(self.beta, Tracer):
            return
        alpha, beta = float(self.alpha), float(self.beta)
        if alpha < 0 or beta < 0 or not abs(alpha - beta - 1) <= 1e-6 * max(1.0, alpha):
            raise InputError(
                f"expected alpha and beta of at least 0 with alpha - beta = 1, got alpha={self.alpha}, "
                f"beta={self.beta}: relevance would not be conserved; take for example alpha=2, beta=1"
            )

    def parts(self, linear: Linear) -> list[Part]:
        """The positive and, unless β = 0, the negative contributions; see `LinearRule`."""
        up, down = _positive(linear.kernel), _negative(linear.kernel)
        bias = linear.bias if self.bias else None
        positive = Part([Term(up, Of.POSITIVE), Term(down, Of.NEGATIVE)], _positive(bias), self.alpha)
        negative = Part([Term(down, Of.POSITIVE), Term(up, Of.NEGATIVE)], _negative(bias), -self.beta)
        return [positive] if is_zero(self.beta) else [positive, negative]

    def output(self, denominators: list[jax.Array]) -> jax.Array | None:
        """The sum of both contributions; see `LinearRule`."""
        return denominators[0] + denominators[1] if self.bias and not is_zero(self.beta) else None

    def tuned(self, **values: Any) -> LinearRule:
        """See `LinearRule`; α follows β."""
        return super().tuned(**(values | {"alpha": 1 + values["beta"]} if "beta" in values else values))


@dataclasses.dataclass(frozen=True)
class ZPlus(AlphaBeta):
    """The z⁺ rule, α1β0: relevance goes to the positive contributions alone (Montavon et al. 2017, eq. 14).

    Attributes:
        bias: whether the denominator holds the positive part of the bias.
    """

    alpha: float = dataclasses.field(default=1.0, init=False, repr=False)
    beta: float = dataclasses.field(default=0.0, init=False, repr=False)
    tunable: ClassVar[tuple[str, ...]] = ("epsilon",)


@dataclasses.dataclass(frozen=True)
class Gamma(LinearRule):
    """Generalized LRP-γ: positive contributions count 1 + γ times where z > 0, negative ones where z < 0.

    Montavon et al. 2019, section 10.2.1; for inputs and outputs of either sign Andéol et al. 2021.
    Where z = 0, nothing is handed on.

    Attributes:
        gamma: at least 0; 0 is LRP-ε.
        bias: whether the denominators hold the bias, which then absorbs its share.
    """

    gamma: float = 0.25
    bias: bool = True
    tunable: ClassVar[tuple[str, ...]] = ("gamma", "epsilon")

    def __post_init__(self):
        super().__post_init__()
        check_number("gamma", self.gamma, least=0)

    def parts(self, linear: Linear) -> list[Part]:
        """A part for each sign of z; see `LinearRule`."""
        # An array would widen what it meets to its own dtype.
        gamma = jnp.asarray(self.gamma, linear.kernel.dtype)

        def raised(x: Any, sign: int) -> Any:
            return None if x is None else x + gamma * (_positive(x) if sign > 0 else _negative(x))

        def part(sign: int) -> Part:
            terms = [
                Term(raised(linear.kernel, sign), Of.POSITIVE),
                Term(raised(linear.kernel, -sign), Of.NEGATIVE),
            ]
            return Part(terms, raised(linear.bias if self.bias else None, sign), where=sign)

        return [part(1)] if linear.rectified else [part(1), part(-1)]

    def output(self, denominators: list[jax.Array]) -> jax.Array | None:
        """Every contribution stands 1 + γ times in one of the two and once in the other; see `LinearRule`."""
        alone = len(denominators) == 1 or not self.bias
        if alone:
            return None
        both = denominators[0] + denominators[1]
        return both / jnp.asarray(2 + self.gamma, both.dtype)

    # The two parts apply at opposite signs of z, and no share is negative: one array with signs holds both.

    def keep(self, parts: list[Part], z: jax.Array, stabilized: list[jax.Array]) -> list[jax.Array]:
        """One array for both parts; see `LinearRule`."""
        up, *down = super().keep(parts, z, stabilized)
        return [up - down[0]] if down else [up]

    def shares(self, parts: list[Part], kept: list[jax.Array]) -> list[jax.Array]:
        """See `LinearRule`."""
        return [jnp.maximum(kept[0], 0), jnp.maximum(-kept[0], 0)] if len(parts) > 1 else kept


@dataclasses.dataclass(frozen=True)
class Box(LinearRule):
    """z^B, for inputs within bounds, such as pixels (Montavon et al. 2017, eq. 16).

    R_in = x⊙c - low⊙c⁺ - high⊙c⁻ with c, c⁺, c⁻ the way back through W, W⁺, W⁻ of R / S(W x - W⁺ low - W⁻ high).

    Attributes:
        low: least value of the inputs, a number or an array that broadcasts to them, such as one a channel. Where
            the model itself scales and shifts its inputs right before the layer, that is merged into the layer: the
            bounds are those of what comes before it, such as 0 and 255.
        high: largest value.
    """

    low: Any
    high: Any

    proportional: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.low, Tracer) or isinstance(self.high, Tracer):
            return
        low, high = as_numpy("bounds, low", self.low), as_numpy("bounds, high", self.high)
        try:
            exchanged = (low > high).any()
        except ValueError as error:
            raise InputError(
                f"expected bounds of one shape, got {low.shape} and {high.shape}: match them"
            ) from error
        if exchanged:
            raise InputError(f"expected low <= high, got low={self.low}, high={self.high}: exchange them")

    def check(self, linear: Linear, inputs: list[jax.Array]) -> None:
        """Refuse bounds that do not contain the inputs; seen where arrays are concrete."""
        for x in map(jax.lax.stop_gradient, inputs):  # the arrays themselves, where only derivatives trace
            if isinstance(x, Tracer):
                continue
            values, slack = np.asarray(x), 1e-5 * max(1.0, float(np.abs(x).max(initial=0)))
            if isinstance(self.low, Tracer) or isinstance(self.high, Tracer):
                continue
            if np.any(values < np.asarray(self.low) - slack) or np.any(
                values > np.asarray(self.high) + slack
            ):
                raise InputError(
                    f"expected inputs within [low, high] = [{self.low}, {self.high}] for the box rule, got values "
                    f"from {values.min()} to {values.max()}: give the bounds of what the layer receives; scales "
                    "and shifts right before it are part of it"
                )

    def parts(self, linear: Linear) -> list[Part]:
        """One part, in which the bounds carry the signs' kernels; see `LinearRule`."""
        up, down = _positive(linear.kernel), _negative(linear.kernel)
        return [Part([Term(linear.kernel), Term(-up, self.low), Term(-down, self.high)])]


@dataclasses.dataclass(frozen=True)
class WSquare(LinearRule):
    """w²: every input counts as 1, by the squared weights (Montavon et al. 2017, eq. 12)."""

    proportional: ClassVar[bool] = False

    def parts(self, linear: Linear) -> list[Part]:
        """One part; see `LinearRule`."""
        bias = None if linear.bias is None else linear.bias**2
        return [Part([Term(linear.kernel**2, 1.0)], bias)]


@dataclasses.dataclass(frozen=True)
class Flat(LinearRule):
    """Flat: relevance spreads evenly over the inputs that a result sees (Bach et al. 2016)."""

    proportional: ClassVar[bool] = False

    def parts(self, linear: Linear) -> list[Part]:
        """One part; see `LinearRule`."""
        return [Part([Term(jnp.ones_like(linear.kernel), 1.0)])]
