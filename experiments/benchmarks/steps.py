"""One training step of a head on given features, or of an encoder and a head, plain or guided, ready to be timed."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jxai import fewshot

GLOBAL_CLASSES = 64  # of miniImageNet's base split, for heads with a global classifier

Step = Callable[[Any, Any], tuple[tuple[Any, ...], Any, Any]]


@dataclasses.dataclass(frozen=True)
class Task:
    """An episode's sizes; the defaults are the paper's."""

    way: int = 5
    shot: int = 5
    queries: int = 16
    """Queries a class."""

    @property
    def support(self) -> int:
        """Support images of an episode."""
        return self.way * self.shot

    @property
    def images(self) -> int:
        """All images of an episode."""
        return self.support + self.way * self.queries

    def episode(self, data: jax.Array) -> fewshot.Episode:
        """The episode of images or features (images, ...), supports in front."""
        labels = [jnp.repeat(jnp.arange(self.way), each) for each in (self.shot, self.queries)]
        support, query = data[: self.support], data[self.support :]
        classes = jnp.arange(len(query)) % GLOBAL_CLASSES
        return fewshot.Episode(support, labels[0], query, labels[1], query_classes=classes, way=self.way)


def head_step(
    head: fewshot.Head, shape: tuple[int, ...], task: Task, guidance: fewshot.Guidance
) -> tuple[Step, tuple[Any, jax.Array]]:
    """Loss and gradients of a head, that of the features too, and what it takes.

    Args:
        head: the head.
        shape: of one image's features.
        task: sizes.
        guidance: plain or guided.

    Returns:
        (step, (variables, features)); the step gives (gradients of parameters and features, statistics, metrics).
    """
    keys = jax.random.split(jax.random.key(0))
    # What an encoder that ends in a ReLU gives: about half zeros.
    features = jax.nn.relu(jax.random.normal(keys[0], (task.images, *shape)))
    small = features[: task.way]
    variables = head.init(keys[1], fewshot.Episode(small, jnp.arange(task.way), small, way=task.way))

    def step(variables: Any, features: jax.Array):
        def loss(params: Any, features: jax.Array):
            return fewshot.head_loss(
                head, {**variables, "params": params}, task.episode(features), guidance=guidance
            )

        params = variables.get("params", {})
        gradients, (statistics, metrics) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, features)
        return gradients, statistics, metrics

    return step, (variables, features)


def system_step(
    encoder: nn.Module, head: fewshot.Head, side: int, task: Task, guidance: fewshot.Guidance
) -> tuple[Step, tuple[Any, jax.Array]]:
    """Loss and gradients of an encoder and a head, and what it takes.

    Args:
        encoder: from images to features.
        head: the head.
        side: of the images in pixels.
        task: sizes.
        guidance: plain or guided.

    Returns:
        (step, (variables, images)); the step gives ((gradients of parameters,), statistics, metrics).
    """
    keys = jax.random.split(jax.random.key(0))
    images = jax.random.normal(keys[0], (task.images, side, side, 3))
    variables = fewshot.init_variables(encoder, head, keys[1], image_size=side)

    def step(variables: Any, images: jax.Array):
        def loss(params: Any):
            return fewshot.guided_loss(
                encoder, head, {**variables, "params": params}, task.episode(images), guidance=guidance
            )

        gradients, (statistics, metrics) = jax.grad(loss, has_aux=True)(variables["params"])
        return (gradients,), statistics, metrics

    return step, (variables, images)


def with_adam(step: Step, arguments: tuple[Any, jax.Array]) -> tuple[Callable, tuple[Any, Any, jax.Array]]:
    """A step and Adam's update.

    Args:
        step: as `head_step` and `system_step` give it.
        arguments: what it takes.

    Returns:
        (update, (variables, Adam's state, data)).
    """
    optimizer, (variables, data) = optax.adam(1e-3), arguments

    def update(variables: Any, state: Any, data: jax.Array):
        gradients, statistics, metrics = step(variables, data)
        changes, state = optimizer.update(gradients[0], state)
        params = optax.apply_updates(variables["params"], changes)
        return {"params": params, "batch_stats": statistics}, state, gradients[1:], metrics

    return update, (variables, optimizer.init(variables["params"]), data)
