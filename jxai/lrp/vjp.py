"""`lrp.vjp`: as `jax.vjp`, with relevance in the place of gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jxai.lrp.composites import Composite
from jxai.lrp.interception import rules_of
from jxai.lrp.ratio import to_ratio, to_relevance


def vjp(f: Callable, *primals: Any, composite: Composite, has_aux: bool = False) -> tuple:
    """Evaluate `f` and get the function that takes relevance of its outputs to relevance of its inputs.

    Between modules, relevance follows LRP-0, which automatic differentiation of ratios gives for sums,
    concatenations, slices, means, pooling and ReLU. It does not for GELU, SiLU, softmax and products of two
    activations as functions: those have no rule yet, and models that hold them get wrong relevance. Works
    under `jit`, `vmap`, `grad` and `pmap`; all classes of one forward pass come from `jax.vmap(pullback)`.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from jxai import lrp
        >>> model = nn.Dense(2, use_bias=False)
        >>> x = jnp.array([[1.0, 2.0]])
        >>> variables = model.init(jax.random.key(0), x)
        >>> y, pullback = lrp.vjp(lambda x: model.apply(variables, x), x, composite=lrp.sun2020)
        >>> (relevance,) = pullback(y)

    Args:
        f: function of the primals to an array or a tree of arrays. It may close over variables and call any
            number of Flax modules.
        *primals: arrays or trees of arrays of floats; bfloat16 is computed in float32.
        composite: the rules of the Flax modules.
        has_aux: whether `f` returns a pair whose second part is handed through.

    Returns:
        (y, pullback), or (y, pullback, aux). `pullback(relevance)` takes a tree of y's shape and gives the
        tuple of the primals' relevances, of the primals' shapes and dtypes.

    Raises:
        TypeError: a primal is not of floats, or is float16, in which ratios overflow.
        ValueError: a Flax module has no rule, or the relevance handed to `pullback` is not of y's shape.

    References:
        Bach et al., *On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance
        Propagation*, 2015.
    """
    jax.tree.map(_check_dtype, primals)

    def explained(*primals):
        # A jitted function within `f` may have been traced without the rules, or would keep what it is traced to
        # with them: run inline, it meets the rules every time and leaves no trace behind.
        with rules_of(composite), jax.disable_jit():
            return f(*primals)

    wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32)), primals)
    y, ratio_pullback, *aux = jax.vjp(explained, *wide, has_aux=has_aux)

    def pullback(relevance):
        _check_same_shapes(relevance, y)
        ratios = ratio_pullback(jax.tree.map(lambda r, y: to_ratio(jnp.asarray(r, y.dtype), y), relevance, y))
        relevances = jax.tree.map(to_relevance, ratios, wide)
        return jax.tree.map(lambda r, x: r.astype(jnp.result_type(x)), relevances, primals)

    return (y, pullback, *aux)


def relevance(f: Callable, x: jax.Array, target: jax.Array, *, composite: Composite) -> jax.Array:
    """Relevance of `x` for one class an image, started at that class's own score.

    Args:
        f: function of a batch (N, ...) to scores (N, K).
        x: the batch.
        target: one class index an image, (N,), integers in [0, K).
        composite: the rules of the Flax modules.

    Returns:
        Relevance, of x's shape.

    Raises:
        ValueError: `target` is not of shape (N,), or holds an index outside [0, K) (not seen under jit).
        TypeError: `target` does not hold integers.
    """
    target = jnp.asarray(target)
    scores, pullback = vjp(f, x, composite=composite)
    if scores.ndim != 2 or target.shape != scores.shape[:1]:
        raise ValueError(
            f"expected scores (N, K) and `target` of shape (N,), got {scores.shape} and {target.shape}: "
            "give one class index an image"
        )
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError(f"expected `target` of integers, got {target.dtype}: give class indices")
    if (
        not isinstance(target, Tracer)
        and target.size
        and not 0 <= target.min() <= target.max() < scores.shape[1]
    ):
        raise ValueError(
            f"expected `target` in [0, {scores.shape[1]}), got values from {target.min()} to {target.max()}"
        )
    return pullback(jax.nn.one_hot(target, scores.shape[1], dtype=scores.dtype) * scores)[0]


def _check_dtype(x: Any) -> None:
    dtype = jnp.result_type(x)
    if dtype == jnp.float16 or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"expected primals of float32, float64 or bfloat16, got {dtype}: convert them (integers have no "
            "relevance; ratios overflow float16)"
        )


def _check_same_shapes(relevance: Any, y: Any) -> None:
    given, expected = jax.tree.map(jnp.shape, relevance), jax.tree.map(jnp.shape, y)
    if given != expected:
        raise ValueError(f"expected relevance of the outputs' shapes {expected}, got {given}")
