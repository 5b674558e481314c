"""Accuracy over many episodes of a domain, whose pictures are encoded once."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jxai.fewshot.heads.head import Head
from jxai.fewshot.system import part


def encode(encoder: nn.Module, variables: Any, images: np.ndarray, *, batch_size: int = 200) -> jax.Array:
    """Features of every image, on the encoder's running statistics.

    Args:
        encoder: module from images to features.
        variables: of the system, see `init_variables`.
        images: normalised, (n, H, W, 3).
        batch_size: images at a time.

    Returns:
        Features (n, ...).

    Raises:
        ValueError: there are no images.
    """
    if not len(images):
        raise ValueError("expected at least one image to encode, got none: load a domain with pictures")
    of_encoder = part(variables, "encoder")
    # One shape for all batches, so that one program serves them.
    batch_size = min(batch_size, len(images))
    starts = range(0, len(images), batch_size)
    rest = -len(images) % batch_size
    padded = np.concatenate([images, images[:rest]])
    features = [_features(encoder, of_encoder, padded[start : start + batch_size]) for start in starts]
    return jnp.concatenate(features)[: len(images)]


def episode_accuracies(
    head: Head,
    variables: Any,
    features: jax.Array,
    support: np.ndarray,
    query: np.ndarray,
    *,
    way: int,
    batch_size: int = 4,
) -> np.ndarray:
    """Accuracy of the plain head in each of many episodes.

    Args:
        head: the head.
        variables: of the system, see `init_variables`.
        features: of a domain's images, (n, ...).
        support: the episodes' support as indices into `features`, (episodes, way·shot), class by class.
        query: the episodes' queries likewise, (episodes, way·queries).
        way: number of classes.
        batch_size: episodes computed at once; 4 was fastest on two cores, accelerators want more.

    Returns:
        Accuracies in [0, 1], (episodes,).

    Raises:
        ValueError: the numbers of support or query images are no multiples of `way`.
    """
    if support.shape[1] % way or query.shape[1] % way:
        raise ValueError(
            f"expected support and query of multiples of {way} images, class by class, got "
            f"{support.shape[1]} and {query.shape[1]}: give every class as many"
        )
    of_head, on_host = part(variables, "head"), np.asarray(features)
    labels = [np.repeat(np.arange(way), rows.shape[1] // way) for rows in (support, query)]
    accuracies = []
    for start in range(0, len(support), batch_size):
        # The last batch is filled up with episodes from the front, so that one program serves all.
        rows = np.arange(start, start + batch_size) % len(support)
        batch = on_host[support[rows]], on_host[query[rows]]
        accuracies.append(_accuracies(head, of_head, *batch, *labels, way))
    return np.concatenate(accuracies)[: len(support)]


def mean_and_interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and the half width of its 95 % interval, 1.96·std/√n; of differences, this is the paired interval.

    Args:
        values: one number an episode, (n,).

    Returns:
        (mean, half width); the half width is 0 for fewer than two values.
    """
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return float(np.mean(values)), float(1.96 * spread / np.sqrt(len(values)))


@functools.partial(jax.jit, static_argnums=0)
def _features(encoder: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    return jnp.asarray(encoder.apply(variables, images, train=False))


@functools.partial(jax.jit, static_argnums=(0, 6))
def _accuracies(
    head: Head,
    variables: Any,
    support: jax.Array,
    query: jax.Array,
    support_labels: jax.Array,
    query_labels: jax.Array,
    way: int,
) -> jax.Array:
    def accuracy(support: jax.Array, query: jax.Array) -> jax.Array:
        scores, _ = head.apply(variables, support, support_labels, query, way, mutable=["batch_stats"])
        return jnp.mean(jnp.argmax(scores, axis=-1) == query_labels)

    return jax.vmap(accuracy)(support, query)
