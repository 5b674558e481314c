"""ROAD: remove pixels by noisy linear imputation, so that what is left of a removed shape cannot be read off."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jxai.batches.draws import normal_draws
from jxai.checks import check_number, keep_nan, shown
from jxai.errors import InputError
from jxai.metrics.features import scores_without
from jxai.metrics.inputs import Scores, as_batch, as_heatmap, probabilities
from jxai.metrics.pixels import removal_ranks

# Residual over right-hand side. At 224 x 224 with 90 % removed it leaves errors of about 3e-4 of the image's standard
# deviation, far below the noise.
_TOLERANCE = 1e-5


def road(
    f: Scores,
    key: jax.Array,
    x: jax.Array,
    heatmap: jax.Array,
    target: jax.Array,
    *,
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    most_relevant_first: bool = True,
    noise: float = 0.01,
    chunk_size: int | None = None,
) -> jax.Array:
    """Softmax probability of the target once shares of the pixels are imputed. Lower is better.

    Higher is better with `most_relevant_first=False`. The paper's number is the share of images still classified
    rightly; the probability says the same of a single image.

    A removed pixel is the mean of its neighbors in the image, weighted 1/6 (direct) and 1/12 (diagonal) and
    renormalized at edges. Neighbors may be removed too: the system is solved by conjugate gradients, until the
    residual is 1e-5 of the right-hand side. Gaussian noise is added to what was imputed.

    Args:
        f: from images (N, H, W, C) to scores (N, K), before the softmax.
        key: a random key; the noise of an image at a share depends on (key, image's place, share's place) alone.
        x: images, (N, H, W, C).
        heatmap: (N, H, W), signed.
        target: the class whose probability is read, (N,) integers.
        shares: shares of the pixels removed, each in [0, 1) and with at least one pixel left.
        most_relevant_first: whether the largest values are removed first, or the smallest.
        noise: standard deviation of the noise, in units of `x`, at least 0; 0.01 is the paper's.
        chunk_size: images in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N, number of shares) in [0, 1], float32.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target or a share is out of range, or `noise` is
            negative.

    References:
        A Consistent and Efficient Evaluation Strategy for Attribution Methods, Rong et al., 2022.
    """
    x, target = as_batch(x, target, f=f)
    heatmap = as_heatmap(heatmap, x)
    if not isinstance(shares, Sequence | np.ndarray) or not len(shares):
        raise InputError(f"expected shares in [0, 1), got {shown(shares)}: give a sequence of them")
    for share in shares:
        check_number("shares", share, least=0, below=1)
    num_shares, num_pixels = len(shares), heatmap[0].size
    counts = [round(share * num_pixels) for share in shares]
    if max(counts) >= num_pixels:
        raise InputError(
            f"expected shares in [0, 1) that leave one of {num_pixels} pixels, got {tuple(shares)}: lower them"
        )
    check_number("noise", noise, least=0)
    ranks = removal_ranks(heatmap, most_relevant_first=most_relevant_first)
    limits = jnp.asarray(counts, jnp.int32)

    def removed(images: jax.Array, numbers: jax.Array) -> jax.Array:
        return ranks[images] < limits[numbers, None, None]

    def replace(x: jax.Array, gone: jax.Array, images: jax.Array, numbers: jax.Array) -> jax.Array:
        return linear_imputation(x, gone[..., 0]) + noise * normal_draws(key, images, numbers, x.shape[1:])

    curve = scores_without(probabilities(f), x, target, removed, num_shares, replace, chunk_size)
    return keep_nan(curve, heatmap)


@jax.jit
def linear_imputation(x: jax.Array, removed: jax.Array) -> jax.Array:
    """Images whose removed pixels are weighted means of their neighbors.

    With D the neighbors' total weight and W their weighted sum, D v = W v is solved on the removed pixels, the
    others given: a symmetric and positive definite system.

    Args:
        x: images, (N, H, W, C).
        removed: (N, H, W), true where a pixel goes; at least one of an image stays.

    Returns:
        (N, H, W, C), float32.
    """

    gone = removed[:, None]  # channels before rows: a CPU works along the last axis
    image = jnp.moveaxis(x.astype(jnp.float32), -1, 1)
    # About the mean: the solver's tolerance is then one of contrast, not of brightness.
    mean = jnp.where(gone, 0, image).sum(axis=(2, 3), keepdims=True)
    mean = mean / jnp.maximum((~gone).sum(axis=(2, 3), keepdims=True, dtype=jnp.float32), 1)
    weight = _neighbors(jnp.ones_like(gone, jnp.float32))

    def system(v: jax.Array) -> jax.Array:
        return jnp.where(gone, weight * v - _neighbors(v), 0)

    filled = _conjugate_gradients(system, jnp.where(gone, _neighbors(jnp.where(gone, 0, image - mean)), 0))
    return jnp.moveaxis(jnp.where(gone, filled + mean, image), 1, -1)


def _conjugate_gradients(system: Callable[[jax.Array], jax.Array], right: jax.Array) -> jax.Array:
    """Solves a symmetric and positive definite system for each row, until the residual is within the tolerance.

    As `jax.scipy.sparse.linalg.cg` under `vmap`, at less than half its cost (224 x 224 on a CPU): a row that has
    converged is held by a step of 0 instead of copying its state.

    Args:
        system: linear, on (N, ...), each row alone.
        right: (N, ...).

    Returns:
        The solutions, (N, ...).
    """
    axes = tuple(range(1, right.ndim))

    def power(a: jax.Array, b: jax.Array) -> jax.Array:
        return (a * b).sum(axis=axes, keepdims=True)

    limit = _TOLERANCE**2 * power(right, right)

    def step(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        solution, residual, direction, square, count = state
        active = square > limit
        image = system(direction)
        length = jnp.where(active, square / jnp.where(active, power(direction, image), 1), 0)
        solution, residual = solution + length * direction, residual - length * image
        after = power(residual, residual)
        direction = residual + jnp.where(active, after / jnp.where(active, square, 1), 0) * direction
        return solution, residual, direction, after, count + 1

    start = (jnp.zeros_like(right), right, right, power(right, right), jnp.zeros((), jnp.int32))
    most = right[0].size  # as many steps as unknowns, should rounding keep it from the tolerance
    return jax.lax.while_loop(lambda state: (state[3] > limit).any() & (state[4] < most), step, start)[0]


def _neighbors(image: jax.Array) -> jax.Array:
    """Sum over the last two axes' eight neighbors, 1/6 (direct) and 1/12 (diagonal); nothing beyond the edges."""
    total = jnp.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    # [1 2 1]ᵀ[1 2 1] is 12 times the weights, but for the 4 in its middle.
    total = total[:, :, :-2] + 2 * total[:, :, 1:-1] + total[:, :, 2:]
    total = total[..., :-2] + 2 * total[..., 1:-1] + total[..., 2:]
    return (total - 4 * image) / 12
