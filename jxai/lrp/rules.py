"""The rules of layer-wise relevance propagation, each a `custom_vjp` whose cotangent is the ratio R / z.

Notation as in Montavon et al., *Layer-Wise Relevance Propagation: An Overview* (2019): a layer is z = W x + b;
x⁺, x⁻, W⁺, W⁻ are clamps at zero; S(z) = z + ε·sgn(z) with sgn(0) = +1.

A rule of one's own subclasses `LinearRule` and gives `propagate`.
"""

import abc
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jxai.lrp.layer import Layer, Linear
from jxai.lrp.ratio import replace_zeros, stabilise, to_ratio, to_relevance


class Rule(abc.ABC):
    """How one module's relevance is handed to its input."""

    @abc.abstractmethod
    def __call__(self, layer: Layer) -> jax.Array:
        """The module's output, computed so that its VJP carries ratios by this rule.

        Args:
            layer: the call being explained.

        Returns:
            The output, of the module's own shape.
        """


class LinearRule(Rule):
    """A rule for z = W x + b. Subclasses say what `propagate` returns; the rest is shared."""

    @abc.abstractmethod
    def propagate(self, linear: Linear, x: jax.Array, z: jax.Array, relevance: jax.Array) -> jax.Array:
        """The ratios R_in / x.

        Args:
            linear: the layer's map, kernel and bias.
            x: the layer's input.
            z: its output, bias included.
            relevance: R_out, of z's shape.

        Returns:
            R_in / x, of x's shape (`to_ratio` forms it from R_in where it has no closed form).
        """

    def __call__(self, layer: Layer) -> jax.Array:
        """z, with this rule as its VJP; see `Rule`."""
        return self.explain(layer.linear(), layer.x)

    def explain(self, linear: Linear, x: jax.Array) -> jax.Array:
        """z = map(x, kernel) + bias, with this rule as its VJP in x.

        Args:
            linear: the map, its kernel and bias; the kernel receives no relevance.
            x: the input.

        Returns:
            z; its VJP takes R_out / z to R_in / x.
        """

        def forward(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
            z = linear.map(x, kernel)
            return z if bias is None else z + bias

        @jax.custom_vjp
        def explained(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
            return forward(x, kernel, bias)

        def fwd(x, kernel, bias):
            z = forward(x, kernel, bias)
            return z, (x, kernel, bias, z)

        def bwd(residuals, ratio):
            x, kernel, bias, z = residuals
            part = dataclasses.replace(linear, kernel=kernel, bias=bias)
            ratio_in = self.propagate(part, x, z, to_relevance(ratio, z))
            return ratio_in, jnp.zeros_like(kernel), None if bias is None else jnp.zeros_like(bias)

        explained.defvjp(fwd, bwd)
        return explained(x, linear.kernel, linear.bias)


def transpose(linear: Linear, kernel: jax.Array, s: jax.Array, x: jax.Array) -> jax.Array:
    """Wᵀ s for the layer's map with the given kernel; x gives the result's shape."""
    return jax.linear_transpose(lambda x: linear.map(x, kernel), x)(s)[0]


@dataclasses.dataclass(frozen=True)
class Epsilon(LinearRule):
    """LRP-ε: R_in = x ⊙ Wᵀ(R_out / S(z)) (Bach et al. 2015, eq. 58).

    Attributes:
        epsilon: the stabiliser, at least 0; 0 is LRP-0.
        bias: whether the denominator holds the bias, which then absorbs its share.
    """

    epsilon: float = 1e-6
    bias: bool = True

    def __post_init__(self):
        _check_stabiliser(self.epsilon)

    def propagate(self, linear, x, z, relevance):  # noqa: D102
        if not self.bias and linear.bias is not None:
            z = z - linear.bias
        # LRP-0 still divides by z, so exact zeros are kept finite as everywhere else.
        s = relevance / stabilise(z, self.epsilon) if self.epsilon else to_ratio(relevance, z)
        return transpose(linear, linear.kernel, s, x)


@dataclasses.dataclass(frozen=True)
class AlphaBeta(LinearRule):
    """LRP-αβ (Bach et al. 2015, eq. 60); α1β0 is the z⁺ rule of inputs of either sign.

    R_in = α·(share of the positive contributions W⁺x⁺ + W⁻x⁻) − β·(share of the negative ones W⁺x⁻ + W⁻x⁺).

    Attributes:
        alpha: weight of the positive part.
        beta: weight of the negative part; α − β = 1.
        epsilon: the stabiliser, at least 0.
        bias: whether the denominators hold the positive and the negative part of the bias.
        only_zeros: stabilise exact zeros of a denominator alone (set them to ε) instead of adding ε·sgn(z).
        nonnegative: the inputs are known to hold no negative value, as behind a ReLU: half of the rule is zero
            and is not computed. Wrong relevance where they do.
    """

    alpha: float = 1.0
    beta: float = 0.0
    epsilon: float = 1e-6
    bias: bool = True
    only_zeros: bool = False
    nonnegative: bool = False

    def __post_init__(self):
        if self.alpha < 0 or self.beta < 0 or not abs(self.alpha - self.beta - 1) <= 1e-6:
            raise ValueError(
                f"expected alpha and beta of at least 0 with alpha - beta = 1, got alpha={self.alpha}, "
                f"beta={self.beta}: relevance would not be conserved; take for example alpha=2, beta=1"
            )
        _check_stabiliser(self.epsilon)

    def propagate(self, linear, x, z, relevance):  # noqa: D102
        ratio = self.alpha * self._part(linear, x, relevance, _positive, _negative)
        if self.beta:
            ratio = ratio - self.beta * self._part(linear, x, relevance, _negative, _positive)
        return ratio

    def _part(
        self,
        linear: Linear,
        x: jax.Array,
        relevance: jax.Array,
        with_positive: Callable,
        with_negative: Callable,
    ) -> jax.Array:
        """The share of the contributions in which x⁺ meets one sign of the kernel and x⁻ the other."""
        kernel, other = with_positive(linear.kernel), with_negative(linear.kernel)
        z = linear.map(_positive(x), kernel)
        if not self.nonnegative:
            z = z + linear.map(_negative(x), other)
        if self.bias and linear.bias is not None:
            z = z + with_positive(linear.bias)
        if self.epsilon:
            s = relevance / (replace_zeros if self.only_zeros else stabilise)(z, self.epsilon)
        else:
            s = to_ratio(relevance, z)
        ratio = transpose(linear, kernel, s, x)
        if self.nonnegative:
            return ratio
        return jnp.where(x >= 0, ratio, transpose(linear, other, s, x))


@dataclasses.dataclass(frozen=True)
class Pass(Rule):
    """R_in = R_out, for a module that keeps the shape: activations, batch norm that is not merged ("identity")."""

    def __call__(self, layer: Layer) -> jax.Array:
        """The module's output; see `Rule`."""
        y = layer.forward()
        if jnp.shape(y) != jnp.shape(layer.x):
            raise ValueError(
                f"expected a module that keeps the shape for Pass, got {layer.kind} at '{layer.path}' from "
                f"{jnp.shape(layer.x)} to {jnp.shape(y)}: give it another rule in the composite"
            )
        return _pass(layer.x, y.astype(jnp.promote_types(y.dtype, jnp.float32)))


@jax.custom_vjp
def _pass(x: jax.Array, y: jax.Array) -> jax.Array:
    return y


def _pass_fwd(x, y):
    return y, (x, y)


def _pass_bwd(residuals, ratio):
    x, y = residuals
    # None: no ratio goes back through the module. Gradients of relevance still do, for they meet `_pass_fwd`.
    return to_ratio(to_relevance(ratio, y), x), None


_pass.defvjp(_pass_fwd, _pass_bwd)


def _positive(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0)


def _negative(x: jax.Array) -> jax.Array:
    return jnp.minimum(x, 0)


def _check_stabiliser(epsilon: float) -> None:
    if not epsilon >= 0:
        raise ValueError(f"expected a stabiliser epsilon of at least 0, got {epsilon}")
