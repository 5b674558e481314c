"""Every entry of every family's config.json as nobody should write it: an answer, or a clear error."""

import numpy as np
import pytest

from jxai.models.huggingface import FAMILIES

SIZES = {
    "vocab_size": 7,
    "hidden_size": 8,
    "intermediate_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
DECODER = {
    **SIZES,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8},
    "rope_parameters": {"rope_theta": 1e4},
    "hidden_act": "silu",
    "hidden_activation": "gelu",
    "sliding_window": 4,
    "sliding_window_pattern": 2,
    "max_window_layers": 1,
    "use_sliding_window": True,
    "layer_types": ["full_attention", "sliding_attention"],
    "query_pre_attn_scalar": 4,
    "rope_local_base_freq": 100.0,
    "attention_bias": False,
    "tie_word_embeddings": True,
}
BERT = {**SIZES, "type_vocab_size": 2, "layer_norm_eps": 1e-6, "num_labels": 2, "id2label": {"0": "a"}}
GPT2 = {"vocab_size": 7, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_inner": 4, "n_positions": 8}
VISION = {
    **SIZES,
    "patch_size": 2,
    "image_size": 8,
    "mlp_ratio": 2,
    "num_register_tokens": 2,
    "layer_norm_eps": 1e-6,
}
CONFIGS = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma3", "gemma3_text"), DECODER),
    "bert": {**BERT, "architectures": ["BertForSequenceClassification"], "hidden_act": "gelu"},
    "gpt2": {**GPT2, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-6},
    **dict.fromkeys(("vit", "dinov2", "dinov2_with_registers"), VISION),
}
STRANGE = (
    None,
    -1,
    0,
    2.5,
    10**30,
    float("nan"),
    float("inf"),
    "text",
    "",
    [],
    {},
    [1],
    {"a": 1},
    True,
    [None],
    ["text"],
)


def read(family, config):
    """What the family's configuration says, and what its module makes of it."""
    one = FAMILIES[family]
    found = one.config({"model_type": family, **config}, {"classifier.weight": np.ones((3, 8))})
    hash(found) if not isinstance(found, dict) else None
    return one.module(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_strange_entry_is_an_answer_or_a_clear_error(family):
    config = CONFIGS[family]
    assert read(family, config) is not None
    cases = [{**config, name: value} for name in config for value in STRANGE]
    cases += [{key: value for key, value in config.items() if key != name} for name in config]
    scaling = config.get("rope_scaling", {})
    cases += [
        {**config, "rope_scaling": {**scaling, name: value}}
        for name in (*scaling, "mscale", "mscale_all_dim", "attention_factor", "beta_fast", "low_freq_factor")
        for value in STRANGE
        if scaling
    ]
    if family.startswith("gemma"):
        cases += [{**config, "text_config": value} for value in STRANGE]
        cases += [
            {**config, "rope_parameters": {"full_attention": a, "sliding_attention": a}} for a in STRANGE
        ]
    wrong = []
    for case in cases:
        try:
            read(family, case)
        except ValueError as error:
            if not str(error).startswith("expected ") or ", got " not in str(error):
                wrong.append((case, repr(error)))
        except Exception as error:
            changed = {k: v for k, v in case.items() if config.get(k, ...) is not v}
            wrong.append((changed, repr(error)))
    assert not wrong, wrong[:8]
