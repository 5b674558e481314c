"""EfficientNet: parameters as published, factors, padding, gating, both modes, errors."""

from functools import partial

import jax
import numpy as np
import pytest

from jxai.models.efficientnet import (
    EfficientNet,
    EfficientNetB0,
    EfficientNetLite0,
    MobileBlock,
    MobileStage,
    _multiple_of_8,
)

# One block without expansion that adds its input, one strided block with it.
STAGES = (MobileStage(1, 4, expansion=1), MobileStage(1, 6, kernel=5, stride=2, expansion=2))


def tiny(**options):
    return EfficientNet(**{"num_classes": 5, "stages": STAGES, "stem_width": 4, "head_width": 8, **options})


@partial(jax.jit, static_argnums=0)
def apply(block, variables, x):
    return block.apply(variables, x, train=False)


@pytest.mark.parametrize(
    ("module", "parameters"),
    [
        (EfficientNetLite0(), 4_652_008),
        (EfficientNetLite0(width_factor=1.1, depth_factor=1.2), 6_092_072),  # Lite2
        (EfficientNetB0(), 5_288_548),
    ],
)
def test_parameters_as_published(count_parameters, module, parameters):
    assert count_parameters(module) == parameters


def test_scores_at_full_size(evaluate_shapes):
    scores, variables = evaluate_shapes(EfficientNetLite0(), 224)
    assert scores.shape == (2, 1000)
    assert variables["params"]["block15"]["conv_depthwise"]["kernel"].shape == (3, 3, 1, 1152)
    assert variables["params"]["head"]["kernel"].shape == (1280, 1000)


def test_factors_leave_the_ends_alone(evaluate_shapes):
    stages = (MobileStage(1, 4), MobileStage(2, 6), MobileStage(1, 10))
    _, variables = evaluate_shapes(tiny(stages=stages, width_factor=2.5, depth_factor=1.6), 32)
    params = variables["params"]
    assert sum(name.startswith("block") for name in params) == 1 + 4 + 1
    widths = [params[f"block{i}"]["conv_project"]["kernel"].shape[-1] for i in (0, 1, 4, 5)]
    assert widths == [16, 16, 16, 24]  # 10, 15, 15 and 25; 8 for 10 would lose a fifth
    assert params["conv1"]["kernel"].shape[-1] == 4 and params["conv_last"]["kernel"].shape[-1] == 8


@pytest.mark.parametrize(
    ("width", "want"), [(1, 8), (8.8, 8), (9, 16), (12, 16), (17.6, 16), (35.2, 32), (44, 48)]
)
def test_widths_are_multiples_of_8(width, want):
    assert _multiple_of_8(width) == want


@pytest.mark.parametrize("squeeze_excite", [False, True])
def test_training_updates_every_statistic(run_both_modes, squeeze_excite):
    variables, scores, trained, changed = run_both_modes(tiny(squeeze_excite=squeeze_excite), 32)
    assert scores.shape == trained.shape == (3, 5)
    assert np.isfinite(scores).all() and not np.allclose(scores, trained)
    before, after = jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(changed["batch_stats"])
    assert len(before) == len(after) == 2 * (1 + 2 + 3 + 1)
    assert not any(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_padding_of_an_even_side_is_at_the_end(draw_variables):
    block = MobileBlock(3, stride=2, expansion=1)
    x = np.ones((1, 8, 8, 3))
    variables = draw_variables(block, x, train=False, noise=0.0)
    kernel = np.ones_like(variables["params"]["conv_depthwise"]["kernel"]) / 9
    params = {**variables["params"], "conv_depthwise": {"kernel": kernel}}
    params["conv_project"] = {"kernel": np.eye(3)[None, None]}
    got = apply(block, {**variables, "params": params}, x)[0, :, :, 0]
    inside = np.outer([1, 1, 1, 2 / 3], [1, 1, 1, 2 / 3])  # the last window has a row or column of zeros
    # Two batch norms, epsilon 1e-3.
    np.testing.assert_allclose(got, inside / 1.001, rtol=1e-5)


def test_input_is_added_where_the_shape_stays(draw_variables):
    x = np.random.default_rng(3).normal(size=(2, 6, 6, 4)).astype(np.float32)

    def without_projection(block):
        variables = draw_variables(block, x, train=False, noise=0.0)
        params = {
            **variables["params"],
            "conv_project": {"kernel": np.zeros((1, 1, 4 * block.expansion, block.width))},
        }
        return apply(block, {**variables, "params": params}, x)

    np.testing.assert_array_equal(without_projection(MobileBlock(4, expansion=2)), x)
    for block in (MobileBlock(5, expansion=2), MobileBlock(4, stride=2, expansion=2)):
        assert not np.asarray(without_projection(block)).any()


def test_gate_multiplies_the_channels_inside(draw_variables):
    block = MobileBlock(5, expansion=2, squeeze_excite=True)
    x = np.random.default_rng(3).normal(size=(2, 6, 6, 8)).astype(np.float32)
    variables = draw_variables(block, x, train=False, noise=0.0)
    params = variables["params"]
    assert params["squeeze"]["kernel"].shape == (1, 1, 16, 2)  # a quarter of the 8 that come in

    def with_bias(bias):
        excite = {"kernel": np.zeros_like(params["excite"]["kernel"]), "bias": np.full(16, bias)}
        return apply(block, {**variables, "params": {**params, "excite": excite}}, x)

    shut, half, whole = (np.asarray(with_bias(bias)) for bias in (-50.0, 0.0, 50.0))
    np.testing.assert_allclose(half, whole / 2, rtol=1e-4, atol=1e-6)
    assert np.abs(whole).max() > 0.1 and np.abs(shut).max() < 1e-6


def test_errors_say_what_to_do(evaluate_shapes):
    assert evaluate_shapes(tiny(), 4)[0].shape == (2, 5)
    with pytest.raises(ValueError, match="at least 4x4, got 3x3"):
        evaluate_shapes(tiny(), 3)
    with pytest.raises(ValueError, match="width_factor above 0, got 0"):
        evaluate_shapes(tiny(width_factor=0), 32)
    with pytest.raises(ValueError, match="num_classes of at least 1, got 0"):
        evaluate_shapes(tiny(num_classes=0), 32)
