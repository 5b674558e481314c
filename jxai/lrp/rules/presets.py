"""The composites of the literature.

Where nothing else is said: activations pass, max pooling goes to the winner, sums and means hand on in proportion
(LRP-0) and so do fixed maps, attention and normalization follow AttnLRP, batch norm is merged into the linear layer
next to it. With `norm`, sums and average pooling are stabilized (`Norm`), as zennit has it.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn

from jxai.checks import check_number
from jxai.lrp.rules.base import Constant, Gradient, HoldGate, Norm, Pass, Rule
from jxai.lrp.rules.composites import Composite, Pattern
from jxai.lrp.rules.layers import AlphaBeta, Box, Epsilon, Flat, Gamma, ZPlus
from jxai.lrp.rules.operation import Kind, Operation, attention_weights, first
from jxai.lrp.rules.ratio import is_zero
from jxai.lrp.rules.relu import DeconvRelu, GuidedRelu

Rules = tuple[tuple[Pattern, Rule], ...]


@dataclasses.dataclass(frozen=True)
class Preset(Composite):
    """A composite whose rules follow from its parameters.

    Attributes:
        epsilon: stabilizer of every rule.
        norm: whether sums, means and average pooling are stabilized too.
    """

    rules: Rules = dataclasses.field(default=(), init=False, repr=False)
    name: str = dataclasses.field(default="", init=False, repr=False)
    complete: bool = dataclasses.field(default=False, init=False, repr=False)
    epsilon: float = dataclasses.field(default=1e-6, kw_only=True)
    norm: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self):
        object.__setattr__(self, "name", type(self).__name__)
        sums: Rules = ((Kind.SUM, Norm(self.epsilon)), (Kind.MEAN, Norm(self.epsilon))) if self.norm else ()
        object.__setattr__(self, "rules", self.layers() + sums)

    def layers(self) -> Rules:
        """The rules of the linear layers."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class EpsilonPlus(Preset):
    """Convolutions z⁺, dense layers ε; the usual choice for convolutional classifiers."""

    def layers(self) -> Rules:
        """See `Preset`."""
        return (
            (Kind.CONVOLUTION, ZPlus(epsilon=self.epsilon)),
            (Kind.DENSE, Epsilon(self.epsilon)),
        )


@dataclasses.dataclass(frozen=True)
class EpsilonAlpha2Beta1(Preset):
    """Convolutions α2β1, dense layers ε."""

    def layers(self) -> Rules:
        """See `Preset`."""
        return (
            (Kind.CONVOLUTION, AlphaBeta(2.0, 1.0, epsilon=self.epsilon)),
            (Kind.DENSE, Epsilon(self.epsilon)),
        )


@dataclasses.dataclass(frozen=True)
class EpsilonPlusFlat(EpsilonPlus):
    """`EpsilonPlus` with the flat rule at the first layers."""

    def layers(self) -> Rules:
        """See `Preset`."""
        return ((first, Flat(epsilon=self.epsilon)), *super().layers())


@dataclasses.dataclass(frozen=True)
class EpsilonAlpha2Beta1Flat(EpsilonAlpha2Beta1):
    """`EpsilonAlpha2Beta1` with the flat rule at the first layers."""

    def layers(self) -> Rules:
        """See `Preset`."""
        return ((first, Flat(epsilon=self.epsilon)), *super().layers())


@dataclasses.dataclass(frozen=True)
class EpsilonGammaBox(Preset):
    """First convolutions z^B, other convolutions γ, dense layers ε (Montavon et al. 2019, section 10.3).

    Attributes:
        low: least value of the inputs, a number or an array such as one a channel; see `Box`.
        high: largest value.
        gamma: of the γ rule.
    """

    low: Any
    high: Any
    gamma: float = 0.25

    def layers(self) -> Rules:
        """See `Preset`."""
        return (
            ((first, Kind.CONVOLUTION), Box(self.low, self.high, epsilon=self.epsilon)),
            (Kind.CONVOLUTION, Gamma(self.gamma, epsilon=self.epsilon)),
            (Kind.DENSE, Epsilon(self.epsilon)),
        )


@dataclasses.dataclass(frozen=True)
class ExcitationBackprop(Preset):
    """z⁺ everywhere (Zhang et al. 2016)."""

    def layers(self) -> Rules:
        """See `Preset`."""
        rule = ZPlus(epsilon=self.epsilon)
        return ((Kind.CONVOLUTION, rule), (Kind.DENSE, rule))


@dataclasses.dataclass(frozen=True)
class AttnLRP(Preset):
    """Dense layers and convolutions ε or γ, attention as everywhere by AttnLRP (Achtibat et al. 2024).

    Attributes:
        gamma: of the γ rule in all linear layers; 0 for ε.
        convolution_gamma: of the γ rule in convolutions; None for that of the other layers.
        bias: whether linear layers' biases absorb their share.
    """

    gamma: float = 0.0
    convolution_gamma: float | None = dataclasses.field(default=None, kw_only=True)
    bias: bool = dataclasses.field(default=True, kw_only=True)

    def layers(self) -> Rules:
        """See `Preset`."""
        of_convolutions = self.gamma if self.convolution_gamma is None else self.convolution_gamma
        return ((Kind.CONVOLUTION, self._of(of_convolutions)), (Kind.DENSE, self._of(self.gamma)))

    def _of(self, gamma: float) -> Rule:
        check_number("gamma", gamma, least=0)
        given = {"epsilon": self.epsilon, "bias": self.bias}
        return Epsilon(**given) if is_zero(gamma) else Gamma(gamma, **given)


@dataclasses.dataclass(frozen=True)
class CPLRP(AttnLRP):
    """`AttnLRP` with attention's weights, and so query and key, and gates held constant (Ali et al. 2022).

    Values get all of a head's relevance, and u all of that of act(g) * u (`HoldGate`). A softmax that weighs no other
    activation, such as that of a classifier's scores, is none of attention: it has the rule of `AttnLRP`.
    """

    def layers(self) -> Rules:
        """See `Preset`."""
        return (
            (attention_weights, Constant()),
            (Kind.PRODUCT, HoldGate()),
            (Kind.CONTRACTION, HoldGate()),
            *super().layers(),
        )


@dataclasses.dataclass(frozen=True)
class _GradientComposite(Composite):
    """A composite under which gradients travel, and ReLU alone has a rule."""

    rules: Rules = dataclasses.field(default=(), init=False, repr=False)
    name: str = dataclasses.field(default="", init=False, repr=False)

    relevance: ClassVar[bool] = False
    relu: ClassVar[Rule]

    def __post_init__(self):
        object.__setattr__(self, "name", type(self).__name__)
        object.__setattr__(self, "rules", ((Kind.ACTIVATION, self.relu),))


@dataclasses.dataclass(frozen=True)
class _PlainGradients(_GradientComposite):
    """No rule at all: plain gradients."""

    def __post_init__(self):
        object.__setattr__(self, "name", "plain gradients")


PLAIN_GRADIENTS = _PlainGradients()


@dataclasses.dataclass(frozen=True)
class GuidedBackprop(_GradientComposite):
    """Guided backpropagation (Springenberg et al. 2015): only ReLU differs from the gradient."""

    relu: ClassVar[Rule] = GuidedRelu()


@dataclasses.dataclass(frozen=True)
class Deconvnet(_GradientComposite):
    """The deconvolution network (Zeiler and Fergus 2014): only ReLU differs from the gradient."""

    relu: ClassVar[Rule] = DeconvRelu()


def _relu(operation: Operation) -> bool:
    return operation.kind is Kind.ACTIVATION and operation.primitives == ("max",)


def batch_norm(operation: Operation) -> bool:
    """A pattern: Flax's batch norm as a whole; unlike the class, it may match nothing without a warning.

    Args:
        operation: the operation.

    Returns:
        Whether it is one.
    """
    return operation.kind is Kind.MODULE and isinstance(operation.module, nn.BatchNorm)


# The rules of the few-shot release (Sun et al., *Explanation-Guided Training for Cross-Domain Few-Shot
# Classification*, 2020): dense ε = 0.01 and convolution α1β0, both with the bias left out; batch norm identity; sums
# in proportion with ε = 0.01, half each where the sum is 0. Average pooling is plain LRP-0 in both. ReLU masks: its
# zeros hand nothing on, even where relevance starts at them.
# The release moves exact-zero inputs of a dense layer to -1e-6; here they get no relevance, a difference below 1e-6.
SUN2020_DENSE = Epsilon(epsilon=0.01, bias=False)
SUN2020_CONVOLUTION = AlphaBeta(alpha=1.0, beta=0.0, epsilon=1e-7, bias=False, only_zeros=True)
sun2020 = Composite(
    rules=(
        (batch_norm, Pass()),
        (Kind.DENSE, SUN2020_DENSE),
        (Kind.CONVOLUTION, SUN2020_CONVOLUTION),
        (Kind.SUM, Norm(0.01, share_zeros=True)),
        (_relu, Gradient()),
    ),
    name="sun2020",
    merge_batch_norm=False,
    complete=False,
)
