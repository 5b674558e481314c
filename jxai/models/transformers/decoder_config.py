"""What a decoder's config.json says: LLaMA, SmolLM, Mistral, Qwen2, Qwen3, Gemma 3, by Hugging Face's names."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jxai.checks import check_choice, check_count, check_number, shown
from jxai.errors import InputError, InputTypeError
from jxai.models.transformers.config import refuse_others
from jxai.models.transformers.layers import ACTIVATIONS
from jxai.models.transformers.rope import RopeScaling

FULL, SLIDING = "full_attention", "sliding_attention"
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "gemma3")


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes and variants of a `Decoder`, by Hugging Face's names where they have one.

    Attributes:
        vocab_size: tokens of the vocabulary.
        hidden_size: channels of a token.
        intermediate_size: hidden units of an MLP.
        num_hidden_layers: blocks.
        num_attention_heads: heads of queries.
        num_key_value_heads: heads of keys and values.
        head_dim: channels of a head, an even number.
        max_position_embeddings: the most tokens of a sequence.
        hidden_act: the gate's activation.
        rms_norm_eps: of every norm.
        rope_theta: base of the rotary positions.
        rope_scaling: how they are stretched.
        tie_word_embeddings: whether scores are products with the embeddings, without weights of their own.
        attention_bias: whether queries, keys and values have biases.
        attention_out_bias: whether the projection behind the attention has one.
        mlp_bias: whether the layers of the MLP have.
        qk_norm: whether the heads of queries and keys are normalized.
        post_norms: whether what attention and MLP add is normalized too.
        norm_offset: what is added to the weights of norms.
        scale_embeddings: whether embeddings are multiplied by the root of `hidden_size`.
        query_pre_attn_scalar: what the products of queries and keys are divided by the root of.
        layer_types: for each block "full_attention" or "sliding_attention".
        sliding_window: tokens that a block with sliding attention sees, its own among them.
        rope_local_base_freq: base of the rotary positions of blocks with sliding attention, which are not stretched;
            None for those of the others.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling = RopeScaling()
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    attention_out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    norm_offset: float = 0.0
    scale_embeddings: bool = False
    query_pre_attn_scalar: float | None = None
    layer_types: tuple[str, ...] = ()
    sliding_window: int | None = None
    rope_local_base_freq: float | None = None

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
        ):
            check_count(name, getattr(self, name))
        check_choice("hidden_act", self.hidden_act, ACTIVATIONS)
        for name in ("rms_norm_eps", "rope_theta"):
            check_number(name, getattr(self, name), above=0)
        if not isinstance(self.rope_scaling, RopeScaling):
            raise InputTypeError(
                f"expected rope_scaling as a RopeScaling, got {shown(self.rope_scaling)}: make one, or take from_json"
            )
        for name in ("query_pre_attn_scalar", "rope_local_base_freq"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), above=0)
        if self.num_attention_heads % self.num_key_value_heads:
            raise InputError(
                f"expected num_attention_heads as a multiple of num_key_value_heads {self.num_key_value_heads}, got "
                f"{self.num_attention_heads}: change one"
            )
        if self.head_dim % 2:
            raise InputError(
                f"expected an even head_dim, got {self.head_dim}: rotary positions turn pairs of channels"
            )
        if not isinstance(self.layer_types, tuple):
            raise InputTypeError(
                f"expected layer_types as a tuple, got {shown(self.layer_types)}: list one for each block"
            )
        if not self.layer_types:
            object.__setattr__(self, "layer_types", (FULL,) * self.num_hidden_layers)
        for kind in self.layer_types:
            check_choice("layer_types", kind, (FULL, SLIDING))
        if len(self.layer_types) != self.num_hidden_layers:
            raise InputError(
                f"expected {self.num_hidden_layers} layer_types, one for each block, got {len(self.layer_types)}: "
                "list them all"
            )
        if SLIDING in self.layer_types:
            check_count("sliding_window", self.sliding_window)

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> "DecoderConfig":
        """Of Hugging Face's config.json, of the families in `FAMILIES`.

        Args:
            config: what `json.load` gives of it.

        Returns:
            The configuration; what the file leaves out is as transformers has it.

        Raises:
            ValueError: it is of another family, lacks a size, or asks for what is not computed here.
        """
        return _from_json(config)


def _from_json(given: Mapping[str, Any]) -> DecoderConfig:
    family = given.get("model_type")
    check_choice("model_type", family, FAMILIES)
    gemma, qwen = family in ("gemma3_text", "gemma3"), family in ("qwen2", "qwen3")
    if family == "gemma3" and "text_config" in given:
        given = given["text_config"]
    refuse_others(
        given,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        partial_rotary_factor=1.0,
        use_bidirectional_attention=False,
    )

    def get(name: str, default: Any) -> Any:
        found = given.get(name)
        return default if found is None else found

    # What no file leaves out; the error names it.
    for name in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
    ):
        if name not in given:
            raise InputError(f"expected {name} in the configuration, got none: check config.json")
        check_count(name, given[name])
    layers, heads = given["num_hidden_layers"], given["num_attention_heads"]
    head_dim = {"qwen3": 128, "gemma3_text": 256, "gemma3": 256}.get(
        str(family), given["hidden_size"] // heads
    )
    context = get("max_position_embeddings", 131072 if gemma else 32768 if qwen else 2048)
    # transformers 5 writes the base beside the scaling, and for Gemma an object for each type of block.
    rope = get("rope_parameters", {}) or {}
    local = rope.get(SLIDING, {}) if isinstance(rope.get(SLIDING), Mapping) else {}
    rope = rope.get(FULL, rope)
    window = get("sliding_window", 4096 if family != "mistral" else None)
    types = _layer_types(family, get, layers, window)
    bias = bool(get("attention_bias", False))
    return DecoderConfig(
        vocab_size=given["vocab_size"],
        hidden_size=given["hidden_size"],
        intermediate_size=given["intermediate_size"],
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=get("num_key_value_heads", 4 if gemma else heads),
        head_dim=get("head_dim", head_dim),
        max_position_embeddings=context,
        hidden_act=get("hidden_activation", "gelu_pytorch_tanh") if gemma else get("hidden_act", "silu"),
        rms_norm_eps=get("rms_norm_eps", 1e-6),
        rope_theta=get("rope_theta", rope.get("rope_theta", 1e6 if gemma else 1e4)),
        rope_scaling=RopeScaling.from_json(get("rope_scaling", rope or None), context=context),
        tie_word_embeddings=bool(get("tie_word_embeddings", gemma)),
        attention_bias=family == "qwen2" or bias,
        attention_out_bias=bias and family != "qwen2",
        mlp_bias=bool(get("mlp_bias", False)),
        qk_norm=gemma or family == "qwen3",
        post_norms=gemma,
        norm_offset=1.0 if gemma else 0.0,
        scale_embeddings=gemma,
        query_pre_attn_scalar=get("query_pre_attn_scalar", 256) if gemma else None,
        layer_types=types,
        sliding_window=window if SLIDING in types else None,
        rope_local_base_freq=get("rope_local_base_freq", local.get("rope_theta", 1e4)) if gemma else None,
    )


def _layer_types(family: Any, get: Any, layers: int, window: Any) -> tuple[str, ...]:
    """Which blocks see a window only."""
    if listed := get("layer_types", None):
        return tuple(listed)
    if family in ("gemma3_text", "gemma3"):
        every = check_count("sliding_window_pattern", get("sliding_window_pattern", 6))
        return tuple(FULL if (index + 1) % every == 0 else SLIDING for index in range(layers))
    if family in ("qwen2", "qwen3"):
        first = get("max_window_layers", 28) if get("use_sliding_window", False) else layers
        return tuple(SLIDING if index >= first else FULL for index in range(layers))
    return (SLIDING if family == "mistral" and window else FULL,) * layers
