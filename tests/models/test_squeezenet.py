"""SqueezeNet: parameters as published, pooling of even sides, both modes, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai.models.squeezenet import Fire, SqueezeNet, _max_pool_3x3


def tiny(**options):
    return SqueezeNet(**{"num_classes": 5, "stem_width": 6, "stages": (((2, 3),), ((3, 4),)), **options})


def test_parameters_as_published(count_parameters):
    assert count_parameters(SqueezeNet()) == 1_235_496


def test_scores_at_full_size(evaluate_shapes):
    scores, variables = evaluate_shapes(SqueezeNet(), 224)
    assert scores.shape == (2, 1000)
    assert [name for name in sorted(variables["params"]) if "fire" in name] == [f"fire{i}" for i in range(8)]


@pytest.mark.parametrize(("side", "pooled"), [(2, 1), (3, 1), (4, 2), (5, 2), (111, 55)])
def test_an_even_side_ends_in_a_short_window(side, pooled):
    # Values grow along both axes, so each window's end wins; all are negative, so padding with zeros would win.
    ramp = jnp.arange(side**2, dtype=jnp.float32).reshape(1, side, side, 1) - 2 * side**2
    got = _max_pool_3x3(ramp)
    ends = np.minimum(2 * np.arange(pooled) + 2, side - 1)
    np.testing.assert_array_equal(got[0, :, :, 0], np.asarray(ramp)[0, :, :, 0][np.ix_(ends, ends)])


def test_fire_is_two_convolutions_of_one_squeezed_map(draw_variables):
    module = Fire(2, 3)
    x = np.random.default_rng(3).normal(size=(2, 5, 5, 4)).astype(np.float32)
    params = draw_variables(module, x)["params"]
    got = jax.jit(lambda x: module.apply({"params": params}, x))(x)
    assert got.shape == (2, 5, 5, 6) and (np.asarray(got) >= 0).all()

    def pointwise(x, name):
        return np.maximum(x @ params[name]["kernel"][0, 0] + params[name]["bias"], 0)

    want = pointwise(pointwise(x, "squeeze_conv"), "expand1")
    np.testing.assert_allclose(got[..., :3], want, rtol=1e-5, atol=1e-6)
    assert params["expand3"]["kernel"].shape == (3, 3, 2, 3)


def test_features_are_dropped_in_training_alone(run_both_modes):
    variables, scores, trained, changed = run_both_modes(tiny(), 32)
    assert scores.shape == trained.shape == (3, 5) and set(variables) == {"params"} and not changed
    assert np.isfinite(scores).all() and np.asarray(scores).max() > 0 and not np.allclose(scores, trained)


def test_smallest_image_is_exact(evaluate_shapes):
    assert SqueezeNet().smallest_image == 17
    assert evaluate_shapes(SqueezeNet(), 17)[0].shape == (2, 1000)
    with pytest.raises(ValueError, match="at least 17x17, got 16x16"):
        evaluate_shapes(SqueezeNet(), 16)


def test_no_classes(evaluate_shapes):
    with pytest.raises(ValueError, match="num_classes of at least 1, got 0"):
        evaluate_shapes(tiny(num_classes=0), 32)
