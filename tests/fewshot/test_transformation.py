"""Feature-wise transformation: which features it takes, what it makes of them, and the noise it draws."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import fewshot, models

SIDE, WIDTH = 8, 3


class Normed(nn.Module):
    """One batch norm of a given image, and what comes after it: enough to see what was done to it."""

    @nn.compact
    def __call__(self, x, *, train):
        return nn.BatchNorm(use_running_average=not train, name="bn0")(x)


def features(encoder, variables, images, train=True):
    return encoder.apply(variables, images, train=train, mutable=["batch_stats"])


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        (
            models.ResNet10(widths=(2, 3, 4, 5), stem="32", stem_width=2),
            {f"block{i}/bn2": i + 2 for i in range(4)}
            | {f"block{i}/bn_shortcut": i + 2 for i in range(1, 4)},
        ),
        (models.ConvNet(depth=2, width=WIDTH, num_pools=1), {"bn0": WIDTH, "bn1": WIDTH}),
    ],
    ids=["residual", "convolutions"],
)
def test_the_last_batch_norms_of_every_block_are_transformed(encoder, expected):
    found = fewshot.init_transformation(encoder, image_size=16)
    assert {path: len(leaves["scale"]) for path, leaves in found.items()} == expected
    for leaves in found.values():
        np.testing.assert_allclose(leaves["scale"], 0.3)
        np.testing.assert_allclose(leaves["shift"], 0.5)
        assert leaves["shift"].shape == leaves["scale"].shape


def test_the_released_noise_starts_with_its_parameters_as_deviations():
    found = fewshot.init_transformation(models.ConvNet(depth=1, width=WIDTH, num_pools=1), image_size=16)
    sharpness = fewshot.Transformed(nn.Module(), jax.random.key(0), {}).sharpness
    for name, deviation in (("scale", 0.3), ("shift", 0.5)):
        softplus = jax.nn.softplus(sharpness * found["bn0"][name]) / sharpness
        np.testing.assert_allclose(softplus, deviation, rtol=1e-6)


def test_bottleneck_blocks_end_in_their_third_batch_norm():
    encoder = models.BottleneckResNet(stage_sizes=(1, 1), widths=(2, 3), num_classes=2)
    assert set(fewshot.init_transformation(encoder, image_size=32)) == {
        f"block{i}/{name}" for i in range(2) for name in ("bn3", "bn_shortcut")
    }


def test_paths_of_ones_own():
    encoder = models.ResNet10(widths=(2, 3, 4, 5), stem="32", stem_width=2)
    found = fewshot.init_transformation(
        encoder, image_size=16, paths=["bn1", "block3/*shortcut"], scale=1.0, shift=2.0
    )
    assert set(found) == {"bn1", "block3/bn_shortcut", "block3/shortcut"}
    assert float(found["bn1"]["scale"][0]) == 1 and float(found["bn1"]["shift"][0]) == 2


def test_a_path_that_matches_nothing():
    encoder = models.ConvNet(depth=1)
    with pytest.raises(ValueError, match=r"'\*/bn2', which matches none of .*bn0.*conv0"):
        fewshot.init_transformation(encoder, image_size=SIDE, paths=["bn0", "*/bn2"])


def test_an_encoder_without_numbered_batch_norms():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.Conv(2, (3, 3), name="only")(x)

    with pytest.raises(
        ValueError, match=r"names such as bn2 in the encoder, got modules.*only.*give `paths`"
    ):
        fewshot.init_transformation(Plain(), image_size=SIDE)


def test_what_it_makes_of_a_channel():
    gamma, beta = np.array([0.3, -1.0, 2.0]), np.array([0.5, 0.0, -3.0])
    transformation = {"bn0": {"scale": gamma.astype(np.float32), "shift": beta.astype(np.float32)}}
    images = np.random.default_rng(0).normal(size=(5, SIDE, SIDE, 3)).astype(np.float32)

    @jax.jit
    def draw(key):
        encoder = Normed()
        variables = encoder.init(key, images, train=False)
        plain, _ = features(encoder, variables, images)

        def transformed(key):
            noisy = fewshot.Transformed(encoder, key, transformation, sharpness=2.0)
            return features(noisy, variables, images)[0]

        return plain, jax.vmap(transformed)(jax.random.split(key, 2000))

    plain, drawn = jax.device_get(draw(jax.random.key(0)))
    # One factor and one shift a channel and call: every value of it lies on one line over the plain ones.
    flat, of_plain = drawn.reshape(2000, -1, 3), plain.reshape(-1, 3)
    at = [np.argmin(of_plain, axis=0), np.argmax(of_plain, axis=0)]
    low, high = (np.take_along_axis(flat, i[None, None], axis=1)[:, 0] for i in at)
    span = of_plain.max(0) - of_plain.min(0)
    factor = (high - low) / span
    shift = low - factor * of_plain.min(0)
    np.testing.assert_allclose(flat, factor[:, None] * of_plain + shift[:, None], atol=2e-4)
    # n ~ N(0, 1): means within 4.5 standard errors of 2000 draws, spreads within as many of theirs.
    softplus = [np.log1p(np.exp(2 * raw)) / 2 for raw in (gamma, beta)]
    for found, mean, spread in ((factor, 1.0, softplus[0]), (shift, 0.0, softplus[1])):
        np.testing.assert_array_less(np.abs(found.mean(0) - mean) / spread, 4.5 / np.sqrt(2000))
        np.testing.assert_array_less(np.abs(found.std(0) / spread - 1), 4.5 / np.sqrt(4000))
    # Factor and shift, and the channels, are drawn apart.
    correlations = np.corrcoef(np.concatenate([factor, shift], axis=1).T) - np.eye(6)
    assert np.abs(correlations).max() < 4.5 / np.sqrt(2000)


@pytest.fixture(scope="module")
def residual():
    encoder = models.ResNet(stage_sizes=(1, 1), widths=(2, 3), stem="32", stem_width=2)
    images = np.random.default_rng(0).normal(size=(4, SIDE, SIDE, 3)).astype(np.float32)
    variables = jax.jit(lambda: encoder.init(jax.random.key(1), images, train=False))()
    transformation = jax.device_get(fewshot.init_transformation(encoder, image_size=SIDE))

    @jax.jit
    def apply(key, transformation, images):
        noisy = fewshot.Transformed(encoder, key, transformation)
        return features(noisy, variables, images)

    return encoder, variables, transformation, images, apply


def test_variables_and_statistics_are_the_encoders_own(residual):
    encoder, variables, transformation, images, apply = residual
    _, statistics = jax.eval_shape(apply, jax.random.key(0), transformation, images)
    assert jax.tree.structure(statistics["batch_stats"]) == jax.tree.structure(variables["batch_stats"])
    of_noisy = jax.eval_shape(
        lambda: fewshot.Transformed(encoder, jax.random.key(0), transformation).init(
            jax.random.key(1), images, train=False
        )
    )
    assert jax.tree.structure(of_noisy) == jax.tree.structure(variables)


def test_without_noise_and_in_evaluation_it_is_the_encoder(residual):
    encoder, variables, transformation, images, _ = residual

    @jax.jit
    def found(key):
        nothing = fewshot.Transformed(encoder, key, {})
        noisy = fewshot.Transformed(encoder, key, transformation)
        ours = features(nothing, variables, images)[0], noisy.apply(variables, images, train=False)
        plain = [features(encoder, variables, images, train)[0] for train in (True, False)]
        return ours, tuple(plain)

    chex.assert_trees_all_close(*found(jax.random.key(0)), rtol=1e-5, atol=1e-5)


def test_episodes_of_a_vmap_draw_their_own_noise(residual):
    *_, transformation, images, apply = residual
    keys = jax.random.split(jax.random.key(3), 3)
    together, _ = jax.jit(jax.vmap(apply, in_axes=(0, None, None)))(keys, transformation, images)
    alone = [apply(key, transformation, images)[0] for key in keys]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(alone[0], apply(keys[0], transformation, images)[0])
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def test_gradients_reach_every_scale_and_shift(residual):
    *_, transformation, images, apply = residual

    @jax.jit
    @jax.grad
    def gradient(transformation):
        return jnp.sum(apply(jax.random.key(0), transformation, images)[0] ** 2)

    found = gradient(transformation)
    assert jax.tree.structure(found) == jax.tree.structure(transformation)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(found))
