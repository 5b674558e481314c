"""DeepLIFT: the score's change from a baseline, layer by layer by the rescale rule; and its mean over references.

`secants` has the rules; they are for operations of JAX, so modules of every library are explained, and activations
are whatever a function of one entry is, however it is written.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jxai.attribution.gradients import Scores
from jxai.attribution.inputs import Inputs, as_inputs
from jxai.attribution.secants import multipliers
from jxai.batches.chunks import sum_over_roots
from jxai.batches.targets import Target
from jxai.checks import keep_nan


def deep_lift(
    f: Scores,
    x: Any,
    target: Target,
    *,
    baseline: Any = 0.0,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """(x − x₀) ⊙ m, with the multipliers m of DeepLIFT's rescale rule; the sum is f_t(x) − f_t(x₀).

    RevealCancel, the paper's other rule (section 3.5.3), is not here: it needs positive and negative contributions
    apart through every linear layer, which a function of JAX's operations does not tell.

    Example:
        >>> f = lambda x: jax.nn.relu(x - 1).sum(axis=1, keepdims=True)
        >>> deep_lift(f, jnp.array([[3.0, 0.5]]), [0])
        Array([[2., 0.]], dtype=float32)

    Args:
        f: from inputs (N, ...) to scores (N, K); of one network for x and x₀: without loops, dropout or sorting.
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        baseline: x₀: a number or an array that broadcasts to `x`; or several, (B, *x.shape), for the mean over them.
        chunk_size: inputs in flight, as in `integrated_gradients`; each takes as much as two.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; sums are float32 at least.

    Raises:
        TypeError: `x` holds no floats, or `target` no integers.
        ValueError: shapes do not fit, f holds an operation without a rule, values are not finite or a target is out
            of range (values are not seen under jit).

    References:
        Shrikumar et al., *Learning Important Features Through Propagating Activation Differences*, 2017, sections 3.1
        to 3.5.1.
    """
    inputs = as_inputs(f, x, target)
    baselines = inputs.baselines(baseline)
    return _mean(inputs, lambda images, roots: baselines[roots, images], len(baselines), chunk_size, mesh)


def deep_lift_shap(
    f: Scores,
    x: Any,
    target: Target,
    *,
    references: Any,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """Mean of DeepLIFT over references: each image is compared with each of them.

    The sum over an image is f_t(x) less the references' mean score.

    Args:
        f: as in `deep_lift`.
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        references: inputs of the data's distribution, (B, ...) of x's sizes.
        chunk_size: inputs in flight, as in `deep_lift`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; sums are float32 at least.

    Raises:
        TypeError: `x` or `references` holds no floats, or `target` no integers.
        ValueError: as `deep_lift`; or references of another shape.

    References:
        Lundberg and Lee, *A Unified Approach to Interpreting Model Predictions*, 2017, section 4.2.
    """
    inputs = as_inputs(f, x, target)
    references = inputs.references(references)
    return _mean(inputs, lambda images, roots: references[roots], len(references), chunk_size, mesh)


def _mean(
    inputs: Inputs,
    start_of: Callable[[jax.Array, jax.Array], jax.Array],
    num_roots: int,
    chunk_size: int | None,
    mesh: Mesh | None,
) -> Any:
    x, target = inputs.x, inputs.target
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def terms(images: jax.Array, roots: jax.Array) -> jax.Array:
        at, start = x[images], start_of(images, roots).astype(x.dtype)
        f = inputs.f(images)
        scores = jax.eval_shape(f, at)
        chosen = jax.nn.one_hot(target[images], scores.shape[-1], dtype=scores.dtype)
        found, slopes = multipliers(f, at, start, chosen)
        terms = (at.astype(wide) - start.astype(wide)) * slopes.astype(wide)
        return keep_nan(terms, jnp.take_along_axis(found, target[images][:, None], axis=1))

    total = sum_over_roots(terms, x, num_roots=num_roots, chunk_size=chunk_size, mesh=mesh)
    return inputs.attributions(total / num_roots)
