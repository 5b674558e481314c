"""Consistency: whether images that get one explanation get one prediction."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jxai.checks import as_array, keep_nan
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
    heatmap, prediction = as_feature_map(heatmap), as_array(prediction)
    if not jnp.issubdtype(prediction.dtype, jnp.integer):
        raise InputTypeError(f"expected `prediction` of integers, got {prediction.dtype}: give class indices")
    if prediction.shape != heatmap.shape[:1]:
        raise InputError(
            f"expected `prediction` of shape {heatmap.shape[:1]}, got {prediction.shape}: one class an image"
        )
    cells = (_cell if discretize is None else discretize)(heatmap)
    if not getattr(cells, "shape", ()) or cells.shape[0] != len(heatmap):
        raise InputError(
            f"expected `discretize` to give an array ({len(heatmap)}, ...), got {getattr(cells, 'shape', cells)}: "
            "one code an image"
        )
    if not (jnp.issubdtype(cells.dtype, jnp.integer) or cells.dtype == jnp.bool_):
        raise InputTypeError(f"expected `discretize` to give integers, got {cells.dtype}: round its values")
    good = jnp.isfinite(heatmap).all(axis=tuple(range(1, heatmap.ndim)))
    others = good[None] & ~jnp.eye(len(heatmap), dtype=bool)
    same = others & jax.vmap(lambda one: (cells == one).reshape(len(cells), -1).all(axis=1))(cells)
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
