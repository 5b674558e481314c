"""Conv4 and Conv6: shapes, initialization, statistics, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import models


def map_shape(module, side):
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    features, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x, train=False), images)
    return features.shape


@pytest.mark.parametrize(
    ("cls", "sides"),
    [
        (models.Conv4, {32: 2, 84: 5, 224: 14}),
        (models.Conv6, {32: 2, 84: 5, 224: 14}),
        (models.Conv4NP, {32: 6, 84: 19, 224: 54}),  # 84 -> 19 as in the original RelationNet
        (models.Conv6NP, {32: 6, 84: 19, 224: 54}),
    ],
)
def test_map_of_each_image_size(cls, sides):
    for image, side in sides.items():
        assert map_shape(cls(), image) == (2, side, side, 64)


@pytest.mark.parametrize("cls", [models.Conv4, models.Conv6, models.Conv4NP, models.Conv6NP])
def test_smallest_image_is_exact(cls):
    module = cls()
    assert map_shape(module, module.smallest_image)[1:3] == (1, 1)
    with pytest.raises(ValueError, match=f"at least {module.smallest_image}x{module.smallest_image}"):
        map_shape(module, module.smallest_image - 1)


@pytest.mark.parametrize("shape", [(16, 16, 3), (1, 2, 16, 16, 3)])
def test_wrong_rank_is_refused(shape):
    with pytest.raises(ValueError, match=r"\(N, H, W, C\)"):
        models.Conv4().init(jax.random.key(0), jnp.zeros(shape), train=False)


def test_kernels_are_drawn_as_released():
    init = jax.jit(lambda key: models.Conv4().init(key, jnp.zeros((1, 16, 16, 3)), train=False))
    params = init(jax.random.key(0))["params"]
    assert sorted(params) == [f"{kind}{i}" for kind in ("bn", "conv") for i in range(4)]
    kernel = np.asarray(params["conv2"]["kernel"])
    assert kernel.shape == (3, 3, 64, 64)
    # 36,864 draws: the estimate of the deviation has a standard error of 0.4 %.
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (3 * 3 * 64)), rtol=0.02)
    np.testing.assert_array_equal(params["conv2"]["bias"], 0)


def test_first_block_is_convolution_norm_relu_pool(draw_variables):
    module = models.ConvNet(depth=1, width=5, num_pools=1)
    x = np.random.default_rng(1).normal(size=(2, 7, 9, 3)).astype(np.float32)
    variables = draw_variables(module, x, train=False, noise=0.0)
    got = jax.jit(lambda x: module.apply(variables, x, train=False))(x)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    z = np.einsum("nhwcij,ijcf->nhwf", windows, variables["params"]["conv0"]["kernel"])
    z = np.maximum(z / np.sqrt(1 + 1e-5), 0)  # fresh statistics: mean 0, variance 1
    want = z[:, :6, :8].reshape(2, 3, 2, 4, 2, 5).max(axis=(2, 4))  # 7x9 floors to 3x4
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_training_uses_and_updates_batch_statistics(draw_variables):
    module = models.ConvNet(depth=1, width=4, num_pools=0)
    x = np.random.default_rng(2).normal(3, size=(4, 8, 8, 3)).astype(np.float32)
    variables = draw_variables(module, x, train=False, noise=0.0)

    @jax.jit
    def both(x):
        trained, changed = module.apply(variables, x, train=True, mutable=["batch_stats"])
        kernel, numbers = variables["params"]["conv0"]["kernel"], ("NHWC", "HWIO", "NHWC")
        z = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        return trained, module.apply(variables, x, train=False), changed, z.mean((0, 1, 2))

    trained, plain, changed, mean = both(x)
    assert not np.allclose(trained, plain)
    # Momentum: a tenth of the batch's statistics, nine tenths of the old ones (mean 0).
    np.testing.assert_allclose(changed["batch_stats"]["bn0"]["mean"], 0.1 * mean, rtol=1e-4, atol=1e-5)
