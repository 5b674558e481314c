"""An auxiliary classifier of the encoder's features among all training classes, ever less weighted.

Tseng et al., *Cross-Domain Few-Shot Classification via Learned Feature-Wise Transformation*, 2020.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jxai.errors import InputError
from jxai.fewshot.heads.conditioned import vectors

# Beside the encoder and the head in a system's variables.
CLASSIFIER = "classifier"


def init_classifier(key: jax.Array, features: int, num_classes: int) -> tuple[Any, Any]:
    """Draw the classifier.

    Args:
        key: `jax.random.key`.
        features: channels of the encoder's features.
        num_classes: classes of all training domains together.

    Returns:
        (a dense layer's parameters, statistics: the weight of its loss, 1).
    """
    return nn.Dense(num_classes).init(key, jnp.zeros((1, features)))["params"], {"weight": jnp.ones(())}


def classifier_loss(
    variables: Any, features: jax.Array, classes: jax.Array | None, *, num_steps: int | None
) -> tuple[jax.Array, jax.Array, Any]:
    """Cross-entropy on pooled features, and its weight 0.9^(20·step / num_steps); the release counts in epochs.

    Args:
        variables: of a system with a classifier.
        features: of the queries, (queries, ...).
        classes: of the queries among all training classes, (queries,).
        num_steps: updates of the whole training; None holds the weight.

    Returns:
        (cross-entropy, its weight, the statistics of the next step).

    Raises:
        ValueError: there are no `classes`.
    """
    if classes is None:
        raise InputError(
            "expected episodes with `query_classes` for the auxiliary classifier, got none: "
            "take them from data.episode_dataset, or leave the classifier out"
        )
    classifier, weight = variables["params"][CLASSIFIER], variables["batch_stats"][CLASSIFIER]["weight"]
    scores = vectors(features) @ classifier["kernel"] + classifier["bias"]
    found = optax.softmax_cross_entropy_with_integer_labels(scores, classes).mean()
    # Among the statistics, because a loss does not know the step.
    decay = 1.0 if num_steps is None else 0.9 ** (20 / num_steps)
    return found, weight, {"weight": weight * decay}
