"""Training that prepares for unseen domains: transformed features, learned transformations, an auxiliary classifier.

Tseng et al., *Cross-Domain Few-Shot Classification via Learned Feature-Wise Transformation*, 2020. The losses have
the form that `training.make_step` takes: (variables, episode or pair of them, key, step) to (loss, (statistics,
metrics)).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jxai.checks import check_count, check_key, check_number
from jxai.fewshot.auxiliary import CLASSIFIER, classifier_weight, init_classifier
from jxai.fewshot.episode import Episode, check_episode
from jxai.fewshot.guidance import Guidance, Loss, check_guidance, loss_of_images
from jxai.fewshot.heads.head import Head
from jxai.fewshot.system import check_modules, init_variables, part
from jxai.fewshot.transformation import Transformed, check_transformation

# Beside the encoder and the head in the variables of a multi-domain system.
TRANSFORMATION = "transformation"


def init_multi_domain(
    encoder: nn.Module,
    head: Head,
    key: jax.Array,
    *,
    image_size: int,
    num_classes: int | None = None,
    transformation: Any = None,
) -> dict[str, Any]:
    """Draw the variables of a system that trains on several domains.

    Args:
        encoder: module from images (N, H, W, 3) to features, called with `train`.
        head: the head.
        key: `jax.random.key`.
        image_size: side of the images in pixels.
        num_classes: classes of all training domains together, which the auxiliary classifier tells apart; None for
            no such classifier.
        transformation: what `init_transformation` gives, if it is to be learned.

    Returns:
        As `init_variables`, with the parameters "classifier" (a dense layer's) and "transformation" beside those of
        "encoder" and "head" where there are such.
    """
    check_key(key)
    if num_classes is not None:
        check_count("num_classes", num_classes)
    if transformation is not None:
        check_transformation(transformation)
    keys = jax.random.split(key)
    variables = init_variables(encoder, head, keys[0], image_size=image_size)
    if transformation is not None:
        variables["params"][TRANSFORMATION] = transformation
    if num_classes is not None:
        images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
        features = jax.eval_shape(lambda x: encoder.apply(part(variables, "encoder"), x, train=False), images)
        variables["params"][CLASSIFIER] = init_classifier(keys[1], features.shape[-1], num_classes)
    return variables


def transformed_loss(
    encoder: nn.Module,
    head: Head,
    *,
    transformation: Any,
    guidance: Guidance = Guidance(),
    num_steps: int | None = None,
) -> Callable[[Any, Episode, jax.Array, jax.Array], Loss]:
    """The guided loss with transformed features ("FT").

    Args:
        encoder: module from images to features, called with `train`.
        head: the head.
        transformation: see `Transformed`; it stays as it is. {} for plain features.
        guidance: weights of the two losses.
        num_steps: updates of the whole training, in which the weight of an auxiliary classifier's loss decays as
            0.9^(20·step / num_steps); None holds it at 1.

    Returns:
        The loss of one episode, for `training.make_step`; for the metrics see `guided_loss`.
    """

    check_modules(encoder, head)
    check_guidance(head, guidance)
    check_transformation(transformation)
    _check_num_steps(num_steps)

    def loss_fn(variables: Any, episode: Episode, key: jax.Array, step: jax.Array) -> Loss:
        check_episode(episode, labeled=True)
        noisy, weight = Transformed(encoder, key, transformation), classifier_weight(step, num_steps)
        return loss_of_images(noisy, head, variables, episode, guidance, classifier_weight=weight)

    return loss_fn


def learned_transformation_loss(
    encoder: nn.Module,
    head: Head,
    *,
    learning_rate: float,
    guidance: Guidance = Guidance(),
    num_steps: int | None = None,
) -> Callable[[Any, tuple[Episode, Episode], jax.Array, jax.Array], Loss]:
    """The guided loss with a transformation that is learned ("LFT").

    The model θ follows the loss of an episode of a seen domain, with the transformation φ. φ follows the loss of an
    episode of another one, which counts as unseen, without it, after one step of the model:
    ∇_φ L_unseen(θ − η·∇_θ L_seen(θ, φ)).

    Args:
        encoder: module from images to features, called with `train`.
        head: the head.
        learning_rate: η, that of the model's optimizer as released.
        guidance: weights of the two losses, in both episodes.
        num_steps: updates of the whole training, in which the weight of an auxiliary classifier's loss decays as
            0.9^(20·step / num_steps); None holds it at 1.

    Returns:
        The loss of a pair of episodes (seen, unseen), for `training.make_step`; φ are the parameters
        "transformation". Its value, statistics and metrics are those of the seen episode; "loss_unseen" and
        "accuracy_unseen" are the other's.

    References:
        Tseng et al., *Cross-Domain Few-Shot Classification via Learned Feature-Wise Transformation*, 2020, eq. 4-6.
    """

    check_modules(encoder, head)
    check_guidance(head, guidance)
    check_number("learning_rate", learning_rate, above=0)
    _check_num_steps(num_steps)

    def loss_fn(variables: Any, episodes: tuple[Episode, Episode], key: jax.Array, step: jax.Array) -> Loss:
        seen, unseen = episodes
        for episode in episodes:
            check_episode(episode, labeled=True)
        weight = classifier_weight(step, num_steps)
        statistics, params = variables["batch_stats"], dict(variables["params"])
        noisy = Transformed(encoder, key, params.pop(TRANSFORMATION))

        def seen_loss(params: Any) -> Loss:
            of_step = {"params": params, "batch_stats": statistics}
            return loss_of_images(noisy, head, of_step, seen, guidance, classifier_weight=weight)

        held = jax.lax.stop_gradient(params)
        (loss, (new_statistics, metrics)), gradient = jax.value_and_grad(seen_loss, has_aux=True)(held)
        stepped = jax.tree.map(lambda leaf, slope: leaf - learning_rate * slope, held, gradient)
        stepped.pop(CLASSIFIER, None)  # it knows the seen domain's classes
        unseen_loss, (_, unseen_metrics) = loss_of_images(
            encoder, head, {"params": stepped, "batch_stats": statistics}, unseen, guidance
        )
        # Linear in the model with the gradient that is already known: nothing is computed twice.
        followed = optax.tree.vdot(params, jax.lax.stop_gradient(gradient)) + unseen_loss
        loss, rest = jax.lax.stop_gradient((loss, followed))
        of_unseen = {f"{name}_unseen": unseen_metrics[name] for name in ("loss", "accuracy")}
        return loss + (followed - rest), (new_statistics, metrics | of_unseen)

    return loss_fn


def _check_num_steps(num_steps: int | None) -> None:
    if num_steps is not None:
        check_count("num_steps", num_steps)
