"""Pairs of class prototype and query, as RelationNet compares them, kept as their two halves."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from jxai import lrp
from jxai.fewshot.heads.winograd import small_map_convolution
from jxai.lrp.rules.presets import SUN2020_CONVOLUTION
from jxai.lrp.rules.ratio import replace_zeros


@flax.struct.dataclass
class Pairs:
    """All (query, class) pairs of maps, the prototype's channels first.

    Attributes:
        prototype: (way, h, w, C).
        query: (queries, h, w, C).
    """

    prototype: jax.Array
    query: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `dense()`."""
        way, *_, channels = self.prototype.shape
        return (self.query.shape[0], way, *self.prototype.shape[1:-1], 2 * channels)

    def dense(self) -> jax.Array:
        """The pairs written out, (queries, way, h, w, 2C)."""
        half = (*self.shape[:-1], self.prototype.shape[-1])
        return jnp.concatenate(
            [jnp.broadcast_to(self.prototype[None], half), jnp.broadcast_to(self.query[:, None], half)],
            axis=-1,
        )

    def __jax_array__(self) -> jax.Array:
        return self.dense()

    def __mul__(self, weights: jax.Array) -> jax.Array:
        return self.dense() * weights

    __rmul__ = __mul__


class PairConv(nn.Module):
    """A 3x3 convolution of pairs with bias.

    It is linear in the two halves of a pair, so `Pairs` cost way + queries convolutions of C channels instead of
    way·queries of 2C.

    Attributes:
        features: output channels.
        padding: zeros around the map, on each side.
        use_bias: whether the bias is added.
        dtype: dtype of the computation, None for the one that inputs and kernel promote to, as Flax's layers.
    """

    features: int
    padding: int = 1
    use_bias: bool = True
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, pairs: Pairs | jax.Array) -> jax.Array:
        """Convolve.

        Args:
            pairs: `Pairs`, or written out (..., h, w, 2C).

        Returns:
            Maps (..., h', w', features).
        """
        shape = (3, 3, pairs.shape[-1], self.features)
        # Single precision as Flax's own modules have it, under jax_enable_x64 too.
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, jnp.float32)
        bias = 0.0
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        pairs, kernel, bias = _of_one_dtype(self.dtype, pairs, kernel, bias)
        if isinstance(pairs, Pairs):
            z = convolve_halves(pairs, kernel, self.padding)
        else:
            z = convolve(pairs, kernel, self.padding)
        return z + bias.reshape(*[1] * (z.ndim - 1), -1)


def convolve(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """`kernel` (3, 3, C, D) over maps (..., h, w, C)."""
    flat = x.reshape(-1, *x.shape[-3:])
    sides = ((padding, padding),) * 2
    z = small_map_convolution(flat, kernel, (1, 1), sides, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return z.reshape(*x.shape[:-3], *z.shape[1:])


def convolve_halves(pairs: Pairs, kernel: jax.Array, padding: int) -> jax.Array:
    """`convolve(pairs.dense(), kernel, padding)` from way + queries maps of C channels."""
    return _halves(padding)(pairs, kernel)


@functools.cache
def _halves(padding: int) -> Callable[[Pairs, jax.Array], jax.Array]:
    # Rules see one layer of both halves: the sum inside is no sum of two activations.
    @lrp.linear_operation
    def convolved(pairs: Pairs, kernel: jax.Array) -> jax.Array:
        first, second = jnp.split(kernel, 2, axis=2)
        return (
            convolve(pairs.prototype, first, padding)[None] + convolve(pairs.query, second, padding)[:, None]
        )

    return convolved


def relevance_of_pairs(
    pairs: Pairs, kernel: jax.Array, padding: int, relevance: jax.Array, *, nonnegative: bool
) -> jax.Array:
    """The rule `lrp.presets.SUN2020_CONVOLUTION` for a pair convolution.

    Its denominators are linear in the two halves too, so that only the way back is computed for every pair.

    Args:
        pairs: the convolution's input.
        kernel: (3, 3, 2C, D).
        padding: zeros around the map.
        relevance: of the convolution's output, (queries, way, h', w', D).
        nonnegative: no feature is below zero.

    Returns:
        Relevance of the pairs written out, (queries, way, h, w, 2C).
    """
    pairs, kernel, relevance = _of_one_dtype(None, pairs, kernel, relevance)
    positive, negative = jnp.maximum(kernel, 0), jnp.minimum(kernel, 0)
    z = convolve_halves(jax.tree.map(lambda x: jnp.maximum(x, 0), pairs), positive, padding)
    if not nonnegative:
        z = z + convolve_halves(jax.tree.map(lambda x: jnp.minimum(x, 0), pairs), negative, padding)
    s = relevance / replace_zeros(z, SUN2020_CONVOLUTION.epsilon)

    def back(kernel: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct(pairs.shape, s.dtype)
        return jax.linear_transpose(lambda x: convolve(x, kernel, padding), shape)(s)[0]

    x = pairs.dense()
    return x * (back(positive) if nonnegative else jnp.where(x >= 0, back(positive), back(negative)))


def _of_one_dtype(dtype: Any, *arrays: Any) -> Any:
    """Arrays of `dtype`, or of the one that they promote to: `lax` convolves arrays of one dtype alone."""
    dtype = dtype or jnp.result_type(*jax.tree.leaves(arrays))
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), arrays)
