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


def init_classifier(key: jax.Array, features: int, num_classes: int) -> Any:
    """Draw the classifier.

    Args:
        key: `jax.random.key`.
        features: channels of the encoder's features.
        num_classes: classes of all training domains together.

    Returns:
        A dense layer's parameters.
    """
    return nn.Dense(num_classes).init(key, jnp.zeros((1, features), jnp.float32))["params"]


def classifier_weight(step: jax.Array, num_steps: int | None) -> jax.Array | float:
    """0.9^(20·step / num_steps), what the classifier's loss counts; the release counts in epochs.

    Args:
        step: updates made so far, ().
        num_steps: updates of the whole training; None holds the weight at 1.

    Returns:
        The weight.
    """
    return 1.0 if num_steps is None else 0.9 ** (20 * step / num_steps)


def classifier_loss(classifier: Any, features: jax.Array, classes: jax.Array | None) -> jax.Array:
    """Cross-entropy on pooled features.

    Args:
        classifier: its parameters.
        features: of the queries, (queries, ...).
        classes: of the queries among all training classes, (queries,).

    Returns:
        A scalar.

    Raises:
        ValueError: there are no `classes`.
    """
    if classes is None:
        raise InputError(
            "expected episodes with `query_classes` for the auxiliary classifier, got none: "
            "take them from data.episode_dataset, or leave the classifier out"
        )
    scores = vectors(features) @ classifier["kernel"] + classifier["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(scores, classes).mean()
