"""Hugging Face's (torchvision's) names for the modules of every family, and tensors of several modules.

Layers are named as if they were unrolled: "layer0/attention/query".
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jxai.models.transformers.decoder_config import DecoderConfig
from jxai.models.transformers.encoder import EncoderConfig
from jxai.models.transformers.gpt2 import GPT2Config


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


def bert_names(config: EncoderConfig, tensors: Mapping[str, Any]) -> dict[str, str]:
    """Of an `Encoder`; arguments and result as of `decoder_names`."""
    base = base_of(tensors, "embeddings.word_embeddings.weight")
    names = {
        "embedding": f"{base}embeddings.word_embeddings",
        "positions": f"{base}embeddings.position_embeddings",
        "types": f"{base}embeddings.token_type_embeddings",
        "norm": f"{base}embeddings.LayerNorm",
    }
    if config.pooler:
        names["pooler"] = f"{base}pooler.dense"
    if config.num_labels:
        names["classifier"] = f"{base.removesuffix('bert.')}classifier"
    inside = {
        "attention/query": "attention.self.query",
        "attention/key": "attention.self.key",
        "attention/value": "attention.self.value",
        "attention/out": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "mlp/up": "intermediate.dense",
        "mlp/down": "output.dense",
        "norm2": "output.LayerNorm",
    }
    return names | layer_names(config.num_hidden_layers, f"{base}encoder.layer.{{}}.", inside)


def gpt2_names(config: GPT2Config, tensors: Mapping[str, Any]) -> dict[str, str]:
    """Of a `GPT2`, behind `gpt2_tensors`; arguments and result as of `decoder_names`."""
    base = base_of(tensors, "wte.weight")
    names = {"embedding": f"{base}wte", "positions": f"{base}wpe", "norm": f"{base}ln_f"}
    inside = {
        "attention/query": "attn.c_attn[query]",
        "attention/key": "attn.c_attn[key]",
        "attention/value": "attn.c_attn[value]",
        "attention/out": "attn.c_proj",
        "norm1": "ln_1",
        "mlp/up": "mlp.c_fc",
        "mlp/down": "mlp.c_proj",
        "norm2": "ln_2",
    }
    return names | layer_names(config.n_layer, f"{base}h.{{}}.", inside)


def gpt2_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """GPT-2's matrices, which are (in, out), as (out, in), and those of queries, keys and values taken apart."""
    endings = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    turned = {
        name: tensor.T if name.endswith(endings) and tensor.ndim == 2 else tensor
        for name, tensor in tensors.items()
    }
    return taken_apart(turned, "attn.c_attn")


# torchvision's, of the published files too, whose MLPs have other names.
_TORCHVISION = {
    "encoder.pos_embedding": "positions",
    ".in_proj_weight": ".in_proj.weight",
    ".in_proj_bias": ".in_proj.bias",
    ".mlp.linear_1.": ".mlp.0.",
    ".mlp.linear_2.": ".mlp.3.",
}
# Hugging Face's, of ViT and DINOv2.
_VISION = {
    "embeddings.cls_token": "class_token",
    "embeddings.position_embeddings": "positions",
    "embeddings.register_tokens": "registers",
    ".lambda1": ".weight",
}


def torchvision_vit_names(depth: int) -> dict[str, str]:
    """Of a `VisionTransformer` of so many blocks as torchvision has it, behind `torchvision_vit_tensors`."""
    inside = {
        "attention/query": "self_attention.in_proj[query]",
        "attention/key": "self_attention.in_proj[key]",
        "attention/value": "self_attention.in_proj[value]",
        "attention/out": "self_attention.out_proj",
        "norm1": "ln_1",
        "mlp/up": "mlp.0",
        "mlp/down": "mlp.3",
        "norm2": "ln_2",
    }
    names = {"": "", "patches": "conv_proj", "norm": "encoder.ln", "head": "heads.head"}
    return names | layer_names(depth, "encoder.layers.encoder_layer_{}.", inside)


def torchvision_vit_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """torchvision's, with queries, keys and values taken apart."""
    return taken_apart(renamed(tensors, _TORCHVISION), "self_attention.in_proj")


def vision_names(config: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, str]:
    """Of a `VisionTransformer` as Hugging Face has ViT and DINOv2, behind `vision_tensors`.

    Args:
        config: fields of the module.
        tensors: the file's, for what names it has.

    Returns:
        Path of the Linen module to what stands before ".weight".
    """
    base = base_of(tensors, "embeddings.patch_embeddings.projection.weight")
    names = {"": base.removesuffix("."), "patches": f"{base}embeddings.patch_embeddings.projection"}
    names["norm"] = f"{base}layernorm"
    if config["num_classes"] is not None:
        names["head"] = "classifier"
    inside = {
        "attention/query": "attention.attention.query",
        "attention/key": "attention.attention.key",
        "attention/value": "attention.attention.value",
        "attention/out": "attention.output.dense",
    }
    if any(name.endswith(".mlp.fc1.weight") for name in tensors):
        inside |= {"norm1": "norm1", "mlp/up": "mlp.fc1", "mlp/down": "mlp.fc2", "norm2": "norm2"}
    else:
        inside |= {
            "norm1": "layernorm_before",
            "mlp/up": "intermediate.dense",
            "mlp/down": "output.dense",
            "norm2": "layernorm_after",
        }
    if config["layer_scale"]:
        inside |= {"scale1": "layer_scale1", "scale2": "layer_scale2"}
    return names | layer_names(config["depth"], f"{base}encoder.layer.{{}}.", inside)


def vision_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hugging Face's, with those of no module named as `VisionTransformer` names its own."""
    return renamed(tensors, _VISION)


def renamed(tensors: Mapping[str, np.ndarray], parts: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Tensors in whose names these parts are replaced."""
    found = {}
    for name, tensor in tensors.items():
        for old, new in parts.items():
            name = name.replace(old, new)
        found[name] = tensor
    return found


def taken_apart(tensors: Mapping[str, np.ndarray], ending: str) -> dict[str, np.ndarray]:
    """Tensors of queries, keys and values, one after another on the first axis, as one for each.

    Args:
        tensors: the file's.
        ending: of their modules' names, such as "attn.c_attn".

    Returns:
        The others as they are; "attn.c_attn.weight" is "attn.c_attn[query].weight" and so on.
    """
    found: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if (
            module.endswith(ending)
            and leaf in ("weight", "bias")
            and tensor.ndim
            and tensor.shape[0] % 3 == 0
        ):
            pieces = zip(("query", "key", "value"), np.split(tensor, 3), strict=True)
            found |= {f"{module}[{part}].{leaf}": piece for part, piece in pieces}
        else:
            found[name] = tensor
    return found
