"""Accuracy over many episodes of a domain, whose pictures are encoded once."""

import functools
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import as_array, check_count, keep_nan, keep_nan_of, shown
from jxai.errors import InputError, InputTypeError
from jxai.fewshot.episode import Episode
from jxai.fewshot.heads.head import Head
from jxai.fewshot.system import part
from jxai.fewshot.transduction import Transduction, transductive_scores


class Images(Protocol):
    """Normalized images (n, H, W, 3): an array, or what reads them when a slice is asked for."""

    def __len__(self) -> int:
        """Returns n."""
        ...

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Returns some of them."""
        ...


def encode(
    encoder: nn.Module,
    variables: Any,
    images: Images,
    *,
    batch_size: int = 200,
    head: Head | None = None,
) -> jax.Array:
    """Features of every image, on the encoder's running statistics.

    Args:
        encoder: module from images to features.
        variables: of the system, see `init_variables`.
        images: normalized, (n, H, W, 3), or what gives slices of them, as `Source.normalized`.
        batch_size: images at a time.
        head: the head they are for: what it does not use of them is not kept, see `Head.condense`.

    Returns:
        Features (n, ...).

    Raises:
        TypeError: no module or images.
        ValueError: there are no images, or they are not as the encoder takes them.
    """
    if not isinstance(encoder, nn.Module) or not hasattr(images, "__getitem__"):
        raise InputTypeError(
            f"expected a Linen module and images, got {shown(encoder)} and {shown(images)}: of an episode "
            "encode support and query one by one"
        )
    check_count("batch_size", batch_size)
    if not len(images):
        raise InputError("expected at least one image to encode, got none: load a domain with pictures")
    of_encoder = part(variables, "encoder")
    # One shape for all batches, so that one program serves them.
    batch_size, features = min(batch_size, len(images)), []
    for start in range(0, len(images), batch_size):
        batch = np.asarray(images[start : start + batch_size])
        padded = np.resize(batch, (batch_size, *batch.shape[1:]))
        features.append(_features(encoder, of_encoder, padded, head)[: len(batch)])
    return jnp.concatenate(features)


def episode_accuracies(
    head: Head,
    variables: Any,
    features: jax.Array,
    support: np.ndarray,
    query: np.ndarray,
    *,
    way: int,
    batch_size: int = 4,
    transduction: Transduction | None = None,
) -> np.ndarray:
    """Accuracy of the plain head in each of many episodes.

    Args:
        head: the head.
        variables: of the system, see `init_variables`.
        features: of a domain's images, (n, ...).
        support: the episodes' support as indices into `features`, (episodes, way·shot), class by class.
        query: the episodes' queries likewise, (episodes, way·queries).
        way: number of classes.
        batch_size: episodes computed at once; more than 4 took a CPU longer, accelerators want more.
        transduction: how queries join the support; None for none.

    Returns:
        Accuracies in [0, 1], (episodes,). A query whose scores are not all finite counts as wrong.

    Raises:
        TypeError: no head, transduction or arrays.
        ValueError: shapes do not fit, the numbers of support or query images are no multiples of `way`, an index
            lies outside of `features`, or more queries are to join the support than there are.
    """
    check_count("way", way)
    check_count("batch_size", batch_size)
    if not isinstance(head, Head) or not isinstance(transduction, Transduction | None):
        raise InputTypeError(
            f"expected a Head and a Transduction, got {shown(head)} and {shown(transduction)}: make them"
        )
    for name, indices in (("support", support), ("query", query)):
        if (
            getattr(indices, "ndim", 0) != 2
            or not indices.size
            or not np.issubdtype(indices.dtype, np.integer)
        ):
            raise InputError(
                f"expected {name} as integers (episodes, images), got {shown(indices)}: draw episodes"
            )
    if len(support) != len(query):
        raise InputError(f"expected as many episodes of both, got {len(support)} and {len(query)}: draw both")
    features = as_array(features)
    if features.ndim < 2 or not jnp.issubdtype(features.dtype, jnp.floating):
        raise InputError(
            f"expected features (n, ...) of floats, got {features.dtype} {features.shape}: see encode"
        )
    if support.shape[1] % way or query.shape[1] % way:
        raise InputError(
            f"expected support and query of multiples of {way} images, class by class, got "
            f"{support.shape[1]} and {query.shape[1]}: give every class as many"
        )
    rows = np.concatenate([support, query], axis=1)
    if rows.min() < 0 or rows.max() >= len(features):
        raise InputError(
            f"expected episodes as indices into {len(features)} features, got indices from {rows.min()} to "
            f"{rows.max()}: draw them from the images that were encoded"
        )
    batch_size = min(batch_size, len(rows))
    # The last batch is filled up with episodes from the front.
    batches = np.resize(rows, (-(-len(rows) // batch_size), batch_size, rows.shape[1]))
    of_head = part(variables, "head")
    # One call for all batches, because a call costs as much as a batch of a cheap head.
    accuracies = _accuracies(head, of_head, features, batches, support.shape[1], way, transduction)
    return np.asarray(accuracies).reshape(-1)[: len(rows)]


@functools.partial(jax.jit, static_argnums=(0, 3))
def _features(encoder: nn.Module, variables: Any, images: jax.Array, head: Head | None) -> jax.Array:
    features = jnp.asarray(encoder.apply(variables, images, train=False))
    features = features if head is None else head.condense(features)
    return keep_nan_of(variables, keep_nan(features, images))


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6))
def _accuracies(
    head: Head,
    variables: Any,
    features: jax.Array,
    rows: jax.Array,
    num_support: int,
    way: int,
    transduction: Transduction | None,
) -> jax.Array:
    """Accuracies (batches, batch size) of episodes given as rows of features (batches, batch size, images)."""

    features = head.condense(features)

    def labels(count: int) -> jax.Array:
        return jnp.repeat(jnp.arange(way), count // way)

    def accuracy(rows: jax.Array) -> jax.Array:
        support, query = features[rows[:num_support]], features[rows[num_support:]]
        episode = Episode(support, labels(len(support)), query, way=way)
        if transduction is None:
            scores, _ = head.apply(variables, episode, mutable=["batch_stats"])
        else:
            scores = transductive_scores(head, variables, episode, transduction=transduction)
        # A query without finite scores is wrong: it would else count as the first class.
        right = (jnp.argmax(scores, axis=-1) == labels(len(query))) & jnp.isfinite(scores).all(axis=-1)
        return jnp.mean(right)

    return jax.lax.map(jax.vmap(accuracy), rows)
