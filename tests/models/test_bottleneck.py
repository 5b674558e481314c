"""ResNets of bottleneck blocks: parameters as published, where the stride is, both modes, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import models
from jxai.models.bottleneck import BottleneckBlock, BottleneckResNet, ResNet50, ResNet101, ResNet152


def tiny(**options):
    return BottleneckResNet(
        **{
            "num_classes": 5,
            "stage_sizes": (1, 1),
            "widths": (2, 3),
            "expansion": 3,
            "stem_width": 4,
            **options,
        }
    )


@pytest.mark.parametrize(
    ("cls", "parameters"),
    [
        (ResNet50, 25_557_032),
        pytest.param(ResNet101, 44_549_160, marks=pytest.mark.slow),
        pytest.param(ResNet152, 60_192_808, marks=pytest.mark.slow),
    ],
)
def test_parameters_as_published(count_parameters, cls, parameters):
    assert count_parameters(cls()) == parameters


def test_simple_blocks_with_a_classifier_have_theirs(count_parameters):
    assert count_parameters(models.Classifier(models.ResNet18(), num_classes=1000)) == 11_689_512
    assert count_parameters(models.Classifier(models.ResNet34(), num_classes=1000)) == 21_797_672


def test_scores_at_full_size(evaluate_shapes):
    scores, variables = evaluate_shapes(ResNet50(), 224)
    assert scores.shape == (2, 1000)
    assert variables["params"]["head"]["kernel"].shape == (2048, 1000)


def test_first_convolution_sees_every_position(draw_variables):
    # With the paper's stride in the first 1x1 convolution, odd positions would reach nothing.
    block = BottleneckBlock(2, stride=2, expansion=2)
    x = np.random.default_rng(3).normal(size=(1, 8, 8, 4)).astype(np.float32)
    variables = draw_variables(block, x, train=False)
    gradient = jax.jit(jax.grad(lambda x: (block.apply(variables, x, train=False) ** 2).sum()))(x)
    assert np.abs(gradient[:, 1::2, 1::2]).max() > 0


def test_block_keeps_its_input_where_nothing_changes_shape():
    def names(block):
        x = jax.ShapeDtypeStruct((1, 8, 8, 8), jnp.float32)
        return set(jax.eval_shape(lambda x: block.init(jax.random.key(0), x, train=False), x)["params"])

    plain = {f"{kind}{i}" for kind in ("conv", "bn") for i in (1, 2, 3)}
    assert names(BottleneckBlock(2)) == plain
    for block in (BottleneckBlock(2, stride=2), BottleneckBlock(3), BottleneckBlock(2, expansion=3)):
        assert names(block) == plain | {"shortcut", "bn_shortcut"}


def test_training_updates_every_statistic(run_both_modes):
    variables, scores, trained, changed = run_both_modes(tiny(), 32)
    assert scores.shape == trained.shape == (3, 5)
    assert np.isfinite(scores).all() and not np.allclose(scores, trained)
    before, after = jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(changed["batch_stats"])
    assert len(before) == len(after) == 2 * (1 + 2 * 4)
    assert not any(np.allclose(a, b) for a, b in zip(before, after, strict=True))


def test_errors_say_what_to_do(evaluate_shapes):
    assert evaluate_shapes(tiny(), 8)[0].shape == (2, 5)
    with pytest.raises(ValueError, match="at least 8x8, got 7x7"):
        evaluate_shapes(tiny(), 7)
    with pytest.raises(ValueError, match="a width for each of 2 stages"):
        evaluate_shapes(tiny(widths=(2, 3, 4)), 32)
    with pytest.raises(ValueError, match="num_classes of at least 1, got 0"):
        evaluate_shapes(tiny(num_classes=0), 32)
