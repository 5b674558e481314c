"""VGG: parameters as published, shapes, both modes, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai.models.vgg import VGG, VGG16


def tiny(**options):
    return VGG(**{"num_classes": 5, "stage_sizes": (1, 2), "widths": (3, 4), "dense_widths": (6,), **options})


@pytest.mark.parametrize(("batch_norm", "parameters"), [(False, 138_357_544), (True, 138_365_992)])
def test_parameters_as_published(count_parameters, batch_norm, parameters):
    assert count_parameters(VGG16(batch_norm=batch_norm)) == parameters


def test_scores_and_first_dense_layer_at_full_size(evaluate_shapes):
    scores, variables = evaluate_shapes(VGG16(), 224)
    assert scores.shape == (2, 1000)
    assert variables["params"]["dense0"]["kernel"].shape == (7 * 7 * 512, 4096)
    assert "batch_stats" not in variables


def test_batch_norm_learns_statistics_in_training(run_both_modes):
    variables, scores, trained, changed = run_both_modes(tiny(batch_norm=True), 32)
    assert scores.shape == trained.shape == (3, 5)
    assert np.isfinite(scores).all() and not np.allclose(scores, trained)
    assert set(changed["batch_stats"]) == {"bn0", "bn1", "bn2"}
    for name, before in variables["batch_stats"].items():
        assert not np.allclose(before["mean"], changed["batch_stats"][name]["mean"])


def test_units_are_dropped_in_training_alone(run_both_modes):
    _, scores, trained, changed = run_both_modes(tiny(), 32)
    assert not np.allclose(scores, trained) and not changed
    _, scores, trained, _ = run_both_modes(tiny(dropout_rate=0.0), 32)
    np.testing.assert_allclose(scores, trained, rtol=1e-5, atol=1e-6)


def test_smallest_image_leaves_one_position(evaluate_shapes):
    _, variables = evaluate_shapes(tiny(), 4)
    assert variables["params"]["dense0"]["kernel"].shape == (4, 6)
    with pytest.raises(ValueError, match="at least 4x4, got 3x3"):
        evaluate_shapes(tiny(), 3)


def test_errors_say_what_to_do(evaluate_shapes):
    with pytest.raises(ValueError, match="a width for each of 2 stages"):
        evaluate_shapes(tiny(widths=(3,)), 32)
    with pytest.raises(ValueError, match="num_classes of at least 1, got 0"):
        evaluate_shapes(tiny(num_classes=0), 32)
    with pytest.raises(ValueError, match=r"\(N, H, W, C\)"):
        tiny().init(jax.random.key(0), jnp.zeros((32, 32, 3)), train=False)
