"""Class activation maps without gradients: weighted by scores of what the maps leave of a picture, or by none."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jxai.attribution.gradients import Scores
from jxai.attribution.inputs import as_images
from jxai.attribution.maps import Features, Grid, channels_last, check_shown, checked_maps, shown_map
from jxai.batches.checks import check_finite
from jxai.batches.chunks import sum_over_roots
from jxai.batches.targets import Target, as_scores
from jxai.checks import check_functions, finite, keep_nan
from jxai.compiled import run_compiled


def score_cam(
    features: Features,
    head: Scores,
    x: jax.Array,
    target: Target,
    *,
    channel_axis: int | None = None,
    grid: Grid = None,
    relu: bool = True,
    enlarge: bool = True,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """max(0, Σ_k α_k A_k) with α the softmax over channels of f_t(x ⊙ H_k), H_k the map A_k as a mask.

    A mask is a map enlarged to the picture's size and scaled to [0, 1]; of a map that is the same everywhere it is 0.
    The paper subtracts the score of a black picture, which the softmax does not see.

    Args:
        features: as in `grad_cam`.
        head: from the maps to scores (N, K).
        x: images, (N, H, W, C), floats, whose zeros are nothing.
        target: (N,), integers in [0, K); or a function of the head's outputs, as in `gradient`.
        channel_axis: where maps hold their channels, as in `grad_cam`.
        grid: as in `grad_cam`.
        relu: as in `grad_cam`.
        enlarge: as in `grad_cam`.
        chunk_size: pictures in flight, as in `integrated_gradients`; there is one a channel.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        (N, H, W, 1), or (N, h, w, 1) as it is, x's dtype.

    Raises:
        TypeError: as `grad_cam`.
        ValueError: as `grad_cam`.

    References:
        Wang et al., *Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks*, 2020,
        algorithm 1.
    """
    x = as_images(x)
    check_shown(relu, enlarge)
    check_functions(head=head)
    maps_of = checked_maps(features, channel_axis, grid)
    f, classes = as_scores(lambda x: head(maps_of(x)), x, target)
    maps = run_compiled(lambda: channels_last(maps_of(x), channel_axis, grid))
    wide = jnp.promote_types(x.dtype, jnp.float32)
    num_channels = maps.shape[-1]

    def terms(images: jax.Array, channels: jax.Array) -> jax.Array:
        own = maps[images, :, :, channels].astype(wide)
        large = jax.image.resize(own, (len(images), *x.shape[1:3]), "bilinear")
        low, high = (of(axis=(1, 2), keepdims=True) for of in (large.min, large.max))
        masks = jnp.where(high > low, (large - low) / jnp.where(high > low, high - low, 1), 0)
        scores = f((x[images].astype(wide) * masks[..., None]).astype(x.dtype)).astype(wide)
        score = jnp.take_along_axis(scores, classes[images][:, None], axis=1)
        return jnp.where(channels[:, None] == jnp.arange(num_channels)[None], score, 0)

    scores = sum_over_roots(terms, x, num_roots=num_channels, chunk_size=chunk_size, mesh=mesh)
    coarse = (jax.nn.softmax(scores, axis=1)[:, None, None] * maps.astype(wide)).sum(axis=-1)
    return shown_map(coarse, x, scores, relu=relu, enlarge=enlarge)


def eigen_cam(
    features: Features,
    x: jax.Array,
    *,
    channel_axis: int | None = None,
    grid: Grid = None,
    relu: bool = True,
    enlarge: bool = True,
) -> jax.Array:
    """max(0, A v) with v the first right singular vector of the maps A, (h w, K'): their main component, of no class.

    Its sign is open, and here such that the map's sum is not negative.

    Args:
        features: as in `grad_cam`.
        x: images, (N, H, W, C), floats.
        channel_axis: where maps hold their channels, as in `grad_cam`.
        grid: as in `grad_cam`.
        relu: as in `grad_cam`.
        enlarge: as in `grad_cam`.

    Returns:
        (N, H, W, 1), or (N, h, w, 1) as it is, x's dtype.

    Raises:
        TypeError: `x` holds no floats.
        ValueError: as `grad_cam`.

    References:
        Muhammad and Yeasin, *Eigen-CAM: Class Activation Map using Principal Components*, 2020, section III.
    """
    x = as_images(x)
    check_finite("x", x)
    check_shown(relu, enlarge)
    maps_of = checked_maps(features, channel_axis, grid)

    def found() -> jax.Array:
        maps = channels_last(maps_of(x), channel_axis, grid)
        wide = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
        rows = wide.reshape(len(wide), -1, wide.shape[-1])
        # NaN is given back at the end: decompositions hang on it, or call it numbers.
        rows = jnp.where(jnp.isfinite(rows), rows, 0)
        left, values, _ = jnp.linalg.svd(rows, full_matrices=False)
        component = left[..., 0] * values[:, :1]
        component = component * jnp.where(component.sum(axis=1, keepdims=True) < 0, -1, 1)
        coarse = component.reshape(wide.shape[:3])
        return shown_map(keep_nan(coarse, wide), x, relu=relu, enlarge=enlarge)

    return finite("attributions", run_compiled(found))
