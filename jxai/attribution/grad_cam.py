"""Grad-CAM: the maps of a convolutional layer, weighted by the mean gradient of each."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jxai.attribution.gradients import Explain, Scores, gradient
from jxai.batches.targets import Target, as_scores
from jxai.checks import as_array, check_choice, finite, keep_nan
from jxai.compiled import run_compiled
from jxai.errors import InputError


def grad_cam(
    features: Callable[[jax.Array], jax.Array],
    head: Scores,
    x: jax.Array,
    target: Target,
    *,
    explain: Explain = gradient,
    channel_axis: int | None = None,
) -> jax.Array:
    """max(0, Σ_k α_k A_k) of maps A = features(x), α_k the mean over positions of ∂head_t/∂A_k, enlarged bilinearly.

    Args:
        features: from images (N, H, W, C) to maps (N, h, w, K'); `jxai.models.split` makes it and the head.
        head: from the maps to scores (N, K).
        x: images, (N, H, W, C), floats.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        explain: what takes the gradient's place.
        channel_axis: where maps hold their channels: -1, or 1 for maps (N, K', h, w). None is -1, and an error where
            maps have the picture's proportions only as (N, K', h, w).

    Returns:
        (N, H, W, 1), not negative, x's dtype.

    Raises:
        TypeError: `x` holds no floats, or `target` no integers.
        ValueError: `features` gives no maps or ones that seem to hold their channels first, shapes do not fit, `x` is
            not finite or a target is out of range (values are not seen under jit).

    References:
        Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization*, 2017,
        equations 1 and 2.
    """
    x = as_array(x)
    check_choice("channel_axis", channel_axis, (None, -1, 1))

    def maps_of(x: jax.Array) -> jax.Array:
        maps = features(x)
        if getattr(maps, "ndim", None) != 4 or x.ndim != 4:
            raise InputError(
                f"expected images (N, H, W, C) and features of shape (N, h, w, K), got {x.shape} and "
                f"{getattr(maps, 'shape', type(maps).__name__)}: split the model before its pooling"
            )
        if channel_axis is None and _seem_channels_first(maps.shape, x.shape):
            raise InputError(
                f"expected maps (N, h, w, K) of the proportions of images (N, H, W, C) {x.shape}, got {maps.shape}: "
                "give channel_axis=1 for maps (N, K, h, w), or -1 for these; images stay (N, H, W, C)"
            )
        return maps

    as_scores(lambda x: head(maps_of(x)), x, target)

    def enlarged() -> jax.Array:
        maps = maps_of(x)
        of_maps, classes = as_scores(head, maps, target)
        gradients = explain(of_maps, maps, classes)
        if channel_axis == 1:
            maps, gradients = (jnp.moveaxis(one, 1, -1) for one in (maps, gradients))
        weights = gradients.mean(axis=(1, 2), keepdims=True)
        coarse = jax.nn.relu((weights * maps).sum(axis=-1, keepdims=True))
        return keep_nan(jax.image.resize(coarse, (*x.shape[:3], 1), "bilinear").astype(x.dtype), x, weights)

    return finite("attributions", run_compiled(enlarged))


def _seem_channels_first(maps: tuple[int, ...], images: tuple[int, ...]) -> bool:
    """Whether the last two axes of maps are a smaller picture, and the two before them are none."""

    def fit(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
        # One stride for both axes, sides rounded up or down.
        return abs(small[0] * large[1] - small[1] * large[0]) < max(large)

    return not fit(maps[1:3], images[1:3]) and (fit(maps[2:], images[1:3]) or fit(maps[2:], images[2:]))
