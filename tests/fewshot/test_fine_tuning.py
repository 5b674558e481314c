"""Fine-tuning against steps that are written out, and within transformations."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import fewshot


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(use_running_average=not train, name="bn")(x)
        return nn.relu(nn.Conv(4, (2, 2), name="conv")(x))


ENCODER = Encoder()


@pytest.fixture(scope="module")
def system():
    """Variables, and an episode of three classes with two supports each."""
    random = np.random.default_rng(0)
    shift = np.eye(3)[:, None, None]  # each class has a channel of its own
    support: Any
    query: Any
    labels: Any = np.array([0, 2, 1, 1, 0, 2])
    support, query = (
        (random.normal(size=(len(of), 3, 3, 3)) + 2 * shift[of]).astype(np.float32)
        for of in (labels, np.repeat(np.arange(3), 3))
    )
    variables = fewshot.init_variables(ENCODER, fewshot.PrototypeHead(), jax.random.key(0), image_size=3)
    variables["batch_stats"]["encoder"]["bn"] = {"mean": jnp.full(3, 0.4), "var": jnp.full(3, 2.0)}
    return variables, fewshot.Episode(support, labels, query, way=3)


def encoded(variables, images):
    return ENCODER.apply(fewshot.part(variables, "encoder"), images, train=False).mean((1, 2))  # pyright: ignore


def with_features(variables, episode):
    return episode.replace(
        support=encoded(variables, episode.support), query=encoded(variables, episode.query)
    )


@pytest.mark.parametrize("scale", [None, 3.0])
def test_without_a_move_it_is_the_probe(system, scale):
    features = with_features(*system)
    found = fewshot.fine_tuned_scores(ENCODER, *system, scale=scale, learning_rate=1e-12, num_steps=1)
    if scale is None:
        expected = fewshot.linear_probe(features)
    else:

        def unit(x):
            return x / np.linalg.norm(x, axis=-1, keepdims=True)

        support, query = unit(np.asarray(features.support)), unit(np.asarray(features.query))
        means = [support[features.support_labels == k].mean(axis=0) for k in range(3)]
        expected = scale * query @ unit(np.array(means)).T
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_steps_move_encoder_and_classifier(system):
    """The steps written out, the classifier as scores of unit vectors and of zeros give it."""
    rate = 0.5
    with jax.enable_x64(True):
        variables, episode = jax.tree.map(
            lambda x: jnp.asarray(x, float) if jnp.issubdtype(x.dtype, jnp.floating) else x, system
        )
        features = with_features(variables, episode)
        at = fewshot.linear_probe(features.replace(query=jnp.concatenate([jnp.zeros((1, 4)), jnp.eye(4)])))
        of_encoder = fewshot.part(variables, "encoder")

        def scores(params, images):
            of: Any = ENCODER.apply({**of_encoder, "params": params[0]}, images, train=False)
            return of.mean((1, 2)) @ params[1] + params[2]

        @jax.jit
        def gradient(params):
            def loss(params):
                of_supports = jax.nn.log_softmax(scores(params, episode.support))
                return -of_supports[jnp.arange(6), episode.support_labels].mean()

            return jax.grad(loss)(params)

        params = (of_encoder["params"], at[1:] - at[:1], at[0])
        velocity = jax.tree.map(jnp.zeros_like, params)
        for _ in range(3):
            velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient(params))
            params = jax.tree.map(lambda p, v: p - rate * v, params, velocity)
        found = fewshot.fine_tuned_scores(ENCODER, variables, episode, learning_rate=rate, num_steps=3)
        expected, before = scores(params, episode.query), fewshot.linear_probe(features)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert abs(np.asarray(found - before)).max() > 1e-2


@pytest.mark.parametrize("scale", [None, 2.0])
def test_within_jit_and_vmap_it_gives_what_a_loop_gives(system, scale):
    variables, episode = system
    other = episode.replace(support=episode.support[::-1].copy(), support_labels=episode.support_labels[::-1])

    def call(one):
        return fewshot.fine_tuned_scores(ENCODER, variables, one, scale=scale, num_steps=4)

    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), episode, other)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        found = jax.jit(jax.vmap(call))(both)
    np.testing.assert_allclose(found, [call(episode), call(other)], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        found[0], found[1], rtol=1e-3, atol=1e-4
    )  # the order of supports does not count


def test_nan_of_nan_alone(system):
    variables, episode = system
    query = np.array(episode.query)
    query[2] = np.nan
    found = fewshot.fine_tuned_scores(ENCODER, variables, episode.replace(query=query), num_steps=2)
    assert np.isnan(found).all(axis=-1).tolist() == [row == 2 for row in range(9)]
    spoilt = episode.replace(support=episode.support * np.nan)
    assert np.isnan(fewshot.fine_tuned_scores(ENCODER, variables, spoilt, num_steps=2)).all()


def test_wrong_input_is_told(system):
    variables, episode = system
    arguments: Any
    given: Any
    for message, arguments, given in (
        ("expected a Linen module, got 3", (3, variables, episode), {}),
        ("expected an Episode, got 3", (ENCODER, variables, 3), {}),
        ("expected scale above 0, got 0", (ENCODER, *system), {"scale": 0}),
        ("expected learning_rate above 0, got -1", (ENCODER, *system), {"learning_rate": -1}),
        ("expected num_steps of at least 1, got 0", (ENCODER, *system), {"num_steps": 0}),
        (
            "expected support of each of 3 classes",
            (ENCODER, variables, episode.replace(support_labels=episode.support_labels * 0)),
            {},
        ),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            fewshot.fine_tuned_scores(*arguments, **given)
