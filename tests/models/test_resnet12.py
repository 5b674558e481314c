"""ResNet12: sizes, depth, a block written a second time, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import models
from jxai.models.bottleneck import BottleneckBlock


@pytest.mark.parametrize(("image", "side"), [(84, 6), (96, 6), (97, 7), (224, 14), (16, 1)])
def test_every_stage_halves_the_map_and_rounds_up(evaluate_shapes, image, side):
    assert evaluate_shapes(models.ResNet12(), image)[0].shape == (2, side, side, 512)


def test_twelve_convolutions_in_blocks_a_stem_and_four_shortcuts(evaluate_shapes):
    _, variables = evaluate_shapes(models.ResNet12(), 84)
    kernels = {
        "/".join(key.key for key in path[:-1]): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
        if path[-1].key == "kernel"
    }
    assert sorted(kernels) == sorted(
        [f"block{block}/{name}" for block in range(4) for name in ("conv1", "conv2", "conv3", "shortcut")]
        + ["conv1"]
    )
    assert {shape[:2] for name, shape in kernels.items() if "shortcut" not in name} == {(3, 3)}
    assert kernels["conv1"] == (3, 3, 3, 64)
    # Convolutions without bias: 3·64·9 and (in + 2·out)·out·9 + in·out a block; two numbers a channel of batch norm.
    ends = [(64, 64), (64, 128), (128, 256), (256, 512)]
    expected = 3 * 64 * 9 + 2 * 64 + sum((9 * (i + 2 * o) + i) * o + 2 * 4 * o for i, o in ends)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == expected


def slow_convolution(x, kernel, stride):
    """Zero padding, then one window at a time."""
    size = kernel.shape[0]
    padded = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    rows, columns = (range(0, side, stride) for side in x.shape[1:3])
    return np.stack(
        [
            np.stack(
                [np.tensordot(padded[:, r : r + size, c : c + size], kernel, axes=3) for c in columns], axis=1
            )
            for r in rows
        ],
        axis=1,
    )


def test_block_by_hand(draw_variables):
    block = BottleneckBlock(3, stride=2, expansion=1, outer_size=3)
    x = np.random.default_rng(1).normal(size=(2, 5, 4, 2)).astype(np.float32)
    variables = draw_variables(block, x, train=False)
    params, running = variables["params"], variables["batch_stats"]

    def layer(x, name, norm, stride=1):
        z = slow_convolution(x, params[name]["kernel"], stride)
        scale = params[norm]["scale"] / np.sqrt(np.abs(running[norm]["var"]) + 1e-5)
        return (z - running[norm]["mean"]) * scale + params[norm]["bias"]

    y = np.maximum(layer(x, "conv1", "bn1"), 0)
    y = np.maximum(layer(y, "conv2", "bn2", stride=2), 0)  # the stride is in the second one
    y = layer(y, "conv3", "bn3") + layer(x, "shortcut", "bn_shortcut", stride=2)
    ours = jax.jit(lambda x: block.apply(variables, x, train=False))(x)
    assert ours.shape == (2, 3, 2, 3)
    np.testing.assert_allclose(ours, np.maximum(y, 0), rtol=1e-4, atol=1e-5)


def test_by_name_and_errors():
    module = models.encoder("resnet12", image_size=84, widths=(4, 4), stem_width=2)
    assert module == models.ResNet12(widths=(4, 4), stem_width=2) and module.smallest_image == 4
    with pytest.raises(TypeError, match="resnet12 among stem_width, widths, got stem"):
        models.encoder("resnet12", image_size=84, stem="84")
    with pytest.raises(ValueError, match="at least 4x4, got 3x3"):
        jax.eval_shape(
            lambda x: module.init(jax.random.key(0), x, train=False),
            jax.ShapeDtypeStruct((1, 3, 3, 3), jnp.float32),
        )
