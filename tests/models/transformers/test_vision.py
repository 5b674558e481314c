"""Vision Transformer: parameters as published, tokens and positions, both modes, errors."""

import jax
import numpy as np
import pytest

from jxai import models
from jxai.models.transformers.block import TransformerBlock
from jxai.models.transformers.vision import VisionTransformer, cubic_weights


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


def test_a_loop_and_layers_are_the_same(archive):
    one, other = archive("vit", scan=True), archive("vit", scan=False)
    x = one.x.astype(np.float32)
    y = jax.jit(one.scores)(one.variables, x)
    np.testing.assert_allclose(y, jax.jit(other.scores)(other.variables, x), rtol=1e-5, atol=1e-5)
    assert "layers" in one.variables["params"] and "layer1" in other.variables["params"]


def test_torchvision_s_file(golden, archive, tmp_path):
    with np.load(golden / "lxt_vit.npz") as file:
        tensors = {name[2:]: file[name] for name in file.files if name.startswith("w:")}
        expected, x = file["y"], file["x"].transpose(1, 2, 0)[None].astype(np.float32)
    path = tmp_path / "vit.npz"
    # The published files have older names of the MLP, and a training's checkpoint a prefix.
    older = {
        "module." + name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
        for name, value in tensors.items()
    }
    for given in (tensors, older):
        np.savez(path, **given)
        for scan in (True, False):
            model = VisionTransformer(5, 4, 32, 2, 4, 48, scan=scan)
            variables, report = models.load_pretrained(model, path, image_size=12)
            y = model.apply(variables, x, train=False)
            np.testing.assert_allclose(y[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
            assert not report.left_over and len(report.mapped) == len(tensors) + 2 * 2 * 2
    np.savez(path, **tensors, extra=np.ones(3))
    with pytest.raises(
        ValueError, match=r"expected a file of VisionTransformer alone, got 1 \(extra\) left over"
    ):
        models.load_pretrained(VisionTransformer(5, 4, 32, 2, 4, 48), path, image_size=12)
    with pytest.raises(ValueError, match="a tensor for every variable of VisionTransformer, got none for 16"):
        models.load_pretrained(VisionTransformer(5, 4, 32, 3, 4, 48), path, image_size=12)


def test_registers_stand_behind_the_class_token_and_have_no_position(draw_variables):
    model = tiny(num_registers=2, layer_scale=True, pooling="class and mean", position_grid=4)
    x = np.random.default_rng(3).normal(size=(1, 32, 32, 3)).astype(np.float32)
    variables = draw_variables(model, x, train=False)
    shapes = jax.tree.map(np.shape, variables["params"])
    assert shapes["registers"] == (1, 2, 6) and shapes["positions"] == (1, 17, 6)
    assert shapes["head"]["kernel"] == (12, 5) and shapes["layer0"]["scale1"]["scale"] == (6,)
    hidden = model.apply(variables, x, method="encode")
    assert hidden.shape == (1, 1 + 2 + 16, 6)
    pooled = np.concatenate([hidden[:, 0], hidden[:, 3:].mean(1)], 1)
    head = variables["params"]["head"]
    expected = pooled @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(model.apply(variables, x), expected, rtol=1e-4, atol=1e-5)
    # Positions that were learned for one grid are there for images of other sizes.
    larger = np.random.default_rng(4).normal(size=(1, 48, 64, 3)).astype(np.float32)
    assert model.apply(variables, larger, method="encode").shape == (1, 3 + 48, 6)
    assert tiny(num_classes=None).apply(draw_variables(tiny(num_classes=None), x), x).shape == (1, 17, 6)


def test_interpolation_keeps_what_is_flat_or_linear():
    weights = cubic_weights(37, 16)
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(cubic_weights(7, 7), np.eye(7), atol=1e-12)
    # Keys' own coefficient is exact on lines away from the edges, PyTorch's is near.
    for coefficient, error in ((-0.5, 1e-12), (-0.75, 0.09)):
        up = cubic_weights(6, 24, coefficient=coefficient) @ np.arange(6.0)
        np.testing.assert_allclose(np.diff(up[8:16]), 0.25, atol=error)


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
