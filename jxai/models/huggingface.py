"""Transformers from folders of Hugging Face (config.json, safetensors, tokenizer.json) and from GGUF files.

Nothing is downloaded, and nothing that a folder brings is run.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jxai import extras
from jxai.checks import as_path, check_choice, check_count, printable, reason, shown
from jxai.errors import InputError
from jxai.models.gguf_file import read_gguf
from jxai.models.loaded import Loaded
from jxai.models.transformers.config import refuse_others
from jxai.models.transformers.decoder import Decoder
from jxai.models.transformers.decoder_config import DecoderConfig
from jxai.models.transformers.encoder import Encoder, EncoderConfig
from jxai.models.transformers.filling import fill_transformer
from jxai.models.transformers.gpt2 import GPT2, GPT2Config
from jxai.models.transformers.names import (
    base_of,
    bert_names,
    decoder_names,
    gpt2_names,
    gpt2_tensors,
    vision_names,
    vision_tensors,
)
from jxai.models.transformers.vision import VisionTransformer
from jxai.models.weights import WeightsReport, read_weights

_CONFIG = "config.json"
_TOKENIZER = "tokenizer.json"
# Weights by the names that transformers gives them, what it prefers first; with ".index.json" they are in shards.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_TOKENS = jax.ShapeDtypeStruct((1, 1), jnp.int32)
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Family:
    """How the models of one `model_type` are read.

    Attributes:
        config: of config.json, and of the tensors where they say what it does not, to the module's configuration.
        module: the class; its fields are `config`, `scan` and `remat`.
        names: of the configuration and the tensors to each module's name in them.
        number: of the configuration to the number of layers.
        tensors: of the file's tensors to those of one module each.
        example: shape of what the module is called with.
    """

    config: Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], Any]
    module: Callable[..., nn.Module]
    names: Callable[[Any, Mapping[str, np.ndarray]], dict[str, str]]
    number: Callable[[Any], int]
    tensors: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] = lambda tensors: tensors
    example: Callable[[Any], jax.ShapeDtypeStruct] = lambda config: _TOKENS

    def load(
        self,
        config: Any,
        tensors: Mapping[str, np.ndarray],
        *,
        scan: bool = True,
        remat: bool = False,
        dtype: DTypeLike | None = None,
        source: str = "the file",
    ) -> tuple[nn.Module, dict[str, Any], WeightsReport]:
        """The module, its variables and what became of every tensor; `config` as JSON has it, or made already."""
        tensors = self.tensors(tensors)
        if isinstance(config, Mapping):
            config = self.config(config, tensors)
        module = self.module(config, scan=scan, remat=remat)
        variables, report = fill_transformer(
            module,
            tensors,
            modules=self.names(config, tensors),
            example=self.example(config),
            number=self.number(config),
            dtype=dtype,
            source=source,
        )
        return module, variables, report


def _bert_config(given: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> EncoderConfig:
    """A file may be of the encoder alone, without the layers above it that the configuration tells of."""
    base = base_of(tensors, "embeddings.word_embeddings.weight")
    config = EncoderConfig.from_json(given)
    if f"{base.removesuffix('bert.')}classifier.weight" not in tensors:
        config = dataclasses.replace(config, num_labels=0)
    if f"{base}pooler.dense.weight" not in tensors:
        config = dataclasses.replace(config, pooler=False, num_labels=0)
    return config


def _vision_config(given: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fields of a `VisionTransformer` for a config.json of ViT or DINOv2."""
    is_dino = given["model_type"] != "vit"
    refuse_others(given, use_swiglu_ffn=False, qkv_bias=True, hidden_act="gelu", num_channels=3)
    sizes = {name: given.get(name, default) for name, default in _VISION_SIZES.items()}
    patch = given.get("patch_size", 16)
    image = given.get("image_size", 224)
    for name, value in (*sizes.items(), ("patch_size", patch), ("image_size", image)):
        check_count(name, value)
    width = sizes["hidden_size"]
    mlp_width = given.get("mlp_ratio", 4) * width if is_dino else given.get("intermediate_size", 4 * width)
    head = tensors.get("classifier.weight")
    return {
        "num_classes": None if head is None or not head.ndim else head.shape[0],
        "patch_size": patch,
        "width": width,
        "depth": sizes["num_hidden_layers"],
        "num_heads": sizes["num_attention_heads"],
        "mlp_width": int(mlp_width),
        "epsilon": given.get("layer_norm_eps", 1e-6 if is_dino else 1e-12),
        "num_registers": given.get("num_register_tokens", 4) if "register" in given["model_type"] else 0,
        "layer_scale": is_dino,
        "position_grid": image // patch,
        "pooling": "class and mean" if is_dino else "class",
    }


_VISION_SIZES = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
_DECODER = Family(
    lambda given, tensors: DecoderConfig.from_json(given),
    Decoder,
    decoder_names,
    lambda config: config.num_hidden_layers,
)
_VISION = Family(
    _vision_config,
    lambda config, **options: VisionTransformer(**config, **options),
    vision_names,
    lambda config: config["depth"],
    vision_tensors,
    lambda config: jax.ShapeDtypeStruct((1, config["patch_size"], config["patch_size"], 3), jnp.float32),
)
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma3", "gemma3_text"), _DECODER),
    "bert": Family(_bert_config, Encoder, bert_names, lambda config: config.num_hidden_layers),
    "gpt2": Family(
        lambda given, tensors: GPT2Config.from_json(given),
        GPT2,
        gpt2_names,
        lambda config: config.n_layer,
        gpt2_tensors,
    ),
    **dict.fromkeys(("vit", "dinov2", "dinov2_with_registers"), _VISION),
}
"""`model_type` of config.json to how it is read."""


def load_transformer(
    path: str | os.PathLike[str],
    *,
    scan: bool = True,
    remat: bool = False,
    dtype: DTypeLike | None = None,
) -> Loaded:
    """A transformer with its weights and its tokenizer, of a folder as Hugging Face has them, or of a .gguf file.

    A folder holds config.json, model.safetensors (or shards of it with model.safetensors.index.json; or
    pytorch_model.bin, of which nothing is run), and tokenizer.json where the model reads text. A GGUF file holds all
    of that; quantized weights are dequantized to float32.

    Example:
        >>> model = load_transformer("SmolLM2-360M", dtype="bfloat16")  # doctest: +SKIP
        >>> scores = model(jnp.asarray([model.tokenizer.encode("The capital of France is").ids]))  # doctest: +SKIP

    Args:
        path: the folder or the file.
        scan: whether the layers are one loop, of which one is compiled; their parameters are stacked.
        remat: whether layers are computed again on the way back, which saves memory.
        dtype: of the weights, float32, bfloat16 or float64; by default as the file has them, float16 as float32.

    Returns:
        The model; its report names every tensor.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: a file is damaged or missing, a shard too; the configuration is of a family that is not known
            here; a tensor is missing or of another shape, or quantized in a way that is not read; or the
            tokenizer has more tokens than the model.
        TypeError: no path.
        ModuleNotFoundError: a package of `jxai[text]` is missing.
    """
    path = as_path("a folder or a .gguf file", path)
    for name, value in (("scan", scan), ("remat", remat)):
        check_choice(name, value, (True, False))
    dtype = _checked_dtype(dtype)
    options: dict[str, Any] = {"scan": scan, "remat": remat, "dtype": dtype}
    if os.path.isfile(path) and path.suffix.lower() == ".gguf":
        config, tensors, tokenizer = read_gguf(path)
        _check_vocabulary(tokenizer, config)
        module, variables, report = _DECODER.load(config, tensors, source=printable(path.name), **options)
        return Loaded(module, variables, tokenizer, report)
    if not os.path.isdir(path):
        raise FileNotFoundError(
            f"expected a folder of Hugging Face or a .gguf file, got {printable(path, 200)}: there is none"
        )
    given = _json(path / _CONFIG)
    family = FAMILIES.get(given["model_type"]) if isinstance(given.get("model_type"), str) else None
    if family is None:
        raise InputError(
            f"expected a model of {', '.join(FAMILIES)}, got model_type {shown(given.get('model_type'))} in "
            f"{printable(path.name)}/{_CONFIG}: write it as a module with `embed`, `encode` and `unembed`, as "
            "jxai/models/transformers/decoder.py does, and read its weights with read_weights and fill_variables; "
            "in jxai, add it to FAMILIES in jxai/models/huggingface.py"
        )
    source = f"{printable(path.name)}"
    module, variables, report = family.load(given, _tensors(path), source=source, **options)
    tokenizer = read_tokenizer(path / _TOKENIZER) if (path / _TOKENIZER).is_file() else None
    _check_vocabulary(tokenizer, getattr(module, "config", None))
    return Loaded(module, variables, tokenizer, report)


def read_tokenizer(path: Path) -> Any:
    """The `tokenizers.Tokenizer` of a tokenizer.json; an InputError where it is none."""
    with extras.named():
        import tokenizers
    try:
        return tokenizers.Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(
            f"expected a tokenizer, got {printable(path)} ({reason(error)}): download it again"
        ) from error


def _checked_dtype(dtype: Any) -> Any:
    if dtype is None:
        return None
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    # NumPy holds None for float64.
    if found is None or found.name not in ("float32", "bfloat16", "float64"):
        raise InputError(f"expected dtype float32, bfloat16 or float64, got {shown(dtype)}: choose one")
    return found


def _check_vocabulary(tokenizer: Any, config: Any) -> None:
    size = getattr(config, "vocab_size", None)
    if tokenizer is not None and size is not None and tokenizer.get_vocab_size() > size:
        raise InputError(
            f"expected a tokenizer of at most {size} tokens, the model's vocabulary, got one of "
            f"{tokenizer.get_vocab_size()}: take this model's tokenizer"
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"expected {path.name} in {printable(path.parent, 200)}, got none: copy the model's whole folder"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"expected JSON, got {printable(path)} ({reason(error)}): download it again"
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"expected an object in {printable(path)}, got {shown(found)}: download it again")
    return found


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder."""
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return read_weights(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _shards(folder, folder / f"{name}.index.json")
    raise FileNotFoundError(
        f"expected {' or '.join(_WEIGHTS)} in {printable(folder, 200)}, or its .index.json, got none: copy the "
        "model's whole folder"
    )


def _shards(folder: Path, index: Path) -> dict[str, np.ndarray]:
    places = _json(index).get("weight_map")
    if (
        not isinstance(places, dict)
        or not places
        or not all(isinstance(file, str) and Path(file).name == file for file in places.values())
    ):
        raise InputError(f"expected a weight_map of files in {printable(index)}, got none: download it again")
    files = sorted(set(places.values()))
    absent = [file for file in files if not (folder / file).is_file()]
    if absent:
        listed = ", ".join(printable(file, 100) for file in absent[:_SHOWN])
        raise InputError(
            f"expected {len(files)} shards in {printable(folder, 200)}, got {len(files) - len(absent)}: {listed}"
            f"{', ...' if len(absent) > _SHOWN else ''} {'is' if len(absent) == 1 else 'are'} missing"
        )
    tensors: dict[str, np.ndarray] = {}
    for file in files:
        tensors |= read_weights(folder / file)
    lost = sorted(set(places) - set(tensors))
    if lost:
        raise InputError(
            f"expected the tensors of {printable(index.name)} in its shards, got none for {len(lost)} "
            f"({printable(lost[0], 100)}): download them again"
        )
    return tensors
