"""Folders of Hugging Face, written here of the golden archives' weights: shards, reports, tokenizers, errors."""

import json
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jxai import models


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = np.ascontiguousarray(tensor).tobytes()
        kind = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[tensor.dtype.name]
        header[name] = {
            "dtype": kind,
            "shape": tensor.shape,
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def archive(golden: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The configuration with its family, the tensors, and the rest of a golden archive."""
    with np.load(golden / f"lxt_{name}.npz") as file:
        arrays = dict(file)
    config = json.loads(str(arrays.pop("config"))) | {"model_type": name}
    return config, {key[2:]: arrays.pop(key) for key in list(arrays) if key.startswith("w:")}, arrays


def write(folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray], *, shards: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return folder
    places = {name: f"model-{i % shards}.safetensors" for i, name in enumerate(tensors)}
    for file in set(places.values()):
        write_safetensors(folder / file, {name: tensors[name] for name in tensors if places[name] == file})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def write_tokenizer(folder: Path, words: int) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {f"w{i}": i for i in range(words)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_folder_in_shards_gives_the_golden_scores_and_reports_every_tensor(golden, tmp_path, name):
    config, tensors, arrays = archive(golden, name)
    extra = {"rotary.inv_freq": np.ones(2, np.float32)}
    write(tmp_path, config, tensors | extra, shards=3)
    model = models.load_transformer(tmp_path)
    found = np.asarray(model(arrays["ids"]))[0, -1]
    np.testing.assert_allclose(found, arrays["y"], rtol=0, atol=1e-5 * np.abs(arrays["y"]).max())
    assert (
        model.report.left_over == ("rotary.inv_freq",)
        and not model.report.missing
        and model.tokenizer is None
    )
    taken = {re.sub(r"\[(query|key|value)\]", "", tensor) for _, tensor in model.report.mapped}
    assert taken == set(tensors)
    variables = {variable for variable, _ in model.report.mapped}
    assert "params/layers/attention/query/kernel[1]" in variables
    assert "params/layer1/attention/query/kernel" in {
        variable for variable, _ in models.load_transformer(tmp_path, scan=False).report.mapped
    }


def test_names_without_the_prefix_and_a_head_that_is_not_there(golden, tmp_path):
    config, tensors, arrays = archive(golden, "bert")
    stripped = {name.removeprefix("bert."): value for name, value in tensors.items()}
    model = models.load_transformer(write(tmp_path, config, stripped))
    np.testing.assert_allclose(
        model(arrays["ids"], arrays["mask"], arrays["types"])[0], arrays["y"], rtol=0, atol=1e-4
    )
    encoder = {
        name: value for name, value in stripped.items() if not name.startswith(("pooler", "classifier"))
    }
    model = models.load_transformer(write(tmp_path, config, encoder))
    hidden = model(arrays["ids"])
    assert hidden.shape == (1, 7, 32) and not model.module.config.pooler
    for method in ("pool", "classify"):
        with pytest.raises(ValueError, match=r"expected a model with .*, got one without: take"):
            model.apply(hidden, method=method)


def test_types_of_the_weights(golden, tmp_path):
    config, tensors, _ = archive(golden, "llama")
    write(tmp_path, config, {name: value.astype(jnp.bfloat16) for name, value in tensors.items()})

    def types(**options):
        return {
            leaf.dtype.name for _, leaf in _leaves(models.load_transformer(tmp_path, **options).variables)
        }

    assert types() == {"bfloat16"} and types(dtype="float32") == {"float32"}
    # Relevance over an activation leaves the range of float16.
    write(tmp_path, config, {name: value.astype(np.float16) for name, value in tensors.items()})
    assert types() == {"float32"} and types(dtype=jnp.bfloat16) == {"bfloat16"}
    with pytest.raises(ValueError, match="expected dtype float32, bfloat16 or float64, got 'float16'"):
        models.load_transformer(tmp_path, dtype="float16")


def _leaves(tree):
    import jax

    return jax.tree_util.tree_leaves_with_path(tree)


def test_a_tokenizer_and_one_of_another_vocabulary(golden, tmp_path):
    config, tensors, _ = archive(golden, "llama")
    write(tmp_path, config, tensors)
    write_tokenizer(tmp_path, 19)
    model = models.load_transformer(tmp_path)
    assert model.tokenizer.encode("w3 w18 w0").ids == [3, 18, 0]
    write_tokenizer(tmp_path, 20)
    with pytest.raises(
        ValueError, match=r"expected a tokenizer of at most 19 tokens, .* got one of 20: take this"
    ):
        models.load_transformer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"expected a tokenizer, got .*tokenizer\.json"):
        models.load_transformer(tmp_path)


def test_what_is_missing_or_wrong_is_named(golden, tmp_path):
    config, tensors, _ = archive(golden, "llama")
    with pytest.raises(
        FileNotFoundError, match=r"expected a folder of Hugging Face or a \.gguf file, got .*none"
    ):
        models.load_transformer(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"expected config\.json in "):
        models.load_transformer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileNotFoundError, match=r"expected model\.safetensors or pytorch_model\.bin in "):
        models.load_transformer(tmp_path)

    write(tmp_path, config, tensors, shards=3)
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(ValueError, match=r"expected 3 shards in .*, got 2: model-1\.safetensors is missing"):
        models.load_transformer(tmp_path)
    write_safetensors(tmp_path / "model-1.safetensors", {})
    with pytest.raises(ValueError, match=r"expected the tensors of .* in its shards, got none for 7"):
        models.load_transformer(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    for wrong in (
        {},
        {"weight_map": {}},
        {"weight_map": {"a": "../a.safetensors"}},
        {"weight_map": {"a": 3}},
    ):
        index.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match="expected a weight_map of files in "):
            models.load_transformer(tmp_path)


def test_a_configuration_of_another_model(golden, tmp_path):
    config, tensors, _ = archive(golden, "llama")

    def told(changed, tensors=tensors):
        write(tmp_path, changed, tensors)
        with pytest.raises(ValueError) as raised:
            models.load_transformer(tmp_path)
        return str(raised.value)

    message = told(config | {"model_type": "mamba"})
    assert (
        message.startswith("expected a model of llama, mistral, qwen2")
        and "got model_type 'mamba'" in message
    )
    assert "add it to FAMILIES in jxai/models/huggingface.py" in message
    assert "got model_type None" in told({})
    message = told(config | {"num_hidden_layers": 3})
    assert "got none for 9" in message and "model.layers.2.self_attn.k_proj.weight" in message
    message = told(config | {"intermediate_size": 47})
    assert "expected a tensor of shape (48, 32) for" not in message and "(47, 32)" in message
    lost = {name: value for name, value in tensors.items() if "lm_head" not in name}
    assert "got none for 1 in" in told(config, lost) and "(lm_head.weight)" in told(config, lost)
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(ValueError, match="expected JSON, got "):
        models.load_transformer(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="expected an object in "):
        models.load_transformer(tmp_path)
