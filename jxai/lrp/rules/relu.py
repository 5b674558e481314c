"""The rules of ReLU under which gradients travel, in guided backpropagation and in the deconvolution network."""

import dataclasses
from typing import ClassVar

import jax

from jxai.lrp.rules.base import Rule
from jxai.lrp.rules.operation import Application, Kind


@dataclasses.dataclass(frozen=True)
class GuidedRelu(Rule):
    """The gradient where both it and the ReLU's input are positive (Springenberg et al. 2015)."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({Kind.ACTIVATION})

    def apply(self, application: Application) -> list[jax.Array]:
        """The results; see `Rule`."""
        return [_guided(*application.inputs)]


@dataclasses.dataclass(frozen=True)
class DeconvRelu(Rule):
    """The gradient where it is positive, whatever the ReLU's input (Zeiler and Fergus 2014)."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({Kind.ACTIVATION})

    def apply(self, application: Application) -> list[jax.Array]:
        """The results; see `Rule`."""
        return [_deconvolved(*application.inputs)]


@jax.custom_vjp
def _guided(x: jax.Array) -> jax.Array:
    return jax.nn.relu(x)


_guided.defvjp(lambda x: (jax.nn.relu(x), x > 0), lambda mask, g: (jax.nn.relu(g) * mask,))


@jax.custom_vjp
def _deconvolved(x: jax.Array) -> jax.Array:
    return jax.nn.relu(x)


_deconvolved.defvjp(lambda x: (jax.nn.relu(x), None), lambda _, g: (jax.nn.relu(g),))
