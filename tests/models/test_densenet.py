"""DenseNet: parameters as published, what a layer appends, both modes, errors."""

import jax
import numpy as np
import pytest

from jxai.models.densenet import DenseLayer, DenseNet, DenseNet121


def tiny(**options):
    return DenseNet(
        **{"num_classes": 5, "stage_sizes": (2, 1), "growth": 2, "bottleneck": 2, "stem_width": 4, **options}
    )


def test_parameters_as_published(count_parameters):
    assert count_parameters(DenseNet121()) == 7_978_856


def test_scores_and_channels_at_full_size(evaluate_shapes):
    scores, variables = evaluate_shapes(DenseNet121(), 224)
    assert scores.shape == (2, 1000)
    assert variables["params"]["transition1_conv"]["kernel"].shape == (1, 1, 256, 128)
    assert variables["params"]["head"]["kernel"].shape == (1024, 1000)


def test_layer_keeps_its_input_and_appends(draw_variables):
    module = DenseLayer(growth=3, bottleneck=2)
    x = np.random.default_rng(3).normal(size=(2, 6, 6, 5)).astype(np.float32)
    variables = draw_variables(module, x, train=False)
    got = jax.jit(lambda x: module.apply(variables, x, train=False))(x)
    assert got.shape == (2, 6, 6, 8)
    np.testing.assert_array_equal(got[..., :5], x)
    assert variables["params"]["conv1"]["kernel"].shape == (1, 1, 5, 6)
    assert variables["params"]["conv2"]["kernel"].shape == (3, 3, 6, 3)


def test_training_updates_every_statistic(run_both_modes):
    variables, scores, trained, changed = run_both_modes(tiny(), 32)
    assert scores.shape == trained.shape == (3, 5)
    assert np.isfinite(scores).all() and not np.allclose(scores, trained)
    before, after = jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(changed["batch_stats"])
    assert len(before) == len(after) == 2 * (1 + 3 * 2 + 1 + 1)
    assert not any(np.allclose(a, b) for a, b in zip(before, after, strict=True))


def test_errors_say_what_to_do(evaluate_shapes):
    assert evaluate_shapes(tiny(), 8)[0].shape == (2, 5)
    with pytest.raises(ValueError, match="at least 8x8, got 7x7"):
        evaluate_shapes(tiny(), 7)
    with pytest.raises(ValueError, match="num_classes of at least 1, got 0"):
        evaluate_shapes(tiny(num_classes=0), 32)
