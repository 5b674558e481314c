"""Heads, guidance and optimizers trained together against each seed alone, to the bit."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from jxai import fewshot, training

ONE = jax.local_devices()[:1]
OPTIMIZERS = {"adam": optax.adam(1e-2), "sgd": optax.sgd(0.05, momentum=0.9)}


class Encoder(nn.Module):
    """Two blocks as Conv4's: convolution with bias, batch norm, ReLU, pooling."""

    smallest_image = 16

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for index in range(2):
            x = nn.Conv(6, (3, 3), name=f"conv{index}")(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name=f"bn{index}")(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        return x


HEADS: dict[str, Callable[[], fewshot.Head]] = {
    "relation": lambda: fewshot.RelationHead(features=6),
    "prototype": fewshot.PrototypeHead,
    "cross-attention": lambda: fewshot.CrossAttentionHead(num_classes=None),
}


@pytest.mark.long
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("guidance", [fewshot.PLAIN, fewshot.Guidance()], ids=["plain", "guided"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("head", HEADS)
def test_every_kind_of_training_is_what_it_is_alone(
    head: str, optimizer: str, guidance: fewshot.Guidance, deterministic: bool
) -> None:
    encoder, of_head = Encoder(), HEADS[head]()

    def loss(variables: Any, episode: fewshot.Episode, key: jax.Array, step: jax.Array) -> Any:
        del key, step
        return fewshot.guided_loss(encoder, of_head, variables, episode, guidance=guidance)

    step = training.make_step(loss, OPTIMIZERS[optimizer], deterministic=deterministic)

    def init(seed: int) -> training.TrainState:
        key = jax.random.key(seed)
        variables = fewshot.init_variables(encoder, of_head, key, image_size=16)
        return training.TrainState.create(key, variables, optimizer=OPTIMIZERS[optimizer])

    def batch(seed: int, number: int) -> fewshot.Episode:
        random = np.random.default_rng([seed, number])
        images = lambda each: random.normal(size=(1, 3 * each, 16, 16, 3)).astype(np.float32)  # noqa: E731
        labels = lambda each: np.repeat(np.arange(3, dtype=np.int32), each)[None]  # noqa: E731
        return fewshot.Episode(images(1), labels(1), images(2), labels(2), way=3)  # pyright: ignore

    of_seeds = training.seeds_step(step, num_seeds=2, at_once=1, devices=ONE)
    states = of_seeds.place([init(seed) for seed in (0, 1)])
    for number in range(4):
        states, _ = of_seeds(states, [batch(seed, number) for seed in (0, 1)])
    pmapped = training.pmap_step(step, devices=ONE)
    for seed, found in enumerate(of_seeds.take(states)):
        state = training.replicate(init(seed), devices=ONE)
        for number in range(4):
            state, _ = pmapped(state, training.shard(batch(seed, number), 1))
        for one, other in zip(
            jax.tree.leaves(found), jax.tree.leaves(training.unreplicate(state)), strict=True
        ):
            if jax.numpy.issubdtype(one.dtype, jax.dtypes.prng_key):
                one, other = jax.random.key_data(one), jax.random.key_data(other)
            np.testing.assert_array_equal(one, other)
