"""KernelSHAP and LIME: linear functions of which features are there, in closed form."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jxai.attribution.games import Game, as_game
from jxai.attribution.gradients import Scores
from jxai.batches.draws import row_keys
from jxai.batches.targets import Target
from jxai.checks import check_count, check_key, check_number
from jxai.errors import InputError

# Of whose pairs sums are kept, image by image.
_MOST_FEATURES = 4096


def kernel_shap(
    f: Scores,
    key: jax.Array,
    x: Any,
    target: Target,
    *,
    feature_mask: Any = None,
    baseline: Any = 0.0,
    num_samples: int = 1000,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """Shapley values, as the linear function of the features there that is nearest to the scores of coalitions.

    Distances count as the Shapley kernel says, and the function is exact where all features are there and where none
    is, so that values sum to f_t(x) − f_t(baseline). Where `num_samples` reaches the 2^K − 2 other coalitions, each
    is taken once, and the values are exact; else coalitions are drawn, each with its complement.

    Example:
        >>> f = lambda x: jnp.prod(x, axis=1, keepdims=True)
        >>> kernel_shap(f, jax.random.key(0), jnp.array([[1.0, 2.0, 3.0]]), [0]).round(4)
        Array([[2., 2., 2.]], dtype=float32)

    Args:
        f: from inputs (N, ...) to scores (N, K).
        key: a random key; draw r of image n depends on (key, n, r) alone.
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        feature_mask: as in `feature_ablation`; at most 4096 features.
        baseline: as in `feature_ablation`.
        num_samples: coalitions an image, at most. What too few of them leave open is shared evenly.
        chunk_size: inputs in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; a feature's value is dealt out evenly to its entries, so that their sum is the value.

    Raises:
        TypeError: as `feature_ablation`.
        ValueError: as `feature_ablation`; a count is less than 1, or there are too many features.

    References:
        Lundberg and Lee, *A Unified Approach to Interpreting Model Predictions*, 2017, theorem 2; Covert and Lee,
        *Improving KernelSHAP*, 2021 (pairs; the constraint).
    """
    check_key(key)
    check_count("num_samples", num_samples)
    game = as_game(
        f, x, target, feature_mask=feature_mask, baseline=baseline, chunk_size=chunk_size, mesh=mesh
    )
    count = _checked_count(game)
    before, without = game.of_all(present=True), game.of_all(present=False)
    change = before - without
    if count == 1:
        return game.dealt(change[:, None])
    sizes = np.arange(1, count)
    of_size = (count - 1) / (sizes * (count - sizes))  # the kernel of all coalitions of a size
    every = _all_coalitions(count, num_samples + 2)
    weights = np.zeros(count + 1)
    if every:
        weights[1:-1] = [share / math.comb(count, int(s)) for s, share in zip(sizes, of_size, strict=True)]
    else:
        weights[1:-1] = 1 / num_samples
    kernel = jnp.asarray(weights, before.dtype)

    def draw(key: jax.Array, complement: jax.Array) -> jax.Array:
        of_number, of_members = jax.random.split(key)
        size = 1 + jax.random.categorical(of_number, jnp.log(jnp.asarray(of_size, kernel.dtype)))
        return (jax.random.permutation(of_members, count) < size) ^ complement

    def terms(images: jax.Array, roots: jax.Array) -> tuple[jax.Array, ...]:
        if every:
            present = _coalition(roots + 1, count)
        else:
            present = jax.vmap(draw)(row_keys(key, images, roots // 2), roots % 2 == 1)
        # Against f(x), for what all scores have in common costs digits.
        score = game.value(images, present) - before[images]
        there = present.astype(score.dtype)
        weighted = there * kernel[present.sum(axis=1)][:, None]
        return weighted[:, :, None] * there[:, None, :], weighted * score[:, None]

    gram, products = game.total(terms, 2**count - 2 if every else num_samples)
    # Least squares of the score less the baseline's: what is drawn sums over z (v − v₀), with v against f(x).
    moments = products + change[:, None] * jnp.diagonal(gram, axis1=1, axis2=2)
    # All values that sum to the change: an even share, and what sums to zero.
    even = jnp.broadcast_to(change[:, None] / count, moments.shape)
    centered = jnp.eye(count, dtype=gram.dtype) - 1 / count
    precise = jax.lax.Precision.HIGHEST
    left = moments - jnp.einsum("nij,nj->ni", gram, even, precision=precise)
    inner = jnp.einsum("ij,njk,kl->nil", centered, gram, centered, precision=precise)
    rest = jnp.einsum(
        "nij,jk,nk->ni", jnp.linalg.pinv(inner, hermitian=True), centered, left, precision=precise
    )
    return game.dealt(even + rest)


def lime(
    f: Scores,
    key: jax.Array,
    x: Any,
    target: Target,
    *,
    feature_mask: Any = None,
    baseline: Any = 0.0,
    num_samples: int = 1000,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """Coefficients of a linear function, with intercept, fitted around x to scores of inputs without some features.

    Weighted ridge regression in closed form, where a coalition z, each feature there or not with probability ½,
    counts as exp(−D²/σ²) with the cosine distance D between z and the ones of x. Where `num_samples` reaches all 2^K
    coalitions, each is taken once.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        key: a random key; draw r of image n depends on (key, n, r) alone.
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        feature_mask: as in `feature_ablation`; at most 4096 features.
        baseline: as in `feature_ablation`.
        num_samples: coalitions an image, at most.
        kernel_width: σ, above 0; the authors' for pictures is 0.25.
        ridge: the penalty λ of the coefficients' squares, beside the sum of the weighted squares of what is missed;
            0 for least squares.
        chunk_size: inputs in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; a feature's coefficient is dealt out evenly to its entries.

    Raises:
        TypeError: as `feature_ablation`.
        ValueError: as `feature_ablation`; a count is less than 1, a number out of range, or there are too many
            features.

    References:
        Ribeiro et al., *"Why Should I Trust You?" Explaining the Predictions of Any Classifier*, 2016, equations 1
        and 2.
    """
    check_key(key)
    check_count("num_samples", num_samples)
    check_number("kernel_width", kernel_width, above=0)
    check_number("ridge", ridge, least=0)
    game = as_game(
        f, x, target, feature_mask=feature_mask, baseline=baseline, chunk_size=chunk_size, mesh=mesh
    )
    count = _checked_count(game)
    before = game.of_all(present=True)
    every = _all_coalitions(count, num_samples)

    def terms(images: jax.Array, roots: jax.Array) -> tuple[jax.Array, ...]:
        if every:
            present = _coalition(roots, count)
        else:
            present = jax.vmap(lambda key: jax.random.bernoulli(key, shape=(count,)))(
                row_keys(key, images, roots)
            )
        score = game.value(images, present) - before[images]
        there = present.astype(score.dtype)
        distance = 1 - jnp.sqrt(there.mean(axis=1))
        weight = jnp.exp(-((distance / kernel_width) ** 2))
        weighted = there * weight[:, None]
        return (
            weight,
            weight * score,
            weighted,
            weighted * score[:, None],
            weighted[:, :, None] * there[:, None, :],
        )

    weight, score, there, products, gram = game.total(terms, 2**count if every else num_samples)
    # Around the weighted means, where the intercept is free. Weights may all be tiny: nothing is fitted then.
    scale = jnp.maximum(weight, jnp.finfo(weight.dtype).tiny)[:, None]
    covariance = gram - there[:, :, None] * (there / scale)[:, None, :]
    moments = products - there * score[:, None] / scale
    penalty = jnp.eye(count, dtype=gram.dtype) * ridge
    inverse = jnp.linalg.pinv(covariance + penalty[None], hermitian=True)
    return game.dealt(jnp.einsum("nij,nj->ni", inverse, moments, precision=jax.lax.Precision.HIGHEST))


def _checked_count(game: Game) -> int:
    """How many features there are; refuses more than pairs of them can be kept of."""
    if game.count > _MOST_FEATURES:
        raise InputError(
            f"expected at most {_MOST_FEATURES} features, got {game.count}: give a feature_mask of superpixels or "
            "groups"
        )
    return game.count


def _all_coalitions(count: int, num_samples: int) -> bool:
    """Whether there are no more coalitions than may be taken."""
    return count < 31 and 2**count <= num_samples


def _coalition(number: jax.Array, count: int) -> jax.Array:
    """The features present in a coalition by its number, (c, count)."""
    return (number[:, None] >> jnp.arange(count, dtype=number.dtype)[None]) % 2 == 1
