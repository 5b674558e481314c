"""Classifiers of an episode's fixed features: nothing of them was trained in episodes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jxai.checks import as_array, check_count, check_number, finite, keep_nan, keep_nan_of, shown
from jxai.errors import InputError, InputTypeError
from jxai.fewshot.checks import check_every_class
from jxai.fewshot.episode import Episode, check_episode
from jxai.fewshot.heads.conditioned import normalized, vectors
from jxai.fewshot.heads.head import class_means


def nearest_centroid(
    episode: Episode, *, center: jax.Array | None = None, normalize: bool = True
) -> jax.Array:
    """SimpleShot: minus the squared distances to the classes' mean supports, of transformed features.

    With a center and normalized it is the paper's CL2N, normalized alone L2N, with neither UN.

    Args:
        episode: features (N, C), or maps (N, h, w, C), which are averaged over positions; of an encoder that was
            trained as a classifier of base classes.
        center: mean feature of the base classes, (C,), which is subtracted; None for none.
        normalize: whether features are then divided by their length; zeros stay zeros.

    Returns:
        Scores (queries, way).

    Raises:
        TypeError: no episode, or arrays of other types.
        ValueError: shapes do not fit, a class has no support, or the center is not finite (not seen under jit).

    References:
        Wang et al., *SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning*, 2019.
    """
    support, query = _features(episode)
    if not isinstance(normalize, bool):
        raise InputTypeError(f"expected normalize as True or False, got {shown(normalize)}: choose one")
    if center is not None:
        center = finite("center", as_array(center))
        if center.shape != query.shape[1:]:
            raise InputError(
                f"expected a center of shape {query.shape[1:]}, got {center.shape}: average the base features over "
                "pictures and positions"
            )
        center = center.astype(query.dtype)
        support, query = support - center[None], query - center[None]
    if normalize:
        support, query = normalized(support), normalized(query)
    centroids = class_means(support, episode.support_labels, episode.way)
    return _kept(-jnp.sum((query[:, None] - centroids[None]) ** 2, axis=-1), episode, center)


def linear_probe(episode: Episode, *, penalty: float = 1.0, num_steps: int = 100) -> jax.Array:
    """Logistic regression on the supports: the scores W·q + b at the least Σ cross-entropy + penalty/2 · ‖W‖².

    Found by Nesterov's gradient steps from zero, whose length follows from the features: no learning rate is chosen.

    Args:
        episode: features, as in `nearest_centroid`.
        penalty: on W, above 0; 1 / C in scikit-learn's terms.
        num_steps: steps; 100 leave an accuracy that more of them do not change.

    Returns:
        Scores (queries, way).

    Raises:
        TypeError: no episode, or arrays of other types.
        ValueError: shapes do not fit, a class has no support, or a number is out of range.

    References:
        Chen et al., *A Closer Look at Few-shot Classification*, 2019 (Baseline); solved as in Tian et al.,
        *Rethinking Few-Shot Image Classification: a Good Embedding Is All You Need?*, 2020.
    """
    check_number("penalty", penalty, above=0)
    check_count("num_steps", num_steps)
    support, query = _features(episode)
    weights, bias = linear_weights(
        support, episode.support_labels, penalty, way=episode.way, num_steps=num_steps
    )
    return _kept(query @ weights + bias[None], episode)


@functools.partial(jax.jit, static_argnames=("way", "num_steps"))
def linear_weights(
    support: jax.Array, labels: jax.Array, penalty: Any, *, way: int, num_steps: int
) -> tuple[jax.Array, jax.Array]:
    """W (C, way) and b (way,) of `linear_probe`.

    Args:
        support: vectors (supports, C).
        labels: (supports,).
        penalty: on W.
        way: number of classes.
        num_steps: steps.

    Returns:
        (W, b).
    """
    # A shift of the features is b's alone, and without it steps can be longer.
    mean = support.mean(axis=0, keepdims=True)
    x = support - mean
    x = jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)
    penalty = jnp.asarray(penalty, x.dtype)
    # Of a softmax's cross-entropy no curvature exceeds 1/2; no eigenvalue of x·xᵀ exceeds its largest row.
    curvature = penalty + jnp.max(jnp.sum(jnp.abs(x @ x.T), axis=1)) / 2
    penalized = jnp.ones((x.shape[1], 1), x.dtype).at[-1].set(0)

    def loss(weights: jax.Array) -> jax.Array:
        of_supports = optax.softmax_cross_entropy_with_integer_labels(x @ weights, labels)
        return of_supports.sum() + penalty / 2 * jnp.sum(penalized * weights**2)

    def step(state: tuple[jax.Array, jax.Array], number: jax.Array) -> tuple[Any, None]:
        before, ahead = state
        after = ahead - jax.grad(loss)(ahead) / curvature
        return (after, after + number / (number + 3) * (after - before)), None

    start = jnp.zeros((x.shape[1], way), x.dtype)
    (weights, _), _ = jax.lax.scan(step, (start, start), jnp.arange(num_steps, dtype=x.dtype))
    return weights[:-1], weights[-1] - mean[0] @ weights[:-1]


def cosine_probe(
    episode: Episode, *, scale: float = 2.0, learning_rate: float = 1.0, num_steps: int = 100
) -> jax.Array:
    """Cosines of the query and a vector a class, which is learned from the supports by gradient steps.

    The vectors start at the means of their classes' normalized supports (our choice; the release draws them), and
    keep length 1.

    Args:
        episode: features, as in `nearest_centroid`.
        scale: what cosines are multiplied by before the cross-entropy, above 0; 2 as released.
        learning_rate: of the steps down the mean cross-entropy of all supports, above 0.
        num_steps: steps; 100 as released.

    Returns:
        Scores (queries, way), in [−scale, scale].

    Raises:
        TypeError: no episode, or arrays of other types.
        ValueError: shapes do not fit, a class has no support, or a number is out of range.

    References:
        Chen et al., *A Closer Look at Few-shot Classification*, 2019 (Baseline++).
    """
    check_number("scale", scale, above=0)
    check_number("learning_rate", learning_rate, above=0)
    check_count("num_steps", num_steps)
    support, query = _features(episode)
    labels, start = (
        episode.support_labels,
        class_means(normalized(support), episode.support_labels, episode.way),
    )
    return _kept(_cosine(support, labels, query, start, scale, learning_rate, num_steps=num_steps), episode)


@functools.partial(jax.jit, static_argnames="num_steps")
def _cosine(
    support: jax.Array,
    labels: jax.Array,
    query: jax.Array,
    start: jax.Array,
    scale: Any,
    learning_rate: Any,
    *,
    num_steps: int,
) -> jax.Array:
    scale, learning_rate = (jnp.asarray(value, query.dtype) for value in (scale, learning_rate))
    support, query = normalized(support), normalized(query)

    def loss(weights: jax.Array) -> jax.Array:
        scores = scale * support @ normalized(weights).T
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    def step(weights: jax.Array, _: None) -> tuple[jax.Array, None]:
        return normalized(weights - learning_rate * jax.grad(loss)(weights)), None

    weights, _ = jax.lax.scan(step, normalized(start), length=num_steps)
    return scale * query @ weights.T


def _features(episode: Episode) -> tuple[jax.Array, jax.Array]:
    """Vectors of supports and queries of an episode that is checked."""
    check_episode(episode)
    check_every_class(episode.support_labels, episode.way)
    return vectors(jnp.asarray(episode.support)), vectors(jnp.asarray(episode.query))


def _kept(scores: jax.Array, episode: Episode, *others: Any) -> jax.Array:
    return keep_nan_of((episode.support, others), keep_nan(scores, episode.query))
