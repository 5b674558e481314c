"""Explained features beside a context that gets no relevance, as the graph network and the metric heads have them."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jxai import lrp
from jxai.fewshot.heads.head import Head


@flax.struct.dataclass
class Conditioned:
    """Features with what their scores need beside them.

    Attributes:
        features: what is explained and weighted, channels last.
        context: an array or a tree of arrays, which gets neither relevance nor weights.
    """

    features: jax.Array
    context: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features."""
        return self.features.shape

    def __mul__(self, weights: jax.Array) -> "Conditioned":
        return dataclasses.replace(self, features=self.features * weights)

    __rmul__ = __mul__


class ConditionedHead(Head):
    """A head whose `explained` gives `Conditioned`."""

    def relevance(self, variables: Any, explained: Conditioned, start: jax.Array) -> jax.Array:
        """Relevance of the features, the context held constant; for the arguments see `Head`."""

        def scores(features: jax.Array) -> jax.Array:
            given = dataclasses.replace(explained, features=features)
            return self.apply(variables, given, True, method="scores", mutable=["batch_stats"])[0]

        return lrp.vjp(scores, explained.features, composite=self.composite)[1](start)[0]


def vectors(features: jax.Array, *, pool: bool = True) -> jax.Array:
    """One vector an image.

    Args:
        features: maps (N, h, w, C) or vectors (N, C).
        pool: whether a map becomes its mean over the positions; else it is flattened.

    Returns:
        (N, C), or (N, h·w·C).
    """
    if pool and features.ndim > 2:
        return features.mean(axis=tuple(range(1, features.ndim - 1)))
    return features.reshape(features.shape[0], -1)


def normalized(x: jax.Array) -> jax.Array:
    """Rows of length 1; zeros stay zeros.

    Args:
        x: vectors (N, C).

    Returns:
        (N, C).
    """
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-12))
