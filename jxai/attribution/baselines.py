"""Baselines for Integrated Gradients: noise and blur. Images are (N, H, W, C), already normalized."""

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from jxai.batches.blur import gaussian_blur
from jxai.batches.checks import as_grays, check_finite
from jxai.batches.draws import row_keys
from jxai.checks import as_array, check_count, check_known, check_number, finite, keep_nan
from jxai.errors import InputError

_TRUNCATION = 4.0  # of the Gaussian, in standard deviations
_WIDEST = 100  # standard deviation, in sides of the image


def uniform_baselines(
    key: jax.Array, x: jax.Array, *, count: int, low: ArrayLike, high: ArrayLike
) -> jax.Array:
    """Images of uniform noise, for the mean of Integrated Gradients over several.

    Args:
        key: a random key; baseline b of image n depends on (key, n, b) alone.
        x: inputs, (N, ...), floats.
        count: B, how many an image; the paper tries 1, 5, 10 and 20.
        low: the darkest value, a number or one a channel: what black is after normalization.
        high: the brightest: what white is.

    Returns:
        (B, *x.shape), x's dtype.

    Raises:
        TypeError: `x` holds no floats.
        ValueError: count is less than 1, `x` is not finite or no batch, or low and high do not fit it.

    References:
        Goh et al., *Understanding Integrated Gradients with SmoothTaylor for Deep Neural Network Attribution*, 2020.
    """
    x = as_array(x)
    check_finite("x", x)
    check_count("count", count)
    low, high = as_grays(low, high, x)
    images, numbers = jnp.tile(jnp.arange(len(x)), count), jnp.repeat(jnp.arange(count), len(x))
    keys = row_keys(key, images, numbers)
    noise = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], x.dtype))(keys)
    return low[None] + (high - low)[None] * noise.reshape(count, *x.shape)


def blurred_baseline(x: jax.Array, *, sigma: float) -> jax.Array:
    """Each image blurred by a Gaussian; edges are repeated.

    Args:
        x: images, (N, H, W, C), floats.
        sigma: the Gaussian's standard deviation in pixels, above 0 and at most 100 sides of the image.

    Returns:
        Of x's shape and dtype.

    Raises:
        TypeError: `x` holds no floats.
        ValueError: sigma is out of range, or `x` is no batch of finite images.

    References:
        Sturmfels et al., *Visualizing the Impact of Feature Attribution Baselines*, 2020.
    """
    x = as_array(x)
    check_finite("x", x)
    if x.ndim != 4:
        raise InputError(f"expected images of shape (N, H, W, C), got {x.shape}: add or merge leading axes")
    # Wider ones are as flat, and take ever longer.
    check_known("sigma", sigma)
    check_number("sigma", sigma, above=0, most=_WIDEST * max(x.shape[1:3]))
    radius = int(_TRUNCATION * sigma + 0.5)
    blurred = gaussian_blur(x, sigma=float(sigma), radius=radius).astype(x.dtype)
    return finite("blurred images", keep_nan(blurred, x))
