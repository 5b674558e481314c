"""Blur Integrated Gradients: the path is the picture from blurred to sharp."""

import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jxai.attribution.gradients import Explain, Scores, gradient
from jxai.attribution.inputs import as_images
from jxai.batches.chunks import sum_over_roots
from jxai.batches.targets import Target, as_scores
from jxai.checks import check_count, check_functions, check_known, check_number, finite, keep_nan
from jxai.errors import InputError

_WIDEST = 100  # standard deviation, in sides of the image


def blur_ig(
    f: Scores,
    x: jax.Array,
    target: Target,
    *,
    max_sigma: float = 50.0,
    num_steps: int = 50,
    explain: Explain = gradient,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """−∫ ∇f_t(L_σ) ⊙ ∂L_σ/∂σ dσ over blurs L_σ of the image, from none to `max_sigma`.

    No baseline is needed but one that the image itself gives. The sum over an image tends to f_t(x) less the score of
    the blurred image. Steps of σ are even; each takes the gradient at its middle.

    Args:
        f: from images (N, H, W, C) to scores (N, K).
        x: images, (N, H, W, C), floats.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        max_sigma: the widest Gaussian's standard deviation in pixels, above 0, at most 100 sides of the image.
        num_steps: gradients an image.
        explain: what takes the gradient's place; the product stays.
        chunk_size: images in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; sums are float32 at least. Blurs repeat the edges, as `blurred_baseline` does.

    Raises:
        TypeError: `x` holds no floats, or `target` no integers.
        ValueError: `x` holds no images, a count or sigma is out of range, values are not finite or a target is out of
            range (values are not seen under jit).

    References:
        Xu et al., *Attribution in Scale and Space*, 2020, section 3.
    """
    x = as_images(x)
    check_functions(explain=explain)
    f, target = as_scores(f, x, target)
    if x.ndim != 4:
        raise InputError(f"expected images of shape (N, H, W, C), got {x.shape}: add or merge leading axes")
    check_known("max_sigma", max_sigma)
    check_number("max_sigma", max_sigma, above=0, most=_WIDEST * max(x.shape[1:3]))
    max_sigma = float(max_sigma)
    check_count("num_steps", num_steps)
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def terms(images: jax.Array, steps: jax.Array) -> jax.Array:
        def blurred(shift: float) -> jax.Array:
            sigmas = (steps.astype(wide) + shift) * (max_sigma / num_steps)
            return jax.vmap(_blurred, in_axes=(0, 0, None))(x[images].astype(wide), sigmas, max_sigma)

        middle = explain(f, blurred(0.5).astype(x.dtype), target[images]).astype(wide)
        return (blurred(0.0) - blurred(1.0)) * middle

    total = sum_over_roots(terms, x, num_roots=num_steps, chunk_size=chunk_size, mesh=mesh)
    return finite("attributions", keep_nan(total.astype(x.dtype), x))


def _blurred(image: jax.Array, sigma: jax.Array, max_sigma: float) -> jax.Array:
    """One image (H, W, C) blurred by a Gaussian of any standard deviation up to the largest; edges are repeated."""
    rows, columns = (_matrix(side, sigma, max_sigma) for side in image.shape[:2])
    precise = jax.lax.Precision.HIGHEST
    return jnp.einsum("ij,jkc,lk->ilc", rows, image, columns, precision=precise)


def _matrix(side: int, sigma: jax.Array, max_sigma: float) -> jax.Array:
    """The blur of a line, (side, side)."""
    radius = side + math.ceil(4 * min(max_sigma, 4 * side))  # wider ones are flat within the line
    offsets = jnp.arange(-radius, radius + 1)
    # Of no width only the middle remains.
    scaled = offsets.astype(sigma.dtype) / jnp.maximum(sigma, 1e-3)
    weights = jnp.exp(-0.5 * scaled**2)
    weights = weights / weights.sum()
    below = jnp.cumsum(weights)
    places = jnp.arange(side)
    matrix = weights[radius + places[None] - places[:, None]]
    # What lies before the line is its first pixel, what lies behind it its last.
    matrix = matrix.at[:, 0].add(below[radius - places - 1])
    return matrix.at[:, -1].add(1 - below[radius + side - 1 - places])
