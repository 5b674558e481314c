"""What a rule is, and the rules for everything but linear layers.

Relevance R of a value x travels as the ratio c = R / x. Automatic differentiation of ratios is LRP-0 wherever an
operation is linear in what carries relevance, so that most operations need no rule; see `jxai.lrp.rules.ratio`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jxai.errors import InputError
from jxai.lrp.rules.operation import Application, Kind, Operation
from jxai.lrp.rules.ratio import check_stabilizer, is_zero, stabilize, to_ratio, to_relevance

LINEAR = frozenset({Kind.CONVOLUTION, Kind.DENSE})
ANY = frozenset(Kind)


class Rule:
    """How an operation's relevance is handed to its inputs.

    A rule of one's own for any function gives `propagate`; one for linear layers subclasses `LinearRule`.

    Attributes:
        kinds: the kinds of operations that it is for; a composite's pattern passes over others.
        takes_modules: whether it takes a module matched by class or path as a whole.
        holds: no relevance passes: the result is a constant.
        frees: what inputs receive is not in proportion to them.
        gives_zeros: inputs of exactly zero may receive relevance from results that are not.
        hands_on_zeros: where a result of exactly zero carries relevance, inputs of zero do.
        masks_relu: on max(x, 0), nothing is handed on where x is negative.
        holds_gates: of a gated product, the gate is a constant.
    """

    kinds: ClassVar[frozenset[Kind]] = ANY
    takes_modules: ClassVar[bool] = True
    holds: ClassVar[bool] = False
    holds_gates: ClassVar[bool] = False
    masks_relu: ClassVar[bool] = False
    gives_zeros: ClassVar[bool] = False
    hands_on_zeros: ClassVar[bool] = True

    @property
    def frees(self) -> bool:
        """See `Rule`."""
        return False

    def apply(self, application: Application) -> list[jax.Array]:
        """Compute the operation so that its VJP carries ratios by this rule.

        Args:
            application: the operation with its arrays.

        Returns:
            Its results.
        """
        inputs, constants = application.inputs, application.constants

        @jax.custom_vjp
        def explained(inputs, constants):
            return application.function(inputs, constants)

        def fwd(inputs, constants):
            outputs = application.function(inputs, constants)
            return outputs, (inputs, constants, outputs)

        def bwd(residuals, ratios):
            inputs, constants, outputs = residuals
            found = self.propagate(
                lambda *inputs: application.function(list(inputs), constants),
                inputs,
                outputs,
                [to_relevance(c, y) for c, y in zip(ratios, outputs, strict=True)],
            )
            return [to_ratio(r, x) for r, x in zip(found, inputs, strict=True)], None

        explained.defvjp(fwd, bwd)
        return explained(inputs, constants)

    def propagate(
        self, function: Any, inputs: list[jax.Array], outputs: list[jax.Array], relevance: list[jax.Array]
    ) -> list[jax.Array]:
        """Relevance of the inputs.

        Args:
            function: the operation, of the inputs alone.
            inputs: what carries relevance.
            outputs: the operation's results.
            relevance: of the outputs.

        Returns:
            An array for each input, of its shape.
        """
        raise NotImplementedError(f"expected {type(self).__name__} to give `propagate` or `apply`: write one")


@jax.custom_vjp
def hold(x: jax.Array) -> jax.Array:
    """x, through which no relevance passes; gradients of relevance do."""
    return x


# None, where zeros would meet infinite derivatives below, such as the square root's at 0, and give NaN.
hold.defvjp(lambda x: (x, None), lambda _, ratio: (None,))


def cut(function: Callable) -> Callable:
    """A function of (inputs, constants) through which no ratio passes, and which is not differentiated for it."""

    def held(inputs: list[Any], constants: list[Any]) -> list[Any]:
        of_both = jax.custom_vjp(function)
        of_both.defvjp(lambda *given: (function(*given), given), lambda given, _: (None, None))
        return of_both(inputs, constants)

    return held


@jax.custom_vjp
def scale_ratio(x: jax.Array, factor: jax.Array) -> jax.Array:
    """x, whose ratio is multiplied by a factor on its way back."""
    return x


scale_ratio.defvjp(lambda x, factor: (x, factor), lambda factor, ratio: (ratio * factor, None))


@jax.custom_vjp
def pass_relevance(x: jax.Array, y: jax.Array) -> jax.Array:
    """y, whose relevance goes to x of the same shape unchanged, whatever lies between."""
    return y


# No ratio goes back along y; gradients of relevance do. What ratios meet is one product, which XLA may repeat.
pass_relevance.defvjp(
    lambda x, y: (y, to_ratio(to_relevance(jnp.ones_like(y), y), x)),
    lambda quotient, ratio: (ratio * quotient, None),
)


@dataclasses.dataclass(frozen=True)
class Pass(Rule):
    """R_in = R_out, for what keeps the shape: activations, batch norm that is not merged ("identity")."""

    # What is zero may have a result, and so relevance, that is not.
    gives_zeros: ClassVar[bool] = True

    def apply(self, application: Application) -> list[jax.Array]:
        """The results; see `Rule`."""
        x, *others = application.inputs
        if others:
            raise InputError(
                f"expected an operation of one input for Pass, got {application.operation} of {len(others) + 1}: "
                "give it another rule in the composite"
            )
        outputs = application.function(application.inputs, application.constants)
        for y in outputs:
            if y.shape != x.shape:
                raise InputError(
                    f"expected an operation that keeps the shape for Pass, got {application.operation} from "
                    f"{x.shape} to {y.shape}: give it another rule in the composite"
                )
        return [pass_relevance(x, y) for y in outputs]


@dataclasses.dataclass(frozen=True)
class Constant(Rule):
    """No relevance passes: the result is held constant, as CP-LRP holds attention's weights."""

    holds: ClassVar[bool] = True

    def apply(self, application: Application) -> list[jax.Array]:
        """The results; see `Rule`."""
        return [hold(y) for y in application.function(application.inputs, application.constants)]


@dataclasses.dataclass(frozen=True)
class Gradient(Rule):
    """The ratio's plain derivative: LRP-0 of what is linear, gradient x input of the rest.

    For a softmax it is R_in = x(R - s·ΣR), the rule of AttnLRP (Achtibat et al. 2024, eq. 13).
    """

    masks_relu: ClassVar[bool] = True

    def apply(self, application: Application) -> list[jax.Array]:
        """The results; see `Rule`."""
        return application.function(application.inputs, application.constants)


@dataclasses.dataclass(frozen=True)
class Shift(Rule):
    """The ratio unchanged: what the operation adds to each entry counts as a constant, which absorbs its share.

    For centering it holds the mean constant, as a bias (the first version of AttnLRP had it so).
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({Kind.CENTERING, Kind.SHIFT, Kind.NORMALIZATION})

    def apply(self, application: Application) -> list[jax.Array]:
        """The results; see `Rule`."""
        (x,) = application.inputs
        return [_shifted(x, y) for y in application.function(application.inputs, application.constants)]


@jax.custom_vjp
def _shifted(x: jax.Array, y: jax.Array) -> jax.Array:
    return y


_shifted.defvjp(lambda x, y: (y, None), lambda _, ratio: (ratio, None))


@dataclasses.dataclass(frozen=True)
class Split(Rule):
    """Half of the relevance to each factor of a product (AttnLRP; Achtibat et al. 2024, eq. 15).

    Attributes:
        share_zeros: hand halves on where the product is exactly 0 too.
    """

    share_zeros: bool = False
    kinds: ClassVar[frozenset[Kind]] = frozenset({Kind.PRODUCT, Kind.CONTRACTION})

    def apply(self, application: Application) -> list[jax.Array]:
        """The results; see `Rule`."""
        # An activation times itself is one input, which stands for both factors.
        share = 1 / (len(application.inputs) if application.constants else 2)
        inputs = [scale_ratio(x, jnp.asarray(share, x.dtype)) for x in application.inputs]
        results = application.function(inputs, application.constants)
        return [_share_zeros(application, z) for z in results] if self.share_zeros else results


@dataclasses.dataclass(frozen=True)
class HoldGate(Split):
    """All of a gated product's relevance to what the gate multiplies, as CP-LRP has it (Ali et al. 2022).

    The gate is the one factor that an activation function gives, normalized or not: act(g) in act(g) * u, the weights
    of attention by a sigmoid, or of experts. Where both factors are such, or neither is, each gets half.
    """

    holds_gates: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class Norm(Rule):
    """In proportion to the inputs, stabilized: LRP-ε without weights, for sums and average pooling.

    Attributes:
        epsilon: the stabilizer, at least 0.
        share_zeros: where the result is exactly 0, what it is the sum of shares its relevance evenly, as the release
            of Sun et al. has it.
    """

    epsilon: float = 1e-6
    share_zeros: bool = False
    kinds: ClassVar[frozenset[Kind]] = frozenset({Kind.SUM, Kind.MEAN, Kind.FIXED})

    def __post_init__(self):
        check_stabilizer(self.epsilon)

    def apply(self, application: Application) -> list[jax.Array]:
        """The results; see `Rule`."""
        inputs = application.inputs
        (z,) = application.function(inputs, application.constants)
        if self.share_zeros:
            return [_share_zeros(application, z, self.epsilon)]
        return [z if is_zero(self.epsilon) else scale_ratio(z, z / stabilize(z, self.epsilon))]


@dataclasses.dataclass(frozen=True)
class Spread(Gradient):
    """The plain derivative of a scale, and R_in = R_out, summed over what x is broadcast to, where x is exactly 0."""

    def apply(self, application: Application) -> list[jax.Array]:
        """The results; see `Rule`."""
        (x,) = application.inputs
        found = []
        for y in application.function([x], application.constants):
            spread = jnp.broadcast_to(x, y.shape)
            found.append(jnp.where(spread == 0, _shifted(spread, y), y))
        return found


# What operations without a rule of the composite get.
_PLAIN, _SPLIT, _PASS, _SPREAD = Gradient(), Split(), Pass(), Spread()
_DEFAULTS: dict[Kind, Rule] = {
    Kind.SUM: _PLAIN,
    Kind.MEAN: _PLAIN,
    Kind.MOVE: _PLAIN,
    Kind.SHIFT: _PLAIN,
    Kind.FIXED: _PLAIN,
    Kind.CENTERING: _PLAIN,
    Kind.NORMALIZATION: _PLAIN,
    Kind.SOFTMAX: _PLAIN,
    Kind.EMBEDDING: _PLAIN,
    Kind.PRODUCT: _SPLIT,
    Kind.CONTRACTION: _SPLIT,
    Kind.ACTIVATION: _PASS,
    Kind.AFFINE: _PASS,
}


def default_rule(operation: Operation, plain: bool) -> Rule | None:
    """What an operation gets for which the composite has no rule.

    Args:
        operation: the operation; None is the answer where it needs a rule.
        plain: whether it is linear on each side of zero.
    """
    return _PLAIN if plain and operation.kind is Kind.ACTIVATION else _DEFAULTS.get(operation.kind)


def keeping_zeros(rule: Rule, operation: Operation, constants: bool, free: bool) -> Rule:
    """What stands in a default rule's place where results of exactly zero carry relevance, so that none is lost.

    A scale hands R itself on: the angles of position 0 have their share. Under rules that are not in proportion to
    the inputs (flat, w², z^B) a value tells nothing of its relevance: shifts and normalizations hand R itself on
    there, for R / x would be without bounds where x is small.

    Args:
        rule: the rule that the operation got.
        operation: the operation.
        constants: whether it has operands that carry no relevance.
        free: whether the results' relevance is not in proportion to them.
    """
    kind = operation.kind
    if rule is _PLAIN:
        if kind is Kind.FIXED or (kind in (Kind.SUM, Kind.MEAN) and not constants):
            return Norm(0.0, share_zeros=True)
        same = len(operation.inputs) == 1 and all(shape == operation.inputs[0] for shape in operation.outputs)
        if kind is Kind.MOVE and constants and operation.entrywise and len(operation.inputs) == 1:
            return _SPREAD
        if kind is Kind.ACTIVATION or (free and kind in (Kind.SHIFT, Kind.NORMALIZATION)):
            return _PASS if same else rule
    if rule is _SPLIT and kind is Kind.PRODUCT and not constants:
        return Split(share_zeros=True)
    return rule


def _share_zeros(application: Application, z: jax.Array, epsilon: Any = 0.0) -> jax.Array:
    """z, whose relevance where it is exactly 0 goes to all that it is the sum of in equal shares."""
    function, kind = application.function, application.operation.kind
    mean = kind in (Kind.MEAN, Kind.FIXED)
    alike = kind is Kind.SUM and all(x.shape == z.shape for x in application.inputs)
    if not is_zero(epsilon) and not alike:
        z = scale_ratio(z, z / stabilize(z, epsilon))

    def spread(relevance: jax.Array, inputs: list[jax.Array], constants: list[Any]) -> list[jax.Array]:
        if not mean:  # a difference has terms too: its operands, whatever their signs
            terms = [functools.partial(jnp.broadcast_to, shape=relevance.shape) for _ in inputs]
            share = relevance / len(inputs)
            return [jax.linear_transpose(term, x)(share)[0] for term, x in zip(terms, inputs, strict=True)]
        counts, back = jax.vjp(lambda x: function([x], constants)[0], jnp.ones_like(inputs[0]))
        return list(back(jnp.where(counts == 0, 0, relevance / jnp.where(counts == 0, 1, counts))))

    def factors(z: jax.Array, inputs: list[jax.Array], constants: list[Any]) -> list[jax.Array]:
        # What the ratio of z is multiplied by, for each term of its shape, with its sign.
        signs = jax.vjp(lambda xs: function(xs, constants)[0], inputs)[1](jnp.ones_like(z))[0]
        whole, rest = (
            to_relevance(jnp.ones_like(z), z) / len(inputs),
            1 if is_zero(epsilon) else z / stabilize(z, epsilon),
        )
        return [
            jnp.where(z == 0, to_ratio(whole, x), rest * sign) for x, sign in zip(inputs, signs, strict=True)
        ]

    @jax.custom_vjp
    def shared(inputs, constants, z):
        return z

    def bwd(residuals, ratio):
        inputs, constants, z = residuals
        if alike:
            return [ratio * factor for factor in factors(z, inputs, constants)], None, None
        found = spread(jnp.where(z == 0, to_relevance(ratio, z), 0), inputs, constants)
        ratios = [to_ratio(r, x) for r, x in zip(found, inputs, strict=True)]
        return ratios, None, jnp.where(z == 0, 0, ratio)

    shared.defvjp(lambda inputs, constants, z: (z, (inputs, constants, z)), bwd)
    return shared(application.inputs, application.constants, z)
