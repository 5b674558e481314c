"""What takes the place of removed features: functions (x, mask, key) -> x of one input, for any `baseline`.

A number or an array does for what does not go by the input; these do for the rest, and so does any function of the
same form. `x` is one input without the axis of images, `mask` of its shape and true where features go.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai.batches.blur import gaussian_blur
from jxai.batches.checks import as_grays
from jxai.checks import as_array, check_key, check_known, check_number, values
from jxai.errors import InputError
from jxai.metrics.road import linear_imputation

_TRUNCATION = 4.0  # of the blur, in standard deviations
_WIDEST = 1000.0  # pixels

BaselineFunction = Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]


def mean_baseline() -> BaselineFunction:
    """Each input's own mean, channel by channel.

    Returns:
        A function (x, mask, key) -> x of one input (..., C); it draws nothing.

    Example:
        >>> mean_baseline()(jnp.array([[1.0, 5.0], [3.0, 7.0]]), None, None).tolist()
        [[2.0, 6.0], [2.0, 6.0]]
    """

    def replaced(x: jax.Array, mask: jax.Array, key: jax.Array | None) -> jax.Array:
        mean = x.astype(jnp.float32).mean(axis=tuple(range(x.ndim - 1)), keepdims=True)
        return jnp.broadcast_to(mean, x.shape).astype(x.dtype)

    return replaced


def blur_baseline(*, sigma: float) -> BaselineFunction:
    """The image blurred by a Gaussian, edges repeated.

    Args:
        sigma: standard deviation in pixels, above 0 and at most 1000.

    Returns:
        A function (x, mask, key) -> x of one image (H, W, C); it draws nothing.

    Raises:
        ValueError: sigma is out of range; later, an input is no image.
    """
    check_known("sigma", sigma)
    check_number("sigma", sigma, above=0, most=_WIDEST)

    def replaced(x: jax.Array, mask: jax.Array, key: jax.Array | None) -> jax.Array:
        return gaussian_blur(_image(x)[None], sigma=float(sigma), radius=int(_TRUNCATION * sigma + 0.5))[
            0
        ].astype(x.dtype)

    return replaced


def noise_baseline(*, low: ArrayLike, high: ArrayLike) -> BaselineFunction:
    """Uniform noise, each element on its own.

    Args:
        low: the smallest value, a number or one a channel: what black is after normalization.
        high: the largest: what white is.

    Returns:
        A function (x, mask, key) -> x of one input (..., C), which needs a key.

    Raises:
        ValueError: a value is not finite, or low above high; later, they do not fit an input's channels.
    """
    # One a channel, as far as can be seen before there is an input.
    channels = max(as_array(low).shape[-1:], as_array(high).shape[-1:]) or (1,)
    as_grays(low, high, jnp.zeros((1, *channels)))

    def replaced(x: jax.Array, mask: jax.Array, key: jax.Array | None) -> jax.Array:
        key = check_key(key)
        black, white = as_grays(low, high, x[None])
        return black[0] + (white - black)[0] * jax.random.uniform(key, x.shape, x.dtype)

    return replaced


def inpainting_baseline(*, noise: float = 0.01) -> BaselineFunction:
    """The weighted mean of a pixel's neighbors, which may be removed too, and noise: as `road` does.

    Args:
        noise: standard deviation of the Gaussian noise, in units of the input, at least 0; 0.01 is the paper's.

    Returns:
        A function (x, mask, key) -> x of one image (H, W, C); it needs a key unless `noise` is 0. An image all of
        which is removed becomes 0, and a pixel is removed with any of its channels.

    Raises:
        ValueError: `noise` is negative; later, an input is no image.

    References:
        A Consistent and Efficient Evaluation Strategy for Attribution Methods, Rong et al., 2022.
    """
    check_number("noise", noise, least=0)
    noisy = (known := values(as_array(noise))) is None or known > 0

    def replaced(x: jax.Array, mask: jax.Array, key: jax.Array | None) -> jax.Array:
        filled = linear_imputation(_image(x)[None], mask.any(axis=-1)[None])[0]
        if noisy:
            filled += noise * jax.random.normal(check_key(key), x.shape)
        return filled.astype(x.dtype)

    return replaced


def _image(x: jax.Array) -> jax.Array:
    if x.ndim != 3:
        raise InputError(
            f"expected images of shape (N, H, W, C), got (N, *{x.shape}): choose another baseline"
        )
    return x
