"""Model randomization: an explanation that does not change with the parameters does not explain the model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jxai.checks import as_array, check_functions, check_key, finite, shown
from jxai.compiled import run_compiled
from jxai.errors import InputError, InputTypeError
from jxai.metrics.inputs import as_heatmap
from jxai.metrics.similarity import rank_correlation, structural_similarity
from jxai.ops.convolution import with_fast_convolutions


class ModelRandomization(NamedTuple):
    """Likeness of each image's heatmap before and after; one column a layer, in the order of randomization.

    Attributes:
        rank_correlation: Spearman's, of absolute heatmaps, (N, number of layers) float32.
        structural_similarity: SSIM, of absolute heatmaps, (N, number of layers) float32.
    """

    rank_correlation: jax.Array
    structural_similarity: jax.Array


def model_randomization(
    explain: Callable[[Any], jax.Array],
    variables: Any,
    randomized: Any,
    *,
    layers: Sequence[str] | None = None,
    cascading: bool = True,
) -> ModelRandomization:
    """Likeness of heatmaps before and after layers lose their parameters. Lower is better.

    The heatmaps of all layers come from one loop, in which `explain` stands once.

    Args:
        explain: from variables to heatmaps (N, H, W) of the same images; traceable, as under `jax.jit`.
        variables: the model's, a tree of arrays. Of Linen variables only the collection "params" is randomized.
        randomized: a tree like it with random parameters: the model's own initialization (`model.init(key, x)`), as
            in the paper, or `shuffled_parameters`.
        layers: names in the order of randomization, top layer first: paths such as "block4/conv1", or "block4" for
            all below it. A cascade needs them; otherwise all of `randomization_layers(variables)` by default.
        cascading: whether layers randomized before stay so, or each is randomized alone.

    Returns:
        Rank correlations and structural similarities, each (N, number of layers).

    Raises:
        TypeError: if a leaf is no array, or `layers` no sequence.
        ValueError: if a cascade has no `layers`, the trees differ, a name of `layers` is unknown or `explain` gives
            no heatmaps (N, H, W).

    References:
        Sanity Checks for Saliency Maps, Adebayo et al., 2018.
    """
    check_functions(explain=explain)
    explain = with_fast_convolutions(explain)
    paths, leaves, others, structure = paired_leaves(variables, randomized)
    if layers is None and cascading:
        raise InputError(
            "expected `layers` from the top down for a cascade, got none: name them, for a tree does not know the "
            "model's order, or give cascading=False"
        )
    if not isinstance(layers, Sequence | None):
        raise InputTypeError(f"expected layers as a sequence of names, got {shown(layers)}: list them")
    names = randomization_layers(variables) if layers is None else tuple(layers)
    places = [_place(path, names) for path in paths]
    unknown = [name for index, name in enumerate(names) if index not in places]
    if unknown or not names:
        known = ", ".join(randomization_layers(variables))
        raise InputError(
            f"expected layers with parameters of their own, got {unknown or 'none'}: there are {known}"
        )

    def at(step: jax.Array) -> Any:
        """The variables after a step; step 0 changes nothing."""
        mixed = []
        for leaf, other, place in zip(leaves, others, places, strict=True):
            if place is None:
                mixed.append(leaf)
            else:
                changed = place < step if cascading else place == step - 1
                mixed.append(jnp.where(changed, other, leaf))
        return jax.tree.unflatten(structure, mixed)

    def compare(start: jax.Array, step: jax.Array) -> tuple[jax.Array, ModelRandomization]:
        heatmap = as_heatmap(explain(at(step)))
        start = jnp.where(step == 0, heatmap, start)
        return start, ModelRandomization(
            rank_correlation(start, heatmap), structural_similarity(start, heatmap)
        )

    shape = heatmap_shape(explain, variables)
    steps = jnp.arange(len(names) + 1)
    likeness = run_compiled(lambda: jax.lax.scan(compare, jnp.zeros(shape, jnp.float32), steps)[1])
    return finite("likenesses", jax.tree.map(lambda values: values[1:].T, likeness))


def randomization_layers(variables: Any) -> tuple[str, ...]:
    """The layers that `model_randomization` randomizes, in its default order.

    Args:
        variables: a tree of arrays; of Linen variables the collection "params" counts.

    Returns:
        The paths of what holds arrays directly, such as "block4/conv1": JAX's order of the tree, reversed.

    Example:
        >>> randomization_layers({"params": {"a": {"kernel": 1.0, "bias": 0.0}, "b": {"scale": 2.0}}})
        ('b', 'a')
    """
    named, _ = jax.tree_util.tree_flatten_with_path(variables)
    paths = (_layer(path, variables) for path, _ in named)
    return tuple(dict.fromkeys(path for path in paths if path is not None))[::-1]


def shuffled_parameters(key: jax.Array, variables: Any) -> Any:
    """Every array's entries in random order: random parameters of the same distribution, where a model has no `init`.

    A constant array, such as biases still 0, stays what it is, and positive values stay positive.

    Args:
        key: a random key.
        variables: a tree of arrays.

    Returns:
        A tree like it.
    """
    check_key(key)
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(key, max(1, len(leaves)))
    shuffled = [
        jax.random.permutation(key, leaf.ravel()).reshape(leaf.shape)
        for key, leaf in zip(keys, map(as_array, leaves), strict=False)
    ]
    return jax.tree.unflatten(structure, shuffled)


def paired_leaves(variables: Any, randomized: Any) -> tuple[list[str | None], list, list, Any]:
    """Of two trees alike: the leaves' layers (None where one stays), the leaves of both, and the structure.

    Raises:
        TypeError: a leaf is no array.
        ValueError: the trees differ, or hold nothing that is to be randomized.
    """
    named, structure = jax.tree_util.tree_flatten_with_path(variables)
    leaves, others = [as_array(leaf) for _, leaf in named], list(map(as_array, jax.tree.leaves(randomized)))
    if jax.tree.structure(randomized) != structure or any(
        other.shape != leaf.shape for leaf, other in zip(leaves, others, strict=True)
    ):
        raise InputError(
            "expected `randomized` as a tree like `variables`, got other keys or shapes: initialize the same model"
        )
    layers = [_layer(path, variables) for path, _ in named]
    if all(layer is None for layer in layers):
        raise InputError(
            f"expected `variables` with arrays to randomize, got {shown(variables)}: give the model's"
        )
    others = [other.astype(leaf.dtype) for leaf, other in zip(leaves, others, strict=True)]
    return layers, leaves, others, structure


def heatmap_shape(explain: Callable[..., jax.Array], *arguments: Any) -> tuple[int, ...]:
    """The shape (N, H, W) of a function's heatmaps; a ValueError where it gives none."""
    shape = getattr(jax.eval_shape(explain, *arguments), "shape", None)
    if shape is None or len(shape) != 3:
        raise InputError(
            f"expected `explain` to give heatmaps (N, H, W), got {shape}: sum attributions over channels"
        )
    return shape


def _layer(path: tuple[Any, ...], variables: Any) -> str | None:
    """The layer that a leaf belongs to, or None where it is not to be randomized."""
    names = [jax.tree_util.keystr((key,), simple=True) for key in path]
    if isinstance(variables, Mapping) and "params" in variables:
        if names[0] != "params":
            return None
        names = names[1:]
    return "/".join(names[:-1] or names)


def _place(layer: str | None, names: Sequence[str]) -> int | None:
    """The place of the first name that a layer goes by."""
    for index, name in enumerate(names):
        if layer is not None and (layer == name or layer.startswith(f"{name}/")):
            return index
    return None
