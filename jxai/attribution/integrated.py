"""Integrated Gradients: the gradient averaged along the straight path from a baseline."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jxai.attribution.gradients import Explain, Scores, gradient
from jxai.attribution.inputs import as_inputs
from jxai.attribution.paths import Method, straight_path
from jxai.batches.checks import as_finite
from jxai.batches.chunks import sum_over_roots
from jxai.batches.targets import Target
from jxai.checks import finite, keep_nan
from jxai.compiled import run_compiled
from jxai.errors import InputError


def integrated_gradients(
    f: Scores,
    x: Any,
    target: Target,
    *,
    baseline: Any = 0.0,
    num_steps: int = 50,
    method: Method = "right",
    explain: Explain = gradient,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """(x − x₀) ⊙ ∫₀¹ ∇f_t(x₀ + α(x − x₀)) dα, as the sum of a quadrature rule over `num_steps` intervals or nodes.

    Its sum over an image tends to f_t(x) − f_t(x₀); `convergence_delta` is what is left.

    Example:
        >>> f = lambda x: (x**2).sum(axis=1, keepdims=True)
        >>> integrated_gradients(f, jnp.array([[1.0, 3.0]]), [0], method="midpoint").round(5)
        Array([[1., 9.]], dtype=float32)

    Args:
        f: from inputs (N, ...) to scores (N, K).
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        baseline: x₀: a number or an array that broadcasts to `x`; or several, (B, *x.shape), for the mean over them.
            Of a tree a number or such a tree, in which integers in the place of token ids are tokens.
        num_steps: M of the paper. "right" (the paper's release), "midpoint" and "gauss-legendre" take M gradients a
            baseline, "trapezoid" M + 1.
        method: the quadrature rule.
        explain: what takes the gradient's place; the product stays.
        chunk_size: inputs in flight, at least 1; by default 16 images of 224x224x3 on a CPU and 256 elsewhere, more
            of smaller ones. It bounds memory and changes nothing but rounding.
        mesh: devices over which the inputs in flight are spread; use it under `jax.jit`.

    Returns:
        Of x's shape and dtype; sums are float32 at least.

    Raises:
        TypeError: `x` holds no floats, or `target` no integers.
        ValueError: shapes do not fit, a count is less than 1, the method is unknown, `x` or the baseline is not
            finite or a target is out of range (values are not seen under jit).

    References:
        Sundararajan et al., *Axiomatic Attribution for Deep Networks*, 2017, equation 3; Goh et al., *Understanding
        Integrated Gradients with SmoothTaylor for Deep Neural Network Attribution*, 2020 (noise baselines).
    """
    inputs = as_inputs(f, x, target)
    path = straight_path(inputs, baseline, num_steps=num_steps, method=method)

    def terms(images: jax.Array, roots: jax.Array) -> jax.Array:
        weights, way, at = path.points(images, roots)
        return weights * way * inputs.explained(explain, at, images).astype(way.dtype)

    total = sum_over_roots(terms, inputs.x, num_roots=path.num_roots, chunk_size=chunk_size, mesh=mesh)
    return inputs.attributions(total)


def convergence_delta(
    f: Scores, x: Any, target: Target, attributions: Any, *, baseline: Any = 0.0
) -> jax.Array:
    """Σ attributions − (f_t(x) − f_t(x₀)): what Integrated Gradients' sum misses.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        attributions: of x's shape.
        baseline: x₀ as in `integrated_gradients`; of several, the mean of their scores counts.

    Returns:
        (N,), float32 at least; 0 is complete.

    Raises:
        TypeError: `x` holds no floats, or `target` no integers.
        ValueError: shapes do not fit, or as `integrated_gradients` says.
    """
    inputs = as_inputs(f, x, target)
    several, wide = inputs.baselines(baseline), jnp.promote_types(inputs.x.dtype, jnp.float32)
    shapes = jax.tree.map(jnp.shape, (attributions, x))
    if shapes[0] != shapes[1]:
        raise InputError(
            f"expected attributions of x's shape {shapes[1]}, got {shapes[0]}: keep the channels"
        )
    given = [
        as_finite("attributions", one if jnp.ndim(one) > 1 else jnp.reshape(one, (-1, 1)))
        for one in jax.tree.leaves(attributions)
    ]
    total = sum(one.astype(wide).sum(axis=tuple(range(1, one.ndim))) for one in given)
    change = run_compiled(lambda: inputs.score(inputs.x) - jax.lax.map(inputs.score, several).mean(axis=0))
    return finite("differences", keep_nan(total - change, inputs.x, *given))
