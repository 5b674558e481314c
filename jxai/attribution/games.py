"""Features of an input as players of a game: the score where some of them are there, and the others at a baseline.

A feature mask numbers the feature of every entry: superpixels, groups of columns, words. A feature's worth is dealt
out evenly to its entries, so that sums over a heat map are sums over features.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from jxai.attribution.gradients import Scores
from jxai.batches.checks import as_baseline
from jxai.batches.chunks import sum_over_roots
from jxai.batches.targets import Target, as_scores
from jxai.checks import as_array, finite, keep_nan, values
from jxai.errors import InputError, InputTypeError


@dataclasses.dataclass(frozen=True)
class Game:
    """Images, their features, and what is there without them.

    Attributes:
        f: from inputs to scores (N, K).
        x: inputs, (N, ...).
        classes: of each image, (N,).
        baseline: what stands for an absent feature, of x's shape.
        labels: the feature of each entry, (N, ...), or (1, ...) for all images alike.
        count: how many features there are.
        chunk_size: inputs in flight.
        mesh: devices over which they are spread.
    """

    f: Scores
    x: jax.Array
    classes: jax.Array
    baseline: jax.Array
    labels: jax.Array
    count: int
    chunk_size: int | None
    mesh: Mesh | None

    def labels_of(self, images: jax.Array) -> jax.Array:
        """The features of these images' entries, (c, ...)."""
        if len(self.labels) > 1:
            return self.labels[images]
        return jnp.broadcast_to(self.labels, (len(images), *self.labels.shape[1:]))

    def score(self, z: jax.Array, images: jax.Array) -> jax.Array:
        """Scores of inputs in the place of these images, (c,), float32 at least."""
        scores = jnp.take_along_axis(self.f(z), self.classes[images][:, None], axis=1)[:, 0]
        return scores.astype(jnp.promote_types(self.x.dtype, jnp.float32))

    def value(self, images: jax.Array, present: jax.Array) -> jax.Array:
        """Scores of these images with the features (c, count) that are present, (c,)."""
        labels = self.labels_of(images)
        there = jnp.take_along_axis(present, labels.reshape(len(images), -1), axis=1).reshape(labels.shape)
        return self.score(jnp.where(there, self.x[images], self.baseline[images]), images)

    def total(self, terms: Callable[[jax.Array, jax.Array], Any], num_roots: int = 1) -> Any:
        """Sums over roots, as `sum_over_roots`."""
        return sum_over_roots(terms, self.x, num_roots=num_roots, chunk_size=self.chunk_size, mesh=self.mesh)

    def of_all(self, *, present: bool) -> jax.Array:
        """Each image's score with all features, or with none, (N,)."""
        return self.total(lambda images, _: self.value(images, jnp.full((len(images), self.count), present)))

    def dealt(self, worth: jax.Array) -> jax.Array:
        """What each entry gets of its feature's worth, (N, count): attributions of x's shape and dtype."""
        num_images = len(self.x)
        labels = self.labels_of(jnp.arange(num_images)).reshape(num_images, -1)
        sizes = jax.vmap(lambda own: jnp.zeros(self.count, worth.dtype).at[own].add(1))(labels)
        each = jnp.take_along_axis(worth / jnp.maximum(sizes, 1), labels, axis=1)
        found = each.reshape(self.x.shape).astype(self.x.dtype)
        return finite("attributions", keep_nan(found, self.x, worth))


def as_game(
    f: Scores,
    x: jax.Array,
    target: Target,
    *,
    feature_mask: ArrayLike | None,
    baseline: ArrayLike,
    chunk_size: int | None,
    mesh: Mesh | None,
) -> Game:
    """What is given, as a game; refuses what does not fit.

    Args:
        f: as in `gradient`.
        x: as in `gradient`.
        target: as in `gradient`.
        feature_mask: integers that broadcast to `x`, from 0 on without gaps; None for a feature an entry.
        baseline: a number, or an array that broadcasts to `x`.
        chunk_size: inputs in flight.
        mesh: devices over which they are spread.

    Returns:
        The game.

    Raises:
        TypeError: `x` holds no floats, `target` or the mask no integers.
        ValueError: shapes do not fit, the mask is not known or has gaps, or as `gradient`.
    """
    x = as_array(x)
    f, classes = as_scores(f, x, target)
    labels, count = _as_features(feature_mask, x)
    return Game(f, x, classes, as_baseline(baseline, x), labels, count, chunk_size, mesh)


def _as_features(feature_mask: ArrayLike | None, x: jax.Array) -> tuple[jax.Array, int]:
    """The features of entries, (N or 1, ...), and how many there are."""
    if feature_mask is None:
        labels = np.arange(x[0].size).reshape(1, *x.shape[1:])
        return jnp.asarray(labels, jnp.int32), x[0].size
    given = as_array(feature_mask)
    if not jnp.issubdtype(given.dtype, jnp.integer):
        raise InputTypeError(
            f"expected feature_mask of integers, got {given.dtype}: give each entry the number of its feature"
        )
    known = values(given)
    if known is None:
        raise InputError(
            "expected a feature_mask that is known, got one traced by JAX: how many features there are decides on "
            "shapes; close over it, or make it a static argument"
        )
    # Of one mask for all images only one copy is kept.
    shared = known.ndim < x.ndim or known.shape[0] == 1
    shape = (1 if shared else len(x), *x.shape[1:])
    try:
        labels = np.broadcast_to(known, shape)
    except ValueError as error:
        raise InputError(
            f"expected a feature_mask that broadcasts to {x.shape}, got {known.shape}: give one number an entry, or "
            "(H, W, 1) for all channels alike"
        ) from error
    for own in labels.reshape(len(labels), -1):
        found = np.unique(own)
        if found[0] != 0 or found[-1] != len(found) - 1:
            missing = sorted(set(range(max(int(found[-1]), 0) + 1)) - set(found.tolist()))[:3]
            raise InputError(
                f"expected a feature_mask of 0, 1, 2, ... without gaps in every image, got values from {found[0]} to "
                f"{found[-1]}{f' without {missing[0]}' if missing else ''}: number the features anew, as "
                "np.unique(mask, return_inverse=True) does"
            )
    return jnp.asarray(labels, jnp.int32), int(labels.max()) + 1
