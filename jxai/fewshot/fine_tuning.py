"""Fine-tuning of a whole encoder on an episode's support."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jxai.checks import check_count, check_number, keep_nan, keep_nan_of, shown
from jxai.compiled import is_traced
from jxai.errors import InputTypeError
from jxai.fewshot.baselines import linear_weights
from jxai.fewshot.checks import check_encoded, check_every_class
from jxai.fewshot.episode import Episode, check_episode
from jxai.fewshot.heads.conditioned import normalized, vectors
from jxai.fewshot.heads.head import class_means
from jxai.fewshot.system import part

_MOMENTUM = optax.trace(decay=0.9)
_PENALTY, _PROBE_STEPS = 1.0, 100  # of the linear probe that steps start from


def fine_tuned_scores(
    encoder: nn.Module,
    variables: Any,
    episode: Episode,
    *,
    scale: float | None = None,
    learning_rate: float = 1e-3,
    num_steps: int = 20,
) -> jax.Array:
    """Scores after the encoder and a classifier behind it took gradient steps, with momentum 0.9, on the supports.

    They descend the mean cross-entropy of all supports. Nothing is drawn: the classifier starts as the linear probe
    or, with cosines, at the means of its classes' normalized supports (our choice; the papers draw it, and batches),
    and batch norm keeps the running averages (our choice; the papers' batches have their own).

    Called as it is, one compiled step is called `num_steps` times. Within `jit` or `vmap` the steps are a loop of
    XLA's, in which a CPU takes much longer for convolutions.

    Args:
        encoder: module from images to features, called with `train`; trained as a classifier of base classes.
        variables: of a system, see `init_variables`; the encoder's count.
        episode: of normalized images.
        scale: what cosines of features and classes' vectors are multiplied by, above 0; None for a linear classifier.
        learning_rate: of the steps, above 0; 0.01 in Guo et al., with weight decay.
        num_steps: steps.

    Returns:
        Scores (queries, way).

    Raises:
        TypeError: no module, variables or episode, or arrays of other types.
        ValueError: shapes do not fit, a class has no support, or a number is out of range.

    References:
        Guo et al., *A Broader Study of Cross-Domain Few-Shot Learning*, 2020 (fine-tuning); classifiers of
        Chen et al., *A Closer Look at Few-shot Classification*, 2019; a probe first as in Kumar et al., *Fine-Tuning
        can Distort Pretrained Features and Underperform Out-of-Distribution*, 2022.
    """
    if not isinstance(encoder, nn.Module):
        raise InputTypeError(f"expected a Linen module, got {shown(encoder)}: make one")
    check_episode(episode)
    check_every_class(episode.support_labels, episode.way)
    if scale is not None:
        check_number("scale", scale, above=0)
    check_number("learning_rate", learning_rate, above=0)
    check_count("num_steps", num_steps)
    of_encoder = part(variables, "encoder")
    params, fixed = of_encoder.get("params", {}), {k: v for k, v in of_encoder.items() if k != "params"}
    support, labels = jnp.asarray(episode.support), jnp.asarray(episode.support_labels)
    layer = _start(encoder, of_encoder, support, labels, way=episode.way, cosine=scale is not None)
    state: Any = ((params, layer), _MOMENTUM.init((params, layer)))
    step = functools.partial(_step, encoder, fixed, support, labels, scale, learning_rate)
    if is_traced():
        state = jax.lax.fori_loop(0, num_steps, lambda _, state: step(state), state)
    else:
        for _ in range(num_steps):
            state = step(state)
    scores = _scores(encoder, fixed, state[0], jnp.asarray(episode.query), scale)
    return keep_nan_of((of_encoder, support), keep_nan(scores, episode.query))


def _encoded(encoder: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    features = jnp.asarray(encoder.apply(variables, images, train=False))
    check_encoded(features, len(images))
    return vectors(features)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("way", "cosine"))
def _start(
    encoder: nn.Module, variables: Any, support: jax.Array, labels: jax.Array, *, way: int, cosine: bool
) -> tuple[jax.Array, jax.Array]:
    features = _encoded(encoder, variables, support)
    if not cosine:
        return linear_weights(features, labels, _PENALTY, way=way, num_steps=_PROBE_STEPS)
    return class_means(normalized(features), labels, way).T, jnp.zeros(way, features.dtype)


@functools.partial(jax.jit, static_argnums=0)
def _scores(encoder: nn.Module, fixed: Any, params: Any, images: jax.Array, scale: Any) -> jax.Array:
    of_encoder, (weights, bias) = params
    features = _encoded(encoder, {**fixed, "params": of_encoder}, images)
    if scale is None:
        return features @ weights + bias[None]
    return jnp.asarray(scale, features.dtype) * normalized(features) @ normalized(weights.T).T


@functools.partial(jax.jit, static_argnums=0)
def _step(
    encoder: nn.Module,
    fixed: Any,
    support: jax.Array,
    labels: jax.Array,
    scale: Any,
    learning_rate: Any,
    state: tuple[Any, Any],
) -> tuple[Any, Any]:
    params, moments = state

    def loss(params: Any) -> jax.Array:
        scores = _scores(encoder, fixed, params, support, scale)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    updates, moments = _MOMENTUM.update(jax.grad(loss)(params), moments)
    return jax.tree.map(lambda p, u: p - jnp.asarray(learning_rate, p.dtype) * u, params, updates), moments
