"""Axioms besides completeness: what does not matter has no attribution, and what the network undoes changes none."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai.batches.checks import as_baseline, as_finite
from jxai.batches.chunks import map_chunks, rows_in_flight
from jxai.batches.draws import normal_draws
from jxai.checks import check_count, check_functions, check_number, finite, keep_nan
from jxai.errors import InputError
from jxai.metrics.inputs import Scores, as_batch, target_scores
from jxai.metrics.neighbors import check_explanation, norm


def non_sensitivity(
    f: Scores,
    key: jax.Array,
    x: jax.Array,
    attributions: jax.Array,
    target: jax.Array,
    *,
    noise_scale: float = 1.0,
    num_samples: int = 1,
    tolerance: float = 1e-5,
    chunk_size: int | None = None,
) -> jax.Array:
    """Number of features that either have no attribution or do not matter, but not both. Lower is better.

    |A₀ Δ X₀|: A₀ the features whose attribution is at most `tolerance` in magnitude, X₀ those that leave the score
    where it is, within `tolerance`, whatever noise is added to them alone. Every feature is one evaluation of `f` or
    more. (Quantus compares signed attributions with its tolerance where `abs` is False.)

    Args:
        f: from inputs (N, ...) to scores (N, K).
        key: a random key; a feature's noise depends on (key, input's place, its own place, sample's place) alone.
        x: inputs, (N, ...).
        attributions: of x's shape, every element a feature; or without x's last axis, every pixel a feature.
        target: the class whose score is read, (N,) integers.
        noise_scale: standard deviation of the Gaussian noise, in units of `x`, above 0.
        num_samples: noise added to each feature, at least 1; the largest change of the score counts.
        tolerance: what is still nothing, of attributions and of changes of the score, at least 0.
        chunk_size: inputs in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,), float32, from 0 to the number of features.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target is out of range, a count below 1,
            `noise_scale` not above 0 or `tolerance` negative.

    References:
        On Quantitative Aspects of Model Interpretability, Nguyen and Martínez, 2020. Towards Better
        Understanding of Gradient-based Attribution Methods, Ancona et al., 2018.
    """
    x, target = as_batch(x, target, f=f)
    attributions = as_finite("attributions", attributions).astype(jnp.float32)
    if attributions.shape not in (x.shape, x.shape[:-1]):
        raise InputError(
            f"expected `attributions` of shape {x.shape} or {x.shape[:-1]}, got {attributions.shape}: one for each "
            "element of x, or summed over channels"
        )
    check_number("noise_scale", noise_scale, above=0)
    check_count("num_samples", num_samples)
    check_number("tolerance", tolerance, least=0)
    num_images, num_features = len(x), attributions[0].size
    num_rows = (num_features + 1) * num_samples

    def scores(rows: jax.Array) -> jax.Array:
        """Scores with one feature moved, and at last with none, by the same program: rounded alike."""
        image, feature = rows // num_rows, rows % num_rows // num_samples
        chosen = (jnp.arange(num_features)[None] == feature[:, None]).reshape(-1, *attributions.shape[1:])
        chosen = chosen.reshape(*chosen.shape, *[1] * (x.ndim - chosen.ndim))
        noise = normal_draws(key, image, rows % num_rows, x.shape[attributions.ndim :])
        noise = noise.reshape(-1, *[1] * (attributions.ndim - 1), *x.shape[attributions.ndim :])
        moved = jnp.where(chosen, x[image] + noise_scale * noise, x[image]).astype(x.dtype)
        return target_scores(f, moved, image, target)

    score = map_chunks(scores, num_images * num_rows, rows_in_flight(x, chunk_size))
    score = finite("scores", score.reshape(num_images, num_features + 1, num_samples))
    change = jnp.abs(score[:, :-1] - score[:, -1:])
    nothing = jnp.abs(attributions).reshape(num_images, -1) <= tolerance
    without = (change <= tolerance).all(axis=2)
    return keep_nan((nothing ^ without).sum(axis=1).astype(jnp.float32), attributions, x, score)


def input_invariance(
    explain: Callable[[Scores, jax.Array, jax.Array], jax.Array],
    f: Scores,
    x: jax.Array,
    target: jax.Array,
    *,
    shift: ArrayLike = 1.0,
    chunk_size: int | None = None,
) -> jax.Array:
    """Relative change of an explanation under a shift of the inputs that the network undoes. Lower is better.

    ‖e(f_s, x + s) − e(f, x)‖ / ‖e(f, x)‖ with f_s(z) = f(z − s), the network whose first bias makes up for s:
    f_s(x + s) = f(x). Gradients are invariant, input times gradient is not. Quantus asks whether all attributions
    are equal within 1e-4.

    Args:
        explain: from a network, inputs (n, ...) and their targets (n,) to attributions or heatmaps (n, ...), such as
            `attribution.gradient`; each input on its own.
        f: from inputs (N, ...) to scores (N, K).
        x: inputs, (N, ...).
        target: the classes explained, (N,) integers.
        shift: s, in units of `x`: a number, (C,), or whatever broadcasts to one input.
        chunk_size: inputs explained at once; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,), float32; infinite where an explanation of norm 0 changes, 0 where it does not.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite or a target is out of range.

    References:
        The (Un)reliability of Saliency Methods, Kindermans et al., 2017.
    """
    x, target = as_batch(x, target, f=f)
    # One for all inputs: an estimator may ask the network of any number of them at once.
    moved = as_baseline(shift, x[:1])
    check_functions(explain=explain)
    check_explanation(lambda inputs, classes: explain(f, inputs, classes), x, target)

    def change(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        inputs, classes = x[images], target[images]
        plain = explain(f, inputs, classes).astype(jnp.float32)
        shifted = explain(lambda z: f(z - moved), inputs + moved, classes).astype(jnp.float32)
        return norm(shifted - plain), norm(plain)

    above, below = finite("explanations", map_chunks(change, len(x), rows_in_flight(x, chunk_size)))
    return keep_nan(jnp.where(above == 0, 0, above / below), x)
