"""Relevance inside of a language model: residual stream, heads and neurons, layer by layer.

Places have the names of `jxai.models.transformers`: blocks "layer0", "layer1", ..., or "layers" where one scan runs
them all; in a block "attention/context" (the heads before the output projection) and "mlp/neurons" (hidden units
before the down projection). A model of one's own gives such names by `jax.named_scope`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jxai import lrp
from jxai.checks import as_numpy, check_count, finite, keep_nan
from jxai.errors import InputError
from jxai.text.inputs import as_ids, as_mask, in_range
from jxai.text.relevance import Score, as_points, coefficients, logits_at, summed


class LayerRelevance(NamedTuple):
    """What `layers` finds, float32.

    Attributes:
        score: what relevance starts with, (N,).
        tokens: relevance of the embeddings, (N, T).
        stream: of the residual stream behind each block, (N, L, T). Its sums over T are what is conserved: where one
            differs from the one above it, the block between absorbed the difference in biases, softmaxes, ε.
        heads: of the heads of each block before the output projection, (N, L, T, H).
        neurons: of the hidden units of each block, (N, L, T, F).
    """

    score: jax.Array
    tokens: jax.Array
    stream: jax.Array
    heads: jax.Array
    neurons: jax.Array


def layers(
    model: Any,
    ids: ArrayLike,
    target: ArrayLike | None,
    *,
    num_heads: int,
    num_layers: int | None = None,
    positions: ArrayLike | None = None,
    contrast: ArrayLike | None = None,
    score: Score = "logit",
    composite: lrp.Composite = lrp.AttnLRP(),
    mask: ArrayLike | None = None,
) -> LayerRelevance:
    """Relevance of residual streams, heads and neurons for a next token, from one backward pass.

    Args:
        model: as in `explain`, with places named as the module says.
        ids: the tokens, (N, T) integers.
        target: the token explained, (N,) integers; None for the one with the largest logit.
        num_heads: of a block, H.
        num_layers: how many blocks are named "layer0", "layer1", ...; None where a scan runs them as "layers".
        positions: as in `explain`.
        contrast: as in `explain`.
        score: as in `explain`.
        composite: the rules.
        mask: which tokens count, (N, T) booleans.

    Returns:
        Relevance by layer.

    Raises:
        TypeError: as `explain`.
        ValueError: as `explain`; the model has no such places, or its heads do not divide their channels.
    """
    ids = as_ids(ids)
    mask = as_mask(mask, ids)
    check_count("num_heads", num_heads)
    blocks = ("layers",) if num_layers is None else _numbered(num_layers)
    where, tokens, against = as_points(ids, mask, target, positions, None, contrast, score)
    x = model.embed(ids)
    y, pullback = lrp.vjp(
        lambda x: logits_at(model, x, where, mask),
        x,
        composite=composite,
        watch=[f"{block}{place}" for block in blocks for place in ("", *_PLACES)],
    )
    chosen = y.argmax(axis=-1) if tokens is None else in_range("target", tokens, y.shape[-1])
    start = coefficients(y, chosen, against, score) * y
    (found,), watched = pullback(start)

    def by_layer(place: str) -> jax.Array:
        """(N, L, T, U)."""
        if num_layers is None:
            return jnp.moveaxis(watched[f"layers{place}"], 0, 1)
        return jnp.stack([watched[f"{block}{place}"] for block in blocks], axis=1)

    stream, context, neurons = map(by_layer, ("", *_PLACES))
    if context.shape[-1] % num_heads:
        raise InputError(f"expected num_heads that divides {context.shape[-1]} channels, got {num_heads}")
    heads = summed(context.reshape(*context.shape[:-1], num_heads, -1))
    wide = neurons.astype(heads.dtype)
    result = LayerRelevance(start.sum(axis=(1, 2)), summed(found), summed(stream), heads, wide)
    return finite("relevance", LayerRelevance(*(keep_nan(array, x) for array in result)))


_PLACES = ("/attention/context", "/mlp/neurons")


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"layer{i}" for i in range(check_count("num_layers", count)))


def strongest(relevance: ArrayLike, *, count: int = 10) -> list[tuple[int, int, float]]:
    """The heads or neurons with the largest relevance, summed over tokens and the batch; by magnitude.

    Args:
        relevance: (N, L, T, U), such as `LayerRelevance.heads`.
        count: how many; all where there are fewer.

    Returns:
        (layer, unit, relevance), the largest magnitude first; of equal ones the earlier.

    Raises:
        TypeError: no array of real numbers.
        ValueError: another shape, values that are not finite, or a count below 1.

    Example:
        >>> strongest(jnp.array([[[[1.0, -3.0]], [[2.0, 0.0]]]]), count=2)
        [(0, 1, -3.0), (1, 0, 2.0)]
    """
    relevance = as_numpy("relevance", relevance)
    if relevance.ndim != 4 or not relevance.size:
        raise InputError(f"expected relevance of shape (N, L, T, U), got {relevance.shape}: see text.layers")
    check_count("count", count)
    sums = relevance.astype(np.float64).sum(axis=(0, 2))
    order = np.argsort(-abs(sums), axis=None, kind="stable")[:count]
    places = (np.unravel_index(place, sums.shape) for place in order)
    return [(int(layer), int(unit), float(sums[layer, unit])) for layer, unit in places]
