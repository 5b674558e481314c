"""A toy few-shot task: trained in milliseconds, with batch norm and noise from the key that decays by the step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jxai import training
from jxai.fewshot import Episode

WAY, SHOT, QUERY, SIZE = 3, 1, 2, 6


class ToyEncoder(nn.Module):
    """Convolution, batch norm, ReLU, global mean, dense."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Conv(4, (3, 3))(x)
        x = nn.BatchNorm(momentum=0.9, epsilon=1e-5, use_running_average=not train)(x)
        return nn.Dense(5)(nn.relu(x).mean((1, 2)))


def toy_loss(
    variables: Any, episode: Episode, key: jax.Array, step: jax.Array
) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    """A prototype network's cross-entropy with noise on the queries' features, less from step to step."""
    images = jnp.concatenate([episode.support, episode.query])
    features, changed = ToyEncoder().apply(variables, images, train=True, mutable=["batch_stats"])
    num_support = episode.support_labels.shape[0]
    member = jax.nn.one_hot(episode.support_labels, episode.way)
    prototypes = member.T @ features[:num_support] / member.sum(0)[:, None]
    query = features[num_support:]
    query = query + 0.1 * 0.9**step * jax.random.normal(key, query.shape)
    scores = -((query[:, None] - prototypes) ** 2).sum(-1)
    loss = optax.softmax_cross_entropy_with_integer_labels(scores, episode.query_labels).mean()
    accuracy = (scores.argmax(-1) == episode.query_labels).mean()
    return loss, (changed["batch_stats"], {"accuracy": accuracy, "noise": jax.random.uniform(key)})


def toy_episodes(number: int, count: int) -> Episode:
    """Batch `number` of `count` episodes, as numpy: a function of (number, count) alone."""
    random = np.random.default_rng([number, count])

    def images(each: int) -> np.ndarray:
        classes = random.normal(size=(count, WAY, 1, SIZE, SIZE, 3))
        noise = random.normal(size=(count, WAY, each, SIZE, SIZE, 3))
        return (classes + 0.1 * noise).reshape(count, WAY * each, SIZE, SIZE, 3).astype(np.float32)

    def labels(each: int) -> np.ndarray:
        return np.tile(np.repeat(np.arange(WAY, dtype=np.int32), each), (count, 1))

    return Episode(images(SHOT), labels(SHOT), images(QUERY), labels(QUERY), way=WAY)


class ToyBatches:
    """An endless iterator of toy batches that says where it stands, as Grain's do."""

    def __init__(self, count: int = 4, poison: int | None = None, end: int | None = None) -> None:
        self.next_index, self.count, self.poison, self.end = 0, count, poison, end

    def __iter__(self) -> "ToyBatches":
        return self

    def __next__(self) -> Episode:
        if self.next_index == self.end:
            raise StopIteration
        batch = toy_episodes(self.next_index, self.count)
        if self.next_index == self.poison:
            batch.query[0] = np.nan
        self.next_index += 1
        return batch

    def get_state(self) -> dict[str, int]:
        return {"next_index": self.next_index}

    def set_state(self, state: dict[str, int]) -> None:
        self.next_index = state["next_index"]


@dataclasses.dataclass(frozen=True)
class Toy:
    """What the tests of this folder train."""

    loss: Callable[..., Any]
    episodes: Callable[[int, int], Episode]
    batches: Callable[..., ToyBatches]
    optimizer: optax.GradientTransformation

    def state(self, seed: int = 0) -> training.TrainState:
        key, init_key = jax.random.split(jax.random.key(seed))
        variables = ToyEncoder().init(init_key, jnp.zeros((2, SIZE, SIZE, 3)), train=True)
        return training.TrainState.create(key, variables, optimizer=self.optimizer)


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy(toy_loss, toy_episodes, ToyBatches, optax.adam(1e-2))
