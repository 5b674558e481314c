"""Losses for pretraining an encoder as a classifier, in the form that `make_step` takes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jxai.checks import check_count, check_number, keep_nan, keep_nan_of, shown
from jxai.errors import InputError, InputTypeError
from jxai.training.types import LossFn, PyTree


def classification_loss(classifier: nn.Module, *, label_smoothing: float = 0.0) -> LossFn:
    """Cross-entropy of a classifier in training mode.

    Args:
        classifier: a module called as `classifier(images (N, H, W, C), train=True)`, giving scores (N,
            classes); `models.Classifier` is one.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).

    Returns:
        The loss of one batch {"image": (N, H, W, C), "label": (N,)}, with the metric "accuracy", for which a picture
        whose scores are not all finite counts as wrong.

    Raises:
        TypeError: no module.
        ValueError: `label_smoothing` is outside [0, 1).
    """
    if not isinstance(classifier, nn.Module):
        raise InputTypeError(
            f"expected a Linen module, got {shown(classifier)}: make one, such as models.Classifier"
        )
    check_number("label_smoothing", label_smoothing, least=0, below=1)

    def loss_fn(
        variables: dict[str, PyTree], batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]]:
        del step  # it weighs nothing
        scores, changed = classifier.apply(
            variables, batch["image"], train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        scores = keep_nan_of(variables, keep_nan(jnp.asarray(scores), batch["image"]))
        target = optax.smooth_labels(jax.nn.one_hot(batch["label"], scores.shape[-1]), label_smoothing)
        loss = jnp.mean(optax.softmax_cross_entropy(scores, target))
        right = (jnp.argmax(scores, axis=-1) == batch["label"]) & jnp.isfinite(scores).all(axis=-1)
        return loss, (changed.get("batch_stats", {}), {"accuracy": jnp.mean(right)})

    return loss_fn


def group(batch: PyTree, size: int) -> PyTree:
    """Cuts a batch of images into groups that a step treats as it treats episodes.

    Batch norms then see `size` images, on one device as on eight (16 is the paper's batch of pretraining).

    Args:
        batch: arrays (N, ...), as a dict with "image" and "label".
        size: images in a group.

    Returns:
        The tree with leaves (N / size, size, ...).

    Raises:
        TypeError: something else than arrays.
        ValueError: size is below 1, or N is not divisible by `size`.
    """

    check_count("size", size)

    def cut(leaf: Any) -> Any:
        if not hasattr(leaf, "reshape"):
            raise InputTypeError(f"expected arrays in a batch, got {shown(leaf)}: convert it")
        images = leaf.shape[0] if leaf.ndim else 0
        if images == 0 or images % size:
            raise InputError(
                f"expected a batch divisible into groups of {size}, got an array of shape {leaf.shape}: cut it"
            )
        return leaf.reshape(images // size, size, *leaf.shape[1:])

    return jax.tree.map(cut, batch)
