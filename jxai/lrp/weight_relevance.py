"""Relevance of weights: what is handed on through each of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jxai.checks import as_array, finite, shown
from jxai.errors import InputError, InputTypeError
from jxai.lrp.engine.explain import explain, is_float
from jxai.lrp.engine.run import Probes
from jxai.lrp.rules.composites import Composite, check_composite
from jxai.lrp.rules.ratio import to_ratio, to_relevance


def weight_relevance(
    f: Callable,
    params: Any,
    x: Any,
    *,
    composite: Composite,
    start: Callable[[Any], Any] | None = None,
) -> Any:
    """Relevance that is handed on through each weight, summed over the batch.

    Of a dense layer z = W x + b it is R_ij = x_i W_ij R_j / S(z_j), of a rule that takes a layer apart the sum over
    its parts; of a bias, or another constant that is added, it is what that absorbs; of a scale what it hands on. So
    a layer's weights share what the layer hands on to its inputs, whatever they are. Sums over a neuron's, a head's
    or a layer's weights, added up over a data set by `jax.tree.map`, rank them for pruning.

    Works under `jit` and `vmap`. A weight that is used twice has the sum. Of a layer with a batch norm merged into
    it, kernel and scale both have what goes through them. None have tables that tokens are looked up in, a norm's
    scale that is multiplied with its statistic first (Flax's), and what lies inside of an operation that a rule takes
    as a whole (`Pass`, `Constant`).

    Example:
        >>> import jax.numpy as jnp
        >>> from jxai import lrp
        >>> params, x = {"w": jnp.array([[1.0], [2.0]])}, jnp.ones((1, 2))
        >>> found = lrp.weight_relevance(lambda p, x: x @ p["w"], params, x, composite=lrp.AttnLRP(epsilon=0.0))
        >>> found["w"].ravel().tolist()
        [1.0, 2.0]

    Args:
        f: function of (params, x) to an array or a tree of arrays.
        params: tree of arrays of floats; leaves of other types get zeros.
        x: a batch: an array or a tree of arrays, of floats or of tokens, as `vjp` takes them.
        composite: the rules; not one under which gradients travel.
        start: of what f gives to the relevance that it starts with, of its shapes; by default the outputs themselves.

    Returns:
        A tree as `params`, of relevances of their shapes and, where they are floats, dtypes.

    Raises:
        TypeError: no composite, no function, or as `vjp`.
        ValueError: gradients travel under the composite, there are no params of floats, `start` gives other shapes,
            or as `vjp`.

    References:
        Yeom et al., *Pruning by explaining*, 2021; Hatefi et al., *Pruning by explaining revisited*, 2024.
    """
    check_composite(composite)
    if not composite.relevance:
        raise InputError(
            f"expected a composite of relevance, got {composite.name}, under which gradients travel"
        )
    if not callable(f) or not (start is None or callable(start)):
        raise InputTypeError(f"expected functions f and start, got {shown(f)} and {shown(start)}")
    leaves, structure = jax.tree.flatten(params)
    leaves = [as_array(leaf) for leaf in leaves]
    floats = [finite("params", leaf) for leaf in leaves if is_float(leaf)]
    if not floats:
        raise InputError("expected params of floats, got none: give the tree of a model's weights")
    kept: list[Any] = []

    def outputs(floats: list[jax.Array]) -> list[jax.Array]:
        given = iter(floats)
        weights = structure.unflatten([next(given) if is_float(leaf) else leaf for leaf in leaves])
        explained = explain(lambda x: f(weights, x), (x,), composite)
        kept.append(jax.tree.structure(explained.outputs))
        values = [leaf for leaf in explained.leaves if is_float(leaf)]
        return explained.run(values, Probes(weights=True))[0]

    found, pullback = jax.vjp(outputs, floats)
    y = jax.tree.unflatten(kept[-1], found)
    relevance = y if start is None else start(y)
    if jax.tree.map(jnp.shape, relevance) != jax.tree.map(jnp.shape, y):
        raise InputError(
            f"expected `start` to give relevance of the outputs' shapes {jax.tree.map(jnp.shape, y)}, got "
            f"{jax.tree.map(jnp.shape, relevance)}"
        )
    given = [
        finite("relevance of the outputs", as_array(r, z.dtype))
        for r, z in zip(jax.tree.leaves(relevance), found, strict=True)
    ]
    (ratios,) = pullback([to_ratio(r, z) for r, z in zip(given, found, strict=True)])
    shares = (to_relevance(c, w).astype(w.dtype) for c, w in zip(ratios, floats, strict=True))
    results = [next(shares) if is_float(leaf) else jnp.zeros(leaf.shape) for leaf in leaves]
    return finite("relevance", structure.unflatten(results))
