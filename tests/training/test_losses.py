from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jxai import training


class Classifier(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x.mean((1, 2))))
        return nn.Dense(3)(nn.Dropout(0.1, deterministic=not train)(nn.relu(x)))


def batch(count: int) -> dict[str, np.ndarray]:
    label = np.arange(count, dtype=np.int32) % 3
    random = np.random.default_rng(0)
    image = np.eye(3)[label][:, None, None] + 0.1 * random.normal(size=(count, 4, 4, 3))
    return {"image": image.astype(np.float32), "label": label}


def variables_of(classifier: nn.Module) -> Any:
    return classifier.init(jax.random.key(0), jnp.zeros((2, 4, 4, 3)), train=False)


def test_loss_is_cross_entropy() -> None:
    classifier = nn.Sequential([lambda x, train: x.mean((1, 2)), nn.Dense(3)])
    variables = variables_of(classifier)
    data = batch(6)
    loss, (stats, metrics) = training.classification_loss(classifier)(
        variables, data, jax.random.key(0), jnp.zeros((), int)
    )
    log_p = jax.nn.log_softmax(classifier.apply(variables, data["image"], train=False))
    assert stats == {}
    np.testing.assert_allclose(loss, -np.mean(np.asarray(log_p)[np.arange(6), data["label"]]), rtol=1e-6)
    assert 0 <= float(metrics["accuracy"]) <= 1


@pytest.mark.slow
def test_pretraining_learns_with_the_same_step_and_is_the_same_on_two_devices() -> None:
    classifier, optimizer = Classifier(), optax.adam(3e-2)
    step = training.make_step(training.classification_loss(classifier), optimizer, deterministic=True)
    groups = training.group(batch(24), 6)
    results, last = [], {}
    for num_devices in (1, 2):
        devices = jax.local_devices()[:num_devices]
        pmapped = training.pmap_step(step, devices=devices)
        state = training.TrainState.create(jax.random.key(1), variables_of(classifier), optimizer=optimizer)
        state = training.replicate(state, devices=devices)
        for _ in range(20):
            state, last = pmapped(state, training.shard(groups, num_devices))
        results.append(training.unreplicate(state).params)
    assert float(training.unreplicate(last)["accuracy"]) > 0.9
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_group_keeps_order() -> None:
    groups = training.group(batch(8), 4)
    assert groups["image"].shape == (2, 4, 4, 4, 3)
    np.testing.assert_array_equal(groups["label"].reshape(-1), batch(8)["label"])


@pytest.mark.parametrize("size", [0, 3, 16])
def test_group_refuses_what_it_cannot_divide(size: int) -> None:
    with pytest.raises(
        ValueError, match=f"groups of {size}, got an array of shape|size of at least 1, got {size}"
    ):
        training.group(batch(8), size)


def test_label_smoothing_outside_its_range() -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        training.classification_loss(Classifier(), label_smoothing=1.0)
