"""Rules of linear layers in general: z taken apart into parts, each shared out by its own denominator.

Notation as in Montavon et al., *Layer-Wise Relevance Propagation: An Overview* (2019): a layer is z = W x + b;
x⁺, x⁻, W⁺, W⁻ are clamps at zero; S(z) = z + ε·sgn(z) with sgn(0) = +1. Every rule is a sum of parts k, with
D_k = Σ_t W_t x_t + b_k over the part's terms t:

    R_in = Σ_k weight_k · Σ_t x_t ⊙ W_tᵀ (R_out / S(D_k))
"""

import abc
import dataclasses
import enum
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jxai.lrp.rules.base import LINEAR, Rule
from jxai.lrp.rules.operation import Application, Kind, Linear
from jxai.lrp.rules.ratio import check_stabilizer, is_zero, replace_zeros, stabilize, to_ratio, to_relevance


class Of(enum.Enum):
    """Which of the inputs a term takes."""

    ALL = "x"
    POSITIVE = "x⁺"
    NEGATIVE = "x⁻"


@dataclasses.dataclass(frozen=True)
class Term:
    """W_t x_t.

    Attributes:
        kernel: W_t, of the layer's kernel's shape.
        inputs: x_t: a selection of the layer's inputs, or what stands in their place (broadcast to each input).
    """

    kernel: jax.Array
    inputs: Of | Any = Of.ALL


@dataclasses.dataclass(frozen=True)
class Part:
    """One denominator and what is shared out by it.

    Attributes:
        terms: its sum.
        bias: b_k, or None.
        weight: of the part's share.
        where: the sign of z at which the part applies; 0 for every z.
    """

    terms: Sequence[Term]
    bias: jax.Array | None = None
    weight: Any = 1.0
    where: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearRule(Rule):
    """A rule for z = W x + b. Subclasses give `parts`.

    Attributes:
        epsilon: the stabilizer of every denominator, at least 0; 0 keeps exact zeros finite and no more.
        only_zeros: stabilize exact zeros of a denominator alone (set them to ε) instead of adding ε·sgn(z).
    """

    epsilon: float = 1e-6
    only_zeros: bool = False
    kinds: ClassVar[frozenset[Kind]] = LINEAR
    takes_modules: ClassVar[bool] = False
    hands_on_zeros: ClassVar[bool] = False
    # Whether inputs of zero never receive relevance.
    proportional: ClassVar[bool] = True
    # Fields that `lrp.rule_parameters` finds: numbers from 0 on, through which gradients pass.
    tunable: ClassVar[tuple[str, ...]] = ("epsilon",)

    @property
    def frees(self) -> bool:
        """See `Rule`."""
        return not self.proportional

    def __post_init__(self):
        check_stabilizer(self.epsilon)

    @abc.abstractmethod
    def parts(self, linear: Linear) -> list[Part]:
        """The parts of this rule.

        Args:
            linear: the layer's map, kernel and bias.

        Returns:
            The parts, see `Part`. Terms of negative inputs may stay where `linear.nonnegative`: they are left out.
        """

    def tuned(self, **values: Any) -> "LinearRule":
        """This rule with other values of `tunable` fields, which may be traced.

        Args:
            **values: by field.

        Returns:
            The rule.
        """
        return dataclasses.replace(self, **values)

    def output(self, denominators: list[jax.Array]) -> jax.Array | None:
        """z from the denominators, where they hold it, which saves a pass of the layer.

        Args:
            denominators: D_k of every part, with all biases.

        Returns:
            z, or None where it has to be computed.
        """
        return None

    def keep(self, parts: list[Part], z: jax.Array, stabilized: list[jax.Array]) -> list[jax.Array]:
        """What is kept for the way back: by default weight_k · z / S(D_k), one array a part.

        Args:
            parts: of the rule.
            z: the layer's result.
            stabilized: S(D_k) of every part.

        Returns:
            As few arrays as determine the `shares`.
        """
        return [
            jnp.asarray(part.weight, z.dtype) * _nonzero_quotient(z, s, part.where)
            for part, s in zip(parts, stabilized, strict=True)
        ]

    def shares(self, parts: list[Part], kept: list[jax.Array]) -> list[jax.Array]:
        """weight_k · z / S(D_k) of every part.

        Args:
            parts: of the rule.
            kept: what `keep` gave.

        Returns:
            An array a part.
        """
        return kept

    def check(self, linear: Linear, inputs: list[jax.Array]) -> None:
        """Refuse inputs that the rule is not made for (seen outside of jit alone)."""

    def apply(self, application: Application) -> list[jax.Array]:
        """z, with this rule as its VJP; see `Rule`."""
        assert application.linear is not None
        self.check(application.linear, application.inputs)
        linear, inputs = application.linear, application.inputs
        return [self.explain(linear, inputs, application.meters, application.weights)]

    def explain(
        self, linear: Linear, inputs: list[jax.Array], meters: Any = None, weights: bool = False
    ) -> jax.Array:
        """z = map(x, kernel) + bias, with this rule as its VJP in x.

        Args:
            linear: the layer; neither kernel nor bias receives relevance, unless `weights`.
            inputs: x.
            meters: see `Application`.
            weights: see `Application`.

        Returns:
            z; its VJP takes R_out / z to R_in / x.
        """

        # Arrays among the rule's own numbers are arguments too: closed over, they could not leave a loop.
        numbers = {
            name: value for name in self.tunable if isinstance(value := getattr(self, name), jax.Array)
        }

        def tuned(numbers: dict[str, jax.Array]) -> LinearRule:
            return self.tuned(**numbers) if numbers else self

        def layer(kernel: jax.Array, bias: jax.Array | None) -> Linear:
            return dataclasses.replace(linear, kernel=kernel, bias=bias)

        def forward(rule, inputs, kernel, bias):
            linear = layer(kernel, bias)
            parts = rule.parts(linear)
            denominators = _denominators(linear, parts, inputs)
            z = rule.output(denominators)
            if z is None:
                z = linear.map(inputs, kernel)
                z = z if bias is None else z + bias
            return z, parts, denominators

        @jax.custom_vjp
        def explained(inputs, kernel, bias, meters, numbers):
            z = linear.map(inputs, kernel)
            return z if bias is None else z + bias

        def fwd(inputs, kernel, bias, meters, numbers):
            rule = tuned(numbers)
            z, parts, denominators = forward(rule, inputs, kernel, bias)
            stabilized = [rule._stabilize(d) for d in denominators]
            kept = rule.keep(parts, z, stabilized)
            absorbing = (
                None if meters is None else [s - d for s, d in zip(stabilized, denominators, strict=True)]
            )
            selects = any(term.inputs is not Of.ALL for part in parts for term in _terms(linear, part))
            shapes = [jax.typeof(x) for x in inputs]  # and how they lie on devices
            held = inputs if selects or weights else [jnp.zeros((), x.dtype) for x in inputs]
            return z, (held, kernel, bias, kept, absorbing, numbers, _Shapes(shapes))

        def bwd(residuals, ratio):
            inputs, kernel, bias, kept, absorbing, numbers, shapes = residuals
            linear, rule = layer(kernel, bias), tuned(numbers)
            parts = rule.parts(linear)
            s = [ratio * share for share in rule.shares(parts, kept)]
            found = _transposed(linear, parts, s, inputs, shapes.leaves)
            meters = None
            if absorbing is not None:
                by_bias = sum(
                    jnp.sum(p.bias * t) for p, t in zip(parts, s, strict=True) if p.bias is not None
                )
                by_stabilizer = sum(jnp.sum(a * t) for a, t in zip(absorbing, s, strict=True))
                meters = (jnp.asarray(by_bias, ratio.dtype), jnp.asarray(by_stabilizer, ratio.dtype))
            of_kernel, of_bias = _of_weights(linear, parts, s, inputs) if weights else (None, None)
            return found, of_kernel, of_bias, meters, None

        explained.defvjp(fwd, bwd)
        return explained(inputs, linear.kernel, linear.bias, meters, numbers)

    def _stabilize(self, z: jax.Array) -> jax.Array:
        if is_zero(self.epsilon):
            return z
        return (replace_zeros if self.only_zeros else stabilize)(z, self.epsilon)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Shapes:
    """Shapes among residuals."""

    leaves: Any

    def __hash__(self):
        return hash(tuple((leaf.shape, leaf.dtype) for leaf in self.leaves))


def _terms(linear: Linear, part: Part) -> list[Term]:
    """The part's terms that are not known to be zero, without selections that are known to be everything."""
    if not linear.nonnegative:
        return list(part.terms)
    kept = [term for term in part.terms if term.inputs is not Of.NEGATIVE]
    return [Term(term.kernel, Of.ALL) if term.inputs is Of.POSITIVE else term for term in kept]


def _taken(linear: Linear, term: Term, x: jax.Array) -> jax.Array:
    """x_t for one of the inputs."""
    if term.inputs is Of.ALL:
        return x
    if term.inputs is Of.POSITIVE:
        return jnp.maximum(x, 0)
    if term.inputs is Of.NEGATIVE:
        return jnp.minimum(x, 0)
    value = jnp.asarray(term.inputs, x.dtype)
    shape = list(x.shape)
    if linear.batch is not None and (value.ndim < x.ndim or value.shape[linear.batch] == 1):
        # What is the same for every image is computed once.
        shape[linear.batch] = 1
    return jnp.broadcast_to(value, shape)


def _nonzero_quotient(z: jax.Array, denominator: jax.Array, where: int) -> jax.Array:
    """z / D at the given sign of z, 0 elsewhere; z = 0 stands for the number that its ratio was formed with."""
    at = z > 0 if where > 0 else z < 0
    if where:
        return jnp.where(at, z / jnp.where(at, denominator, 1), 0)
    return to_ratio(to_relevance(jnp.ones_like(z), z), denominator)


def _joint(linear: Linear, parts: list[Part]) -> bool:
    """Whether all parts are one map of concatenated channels: they take the same selections of the inputs."""
    selections = [[term.inputs for term in _terms(linear, part)] for part in parts]
    several = len(parts) > 1 or len(selections[0]) > 1
    chosen = all(isinstance(one, Of) for one in selections[0])
    return several and linear.channels is not None and chosen and all(s == selections[0] for s in selections)


def _joint_map(linear: Linear, parts: list[Part], taken: list[jax.Array]) -> list[jax.Array]:
    """The parts' sums by one convolution of concatenated channels."""
    assert linear.channels is not None
    of_input, of_kernel, of_output, of_features = linear.channels
    blocks = [jnp.concatenate([term.kernel for term in _terms(linear, part)], of_kernel) for part in parts]
    z = linear.map([jnp.concatenate(taken, of_input)], jnp.concatenate(blocks, of_features))
    return jnp.split(z, len(parts), of_output)


def _map(linear: Linear, terms: list[Term], taken: list[list[jax.Array]]) -> jax.Array:
    first, *rest = [linear.map(xs, term.kernel) for term, xs in zip(terms, taken, strict=True)]
    return sum(rest, start=first)


def _denominators(linear: Linear, parts: list[Part], inputs: list[jax.Array]) -> list[jax.Array]:
    if _joint(linear, parts):
        taken = [_taken(linear, term, inputs[0]) for term in _terms(linear, parts[0])]
        sums = _joint_map(linear, parts, taken)
    else:
        sums = []
        for part in parts:
            terms = _terms(linear, part)
            taken = [[_taken(linear, term, x) for x in inputs] for term in terms]
            empty = [Term(jnp.zeros_like(linear.kernel))]
            sums.append(_map(linear, terms, taken) if terms else _map(linear, empty, [inputs]))
    return [z if part.bias is None else z + part.bias for z, part in zip(sums, parts, strict=True)]


def _transposed(
    linear: Linear, parts: list[Part], s: list[jax.Array], inputs: list[jax.Array], shapes: list[Any]
) -> list[jax.Array]:
    """R_in / x = Σ (x_t / x) ⊙ W_tᵀ s over all terms."""
    found: list[list[jax.Array]] = [[jnp.zeros(shape.shape, shape.dtype) for shape in shapes]]
    if _joint(linear, parts):
        terms = _terms(linear, parts[0])
        backward = jax.linear_transpose(functools.partial(_joint_map, linear, parts), shapes * len(terms))
        found = [
            _gated(linear, term, [back], inputs) for term, back in zip(terms, backward(s)[0], strict=True)
        ]
    else:
        pairs = [(term, share) for part, share in zip(parts, s, strict=True) for term in _terms(linear, part)]
        for term, share in pairs:
            backward = jax.linear_transpose(functools.partial(_swapped, linear, term.kernel), shapes)
            found.append(_gated(linear, term, backward(share)[0], inputs))
        found = found[1:] or found
    return [functools.reduce(jnp.add, of_one) for of_one in zip(*found, strict=True)]


def _swapped(linear: Linear, kernel: jax.Array, inputs: list[jax.Array]) -> jax.Array:
    return linear.map(inputs, kernel)


def _gated(linear: Linear, term: Term, back: list[jax.Array], inputs: list[jax.Array]) -> list[jax.Array]:
    """(x_t / x) ⊙ back."""
    if term.inputs is Of.ALL:
        return back
    if term.inputs is Of.POSITIVE:
        return [jnp.where(x >= 0, b, 0) for b, x in zip(back, inputs, strict=True)]
    if term.inputs is Of.NEGATIVE:
        return [jnp.where(x < 0, b, 0) for b, x in zip(back, inputs, strict=True)]
    return [to_ratio(_taken(linear, term, x) * b, x) for b, x in zip(back, inputs, strict=True)]


def _of_weights(
    linear: Linear, parts: list[Part], s: list[jax.Array], inputs: list[jax.Array]
) -> tuple[jax.Array, jax.Array | None]:
    """Ratios of kernel and bias: what is handed on through each weight, Σ x_t W_t s, and what the bias absorbs."""
    of_kernel, of_bias = jnp.zeros_like(linear.kernel), None
    for part, share in zip(parts, s, strict=True):
        for term in _terms(linear, part):
            taken = [_taken(linear, term, x) for x in inputs]
            taken = [jnp.broadcast_to(t, x.shape) for t, x in zip(taken, inputs, strict=True)]
            (back,) = jax.vjp(functools.partial(linear.map, taken), term.kernel)[1](share)
            same = term.kernel is linear.kernel
            of_kernel += back if same else to_ratio(term.kernel * back, linear.kernel)
        if part.bias is not None and linear.bias is not None:
            spread = functools.partial(jnp.broadcast_to, shape=share.shape)
            (back,) = jax.linear_transpose(spread, part.bias)(share)
            back = back if part.bias is linear.bias else to_ratio(part.bias * back, linear.bias)
            of_bias = back if of_bias is None else of_bias + back
    return of_kernel, of_bias
