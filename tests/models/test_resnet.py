"""ResNets: the reference values, shapes of each stem, parameters, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import models


@pytest.mark.golden
def test_golden_resnet10_to_pixels_features(golden_resnet10):
    module, variables, reference = golden_resnet10
    features = jax.jit(lambda x: module.apply(variables, x, train=False).mean(axis=(1, 2)))(
        reference["image"]
    )
    error = np.abs(features - reference["features"]).max() / np.abs(reference["features"]).max()
    assert error < 1e-5


def map_shape(module, side):
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    features, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x, train=False), images)
    return features.shape


@pytest.mark.parametrize(
    ("stem", "image", "side"), [("32", 32, 4), ("84", 84, 6), ("224", 84, 3), ("224", 224, 7)]
)
def test_map_of_each_stem(stem, image, side):
    assert map_shape(models.ResNet10(stem=stem), image) == (2, side, side, 512)


@pytest.mark.parametrize("stem", ["32", "84", "224"])
def test_smallest_image_leaves_one_position(stem):
    module = models.ResNet10(stem=stem, widths=(2, 2, 2, 2), stem_width=2)
    assert map_shape(module, module.smallest_image)[1:3] == (1, 1)
    with pytest.raises(ValueError, match=f"at least {module.smallest_image}x"):
        map_shape(module, module.smallest_image - 1)


@pytest.mark.parametrize(
    ("cls", "convolutions"),
    # The names count convolutions and the last dense layer; three shortcuts come on top.
    [(models.ResNet10, 9 + 3), (models.ResNet18, 17 + 3), (models.ResNet34, 33 + 3)],
)
def test_depths(cls, convolutions):
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    module = cls(stem="32")
    params = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images)["params"]
    kernels = [
        leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if "kernel" in str(path[-1])
    ]
    assert len(kernels) == convolutions
    assert not [
        path
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
        if "conv" in str(path) and "bias" in str(path[-1])
    ]


def test_block_keeps_its_input_where_nothing_changes_shape():
    def names(block):
        x = jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32)
        return set(jax.eval_shape(lambda x: block.init(jax.random.key(0), x, train=False), x)["params"])

    assert names(models.SimpleBlock(4)) == {"conv1", "bn1", "conv2", "bn2"}
    for block in (models.SimpleBlock(4, 2), models.SimpleBlock(5)):
        assert names(block) == {"conv1", "bn1", "conv2", "bn2", "shortcut", "bn_shortcut"}


def test_features_are_finite_not_negative_and_one_image_at_a_time_alike(draw_variables):
    module = models.ResNet(stage_sizes=(1, 1), stem="32", widths=(4, 6), stem_width=3)
    x = np.random.default_rng(3).normal(size=(3, 8, 8, 3)).astype(np.float32)
    variables = draw_variables(module, x, train=False)
    forward = jax.jit(lambda x: module.apply(variables, x, train=False))
    together = np.asarray(forward(x))
    assert np.isfinite(together).all() and (together >= 0).all() and together.max() > 0
    alone = np.concatenate([forward(image[None]) for image in x])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


def test_errors_say_what_to_do():
    x = jnp.zeros((1, 32, 32, 3))
    with pytest.raises(ValueError, match=r"'224', '32', '84'.*got '64'"):
        models.ResNet10(stem="64").init(jax.random.key(0), x, train=False)
    with pytest.raises(ValueError, match="a width for each of 4 stages"):
        models.ResNet10(stem="32", widths=(8, 8)).init(jax.random.key(0), x, train=False)
