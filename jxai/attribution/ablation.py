"""Feature ablation and permutation: how much the score drops without one feature."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jxai.attribution.games import as_game
from jxai.attribution.gradients import Scores
from jxai.batches.draws import row_keys
from jxai.batches.targets import Target
from jxai.checks import check_count, check_key


def feature_ablation(
    f: Scores,
    x: Any,
    target: Target,
    *,
    feature_mask: Any = None,
    baseline: Any = 0.0,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """f_t(x) − f_t(x with a feature at the baseline), for each feature.

    Example:
        >>> f = lambda x: x @ jnp.array([[1.0], [2.0], [3.0]])
        >>> feature_ablation(f, jnp.ones((1, 3)), [0], feature_mask=[0, 1, 1])
        Array([[1. , 2.5, 2.5]], dtype=float32)

    Args:
        f: from inputs (N, ...) to scores (N, K).
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        feature_mask: the feature of each entry: integers from 0 on without gaps, of a shape that broadcasts to `x`,
            such as superpixels (N, H, W, 1), or one map (H, W, 1) for all images; of a tree a tree of such. None:
            each entry is a feature, and each token.
        baseline: what stands for a feature that is absent: a number, or an array that broadcasts to `x`.
        chunk_size: inputs in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; a feature's drop is dealt out evenly to its entries, so that their sum is the drop.

    Raises:
        TypeError: `x` holds no floats, `target` or `feature_mask` no integers.
        ValueError: shapes do not fit, features have gaps or are traced, values are not finite or a target is out of
            range (values are not seen under jit).

    References:
        Zeiler and Fergus, *Visualizing and Understanding Convolutional Networks*, 2014; Robnik-Šikonja and Kononenko,
        *Explaining Classifications for Individual Instances*, 2008.
    """
    game = as_game(
        f, x, target, feature_mask=feature_mask, baseline=baseline, chunk_size=chunk_size, mesh=mesh
    )
    before = game.of_all(present=True)

    def terms(images: jax.Array, features: jax.Array) -> jax.Array:
        absent = features[:, None] == jnp.arange(game.count)[None]
        drop = before[images] - game.value(images, ~absent)
        return jnp.where(absent, drop[:, None], 0)

    return game.dealt(game.total(terms, game.count))


def feature_permutation(
    f: Scores,
    key: jax.Array,
    x: Any,
    target: Target,
    *,
    feature_mask: Any = None,
    num_permutations: int = 10,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """Mean over permutations of the batch of f_t(x) − f_t(x with a feature of another of its images).

    What is absent looks as in the data; so the batch should be one of them, and large.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        key: a random key; permutation r for feature k depends on (key, r, k) and the number of images alone.
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        feature_mask: as in `feature_ablation`.
        num_permutations: how many of the batch a feature.
        chunk_size: inputs in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; a feature's drop is dealt out evenly to its entries. An image may meet itself, and of
        one image alone all drops are 0.

    Raises:
        TypeError: as `feature_ablation`.
        ValueError: as `feature_ablation`; or a count is less than 1.

    References:
        Breiman, *Random Forests*, 2001, section 10; Fisher et al., *All Models are Wrong, but Many are Useful*, 2019.
    """
    check_key(key)
    check_count("num_permutations", num_permutations)
    game = as_game(f, x, target, feature_mask=feature_mask, baseline=0.0, chunk_size=chunk_size, mesh=mesh)
    before = game.of_all(present=True)

    def terms(images: jax.Array, roots: jax.Array) -> jax.Array:
        features = roots % game.count
        keys = row_keys(key, roots // game.count, features)
        others = jax.vmap(lambda key, n: jax.random.permutation(key, len(game.x))[n])(keys, images)
        labels = game.labels_of(images)
        moved = labels == features.reshape(-1, *[1] * (labels.ndim - 1))
        drop = before[images] - game.score(jnp.where(moved, game.x[others], game.x[images]), images)
        absent = features[:, None] == jnp.arange(game.count)[None]
        return jnp.where(absent, drop[:, None], 0)

    return game.dealt(game.total(terms, num_permutations * game.count) / num_permutations)
