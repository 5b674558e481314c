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
from jxai.attribution.inputs import Inputs, as_inputs
from jxai.batches.chunks import sum_over_roots
from jxai.batches.targets import Target
from jxai.checks import as_array, values
from jxai.errors import InputError, InputTypeError


@dataclasses.dataclass(frozen=True)
class Game:
    """Images, their features, and what is there without them.

    Attributes:
        inputs: the images.
        baseline: what stands for an absent feature, of x's shape.
        labels: the feature of each entry, (N, ...), or (1, ...) for all images alike; -1 of what is none.
        count: how many features there are.
        chunk_size: inputs in flight.
        mesh: devices over which they are spread.
    """

    inputs: Inputs
    baseline: jax.Array
    labels: jax.Array
    count: int
    chunk_size: int | None
    mesh: Mesh | None

    @property
    def x(self) -> jax.Array:
        """What features are of, (N, ...)."""
        return self.inputs.x

    def labels_of(self, images: jax.Array) -> jax.Array:
        """The features of these images' entries, (c, ...)."""
        if len(self.labels) > 1:
            return self.labels[images]
        return jnp.broadcast_to(self.labels, (len(images), *self.labels.shape[1:]))

    def score(self, z: jax.Array, images: jax.Array) -> jax.Array:
        """Scores of inputs in the place of these images, (c,), float32 at least."""
        return self.inputs.score(z, images).astype(jnp.promote_types(self.x.dtype, jnp.float32))

    def value(self, images: jax.Array, present: jax.Array) -> jax.Array:
        """Scores of these images with the features (c, count) that are present, (c,)."""
        labels = jnp.maximum(self.labels_of(images), 0)  # of no feature there are constants
        there = jnp.take_along_axis(present, labels.reshape(len(images), -1), axis=1).reshape(labels.shape)
        return self.score(jnp.where(there, self.x[images], self.baseline[images]), images)

    def total(self, terms: Callable[[jax.Array, jax.Array], Any], num_roots: int = 1) -> Any:
        """Sums over roots, as `sum_over_roots`."""
        return sum_over_roots(terms, self.x, num_roots=num_roots, chunk_size=self.chunk_size, mesh=self.mesh)

    def of_all(self, *, present: bool) -> jax.Array:
        """Each image's score with all features, or with none, (N,)."""
        return self.total(lambda images, _: self.value(images, jnp.full((len(images), self.count), present)))

    def dealt(self, worth: jax.Array) -> Any:
        """What each entry gets of its feature's worth, (N, count): attributions of the inputs' structure."""
        num_images = len(self.x)
        labels = self.labels_of(jnp.arange(num_images)).reshape(num_images, -1)
        sizes = jax.vmap(
            lambda own: jnp.zeros(self.count, worth.dtype).at[own].add((own >= 0).astype(worth.dtype))
        )(labels)
        each = jnp.take_along_axis(worth / jnp.maximum(sizes, 1), jnp.maximum(labels, 0), axis=1)
        return self.inputs.attributions(each.reshape(self.x.shape), worth)


def as_game(
    f: Scores,
    x: Any,
    target: Target,
    *,
    feature_mask: Any,
    baseline: Any,
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
    inputs = as_inputs(f, x, target)
    if inputs.tree is None:
        found = _as_features(feature_mask, inputs.x)
        if feature_mask is not None:
            _check_numbers([found])
        labels, count = jnp.asarray(found, jnp.int32), int(found.max()) + 1
    else:
        leaves, count = [], 0
        for given, leaf in inputs.tree.features(feature_mask):
            found = _as_features(given, leaf)
            leaves.append(found + count if feature_mask is None else found)
            count = max(count, int(leaves[-1].max()) + 1)
        if feature_mask is not None:
            _check_numbers(leaves)
        labels = inputs.tree.labels(leaves)
    return Game(inputs, inputs.baseline(baseline), labels, count, chunk_size, mesh)


def _as_features(feature_mask: ArrayLike | None, x: jax.Array) -> np.ndarray:
    """The features of entries, (N or 1, ...)."""
    if feature_mask is None:
        return np.arange(x[0].size).reshape(1, *x.shape[1:])
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
        return np.broadcast_to(known, shape)
    except ValueError as error:
        raise InputError(
            f"expected a feature_mask that broadcasts to {x.shape}, got {known.shape}: give one number an entry, or "
            "(H, W, 1) for all channels alike"
        ) from error


def _check_numbers(leaves: list[np.ndarray]) -> None:
    """Refuse features with gaps in an image, in all of its leaves together."""
    rows = np.broadcast_shapes(*(one.shape[:1] for one in leaves))[0]
    flat = [np.broadcast_to(one.reshape(len(one), -1), (rows, one[0].size)) for one in leaves]
    for own in np.concatenate(flat, axis=1):
        found = np.unique(own)
        if found[0] != 0 or found[-1] != len(found) - 1:
            missing = sorted(set(range(max(int(found[-1]), 0) + 1)) - set(found.tolist()))[:3]
            raise InputError(
                f"expected a feature_mask of 0, 1, 2, ... without gaps in every image, got values from {found[0]} to "
                f"{found[-1]}{f' without {missing[0]}' if missing else ''}: number the features anew, as "
                "np.unique(mask, return_inverse=True) does"
            )
