"""GGUF files, written here of the golden archives' weights: order of rows, quantization, tokenizer, errors."""

import numpy as np
import pytest
from test_huggingface import archive

from jxai import models
from jxai.models.gguf_file import halves

gguf = pytest.importorskip("gguf")
tokenizers = pytest.importorskip("tokenizers")

_PLACES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
_GEMMA = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def pairs(tensor, heads):
    """Rows as llama.cpp's converter orders them: channel i of a head beside channel i + D/2."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def write(path, name, config, tensors, *, quantization=None, tokenizer=(), **facts):
    """A file as llama.cpp's converter writes it."""
    gemma = name == "gemma3"
    writer = gguf.GGUFWriter(path, name)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
    if gemma:
        writer.add_sliding_window(config["sliding_window"])
    for key, value in facts.items():
        getattr(writer, key)(value)
    for method, value in tokenizer:
        getattr(writer, method)(value)
    places = {**_PLACES, **(_GEMMA if gemma else {})}
    for full, tensor in tensors.items():
        parts = full.split(".")
        layer = f"blk.{parts[2]}." if parts[1] == "layers" else ""
        place = "output" if parts[0] == "lm_head" else places[parts[-2]]
        if name == "llama" and place in ("attn_q", "attn_k"):
            key = "num_attention_heads" if place == "attn_q" else "num_key_value_heads"
            tensor = pairs(tensor, config[key])
        if gemma and "norm" in place:
            tensor = tensor + 1
        kind = (
            quantization if quantization is not None and tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
        )
        data = gguf.quants.quantize(tensor, kind)
        writer.add_tensor(f"{layer}{place}.{parts[-1]}", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# GGUF files of Gemma 3 have a global block after five, and its local ones have the base 10000: other archives differ.
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_a_file_gives_the_golden_scores(golden, tmp_path, name):
    config, tensors, arrays = archive(golden, name)
    model = models.load_transformer(write(tmp_path / "model.gguf", name, config, tensors))
    assert not model.report.left_over and not model.report.missing and model.tokenizer is None
    assert model.module.config.rms_norm_eps == config["rms_norm_eps"]
    found = np.asarray(model(arrays["ids"]))[0, -1]
    np.testing.assert_allclose(found, arrays["y"], rtol=0, atol=1e-5 * np.abs(arrays["y"]).max())


def test_gemma_as_a_folder_of_the_same_sizes(golden, tmp_path):
    config, tensors, arrays = archive(golden, "gemma3")
    own = config | {"sliding_window_pattern": 6, "rope_local_base_freq": 1e4}
    module, variables, _ = models.huggingface.FAMILIES["gemma3"].load(own, tensors)
    model = models.load_transformer(write(tmp_path / "model.gguf", "gemma3", config, tensors))
    assert not model.report.left_over
    expected = module.apply(variables, arrays["ids"])
    np.testing.assert_allclose(model(arrays["ids"]), expected, rtol=1e-4, atol=1e-5)


def test_rows_are_put_back():
    tensor = np.random.default_rng(0).normal(size=(24, 5))
    np.testing.assert_array_equal(halves(pairs(tensor, 3), 3), tensor)
    np.testing.assert_array_equal(halves(np.array([0, 2, 1, 3]), 1), [0, 1, 2, 3])


@pytest.mark.parametrize(
    "kind", ["Q4_1", *(pytest.param(k, marks=pytest.mark.slow) for k in ("Q8_0", "F16", "BF16"))]
)
def test_quantized_weights_are_near(golden, tmp_path, kind):
    config, tensors, _ = archive(golden, "llama")
    config = config | {"hidden_size": 32, "intermediate_size": 64}
    rng = np.random.default_rng(0)
    wide = {
        name: rng.normal(size=[64 if size == 48 else size for size in value.shape]).astype(np.float32)
        for name, value in tensors.items()
    }
    path = write(
        tmp_path / "model.gguf", "llama", config, wide, quantization=getattr(gguf.GGMLQuantizationType, kind)
    )
    model = models.load_transformer(path, scan=False)
    found = np.asarray(model.variables["params"]["layer1"]["mlp"]["down"]["kernel"])
    expected = wide["model.layers.1.mlp.down_proj.weight"].T
    assert found.dtype == np.float32
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < {"Q8_0": 0.01, "Q4_1": 0.15, "F16": 1e-3, "BF16": 1e-2}[kind]


def test_the_tokenizer_of_bytes_and_merges(golden, tmp_path):
    config, tensors, _ = archive(golden, "llama")
    tokens = ["<s>", "a", "b", "Ġ", "1", "2", "ab", "Ġa", "<x>", "12", *(f"w{i}" for i in range(9))]
    metadata = [
        ("add_tokenizer_model", "gpt2"),
        ("add_token_list", tokens),
        ("add_token_types", [3, *[1] * 7, 4, *[1] * 10]),
        ("add_token_merges", ["a b", "Ġ a", "1 2"]),
        ("add_bos_token_id", 0),
    ]

    def ids(text, *more):
        path = write(tmp_path / "model.gguf", "llama", config, tensors, tokenizer=[*metadata, *more])
        return models.load_transformer(path).tokenizer.encode(text).ids

    assert ids("<s>ab a<x>12") == [0, 6, 7, 8, 9]
    assert ids("ab", ("add_add_bos_token", True)) == [0, 6]
    assert ids("12 a", ("add_tokenizer_pre", "smollm")) == [4, 5, 7]  # each digit on its own
    assert ids("12 a", ("add_tokenizer_pre", "qwen2")) == [4, 5, 7]
    assert ids("12 a", ("add_tokenizer_pre", "llama-bpe")) == [9, 7]  # up to three
    with pytest.raises(
        ValueError, match=r"expected a tokenizer of byte pairs .*, got 'gpt2', 'tekken': take"
    ):
        ids("a", ("add_tokenizer_pre", "tekken"))


def test_what_is_not_read_is_named(golden, tmp_path):
    config, tensors, _ = archive(golden, "llama")
    path = tmp_path / "model.gguf"
    write(path, "mamba", config, tensors)
    with pytest.raises(ValueError, match=r"expected a GGUF file of llama, qwen2, qwen3, gemma3, got 'mamba'"):
        models.load_transformer(path)
    write(
        path, "llama", config, {name: value for name, value in tensors.items() if "layers.1.mlp" not in name}
    )
    with pytest.raises(ValueError, match=r"expected a tensor for every variable of Decoder, got none for 3"):
        models.load_transformer(path)
    write(path, "llama", config, tensors, add_rope_dimension_count=4)
    with pytest.raises(ValueError, match=r"expected rotary positions on all 8 channels of a head, got 4"):
        models.load_transformer(path)
    whole = path.read_bytes()
    for damaged in (b"", b"GGUF", whole[: len(whole) // 2], b"\0" + whole[1:]):
        path.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"expected a GGUF file, got .*it is damaged, or has a quantization"
        ):
            models.load_transformer(path)


def test_a_quantization_that_is_not_read(golden, tmp_path, monkeypatch):
    config, tensors, _ = archive(golden, "llama")
    path = write(tmp_path / "model.gguf", "llama", config, tensors)

    def refuse(data, kind):
        raise NotImplementedError(kind)

    monkeypatch.setattr(gguf.quants, "dequantize", refuse)
    with pytest.raises(
        ValueError, match=r"expected a quantization that the package gguf reads, got F32 for "
    ):
        models.load_transformer(path)
