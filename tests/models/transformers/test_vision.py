"""Vision Transformer: parameters as published, tokens and positions, both modes, errors."""

import jax
import numpy as np
import pytest

from jxai.models.transformers.vision import TransformerBlock, VisionTransformer


def tiny(**options):
    return VisionTransformer(
        **{
            "num_classes": 5,
            "patch_size": 8,
            "width": 6,
            "depth": 2,
            "num_heads": 2,
            "mlp_width": 10,
            **options,
        }
    )


@pytest.mark.parametrize(
    ("module", "parameters"),
    [
        (VisionTransformer(), 5_717_416),
        (VisionTransformer(width=768, num_heads=12, mlp_width=3072), 86_567_656),  # ViT-B/16
    ],
)
def test_parameters_as_published(count_parameters, module, parameters):
    assert count_parameters(module) == parameters


def test_scores_and_tokens_at_full_size(evaluate_shapes):
    scores, variables = evaluate_shapes(VisionTransformer(), 224)
    assert scores.shape == (2, 1000)
    assert variables["params"]["positions"].shape == (1, 14 * 14 + 1, 192)


def test_training_changes_nothing(run_both_modes):
    variables, scores, trained, changed = run_both_modes(tiny(), 32)
    assert scores.shape == (3, 5) and np.isfinite(scores).all() and np.abs(scores).max() > 0
    assert set(variables) == {"params"} and not changed
    np.testing.assert_allclose(scores, trained, rtol=1e-5, atol=1e-6)


def test_order_of_patches_matters_through_positions_alone(draw_variables):
    x = np.random.default_rng(3).normal(size=(1, 32, 32, 3)).astype(np.float32)
    params = draw_variables(tiny(), x, train=False)["params"]
    moved = np.roll(x, 8, axis=2)  # by one patch
    forward = jax.jit(lambda params, x: tiny().apply({"params": params}, x, train=False))
    assert np.abs(forward(params, x) - forward(params, moved)).max() > 1e-4
    blind = {**params, "positions": np.zeros_like(params["positions"])}
    np.testing.assert_allclose(forward(blind, x), forward(blind, moved), rtol=1e-4, atol=1e-5)


def test_block_is_the_identity_once_its_last_layers_are_zero(draw_variables):
    # Pre-norm: nothing stands between one block's sum and the next block's input.
    block = TransformerBlock(num_heads=2, mlp_width=5)
    x = np.random.default_rng(3).normal(size=(2, 7, 4)).astype(np.float32)
    params = draw_variables(block, x)["params"]
    forward = jax.jit(lambda params: block.apply({"params": params}, x))
    assert not np.allclose(forward(params), x)
    params = {
        **params,
        "attention": {**params["attention"], "out": jax.tree.map(np.zeros_like, params["attention"]["out"])},
        "mlp": {**params["mlp"], "down": jax.tree.map(np.zeros_like, params["mlp"]["down"])},
    }
    np.testing.assert_array_equal(forward(params), x)


def test_errors_say_what_to_do(evaluate_shapes):
    assert evaluate_shapes(tiny(), 8)[0].shape == (2, 5)
    with pytest.raises(ValueError, match="at least 8x8, got 7x7"):
        evaluate_shapes(tiny(), 7)
    with pytest.raises(ValueError, match="multiples of 8, got 36x36"):
        evaluate_shapes(tiny(), 36)
    with pytest.raises(ValueError, match="multiple of num_heads 4, got 6"):
        evaluate_shapes(tiny(num_heads=4), 32)
    with pytest.raises(ValueError, match="num_classes of at least 1, got 0"):
        evaluate_shapes(tiny(num_classes=0), 32)
