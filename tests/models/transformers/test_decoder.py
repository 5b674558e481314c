"""Decoders: a loop or layers, causality, windows, padding, types, configurations, errors; values: test_golden.py."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import lrp, models
from jxai.models.transformers.decoder_config import FULL, SLIDING

WATCHED = ("", "/attention/context", "/attention/weights", "/mlp/neurons")
LLAMA = {
    "model_type": "llama",
    "vocab_size": 7,
    "hidden_size": 8,
    "intermediate_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def explained(found):
    """Scores of the target, relevance of the embeddings, and of what is inside by layer."""
    target, layers = int(found.arrays["target"]), found.module.config.num_hidden_layers
    paths = ["layers"] if found.module.scan else [f"layer{index}" for index in range(layers)]

    def run(variables, x):
        y, pullback = lrp.vjp(
            lambda x: found.scores(variables, x)[:, target],
            x,
            composite=lrp.AttnLRP(),
            watch=[path + inside for path in paths for inside in WATCHED],
        )
        return y, *pullback(y)

    y, (relevance,), inside = jax.jit(run)(found.variables, found.x.astype(np.float32))
    if found.module.scan:
        return y, relevance, [inside["layers" + name] for name in WATCHED]
    return y, relevance, [np.stack([inside[path + name] for path in paths]) for name in WATCHED]


def compare(archive, name, *variants):
    expected = explained(archive(name, scan=False))
    for options in variants:
        found = explained(archive(name, **options))
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_a_loop_and_layers_give_the_same_scores_and_relevance(archive):
    compare(archive, "llama", {"scan": True})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gemma3"])  # layers alike, and of two types
def test_so_do_layers_that_are_computed_again(archive, name):
    compare(archive, name, {"scan": True}, {"scan": True, "remat": True}, {"scan": False, "remat": True})


def test_gradients_of_parameters_are_the_same_with_remat(archive):
    plain, again = archive("qwen3"), archive("qwen3", remat=True)

    def gradient(found):
        return jax.jit(jax.grad(lambda v: found.scores(v, found.x.astype(np.float32)).sum()))(found.variables)

    for one, other in zip(*map(jax.tree.leaves, (gradient(plain), gradient(again))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_no_token_sees_a_later_one(archive, name):
    found = archive(name)
    x = found.x.astype(np.float32)
    encode = jax.jit(lambda x: found.module.apply(found.variables, x, method="encode"))
    changed = x.copy()
    changed[:, -1] *= -1
    before, after = encode(x), encode(changed)
    np.testing.assert_array_equal(before[:, :-1], after[:, :-1])
    assert np.abs(before[:, -1] - after[:, -1]).max() > 1e-3


def test_a_window_hides_what_is_farther_back():
    config = models.DecoderConfig.from_json(
        {**LLAMA, "model_type": "mistral", "num_hidden_layers": 1, "sliding_window": 3}
    )
    assert config.layer_types == (SLIDING,)
    module = models.Decoder(config)
    ids = np.arange(6, dtype=np.int32)[None]
    variables = jax.jit(module.init)(jax.random.key(0), ids)
    x = module.apply(variables, ids, method="embed")
    reach = jax.jit(jax.jacobian(lambda x: module.apply(variables, x, method="encode")[0].sum(-1)))(x)[:, 0]
    seen = np.abs(reach).sum(-1) > 0
    np.testing.assert_array_equal(seen, [[0 <= i - j < 3 for j in range(6)] for i in range(6)])


def test_padding_changes_no_token_that_is_there(archive):
    # On the right, so that positions stay.
    found = archive("qwen2")
    apply = jax.jit(lambda ids, mask: found.module.apply(found.variables, ids, mask))
    ids = np.asarray(found.arrays["ids"])
    padded = np.concatenate([ids, ids[:, :3]], axis=1)
    mask = np.arange(padded.shape[1])[None] < ids.shape[1]
    np.testing.assert_allclose(apply(padded, mask)[:, : ids.shape[1]], apply(ids, None), rtol=1e-4, atol=1e-5)
    # On the left, nothing of what is hidden arrives.
    hidden = ~mask[:, ::-1]
    other = np.where(hidden, padded, 0)
    np.testing.assert_array_equal(apply(padded, hidden)[hidden], apply(other, hidden)[hidden])


def test_weights_of_bfloat16_are_computed_with_in_float32(archive):
    found = archive("llama")
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), found.variables)
    widened = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rounded)
    apply = jax.jit(lambda variables: found.module.apply(variables, found.arrays["ids"]))
    y = apply(rounded)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, apply(widened), rtol=1e-4, atol=1e-5)


def test_configurations_of_the_families():
    read = models.DecoderConfig.from_json
    assert read(LLAMA).head_dim == 4 and read(LLAMA).layer_types == (FULL, FULL)
    assert read({**LLAMA, "model_type": "qwen2"}).attention_bias
    assert not read({**LLAMA, "model_type": "qwen2"}).attention_out_bias
    assert read({**LLAMA, "attention_bias": True}).attention_out_bias
    qwen = read({**LLAMA, "model_type": "qwen3"})
    assert qwen.qk_norm and qwen.head_dim == 128
    gemma = {
        **LLAMA,
        "model_type": "gemma3_text",
        "head_dim": 4,
        "num_key_value_heads": 1,
        "num_hidden_layers": 12,
    }
    found = read(gemma)
    assert found.layer_types == ((SLIDING,) * 5 + (FULL,)) * 2 and found.tie_word_embeddings
    assert (found.rope_theta, found.rope_local_base_freq, found.query_pre_attn_scalar) == (1e6, 1e4, 256)
    # transformers 5 writes RoPE an object for each type of block; models of pictures and text hold a text model.
    rope = {
        FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
        SLIDING: {"rope_type": "default", "rope_theta": 1e3},
    }
    nested = {"model_type": "gemma3", "text_config": {**gemma, "rope_parameters": rope}}
    found = read(nested)
    assert (found.rope_theta, found.rope_local_base_freq, found.rope_scaling.factor) == (5e5, 1e3, 8.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "mamba"}, "expected model_type among llama, mistral"),
        ({"hidden_size": None}, "expected hidden_size of at least 1, got None"),
        ({"num_attention_heads": 0}, "expected num_attention_heads of at least 1, got 0"),
        ({"num_key_value_heads": 3}, "as a multiple of num_key_value_heads 3, got 2"),
        ({"head_dim": 3}, "expected an even head_dim, got 3"),
        ({"hidden_act": "mish"}, "expected hidden_act among gelu"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "expected a rope_scaling of default, linear",
        ),
        ({"partial_rotary_factor": 0.5}, "expected partial_rotary_factor 1.0, got 0.5"),
        ({"layer_types": ["full_attention"]}, "expected 2 layer_types, one for each block, got 1"),
        ({"layer_types": ["linear_attention"] * 2}, "expected layer_types among full_attention"),
    ],
)
def test_configurations_that_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        models.DecoderConfig.from_json({**LLAMA, **changed})
    with pytest.raises(ValueError, match="expected vocab_size in the configuration, got none"):
        models.DecoderConfig.from_json({k: v for k, v in LLAMA.items() if k != "vocab_size"})


def test_prompts_that_are_refused():
    config = dataclasses.replace(models.DecoderConfig.from_json(LLAMA), max_position_embeddings=4)
    module = models.Decoder(config)
    ids = np.zeros((1, 4), np.int32)
    variables = jax.jit(module.init)(jax.random.key(0), ids)
    for wrong, message in (
        (
            np.zeros((1, 5), np.int32),
            "expected at most 4 tokens, the model's context, got 5: shorten the prompt",
        ),
        (np.zeros((1, 0), np.int32), "with at least one token, got shape (1, 0): the prompt is empty"),
        (ids[0], "expected tokens (N, T), got shape (4,): one sequence is x[None]"),
        (ids + 7, "expected tokens from 0 to 6, got 7 to 7: take the tokenizer of this model"),
        (ids - 1, "expected tokens from 0 to 6, got -1 to -1"),
        (ids.astype(float), "expected tokens as an array of integers (N, T)"),
    ):
        with pytest.raises(ValueError) as raised:
            module.apply(variables, wrong)
        assert message in str(raised.value)
    x = module.apply(variables, ids, method="embed")
    with pytest.raises(ValueError, match="expected at most 4 tokens"):
        module.apply(variables, jnp.concatenate([x, x], 1), method="encode")
    with pytest.raises(ValueError, match="of 8 channels, got 4"):
        module.apply(variables, x[..., :4], method="encode")
    with pytest.raises(ValueError, match=r"expected a mask of shape \(1, 4\), got \(1, 3\)"):
        module.apply(variables, x, np.ones((1, 3), bool), method="encode")


def test_a_token_that_nobody_can_look_at_makes_its_sequence_nan():
    module = models.Decoder(models.DecoderConfig.from_json(LLAMA))
    ids = np.array([[0, 1, 7, 2], [0, 1, 6, 2]], np.int32)
    variables = jax.jit(module.init)(jax.random.key(0), ids)
    found = jax.jit(module.apply)(variables, ids)
    assert np.isnan(found[0, 2:]).all() and np.isfinite(found[1]).all()
