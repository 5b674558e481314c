"""Encoder and head together: variables, the guided loss on images, and its pmapped training."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jxai import fewshot, models, training


def test_variables_of_both_parts_lie_side_by_side(tiny):
    variables = fewshot.init_variables(tiny.encoder, tiny.head, jax.random.key(0), image_size=tiny.side)
    assert set(variables) == {"params", "batch_stats"}
    assert all(set(tree) == {"encoder", "head"} for tree in variables.values())
    other = fewshot.init_variables(tiny.encoder, tiny.head, jax.random.key(1), image_size=tiny.side)
    for name in ("encoder", "head"):  # both parts depend on the key
        kernels = [jax.tree.leaves(fewshot.part(tree, name)["params"])[-1] for tree in (variables, other)]
        assert (kernels[0] != kernels[1]).any()


def test_part_leaves_out_what_is_empty():
    variables = {
        "params": {"encoder": {"a": 1}, "head": {"b": 2}},
        "batch_stats": {"encoder": {"c": 3}, "head": {}},
    }
    assert fewshot.part(variables, "encoder") == {"params": {"a": 1}, "batch_stats": {"c": 3}}
    assert fewshot.part(variables, "head") == {"params": {"b": 2}}


def test_guided_loss_of_a_real_encoder_keeps_the_structure_of_its_statistics():
    encoder, head = models.Conv4NP(width=8), fewshot.RelationHead(features=8)
    variables = jax.eval_shape(
        lambda key: fewshot.init_variables(encoder, head, key, image_size=32), jax.random.key(0)
    )
    images, labels = jax.ShapeDtypeStruct((5, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((5,), jnp.int32)
    episode = fewshot.Episode(images, labels, images, labels, way=5)
    for train_encoder in (True, False):
        loss, (statistics, metrics) = jax.eval_shape(
            lambda v, e, train=train_encoder: fewshot.guided_loss(encoder, head, v, e, train_encoder=train),
            variables,
            episode,
        )
        assert loss.shape == () and {"loss", "loss_plain", "loss_guided", "accuracy"} == set(metrics)
        chex.assert_trees_all_equal_shapes_and_dtypes(statistics, variables["batch_stats"])


def test_guided_loss_is_the_heads_loss_on_the_encoders_features(tiny):
    episode = tiny.episode()
    support, query = (
        tiny.encoder.apply(fewshot.part(tiny.variables, "encoder"), images, train=False)
        for images in (episode.support, episode.query)
    )
    expected, (_, metrics) = fewshot.head_loss(
        tiny.head,
        fewshot.part(tiny.variables, "head"),
        episode.replace(support=support, query=query),
        guidance=fewshot.PLAIN,
    )
    ours, (_, our_metrics) = fewshot.guided_loss(
        tiny.encoder, tiny.head, tiny.variables, episode, guidance=fewshot.PLAIN, train_encoder=False
    )
    chex.assert_trees_all_close((ours, our_metrics), (expected, metrics), rtol=1e-5)


@pytest.mark.parametrize("train_encoder", [True, False])
def test_a_fixed_encoder_gets_no_gradient_and_keeps_its_statistics(tiny, train_encoder):
    def loss(params):
        return fewshot.guided_loss(
            tiny.encoder,
            tiny.head,
            tiny.variables | {"params": params},
            tiny.episode(),
            guidance=fewshot.PLAIN,
            train_encoder=train_encoder,
        )

    gradient, (statistics, _) = jax.jit(jax.grad(loss, has_aux=True))(tiny.variables["params"])
    moved = [bool(np.any(leaf)) for leaf in jax.tree.leaves(gradient["encoder"])]
    assert any(moved) == train_encoder
    assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient["head"]))
    before, after = tiny.variables["batch_stats"]["encoder"], statistics["encoder"]
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after)
    assert all(jax.tree.leaves(changed)) == any(jax.tree.leaves(changed)) == train_encoder


def run(tiny, num_devices, steps, *, deterministic=True):
    """State after some guided steps of 8 episodes; traced once, or it fails."""
    optimizer = optax.adam(1e-2)

    def loss(variables, episode, key, step):
        return fewshot.guided_loss(tiny.encoder, tiny.head, variables, episode)

    chex.clear_trace_counter()
    devices = jax.local_devices()[:num_devices]
    step = chex.assert_max_traces(training.make_step(loss, optimizer, deterministic=deterministic), n=1)
    pmapped = training.pmap_step(step, devices=devices)
    state = training.TrainState.create(jax.random.key(0), tiny.variables, optimizer=optimizer)
    state = training.replicate(state, devices=devices)
    for number in range(steps):
        episodes = [tiny.episode(seed=8 * number + n) for n in range(8)]
        batch = jax.tree.map(lambda *leaves: np.stack(leaves), *episodes)
        state, metrics = pmapped(state, training.shard(batch, num_devices))
    state = training.unreplicate(state)
    return jax.device_get((state.params, state.batch_stats, training.unreplicate(metrics)))


@pytest.mark.slow
def test_guided_training_traces_once_and_is_bit_identical_on_one_and_eight_devices(tiny):
    one, eight = (run(tiny, num_devices, steps=3) for num_devices in (1, 8))
    jax.tree.map(np.testing.assert_array_equal, one, eight)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(one))


@pytest.mark.slow
def test_guided_training_traces_once_in_the_fast_mode(tiny):
    *_, metrics = run(tiny, 2, steps=2, deterministic=False)
    assert np.isfinite(metrics["loss"])
