"""Explanations that are true to the model: removal of what is relevant, softened so that a gradient passes."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jxai.checks import as_array, check_functions, check_number, finite, keep_nan, shown, values
from jxai.errors import InputError, InputTypeError
from jxai.guidance.maps import as_explanations, scaled

_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
# Of the largest |relevance|: where many values are equal, as zeros are, what a sigmoid divides by is not 0.
_NARROWEST = 1e-6


def unfaithfulness(
    f: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    relevance: jax.Array,
    target: jax.Array,
    *,
    shares: Sequence[float] = _SHARES,
    softness: float = 0.2,
    baseline: ArrayLike = 0.0,
) -> jax.Array:
    """Mean over shares s of f(x without the most relevant s) − f(x with nothing else): the lower, the more faithful.

    Both are as by pixel flipping and insertion: at shares in equal steps it is about the area below the curve of the
    first less that of the second. What counts among the most relevant is soft, m = σ((R − q_s) / w), and m b +
    (1 − m) x is what is without it: q_s is the quantile that a share s of the relevances exceeds, w a quarter of the
    distance from the quantile of s + softness / 2 to that of s − softness / 2. A monotone function of all relevances,
    such as a multiple, changes little or nothing.

    Example:
        >>> f = lambda x: x @ jnp.array([[3.0], [2.0], [1.0], [0.0]])
        >>> x, target = jnp.ones((2, 4)), jnp.zeros(2, int)
        >>> relevance = jnp.array([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
        >>> good, bad = unfaithfulness(f, x, relevance, target)
        >>> bool(good < bad)
        True

    Args:
        f: from inputs (N, ...) to scores (N, K); it is called once, with 2 N len(shares) inputs. For
            probabilities give its softmax.
        x: inputs, (N, ...), floats.
        relevance: R, of x's shape, or without its channels.
        target: the class whose score is read, (N,) integers.
        shares: s, of the entries, each above 0 and below 1.
        softness: share of the entries that are neither here nor there, above 0 and at most 1: the smaller, the fewer
            entries a gradient comes from.
        baseline: b, what takes an entry's place: a number, (C,), or whatever broadcasts to `x`.

    Returns:
        (N,), of the scores' unit, float32 at least.

    Raises:
        TypeError: no function, or no arrays of numbers.
        ValueError: shapes do not fit, an option or a target out of its range, or values that are not finite (not seen
            under jit).

    References:
        Samek et al., *Evaluating the Visualization of What a Deep Neural Network Has Learned*, 2017 (the curves, of
        pixels that are removed one by one).
    """
    check_functions(f=f)
    relevance = as_explanations("relevance", relevance)
    as_explanations("x", x)
    x, target, middles = as_array(x), as_array(target), _as_shares(shares)
    check_number("softness", softness, above=0, most=1)
    if relevance.shape not in (x.shape, x.shape[:-1]):
        raise InputError(
            f"expected relevance {x.shape} or {x.shape[:-1]}, got {relevance.shape}: one number an entry of x, or "
            "a pixel"
        )
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise InputTypeError(f"expected target of integers, got {target.dtype}: give classes")
    base = _as_baseline(baseline, x)
    masks = _masks(relevance, middles, softness).astype(x.dtype)
    masks = masks[..., None] if relevance.ndim < x.ndim else masks
    without, alone = (masks * b + (1 - masks) * a for a, b in ((x, base), (base, x)))
    # An example's copies side by side: of examples on several devices each keeps its own.
    copies = jnp.moveaxis(jnp.concatenate([without, alone]), 0, 1).reshape(-1, *x.shape[1:])
    found = as_array(f(copies))
    _check_scores(found, len(copies), target, len(x))
    read = jnp.take_along_axis(
        found.reshape(len(x), 2, len(middles), -1), target[:, None, None, None], axis=3
    )
    read = finite("scores", read[..., 0].astype(jnp.promote_types(read.dtype, jnp.float32)))
    return keep_nan((read[:, 0] - read[:, 1]).mean(axis=1), x, relevance)


def _masks(relevance: jax.Array, shares: np.ndarray, softness: float) -> jax.Array:
    """How far each entry is among the most relevant, (S, N, ...), in [0, 1]."""
    flat = scaled(relevance).reshape(len(relevance), -1)
    ordered = jnp.sort(flat, axis=1)
    count = flat.shape[1]
    # The center of entry i of n, from the least on, is at the share 1 − (i + 1/2) / n.
    wanted = 1 - np.stack([shares, shares - softness / 2, shares + softness / 2])
    at = np.clip(wanted * count - 0.5, 0, count - 1)
    lower = np.minimum(at.astype(int), max(count - 2, 0))
    rest = jnp.asarray(at - lower, flat.dtype)
    found = ordered[:, lower] * (1 - rest) + ordered[:, np.minimum(lower + 1, count - 1)] * rest
    middle, high, low = jnp.moveaxis(found, 0, -1)[..., None]
    width = (high - low) / 4 + _NARROWEST
    return jax.nn.sigmoid((flat - middle) / width).reshape(-1, *relevance.shape)


def _as_baseline(baseline: ArrayLike, x: jax.Array) -> jax.Array:
    given = finite("baseline", as_array(baseline, x.dtype))
    try:
        return jnp.broadcast_to(given, x.shape)
    except ValueError as error:
        raise InputError(
            f"expected a baseline that broadcasts to {x.shape}, got {given.shape}: give a number, or one a channel"
        ) from error


def _as_shares(shares: Sequence[float]) -> np.ndarray:
    if not isinstance(shares, Sequence | np.ndarray) or isinstance(shares, str | bytes) or not len(shares):
        raise InputError(f"expected shares of the entries, got {shown(shares)}: give such as (0.1, 0.5)")
    for share in shares:
        check_number("shares", share, above=0, below=1)
    return np.asarray(shares, float)


def _check_scores(scores: jax.Array, number: int, target: jax.Array, size: int) -> None:
    if scores.ndim != 2 or len(scores) != number or not jnp.issubdtype(scores.dtype, jnp.floating):
        raise InputError(
            f"expected f to give scores ({number}, K) of floats, got {scores.dtype} {scores.shape}: choose one output"
        )
    if target.shape != (size,):
        raise InputError(f"expected target ({size},), got {target.shape}: give one class an input")
    if (known := values(target)) is not None and ((known < 0) | (known >= scores.shape[1])).any():
        raise InputError(
            f"expected target in [0, {scores.shape[1]}), got {known.min()} to {known.max()}: give indices of classes"
        )
