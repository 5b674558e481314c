"""Grad-CAM and its kin: the maps of a convolutional layer, weighted by gradients of the head."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jxai.attribution.gradients import Explain, Scores, gradient
from jxai.attribution.inputs import as_images
from jxai.attribution.maps import Features, Grid, channels_last, check_shown, checked_maps, shown_map
from jxai.batches.targets import Target, as_scores
from jxai.checks import check_functions, finite, keep_nan
from jxai.compiled import run_compiled


def grad_cam(
    features: Features,
    head: Scores,
    x: jax.Array,
    target: Target,
    *,
    explain: Explain = gradient,
    channel_axis: int | None = None,
    grid: Grid = None,
    relu: bool = True,
    enlarge: bool = True,
) -> jax.Array:
    """max(0, Σ_k α_k A_k) of maps A = features(x), α_k the mean over positions of ∂head_t/∂A_k, enlarged bilinearly.

    Args:
        features: from images (N, H, W, C) to maps (N, h, w, K'); `jxai.models.split` makes it and the head.
        head: from the maps to scores (N, K).
        x: images, (N, H, W, C), floats.
        target: (N,), integers in [0, K); or a function of the head's outputs, as in `gradient`.
        explain: what takes the gradient's place.
        channel_axis: where maps hold their channels: -1, or 1 for maps (N, K', h, w). None is -1, and an error where
            maps have the picture's proportions only as (N, K', h, w).
        grid: (h, w) of a vision transformer's patches, where `features` gives its tokens (N, T, E): of them the last
            h·w are the patches, row by row, and those before them, the class token and registers, have no place. A
            head that reads the class token alone needs tokens from below the last attention.
        relu: whether what is negative, evidence against, is cut off before the map is enlarged.
        enlarge: whether the map is enlarged to the picture's size.

    Returns:
        (N, H, W, 1), or (N, h, w, 1) as it is, x's dtype; not negative with `relu`.

    Raises:
        TypeError: `x` holds no floats, or `target` no integers.
        ValueError: `features` gives no maps or ones that seem to hold their channels first, shapes do not fit, `x` is
            not finite or a target is out of range (values are not seen under jit).

    References:
        Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization*, 2017,
        equations 1 and 2.
    """

    def weighted(maps: jax.Array, slopes: jax.Array) -> jax.Array:
        return (slopes.mean(axis=(1, 2), keepdims=True) * maps).sum(axis=-1)

    return _cam(weighted, features, head, x, target, explain, channel_axis, grid, relu, enlarge)


def grad_cam_plus_plus(
    features: Features,
    head: Scores,
    x: jax.Array,
    target: Target,
    *,
    explain: Explain = gradient,
    channel_axis: int | None = None,
    grid: Grid = None,
    relu: bool = True,
    enlarge: bool = True,
) -> jax.Array:
    """max(0, Σ_k w_k A_k) with w_k = Σ_ij α_ijk max(0, g_ijk), α = g² / (2 g² + g³ Σ_ab A_abk), g = ∂head_t/∂A.

    Several places of a class count as much as a large one. α is that of exp(head_t), whose derivatives are powers of
    g; w is without the factor exp(head_t), which all channels share.

    Args:
        features: as in `grad_cam`.
        head: from the maps to scores (N, K).
        x: images, (N, H, W, C), floats.
        target: (N,), integers in [0, K); or a function of the head's outputs, as in `gradient`.
        explain: what takes the gradient's place.
        channel_axis: where maps hold their channels, as in `grad_cam`.
        grid: as in `grad_cam`.
        relu: as in `grad_cam`.
        enlarge: as in `grad_cam`.

    Returns:
        (N, H, W, 1), or (N, h, w, 1) as it is, x's dtype.

    Raises:
        TypeError: as `grad_cam`.
        ValueError: as `grad_cam`.

    References:
        Chattopadhay et al., *Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks*, 2018,
        equations 5 and 19.
    """

    def weighted(maps: jax.Array, slopes: jax.Array) -> jax.Array:
        # Divided by g²: its square would vanish in float32 where gradients are small.
        below = 2 + slopes * maps.sum(axis=(1, 2), keepdims=True)
        alpha = jnp.where((slopes == 0) | (below == 0), 0, 1 / jnp.where(below == 0, 1, below))
        weights = (alpha * jax.nn.relu(slopes)).sum(axis=(1, 2), keepdims=True)
        return (weights * maps).sum(axis=-1)

    return _cam(weighted, features, head, x, target, explain, channel_axis, grid, relu, enlarge)


def layer_cam(
    features: Features,
    head: Scores,
    x: jax.Array,
    target: Target,
    *,
    explain: Explain = gradient,
    channel_axis: int | None = None,
    grid: Grid = None,
    relu: bool = True,
    enlarge: bool = True,
) -> jax.Array:
    """max(0, Σ_k max(0, ∂head_t/∂A_k) ⊙ A_k): each place weighted by its own gradient, so also of early layers.

    Args:
        features: as in `grad_cam`.
        head: from the maps to scores (N, K).
        x: images, (N, H, W, C), floats.
        target: (N,), integers in [0, K); or a function of the head's outputs, as in `gradient`.
        explain: what takes the gradient's place.
        channel_axis: where maps hold their channels, as in `grad_cam`.
        grid: as in `grad_cam`.
        relu: as in `grad_cam`.
        enlarge: as in `grad_cam`.

    Returns:
        (N, H, W, 1), or (N, h, w, 1) as it is, x's dtype.

    Raises:
        TypeError: as `grad_cam`.
        ValueError: as `grad_cam`.

    References:
        Jiang et al., *LayerCAM: Exploring Hierarchical Class Activation Maps for Localization*, 2021, equations 5
        to 7.
    """

    def weighted(maps: jax.Array, slopes: jax.Array) -> jax.Array:
        return (jax.nn.relu(slopes) * maps).sum(axis=-1)

    return _cam(weighted, features, head, x, target, explain, channel_axis, grid, relu, enlarge)


def guided_grad_cam(
    features: Features,
    head: Scores,
    x: jax.Array,
    target: Target,
    *,
    explain: Explain,
    channel_axis: int | None = None,
    grid: Grid = None,
) -> jax.Array:
    """Grad-CAM's map times an explanation of the pixels: where, and what there.

    Args:
        features: as in `grad_cam`.
        head: from the maps to scores (N, K).
        x: images, (N, H, W, C), floats.
        target: (N,), integers in [0, K); or a function of the head's outputs, as in `gradient`.
        explain: what explains the pixels, of (f, x, target) to x's shape. The paper's is guided backpropagation:
            `functools.partial(lrp.relevance, composite=lrp.GuidedBackprop())`.
        channel_axis: where maps hold their channels, as in `grad_cam`.
        grid: as in `grad_cam`.

    Returns:
        Of x's shape and dtype.

    Raises:
        TypeError: as `grad_cam`.
        ValueError: as `grad_cam`.

    References:
        Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization*, 2017,
        section 3.2.
    """
    check_functions(explain=explain)
    x = as_images(x)
    where = grad_cam(features, head, x, target, channel_axis=channel_axis, grid=grid)
    f, classes = as_scores(lambda x: head(features(x)), x, target)
    return finite("attributions", keep_nan(where * explain(f, x, classes), x))


def _cam(
    weighted: Callable[[jax.Array, jax.Array], jax.Array],
    features: Features,
    head: Scores,
    x: jax.Array,
    target: Target,
    explain: Explain,
    channel_axis: int | None,
    grid: Grid,
    relu: bool,
    enlarge: bool,
) -> jax.Array:
    """A map, of a function of maps (N, h, w, K') and the head's gradients there to (N, h, w)."""
    x = as_images(x)
    check_shown(relu, enlarge)
    check_functions(head=head, explain=explain)
    maps_of = checked_maps(features, channel_axis, grid)
    head, classes = as_scores(head, x, target, below=maps_of)

    def found() -> jax.Array:
        maps = maps_of(x)
        slopes = explain(head, maps, classes)
        maps, slopes = (channels_last(one, channel_axis, grid) for one in (maps, slopes))
        return shown_map(weighted(maps, slopes), x, slopes, relu=relu, enlarge=enlarge)

    return finite("attributions", run_compiled(found))
