"""SmoothGrad and SmoothTaylor: explanations averaged over noisy copies of the input.

Arguments are as in `gradients`. The noise of root r of image n depends on (key, n, r) alone.
"""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from jxai.attribution.gradients import Explain, Scores, gradient
from jxai.attribution.inputs import as_inputs
from jxai.batches.checks import check_finite, per_image
from jxai.batches.chunks import sum_over_roots
from jxai.batches.draws import normal_draws
from jxai.batches.targets import Target
from jxai.checks import check_choice

Statistic = Literal["mean", "square", "variance"]


def smooth_grad(
    f: Scores,
    key: jax.Array,
    x: Any,
    target: Target,
    *,
    noise_scale: ArrayLike = 0.15,
    num_roots: int = 50,
    statistic: Statistic = "mean",
    explain: Explain = gradient,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """Mean over r of ∇f_t(x + σ (max x − min x) ε_r), ε_r ~ N(0, 1); or the mean of its square, or its variance.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        key: a random key.
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        noise_scale: σ, a share of each image's own range; a number or one an image, (N,), above 0.
        num_roots: R, gradients an image.
        statistic: "mean" is SmoothGrad, "square" its squares' mean, "variance" VarGrad (over R, not R − 1; it takes
            one more gradient an image).
        explain: what takes the gradient's place.
        chunk_size: inputs in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; sums are float32 at least.

    Raises:
        TypeError: `x` holds no floats, or `target` no integers.
        ValueError: shapes do not fit, a count is less than 1, the statistic is unknown, `x` is not finite, a noise
            scale is not positive or a target is out of range (values are not seen under jit).

    References:
        Smilkov et al., *SmoothGrad: removing noise by adding noise*, 2017; Hooker et al., *A Benchmark for
        Interpretability Methods in Deep Neural Networks*, 2019 (squares); Adebayo et al., *Local Explanation Methods
        for Deep Neural Networks Lack Sensitivity to Parameter Values*, 2018 (VarGrad).
    """
    inputs = as_inputs(f, x, target)
    x = inputs.x
    check_choice("statistic", statistic, get_args(Statistic))
    axes = tuple(range(1, x.ndim))
    spread = x.max(axis=axes, keepdims=True) - x.min(axis=axes, keepdims=True)
    scale = per_image("noise_scale", noise_scale, x) * spread

    def explained(at: jax.Array, images: jax.Array) -> jax.Array:
        return _wide(inputs.explained(explain, at, images))

    # VarGrad's sums are taken around the gradient at x: a small variance of large gradients is not lost in rounding.
    center = jnp.zeros(())
    if statistic == "variance":
        center = sum_over_roots(
            lambda images, _: explained(x[images], images), x, num_roots=1, chunk_size=chunk_size, mesh=mesh
        )

    def terms(images: jax.Array, roots: jax.Array) -> tuple[jax.Array, ...]:
        gradients = explained(x[images] + _noise(key, images, roots, x, scale), images)
        if statistic == "variance":
            gradients = gradients - center[images]
            return gradients, gradients**2
        return (gradients if statistic == "mean" else gradients**2,)

    sums = sum_over_roots(terms, x, num_roots=num_roots, chunk_size=chunk_size, mesh=mesh)
    means = [total / num_roots for total in sums]
    result = means[1] - means[0] ** 2 if statistic == "variance" else means[0]
    return inputs.attributions(result)


def smooth_taylor(
    f: Scores,
    key: jax.Array,
    x: Any,
    target: Target,
    *,
    noise_scale: ArrayLike = 0.5,
    num_roots: int = 150,
    explain: Explain = gradient,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """Mean over r of (x − z_r) ⊙ ∇f_t(z_r) at roots z_r = x + σ ε_r, ε_r ~ N(0, 1).

    Each term is the first order of f's Taylor expansion at a root, so the mean explains how f changes
    from around x to x.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        key: a random key.
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        noise_scale: σ in the units of `x`; a number or one an image, (N,), above 0. The paper's is 0.5 for images
            normalized by ImageNet's means and deviations.
        num_roots: R, gradients an image.
        explain: what takes the gradient's place; the product stays.
        chunk_size: inputs in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; sums are float32 at least.

    Raises:
        TypeError: `x` holds no floats, or `target` no integers.
        ValueError: shapes do not fit, a count is less than 1, `x` is not finite, a noise scale is not positive or a
            target is out of range (values are not seen under jit).

    References:
        Goh et al., *Understanding Integrated Gradients with SmoothTaylor for Deep Neural Network Attribution*, 2020,
        equation 5.
    """
    inputs = as_inputs(f, x, target)
    x = inputs.x
    scale = per_image("noise_scale", noise_scale, x)

    def terms(images: jax.Array, roots: jax.Array) -> jax.Array:
        noise = _noise(key, images, roots, x, scale)
        return _wide(-noise) * _wide(inputs.explained(explain, x[images] + noise, images))

    total = sum_over_roots(terms, x, num_roots=num_roots, chunk_size=chunk_size, mesh=mesh)
    return inputs.attributions(total / num_roots)


def taylor_at_roots(
    f: Scores,
    x: Any,
    roots: Any,
    target: Target,
    *,
    explain: Explain = gradient,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """Mean over r of (x − z_r) ⊙ ∇f_t(z_r) at roots of the caller's choice.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        roots: z, (R, *x.shape).
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        explain: what takes the gradient's place; the product stays.
        chunk_size: inputs in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; sums are float32 at least.

    Raises:
        TypeError: `x` or `roots` holds no floats, or `target` no integers.
        ValueError: shapes do not fit, a count is less than 1, values are not finite or a target is out of range
            (values are not seen under jit).

    References:
        Goh et al., *Understanding Integrated Gradients with SmoothTaylor for Deep Neural Network Attribution*, 2020,
        equation 4.
    """
    inputs = as_inputs(f, x, target)
    x, roots = inputs.x, inputs.roots(roots)
    check_finite("roots", roots)

    def terms(images: jax.Array, numbers: jax.Array) -> jax.Array:
        at = roots[numbers, images].astype(x.dtype)
        return _wide(x[images] - at) * _wide(inputs.explained(explain, at, images))

    total = sum_over_roots(terms, x, num_roots=len(roots), chunk_size=chunk_size, mesh=mesh)
    return inputs.attributions(total / len(roots))


def _noise(key: jax.Array, images: jax.Array, roots: jax.Array, x: jax.Array, scale: jax.Array) -> jax.Array:
    """σ ε of these rows, (c, ...)."""
    draws = normal_draws(key, images, roots, x.shape[1:], scale.dtype)
    return (scale[images] * draws).astype(x.dtype)


def _wide(values: jax.Array) -> jax.Array:
    """At least float32: products and squares of bfloat16 would lose what the sums keep."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
