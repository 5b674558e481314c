"""Hugging Face's (torchvision's) names for the modules of every family, and tensors that hold several modules' weights.

Layers are named as if they were unrolled: "layer0/attention/query".
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jxai.models.transformers.decoder import DecoderConfig


def base_of(tensors: Iterable[str], anchor: str) -> str:
    """What stands before a name in a file, such as "model." of "model.embed_tokens.weight"; "" where there is none.

    Args:
        tensors: names of a file.
        anchor: the name of one tensor that every file of the family has.

    Returns:
        "" or with a dot at its end.
    """
    found = sorted((name.removesuffix(anchor) for name in tensors if name.endswith(anchor)), key=len)
    return next((base for base in found if not base or base.endswith(".")), "")


def decoder_names(config: DecoderConfig, tensors: Mapping[str, Any]) -> dict[str, str]:
    """Of a `Decoder`.

    Args:
        config: the model's.
        tensors: the file's, for what stands before the names.

    Returns:
        Path of the Linen module, such as "layer0/mlp/up", to what stands before ".weight".
    """
    base = base_of(tensors, "embed_tokens.weight")
    names = {"embedding": f"{base}embed_tokens", "norm": f"{base}norm"}
    if not config.tie_word_embeddings:
        names["head"] = f"{base.removesuffix('model.')}lm_head"
    inside = {
        "attention/query": "self_attn.q_proj",
        "attention/key": "self_attn.k_proj",
        "attention/value": "self_attn.v_proj",
        "attention/out": "self_attn.o_proj",
        "mlp/gate": "mlp.gate_proj",
        "mlp/up": "mlp.up_proj",
        "mlp/down": "mlp.down_proj",
        "norm1": "input_layernorm",
        "norm2": "post_attention_layernorm",
    }
    if config.post_norms:
        inside |= {
            "norm1_post": "post_attention_layernorm",
            "norm2": "pre_feedforward_layernorm",
            "norm2_post": "post_feedforward_layernorm",
        }
    if config.qk_norm:
        inside |= {"attention/query_norm": "self_attn.q_norm", "attention/key_norm": "self_attn.k_norm"}
    return names | layer_names(config.num_hidden_layers, f"{base}layers.{{}}.", inside)


def layer_names(number: int, before: str, inside: Mapping[str, str]) -> dict[str, str]:
    """Names of all layers.

    Args:
        number: of layers.
        before: what a layer's names begin with, "{}" in the place of its number.
        inside: path in a layer to the rest of the name.

    Returns:
        Path to name.
    """
    return {
        f"layer{index}/{ours}": before.format(index) + theirs
        for index in range(number)
        for ours, theirs in inside.items()
    }


def taken_apart(
    tensors: Mapping[str, np.ndarray], ending: str, parts: Iterable[str], *, turned: bool = False
) -> dict[str, np.ndarray]:
    """Tensors of several modules, one after another on the first axis, as one for each.

    Args:
        tensors: the file's.
        ending: of their names, such as "attn.c_attn".
        parts: names of the modules; "attn.c_attn.weight" becomes "attn.c_attn[query].weight" and so on.
        turned: whether matrices are (in, out), as GPT-2 has them; they become (out, in).

    Returns:
        The others as they are, and the parts.
    """
    parts = tuple(parts)
    found: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        module, dot, leaf = name.rpartition(".")
        if not module.endswith(ending) or leaf not in ("weight", "bias"):
            found[name] = tensor
            continue
        tensor = tensor.T if turned and tensor.ndim == 2 else tensor
        if parts and tensor.shape[0] % len(parts) == 0:
            pieces = np.split(tensor, len(parts))
            found |= {f"{module}[{part}].{leaf}": piece for part, piece in zip(parts, pieces, strict=True)}
        else:
            found[name] = tensor
    return found
