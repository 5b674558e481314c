"""Every family against transformers: tiny random models, which `save_pretrained` writes and we read."""

import jax
import numpy as np
import pytest

from jxai import models

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # theirs

SIZES = {
    "vocab_size": 31,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "patch_size": 4,
    "image_size": 20,
    "initializer_range": 0.3,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
# Name -> classes of the configuration and the model, and the configuration's arguments.
DECODERS = {
    "llama": ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama3": ("Llama", {"rope_scaling": LLAMA3, "head_dim": 16}),
    "linear": ("Llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "yarn": ("Qwen2", {"rope_scaling": YARN, "rope_theta": 1e3}),
    "mistral": ("Mistral", {"sliding_window": 5}),
    # transformers 4.52's eager attention gives every layer the window, not only those from max_window_layers on.
    "qwen2": ("Qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}),
    "qwen3": ("Qwen3", {"head_dim": 12}),
    "gemma3": (
        "Gemma3Text",
        {
            "head_dim": 8,
            "sliding_window": 4,
            "sliding_window_pattern": 2,
            "query_pre_attn_scalar": 24,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ),
}


def saved(model, folder):
    """A model in evaluation, whose biases and norms are no zeros and ones, in a folder."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder, max_shard_size="20KB")
    return model


def drawn(shape, high):
    return np.random.default_rng(1).integers(0, high, shape).astype(np.int32)


@pytest.mark.parametrize("name", DECODERS)
def test_language_models(name, tmp_path):
    kind, options = DECODERS[name]
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **options}, attn_implementation="eager")
    causal = kind.replace("Gemma3Text", "Gemma3")
    model = saved(getattr(transformers, f"{causal}ForCausalLM")(config), tmp_path)
    ids, mask = drawn((2, 11), 31), np.ones((2, 11), bool)
    mask[1, :3] = False  # padding on the left
    with torch.no_grad():
        expected = model(torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long()).logits.numpy()
    loaded = models.load_transformer(tmp_path)
    assert not loaded.report.missing and not loaded.report.left_over
    found = np.asarray(jax.jit(lambda model, ids, mask: model(ids, mask))(loaded, ids, mask))
    np.testing.assert_allclose(found[mask], expected[mask], rtol=0, atol=1e-4 * np.abs(expected).max())


def test_gpt2(tmp_path):
    config = transformers.GPT2Config(
        vocab_size=31, n_embd=32, n_layer=3, n_head=4, n_positions=40, initializer_range=0.3
    )
    model = saved(transformers.GPT2LMHeadModel(config), tmp_path)
    ids = drawn((2, 9), 31)
    with torch.no_grad():
        expected = model(torch.tensor(ids).long()).logits.numpy()
    found = models.load_transformer(tmp_path)(ids)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("labels", [None, 3])
def test_bert(labels, tmp_path):
    sizes = {name: value for name, value in SIZES.items() if name != "num_key_value_heads"}
    config = transformers.BertConfig(**sizes, **({"num_labels": labels} if labels else {}))
    kind = transformers.BertForSequenceClassification if labels else transformers.BertModel
    model = saved(kind(config), tmp_path)
    ids, types, mask = drawn((2, 9), 31), drawn((2, 9), 2), np.ones((2, 9), bool)
    mask[0, 6:] = False
    given = [torch.tensor(one).long() for one in (ids, mask, types)]
    with torch.no_grad():
        result = model(given[0], attention_mask=given[1], token_type_ids=given[2])
    expected = (result.logits if labels else result.pooler_output).numpy()
    found = models.load_transformer(tmp_path)(ids, mask, types)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["ViT", "Dinov2", "Dinov2WithRegisters"])
def test_vision(kind, tmp_path):
    options = dict(VISION)
    if kind != "ViT":
        options["mlp_ratio"] = 2
        del options["intermediate_size"]
    config = getattr(transformers, f"{kind}Config")(**options, num_labels=3)
    model = saved(getattr(transformers, f"{kind}ForImageClassification")(config), tmp_path)
    # Images of other sizes have their positions interpolated.
    for side in (20, 32) if kind == "Dinov2" else (20,):
        x = np.random.default_rng(2).normal(size=(2, side, side, 3)).astype(np.float32)
        with torch.no_grad():
            expected = model(torch.tensor(x.transpose(0, 3, 1, 2))).logits.numpy()
        loaded = models.load_transformer(tmp_path)
        np.testing.assert_allclose(loaded(x), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
