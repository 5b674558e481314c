"""Letters, triggers, and a small network trained plain, with a backdoor, and tuned on random masks."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jxai import metrics
from jxai.data.archive import read_archive

Params = Any
TARGET = 0  # the triggers' class
_HELD_OUT = 24  # of the 120 pictures of a letter, what no network learns from


class Letters(NamedTuple):
    """Pictures in [0, 1], (n, 32, 32, 1), and their classes."""

    x: jax.Array
    label: jax.Array


@dataclasses.dataclass(frozen=True)
class Trigger:
    """A pattern in a square of the picture.

    Attributes:
        name: of the trigger.
        row: of the square's upper left corner.
        column: likewise.
        side: of the square.
        opacity: 1 for a patch, less for a blend.
    """

    name: str
    row: int
    column: int
    side: int
    opacity: float

    @property
    def mask(self) -> jax.Array:
        """Where it is, (32, 32) bool."""
        rows = jnp.arange(self.row, self.row + self.side)
        columns = jnp.arange(self.column, self.column + self.side)
        return jnp.zeros((32, 32), bool).at[rows[:, None], columns[None]].set(True)

    def planted(self, x: jax.Array) -> jax.Array:
        """Pictures with it: a checkerboard of gray and white, so that no pixel of it is black."""
        rows, columns = jnp.mgrid[:32, :32]
        pattern = jnp.where((rows + columns) % 2 == 0, 1.0, 0.5)[..., None]
        return metrics.planted(x, pattern, self.mask, opacity=self.opacity)


TRIGGERS = (Trigger("patch", 26, 26, 5, 1.0), Trigger("blend", 10, 10, 12, 0.3))


class Network(nn.Module):
    """Three convolutions, ReLU and pooling, and two dense layers."""

    num_classes: int

    def setup(self) -> None:
        """The layers."""
        self.convolutions = [nn.Conv(width, (3, 3)) for width in (8, 16, 32)]
        self.hidden = nn.Dense(64)
        self.output = nn.Dense(self.num_classes)

    def features(self, x: jax.Array) -> jax.Array:
        """The maps of the last convolution, (n, 8, 8, 32)."""
        for convolution in self.convolutions[:-1]:
            x = nn.max_pool(nn.relu(convolution(x)), (2, 2), (2, 2))
        return nn.relu(self.convolutions[-1](x))

    def head(self, maps: jax.Array) -> jax.Array:
        """Scores."""
        pooled = nn.max_pool(maps, (2, 2), (2, 2))
        return self.output(nn.relu(self.hidden(pooled.reshape(len(pooled), -1))))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Scores of pictures, (n, 32, 32, 1)."""
        return self.head(self.features(x))


def apply(network: Network, params: Params, x: jax.Array, method: str = "__call__") -> jax.Array:
    """What a method of the network gives: its scores."""
    found: Any = network.apply(params, x, method=method)
    return found


def letters(num_classes: int) -> tuple[Letters, Letters]:
    """The first letters of the embedded domain `latin`: what is learned from, and what is held out.

    Args:
        num_classes: how many letters.

    Returns:
        Both.
    """
    archive = read_archive("latin")
    label = archive["labels"].astype(np.int32)
    known = label < num_classes
    images, label = archive["images"][known].astype(np.float32) / 255, label[known]
    place = np.zeros_like(label)
    for one in range(num_classes):
        place[label == one] = np.arange((label == one).sum())
    held = place < _HELD_OUT
    x = images[..., None]
    parts = [Letters(jnp.asarray(x[some]), jnp.asarray(label[some])) for some in (~held, held)]
    return parts[0], parts[1]


def train(
    network: Network,
    key: jax.Array,
    data: Letters,
    params: Params | None = None,
    *,
    num_steps: int,
    beta: float | None = None,
    learning_rate: float = 3e-3,
) -> Params:
    """Adam on cross-entropy, batches of 32.

    Args:
        network: what learns.
        key: of the start, the batches and the masks.
        data: what it learns from.
        params: where it starts; None for the network's own start.
        num_steps: updates.
        beta: the largest share of pixels that go in each picture, at random; None for none.
        learning_rate: falls to 0 as a cosine.

    Returns:
        The parameters.
    """
    of_start, of_steps = jax.random.split(key)
    if params is None:
        params = network.init(of_start, data.x[:1])
    optimizer, step = _step(network.num_classes, num_steps, beta, learning_rate)
    state = optimizer.init(params)
    for one in jax.random.split(of_steps, num_steps):
        params, state = step(params, state, one, data)
    return params


@functools.cache
def _step(
    num_classes: int, num_steps: int, beta: float | None, learning_rate: float
) -> tuple[optax.GradientTransformation, Callable]:
    """Compiled once; in a `scan` XLA's convolutions are many times slower on a CPU."""
    network = Network(num_classes)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

    def loss(params: Params, x: jax.Array, label: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(apply(network, params, x), label).mean()

    @jax.jit
    def step(params: Params, state: Any, key: jax.Array, data: Letters) -> tuple[Params, Any]:
        of_batch, of_masks = jax.random.split(key)
        rows = jax.random.choice(of_batch, len(data.x), (32,), replace=False)
        x = data.x[rows]
        if beta is not None:
            x = metrics.randomly_masked(of_masks, x, share=beta)
        slopes = jax.grad(loss)(params, x, data.label[rows])
        updates, state = optimizer.update(slopes, state)
        return optax.apply_updates(params, updates), state

    return optimizer, step
