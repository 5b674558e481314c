"""Where a model may look: losses on what of an explanation lies inside of a mask."""

import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import as_array, check_count, check_key, check_number, finite, keep_nan, values
from jxai.errors import InputError, InputTypeError
from jxai.guidance.maps import as_explanations, as_region, scaled, share, total


def right_reasons(attributions: jax.Array, mask: jax.Array) -> jax.Array:
    """Σ (A ⊙ ∂)²: attributions where there should be none. In the squared unit of the attributions.

    The paper's are gradients of Σ_k log p_k: `attribution.gradient(f, x, guidance.sum_of_logs)`. Any others serve,
    of LRP or Integrated Gradients.

    Example:
        >>> right_reasons(jnp.array([[[1.0, 2.0]], [[3.0, 0.0]]]), jnp.array([[[0, 1]], [[0, 1]]], bool))
        Array([4., 0.], dtype=float32)

    Args:
        attributions: (N, ...), floats.
        mask: A, of their shape or without their channels; True or 1.0 where the model is wrong to look.

    Returns:
        (N,), float32 at least, from 0.

    Raises:
        TypeError: no arrays of numbers.
        ValueError: shapes do not fit, a mask outside of [0, 1], or values that are not finite (not seen under jit).

    References:
        Ross et al., *Right for the Right Reasons, Training Differentiable Models by Constraining their Explanations*,
        2017, equation 2.
    """
    attributions = as_explanations("attributions", attributions)
    inside = as_region("mask", mask, attributions)
    return keep_nan(total((inside * attributions) ** 2), attributions, inside)


def sum_of_logs(scores: jax.Array) -> jax.Array:
    """Σ_k log softmax(scores)_k, whose gradient RRR constrains: a `target` for the estimators of `jxai.attribution`.

    It asks of every class at once, so that no class may look where it should not, at the cost of one.

    Args:
        scores: (N, K), floats.

    Returns:
        (N,), of the scores' dtype.

    Raises:
        TypeError: no array of numbers.
        ValueError: another rank, or values that are not finite (not seen under jit).

    References:
        Ross et al., *Right for the Right Reasons, Training Differentiable Models by Constraining their Explanations*,
        2017, equation 2.
    """
    scores = finite("scores", as_array(scores))
    if scores.ndim != 2 or not jnp.issubdtype(scores.dtype, jnp.floating):
        raise InputError(f"expected scores (N, K) of floats, got {scores.dtype} {scores.shape}: give logits")
    return jax.nn.log_softmax(scores).sum(axis=-1)


def background(
    relevance: jax.Array,
    foreground: jax.Array,
    *,
    decay: float = 1.0,
    scale: float = 1.0,
    stabilizer: float = 1e-3,
) -> jax.Array:
    """ISNet's loss on the background of LRP's heat maps: −log(1 − g / (g + E)) = log(1 + g / E).

    h = |R| over its mean in the foreground; g = Σ_k d^k b_(k) / Σ_k d^k, b_(0) ≥ b_(1) ≥ … the values of h outside
    of the foreground and 0 inside (global weighted ranked pooling). The paper's stabilizer is a constant; ours is a
    share of the whole map's mean, so that a multiple of the relevance has the same loss.

    The first ISNet has a map a class; its faster forms explain one class (`drawn_classes`) of the log odds
    log(p / (1 − p)), in which every class has its part (`fewshot.log_odds`).

    Args:
        relevance: R, (N, ...), floats.
        foreground: of its shape or without its channels; True or 1.0 where the model may look.
        decay: d in (0, 1]: 1 takes the mean of all pixels, smaller ones look at the most relevant.
        scale: E, above 0: the g at which the loss is log 2.
        stabilizer: share of the whole map's mean |R| that is added to the foreground's, above 0; without it nothing
            bounds the gradient where the foreground has no relevance.

    Returns:
        (N,), float32 at least, from 0; 0 where no relevance is.

    Raises:
        TypeError: no arrays of numbers.
        ValueError: shapes do not fit, a mask outside of [0, 1], an option out of its range, or values that are not
            finite (not seen under jit).

    References:
        Bassi et al., *Improving Deep Neural Network Generalization and Robustness to Background Bias via Layer-Wise
        Relevance Propagation Optimization*, 2024; Bassi et al., *Faster ISNet for Background Bias Mitigation on Deep
        Neural Networks*, 2024.
    """
    relevance = as_explanations("relevance", relevance)
    inside = as_region("foreground", foreground, relevance)
    check_number("decay", decay, above=0, most=1)
    check_number("scale", scale, above=0)
    check_number("stabilizer", stabilizer, above=0)
    magnitude = jnp.abs(scaled(relevance))
    whole = total(magnitude) / (magnitude.size // len(magnitude))
    area = total(jnp.broadcast_to(inside, magnitude.shape))
    usual = share(total(inside * magnitude), area, nothing=0.0) + stabilizer * whole
    outside = ((1 - inside) * magnitude).reshape(len(magnitude), -1)
    if decay < 1:
        ranks = np.arange(outside.shape[1])
        weights = jnp.asarray(decay**ranks / (decay**ranks).sum(), outside.dtype)
        pooled = (jnp.sort(outside, axis=1, descending=True) * weights).sum(axis=1)
    else:
        pooled = outside.mean(axis=1)
    return keep_nan(jnp.log1p(share(pooled, usual, nothing=0.0) / scale), relevance, inside)


def foreground_range(relevance: jax.Array, foreground: jax.Array, *, least: float, most: float) -> jax.Array:
    """A quadratic outside of a range, 0 inside: max(0, 1 − s/C₁)² + max(0, s/C₂ − 1)², s = Σ |R| in the foreground.

    What `background` divides by can grow or vanish without a change of that loss: this one holds it where it is for
    a network that was not guided.

    Args:
        relevance: R, (N, ...), floats.
        foreground: as in `background`.
        least: C₁, above 0, in the unit of the relevance.
        most: C₂, at least C₁.

    Returns:
        (N,), float32 at least, from 0.

    Raises:
        TypeError: no arrays of numbers.
        ValueError: shapes do not fit, a mask outside of [0, 1], a range that is none, or values that are not finite
            (not seen under jit).

    References:
        Bassi et al., *Improving Deep Neural Network Generalization and Robustness to Background Bias via Layer-Wise
        Relevance Propagation Optimization*, 2024 (the foreground loss; each side is divided by its own end here).
    """
    relevance = as_explanations("relevance", relevance)
    inside = as_region("foreground", foreground, relevance)
    check_number("least", least, above=0)
    check_number("most", most, least=least)
    held = total(inside * jnp.abs(relevance))
    return keep_nan(jax.nn.relu(1 - held / least) ** 2 + jax.nn.relu(held / most - 1) ** 2, relevance, inside)


def drawn_classes(key: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """The class whose explanation is constrained: with an even chance the label, or any other one.

    In the mean over updates all classes are, at the cost of one.

    Args:
        key: a random key.
        labels: (N,), integers in [0, num_classes).
        num_classes: at least 2.

    Returns:
        (N,), integers.

    Raises:
        TypeError: no key, or labels that are no integers.
        ValueError: another shape of labels, one outside of the classes (not seen under jit), or fewer than two
            classes.

    References:
        Bassi et al., *Faster ISNet for Background Bias Mitigation on Deep Neural Networks*, 2024 (its stochastic form
        draws from all classes alike).
    """
    check_key(key)
    check_count("num_classes", num_classes, least=2)
    labels = as_array(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputTypeError(f"expected labels of integers, got {labels.dtype}: give classes")
    if labels.ndim != 1:
        raise InputError(f"expected labels (N,), got {labels.shape}: give one class an example")
    if (known := values(labels)) is not None and ((known < 0) | (known >= num_classes)).any():
        raise InputError(
            f"expected labels in [0, {num_classes}), got {known.min()} to {known.max()}: give indices of classes"
        )
    coin, other = jax.random.split(key)
    # A step of 1 to K − 1 from the label, modulo K, is any other class.
    step = jax.random.randint(other, labels.shape, 1, num_classes, dtype=labels.dtype)
    return jnp.where(jax.random.bernoulli(coin, shape=labels.shape), labels, (labels + step) % num_classes)
