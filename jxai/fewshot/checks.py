"""What heads and losses ask of an episode: features that fit one another, and labels of its classes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import check_count, shown, values
from jxai.errors import InputError, InputTypeError


def check_task(support: Any, support_labels: Any, query: Any, way: int) -> None:
    """Refuse features or images that make no episode.

    Args:
        support: (supports, ...); none for a head that looks at the queries alone.
        support_labels: (supports,), integers in [0, way).
        query: (queries, ...).
        way: number of classes.

    Raises:
        TypeError: something else than arrays of real numbers, or of integers.
        ValueError: shapes that do not fit, or labels out of range (values are not seen under jit).
    """
    check_count("way", way)
    _check_batch("support", support, least=0)
    check_labels("support_labels", support_labels, count=len(support), way=way)
    _check_batch("query", query)
    if query.shape[1:] != support.shape[1:]:
        raise InputError(
            f"expected queries of the support's shape (N, {', '.join(map(str, support.shape[1:]))}), got "
            f"{query.shape}: encode both alike"
        )


def check_every_class(support_labels: Any, way: int) -> None:
    """Refuse support that leaves a class out (not seen under jit)."""
    known = values(support_labels)
    if known is not None and len(np.unique(known)) < way:
        raise InputError(
            f"expected support of each of {way} classes, got labels {np.unique(known).tolist()}: leave none out"
        )


def check_labels(name: str, labels: Any, *, count: int, way: int | None = None) -> None:
    """Refuse what is not one class a picture.

    Args:
        name: what an error calls them.
        labels: (count,), integers in [0, way).
        count: number of pictures.
        way: number of classes; None where nothing says it.

    Raises:
        TypeError: no integers.
        ValueError: another shape, or a label out of range (not seen under jit).
    """
    if not isinstance(labels, jax.Array | np.ndarray) or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputTypeError(f"expected {name} of integers, got {shown(labels)}: give class indices")
    if labels.shape != (count,):
        raise InputError(f"expected {name} of shape ({count},), got {labels.shape}: one class a picture")
    known = values(labels)  # pyright: ignore[reportArgumentType]
    if known is not None and known.size and (known.min() < 0 or (way is not None and known.max() >= way)):
        asked = "of at least 0" if way is None else f"in [0, {way})"
        raise InputError(
            f"expected {name} {asked}, got values from {known.min()} to {known.max()}: count from 0"
        )


def check_encoded(features: Any, count: int) -> None:
    """Refuse what is no encoder's result for a head.

    Args:
        features: what the encoder gave.
        count: number of images that it was given.

    Raises:
        TypeError: no array of floats.
        ValueError: another number of images, or no features.
    """
    _check_batch("the encoder's features", features)
    if len(features) != count:
        raise InputError(
            f"expected the encoder's features of {count} images, got {features.shape}: give features (N, ...)"
        )


def _check_batch(name: str, features: Any, *, least: int = 1) -> None:
    if not isinstance(features, jax.Array | np.ndarray) or not jnp.issubdtype(features.dtype, jnp.floating):
        raise InputTypeError(
            f"expected {name} of floats, got {shown(features)}: give features, or normalized images"
        )
    if features.ndim < 2 or 0 in features.shape[1:] or len(features) < least:
        raise InputError(f"expected {name} of shape (N, ...), got {features.shape}: give at least {least}")
