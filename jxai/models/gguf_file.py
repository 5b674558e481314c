"""GGUF files (llama.cpp's): configuration, dequantized tensors by Hugging Face's names, and the tokenizer inside.

Read with the package `gguf`. llama.cpp turns neighboring channels of a head with one another where Hugging Face turns
its halves, so queries and keys of the architecture "llama" have their rows in another order, which is undone here; it
adds 1 to Gemma's weights of norms beforehand, which is kept.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jxai import extras
from jxai.checks import printable, reason, shown
from jxai.errors import InputError
from jxai.models.transformers.decoder_config import FULL, SLIDING, DecoderConfig
from jxai.models.transformers.rope import RopeScaling

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NAMES_GEMMA = _NAMES | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_FREQUENCIES = "rope_freqs.weight"  # what angles are divided by: LLaMA 3's scaling, computed beforehand

# How text is cut before pairs of bytes are merged, by `tokenizer.ggml.pre`.
_LETTERS_AND_DIGITS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_CUTS = {"llama-bpe": _LETTERS_AND_DIGITS % "{1,3}", "qwen2": _LETTERS_AND_DIGITS % ""}
_SINGLE_DIGITS = ("smollm",)
_PLAIN = ("gpt-2", "default")
_CONTROL, _OWN = 3, 4  # types of tokens that stand for themselves


def read_gguf(path: Path) -> tuple[DecoderConfig, dict[str, np.ndarray], Any]:
    """What a GGUF file holds.

    Args:
        path: of the file.

    Returns:
        The configuration, float tensors by Hugging Face's names in its layout, and a `tokenizers.Tokenizer`.

    Raises:
        InputError: it is damaged, or of an architecture, a quantization or a tokenizer that is not read here.
        ModuleNotFoundError: the packages `gguf` or `tokenizers` are missing.
    """
    with extras.named():
        import gguf
        import tokenizers  # noqa: F401  # missing, it is told before anything is read
    try:
        reader = gguf.GGUFReader(path)
        facts = {name: field.contents() for name, field in reader.fields.items()}
    except Exception as error:  # whatever the library meets in bytes that are no such file
        raise InputError(
            f"expected a GGUF file, got {printable(path)} ({reason(error)}): it is damaged, or has a quantization "
            "that the installed package gguf does not know; download it again, or as Q8_0"
        ) from error
    architecture = facts.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise InputError(
            f"expected a GGUF file of {', '.join(ARCHITECTURES)}, got {shown(architecture)} in "
            f"{printable(path.name)}: take the model's folder of Hugging Face; in jxai, add it to "
            "jxai/models/gguf_file.py"
        )
    tensors = {tensor.name: _floats(gguf, tensor, path) for tensor in reader.tensors}
    try:
        config = _config(facts, tensors)
        return config, _renamed(config, architecture, tensors), _tokenizer(facts)
    except KeyError as error:
        raise InputError(
            f"expected {error} in {printable(path.name)}, got none: the file is damaged or not complete"
        ) from error


def _floats(gguf: Any, tensor: Any, path: Path) -> np.ndarray:
    try:
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise InputError(
            f"expected a quantization that the package gguf reads, got {tensor.tensor_type.name} for "
            f"{printable(tensor.name, 100)} in {printable(path.name)}: take the file as Q8_0, Q4_K or F16"
        ) from error
    return np.asarray(array, np.float32)


def _config(facts: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> DecoderConfig:
    architecture = facts["general.architecture"]

    def get(name: str, *default: Any) -> Any:
        found = facts.get(f"{architecture}.{name}", *default)
        if found is None and not default:
            raise KeyError(f"{architecture}.{name}")
        return found

    gemma = architecture == "gemma3"
    heads, channels, layers = get("attention.head_count"), get("embedding_length"), get("block_count")
    head_dim = get("attention.key_length", channels // heads)
    if get("rope.dimension_count", head_dim) != head_dim:
        raise InputError(
            f"expected rotary positions on all {head_dim} channels of a head, got {get('rope.dimension_count')}: "
            "such models are not computed here"
        )
    window = get("attention.sliding_window", None) if gemma else None
    # In blocks of Gemma 3: five local ones, then a global one.
    types = tuple(SLIDING if window and (index + 1) % 6 else FULL for index in range(layers))
    base = get("rope.freq_base", 1e6 if gemma else 1e4)
    return DecoderConfig(
        vocab_size=tensors["token_embd.weight"].shape[0],
        hidden_size=channels,
        intermediate_size=get("feed_forward_length"),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=get("attention.head_count_kv", heads),
        head_dim=head_dim,
        max_position_embeddings=get("context_length"),
        hidden_act="gelu_pytorch_tanh" if gemma else "silu",
        rms_norm_eps=_short(get("attention.layer_norm_rms_epsilon")),
        rope_theta=_short(base),
        rope_scaling=_scaling(get, tensors),
        tie_word_embeddings="output.weight" not in tensors,
        attention_bias="blk.0.attn_q.bias" in tensors,
        attention_out_bias="blk.0.attn_output.bias" in tensors,
        mlp_bias="blk.0.ffn_up.bias" in tensors,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
        post_norms=gemma,
        scale_embeddings=gemma,
        # The only Gemma 3 that divides by more than a head's channels has 62 blocks: 5376 / 32.
        query_pre_attn_scalar=channels / heads if gemma and layers == 62 else None,
        layer_types=types,
        sliding_window=window if SLIDING in types else None,
        rope_local_base_freq=1e4 if gemma else None,
    )


def _short(number: float) -> float:
    """A float32 of a file as the number that was written: 1e-5 and not 9.999999747378752e-06."""
    return float(str(np.float32(number)))


def _scaling(get: Any, tensors: Mapping[str, np.ndarray]) -> RopeScaling:
    if _FREQUENCIES in tensors:
        return RopeScaling("factors", factors=tuple(map(float, tensors[_FREQUENCIES])))
    kind = get("rope.scaling.type", "none")
    if kind == "none":
        return RopeScaling()
    entry = {"rope_type": kind, "factor": get("rope.scaling.factor", 1.0)}
    original = get("rope.scaling.original_context_length", None)
    return RopeScaling.from_json(
        entry | ({"original_max_position_embeddings": original} if original else {}),
        context=get("context_length"),
    )


def _renamed(
    config: DecoderConfig, architecture: str, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    names = _NAMES_GEMMA if architecture == "gemma3" else _NAMES
    found = {}
    for name, tensor in tensors.items():
        if name == _FREQUENCIES:
            continue  # in the configuration
        parts = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
        if not parts or parts[2] not in names:
            found[name] = tensor  # which the report lists as left over
            continue
        if architecture == "llama" and parts[2] in ("attn_q", "attn_k"):
            heads = config.num_attention_heads if parts[2] == "attn_q" else config.num_key_value_heads
            tensor = halves(tensor, heads)
        layer = f"model.layers.{parts[1]}." if parts[1] else ""
        found[f"{layer}{names[parts[2]]}.{parts[3]}"] = tensor
    return found


def halves(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries' or keys' weights from pairs of neighbors, as llama.cpp turns them, to a head's two halves.

    Args:
        tensor: (heads * D, ...).
        heads: number of heads.

    Returns:
        Of the same shape.
    """
    pairs = tensor.reshape(heads, -1, 2, *tensor.shape[1:])
    return pairs.swapaxes(1, 2).reshape(tensor.shape)


def _tokenizer(facts: Mapping[str, Any]) -> Any:
    """The tokenizer in a file's metadata: byte pairs (Radford et al., 2019), cut in one of the ways above."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    kind, cut = facts.get("tokenizer.ggml.model"), facts.get("tokenizer.ggml.pre", "default")
    known = (*_CUTS, *_SINGLE_DIGITS, *_PLAIN)
    if kind is None:
        return None
    if kind != "gpt2" or cut not in known:
        raise InputError(
            f"expected a tokenizer of byte pairs (gpt2) of {', '.join(known)}, got {shown(kind)}, {shown(cut)}: take "
            "the model's folder of Hugging Face, whose tokenizer.json says it all"
        )
    tokens, types = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    merges = [tuple(pair.split(" ", 1)) for pair in facts["tokenizer.ggml.merges"]]
    tokenizer = tokenizers.Tokenizer(
        models.BPE({token: number for number, token in enumerate(tokens)}, merges)
    )
    if cut in _CUTS:
        first = pre_tokenizers.Split(tokenizers.Regex(_CUTS[cut]), "isolated")
        cuts = [first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    else:
        cuts = [pre_tokenizers.Digits(individual_digits=True)] if cut in _SINGLE_DIGITS else []
        cuts += [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    special = [
        tokenizers.AddedToken(t, special=True)
        for t, kind in zip(tokens, types, strict=True)
        if kind == _CONTROL
    ]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([t for t, kind in zip(tokens, types, strict=True) if kind == _OWN])
    if facts.get("tokenizer.ggml.add_bos_token"):
        begin = tokens[facts["tokenizer.ggml.bos_token_id"]]
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
            single=f"{begin} $A",
            special_tokens=[(begin, facts["tokenizer.ggml.bos_token_id"])],
        )
    return tokenizer
