"""Infidelity: whether attributions foretell what a perturbation does to the score."""

import jax
import jax.numpy as jnp

from jxai.batches.checks import as_finite
from jxai.batches.chunks import map_chunks, rows_in_flight
from jxai.batches.draws import normal_draws
from jxai.checks import check_count, check_number, finite, keep_nan
from jxai.errors import InputError
from jxai.metrics.inputs import Scores, as_batch, target_scores


def infidelity(
    f: Scores,
    key: jax.Array,
    x: jax.Array,
    attributions: jax.Array,
    target: jax.Array,
    *,
    noise_scale: float = 0.2,
    num_samples: int = 100,
    scaled: bool = False,
    chunk_size: int | None = None,
) -> jax.Array:
    """Mean squared error of attributions as a linear forecast of the score under Gaussian noise. Lower is better.

    E[(I·A − (f(x) − f(x − I)))²] with I ~ N(0, noise_scale²). A is per unit of x, as a gradient is. Divide what
    is a contribution already (input times gradient, Integrated Gradients, relevance) by x − baseline first.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        key: a random key; the noise of a sample depends on (key, input's place, sample's place) alone.
        x: inputs, (N, ...).
        attributions: A, of x's shape.
        target: the class whose score is read, (N,) integers.
        noise_scale: standard deviation of I, in units of `x`, above 0; the paper's program has 0.2.
        num_samples: perturbations an input, at least 1.
        scaled: whether A is first multiplied, each input on its own, by the number that makes the error least
            (E[I·A (f(x) − f(x − I))] / E[(I·A)²], over the same samples): for comparing attributions of different
            units, as the paper does.
        chunk_size: inputs in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,), float32, in squared units of the score.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target is out of range, a count below 1 or
            `noise_scale` not above 0.

    References:
        On the (In)fidelity and Sensitivity of Explanations, Yeh et al., 2019.
    """
    x, target = as_batch(x, target, f=f)
    attributions = as_finite("attributions", attributions).astype(jnp.float32)
    if attributions.shape != x.shape:
        raise InputError(
            f"expected `attributions` of shape {x.shape}, got {attributions.shape}: one for each element of x, "
            "not summed over channels"
        )
    check_count("num_samples", num_samples)
    check_number("noise_scale", noise_scale, above=0)
    num_images, num_rows = len(x), num_samples + 1

    def scores(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(I·A, f(x − I)); an image's first row has I = 0."""
        image, sample = rows // num_rows, rows % num_rows
        scale = jnp.where(sample == 0, 0.0, noise_scale).reshape(-1, *[1] * (x.ndim - 1))
        perturbed = (x[image] - scale * normal_draws(key, image, sample, x.shape[1:])).astype(x.dtype)
        # What was subtracted after rounding to x's dtype, so that both sides speak of one perturbation.
        change = x[image].astype(jnp.float32) - perturbed.astype(jnp.float32)
        forecast = (change * attributions[image]).sum(axis=tuple(range(1, x.ndim)))
        return forecast, target_scores(f, perturbed, image, target)

    forecast, score = map_chunks(scores, num_images * num_rows, rows_in_flight(x, chunk_size))
    forecast = forecast.reshape(num_images, num_rows)[:, 1:]
    score = score.reshape(num_images, num_rows)
    change = score[:, :1] - score[:, 1:]
    if scaled:
        power = (forecast**2).mean(axis=1, keepdims=True)
        factor = (forecast * change).mean(axis=1, keepdims=True) / jnp.where(power > 0, power, 1)
        forecast = factor * forecast
    return keep_nan(finite("errors", ((forecast - change) ** 2).mean(axis=1)), attributions, x)
