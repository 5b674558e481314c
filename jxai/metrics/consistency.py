"""Whether images that get one explanation, or nearly one, get one prediction."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jxai.checks import as_array, check_functions, check_number, finite, keep_nan
from jxai.errors import InputError, InputTypeError
from jxai.metrics.inputs import as_feature_map

_CELLS = 3  # of a side of the grid that names where a heatmap points, by default


def consistency(
    heatmap: jax.Array,
    prediction: jax.Array,
    *,
    discretize: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Share of the other images with the same explanation that have the same prediction. Higher is better.

    |{j ≠ i, c_j = c_i, ŷ_j = ŷ_i}| / |{j ≠ i, c_j = c_i}|, c = discretize(heatmap): the paper's local consistency,
    P(ŷ(x') = ŷ(x) | c(x') = c(x)), over the images given. It needs many, and few explanations.

    Args:
        heatmap: (N, H, W), (N, T) or (N, D).
        prediction: the classes that the network predicts, (N,) integers.
        discretize: from heatmaps (N, H, W) to what makes two explanations one and the same, (N, ...) of integers or
            bool. By default which of 3 x 3 cells holds the most relevant pixel.

    Returns:
        (N,) in [0, 1], float32; NaN where no other image has the explanation (Quantus has 0 there).

    Raises:
        TypeError: if `prediction` or what `discretize` gives holds no integers.
        ValueError: if shapes do not fit or values are not finite.

    References:
        Framework for Evaluating Faithfulness of Local Explanations, Dasgupta et al., 2022.
    """
    heatmap, prediction = _explained(heatmap, prediction)
    check_functions(discretize=_cell if discretize is None else discretize)
    cells = (_cell if discretize is None else discretize)(heatmap)
    if not getattr(cells, "shape", ()) or cells.shape[0] != len(heatmap):
        raise InputError(
            f"expected `discretize` to give an array ({len(heatmap)}, ...), got {getattr(cells, 'shape', cells)}: "
            "one code an image"
        )
    if not (jnp.issubdtype(cells.dtype, jnp.integer) or cells.dtype == jnp.bool_):
        raise InputTypeError(f"expected `discretize` to give integers, got {cells.dtype}: round its values")
    same = jax.vmap(lambda one: (cells == one).reshape(len(cells), -1).all(axis=1))(cells)
    return _agreement(same, heatmap, prediction)


def local_sufficiency(heatmap: jax.Array, prediction: jax.Array, *, threshold: float = 0.6) -> jax.Array:
    """Share of the other images with a similar explanation that have the same prediction. Higher is better.

    |{j ≠ i, d_ij ≤ t, ŷ_j = ŷ_i}| / |{j ≠ i, d_ij ≤ t}|: the paper's local sufficiency, P(ŷ(x') = ŷ(x) | the
    explanation of x applies to x'), over the images given. A heatmap applies, as in Quantus, to images whose own is
    near: d is the Euclidean distance with every pixel in units of its standard deviation over the images, over the
    largest distance. So it goes by the images that are there: compare methods on the same ones.

    Args:
        heatmap: (N, H, W), (N, T) or (N, D).
        prediction: the classes that the network predicts, (N,) integers.
        threshold: t, in [0, 1]; 0.6 in Quantus.

    Returns:
        (N,) in [0, 1], float32; NaN where no other explanation is so near (Quantus has 0 there).

    Raises:
        TypeError: if `prediction` holds no integers.
        ValueError: if shapes do not fit, values are not finite or `threshold` is out of range.

    References:
        Framework for Evaluating Faithfulness of Local Explanations, Dasgupta et al., 2022.
    """
    heatmap, prediction = _explained(heatmap, prediction)
    check_number("threshold", threshold, least=0, most=1)
    good = jnp.isfinite(heatmap.reshape(len(heatmap), -1)).all(axis=1)
    flat = jnp.where(good[:, None], heatmap.reshape(len(heatmap), -1), 0)
    # Over the largest first: squares of tiny or huge values would leave float32.
    largest = jnp.abs(flat).max(axis=0, keepdims=True)
    flat = flat / jnp.where(largest > 0, largest, 1)
    number = jnp.maximum(good.sum(), 1).astype(jnp.float32)
    centered = jnp.where(good[:, None], flat - flat.sum(axis=0, keepdims=True) / number, 0)
    deviation = jnp.sqrt((centered**2).sum(axis=0, keepdims=True) / number)
    unit = centered / jnp.where(deviation > 0, deviation, 1)
    distance = finite(
        "distances", jax.lax.map(lambda one: jnp.sqrt(((unit - one[None]) ** 2).sum(axis=1)), unit)
    )
    distance = jnp.where(good[:, None] & good[None], distance, 0)
    return _agreement(distance <= threshold * distance.max(), heatmap, prediction)


def _explained(heatmap: jax.Array, prediction: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Heatmaps, and a class of each, checked."""
    heatmap, prediction = as_feature_map(heatmap), as_array(prediction)
    if not jnp.issubdtype(prediction.dtype, jnp.integer):
        raise InputTypeError(f"expected `prediction` of integers, got {prediction.dtype}: give class indices")
    if prediction.shape != heatmap.shape[:1]:
        raise InputError(
            f"expected `prediction` of shape {heatmap.shape[:1]}, got {prediction.shape}: one class an image"
        )
    return heatmap, prediction


def _agreement(same: jax.Array, heatmap: jax.Array, prediction: jax.Array) -> jax.Array:
    """Of the other images that count as the same, (N, N), the share with the same prediction, (N,)."""
    good = jnp.isfinite(heatmap.reshape(len(heatmap), -1)).all(axis=1)
    same &= good[None] & ~jnp.eye(len(heatmap), dtype=bool)
    agreed = same & (prediction[:, None] == prediction[None])
    share = agreed.sum(axis=1) / same.sum(axis=1)  # 0 / 0 is NaN
    return keep_nan(share.astype(jnp.float32), heatmap)


def _cell(heatmap: jax.Array) -> jax.Array:
    """The cell of the most relevant pixel, (N,); of tokens and tables the most relevant one itself."""
    peak = heatmap.reshape(len(heatmap), -1).argmax(axis=1)
    if heatmap.ndim == 2:
        return peak
    height, width = heatmap.shape[1:]
    return (peak // width) * _CELLS // height * _CELLS + (peak % width) * _CELLS // width
