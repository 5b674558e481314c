"""BERT and what is built like it, such as MiniLM: a token sees all others; a sentence is a class, or a vector.

See *BERT* by Devlin et al., 2019, *MiniLM* by Wang et al., 2020, *Sentence-BERT* by Reimers and Gurevych, 2019.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai.checks import check_choice, check_count, check_number
from jxai.errors import InputError
from jxai.models.transformers.config import from_fields, refuse_others
from jxai.models.transformers.layers import (
    ACTIVATIONS,
    MLP,
    Attention,
    check_mask,
    check_module,
    check_sequence,
    check_tokens,
    computed,
    init_normal,
    layer_norm,
    make_layers,
    run_layers,
    with_padding,
)


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes of an `Encoder`, by Hugging Face's names.

    Attributes:
        vocab_size: tokens of the vocabulary.
        hidden_size: channels of a token.
        intermediate_size: hidden units of an MLP.
        num_hidden_layers: blocks.
        num_attention_heads: attention heads; they share the channels equally.
        max_position_embeddings: the most tokens of a sequence.
        type_vocab_size: kinds of tokens, such as those of a first and a second sentence.
        hidden_act: of the MLP.
        layer_norm_eps: of every norm.
        pooler: whether there is a layer on the first token.
        num_labels: classes of a sentence; 0 for none.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    pooler: bool = True
    num_labels: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.type is int:
                check_count(field.name, getattr(self, field.name), least=int(field.name != "num_labels"))
        check_choice("hidden_act", self.hidden_act, ACTIVATIONS)
        check_number("layer_norm_eps", self.layer_norm_eps, above=0)
        check_choice("pooler", self.pooler, (True, False))
        if self.num_labels and not self.pooler:
            raise InputError(
                f"expected a pooler below {self.num_labels} labels, got none: they are scores of what it gives"
            )
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"expected hidden_size as a multiple of num_attention_heads {self.num_attention_heads}, got "
                f"{self.hidden_size}: change one"
            )

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> "EncoderConfig":
        """Of Hugging Face's config.json.

        Args:
            config: what `json.load` gives of it; `num_labels` or the names of labels count where its architecture is
                one for classes of sequences, or where it names no architecture.

        Returns:
            The configuration; what the file leaves out is as transformers has it.

        Raises:
            ValueError: it lacks a size, or asks for what is not computed here.
        """
        refuse_others(config, position_embedding_type="absolute", is_decoder=False)
        architectures = config.get("architectures") or ["ForSequenceClassification"]
        labels = 0
        if any(str(one).endswith("ForSequenceClassification") for one in architectures):
            names = config.get("id2label") or {}
            labels = config.get("num_labels") or len(names) or (2 if config.get("architectures") else 0)
        return from_fields(cls, {**config, "num_labels": labels})


class EncoderBlock(nn.Module):
    """Attention, sum with the input, norm; MLP, sum, norm.

    Attributes:
        config: of the model.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(self, x: jax.Array, mask: Any = None) -> jax.Array:
        """Output of the block.

        Args:
            x: tokens, (N, T, C).
            mask: which key (last axis) a query may see, of a shape that broadcasts to (N, T, T); None for all.

        Returns:
            Tokens, (N, T, C).

        Raises:
            TypeError: x is no array.
            ValueError: it has another rank, or no or too many tokens, or other channels.
        """
        check_module(self, EncoderConfig)
        config = self.config
        check_sequence(
            x,
            rank=3,
            what="tokens (N, T, C)",
            context=config.max_position_embeddings,
            channels=config.hidden_size,
        )
        heads = config.num_attention_heads
        head_dim = config.hidden_size // heads
        y = Attention(
            heads, heads, head_dim, use_bias=True, out_bias=True, scale=head_dim**-0.5, name="attention"
        )(x, mask)
        x = layer_norm(config.layer_norm_eps, name="norm1")(x + y)
        y = MLP(config.intermediate_size, config.hidden_act, use_bias=True, name="mlp")(x)
        return layer_norm(config.layer_norm_eps, name="norm2")(x + y)


class Encoder(nn.Module):
    """Tokens to hidden states, and these to classes or to a vector of the sentence.

    Attributes:
        config: sizes.
        scan: whether the blocks are one loop (parameters of all of them below "layers", stacked), which compiles one
            of them; otherwise "layer0", "layer1", and so on. The numbers are the same.
        remat: whether what is inside of a block is computed again on the way back, which saves memory.
    """

    config: EncoderConfig
    scan: bool = True
    remat: bool = False

    def setup(self) -> None:
        """Modules."""
        check_module(self, EncoderConfig)
        config = self.config
        self.embedding = nn.Embed(config.vocab_size, config.hidden_size, embedding_init=init_normal)
        self.positions = nn.Embed(
            config.max_position_embeddings, config.hidden_size, embedding_init=init_normal
        )
        self.types = nn.Embed(config.type_vocab_size, config.hidden_size, embedding_init=init_normal)
        self.norm = layer_norm(config.layer_norm_eps)
        make_layers(self, lambda: EncoderBlock(config), config.num_hidden_layers)
        if config.pooler:
            self.pooler = nn.Dense(config.hidden_size, kernel_init=init_normal)
        if config.num_labels:
            self.classifier = nn.Dense(config.num_labels, kernel_init=init_normal)

    def embed(self, ids: jax.Array) -> jax.Array:
        """Embeddings of tokens, before positions and types.

        Args:
            ids: numbers of tokens, (N, T).

        Returns:
            (N, T, C), of at least float32.

        Raises:
            TypeError: they are no integers.
            ValueError: there are none, more than the context, or one is not in the vocabulary.
        """
        check_tokens(ids, vocab_size=self.config.vocab_size, context=self.config.max_position_embeddings)
        return computed(self.embedding(ids))

    def encode(
        self, x: jax.Array, mask: jax.Array | None = None, types: jax.Array | None = None
    ) -> jax.Array:
        """Hidden states behind the last block.

        Args:
            x: embeddings, (N, T, C).
            mask: true where there is a token, (N, T); None for all.
            types: kinds of tokens, (N, T) integers; None for all of kind 0.

        Returns:
            (N, T, C).

        Raises:
            TypeError: x holds no floats, the mask no booleans, or types are no integers.
            ValueError: a shape is wrong, there are more tokens than the context, or a type is not known.
        """
        config = self.config
        context = config.max_position_embeddings
        check_sequence(x, rank=3, what="embeddings (N, T, C)", context=context, channels=config.hidden_size)
        check_mask(mask, x)
        if types is not None:
            check_tokens(types, vocab_size=config.type_vocab_size, context=context)
            if types.shape != x.shape[:2]:
                raise InputError(f"expected types of shape {x.shape[:2]}, got {types.shape}: one a token")
        x = computed(jnp.asarray(x))
        kinds = self.types.embedding[:1] if types is None else jnp.take(self.types.embedding, types, axis=0)
        added = self.positions.embedding[: x.shape[1]][None] + (kinds[None] if types is None else kinds)
        x = self.norm(x + added.astype(x.dtype))
        allowed = with_padding(None, mask)
        each = [False] * config.num_hidden_layers
        return run_layers(self, x, lambda block, x, _: block(x, allowed), each=each)

    def pool(self, hidden: jax.Array) -> jax.Array:
        """The first token through a layer and tanh.

        Args:
            hidden: (N, T, C), as `encode` gives them.

        Returns:
            (N, C).

        Raises:
            ValueError: the model has no such layer.
        """
        if not self.config.pooler:
            raise InputError("expected a model with a pooler, got one without: take `sentence`")
        return jnp.tanh(self.pooler(hidden[:, 0]))

    def classify(self, hidden: jax.Array) -> jax.Array:
        """Scores of the classes before the softmax.

        Args:
            hidden: (N, T, C), as `encode` gives them.

        Returns:
            (N, num_labels).

        Raises:
            ValueError: the model has no labels.
        """
        if not self.config.num_labels:
            raise InputError("expected a model with labels, got one without: take `sentence` or `pool`")
        return self.classifier(self.pool(hidden))

    def sentence(self, hidden: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """The mean of the tokens, of length 1: products of two are cosines.

        Args:
            hidden: (N, T, C), as `encode` gives them.
            mask: true where there is a token, (N, T); None for all.

        Returns:
            (N, C).

        Raises:
            ValueError: the mask is of another shape.
        """
        check_mask(mask, hidden)
        if mask is None:
            mean = hidden.mean(1)
        else:
            there = jnp.asarray(mask, bool).astype(hidden.dtype)
            mean = (hidden * there[..., None]).sum(1) / jnp.maximum(there.sum(1), 1)[:, None]
        length = jnp.sqrt((mean * mean).sum(-1, keepdims=True))
        return mean / jnp.maximum(length, 1e-12)

    def __call__(
        self, ids: jax.Array, mask: jax.Array | None = None, types: jax.Array | None = None
    ) -> jax.Array:
        """Scores of the classes where the model has labels, else what `pool` gives, else the hidden states.

        Args:
            ids: numbers of tokens, (N, T).
            mask: true where there is a token, (N, T); None for all.
            types: kinds of tokens, (N, T); None for all of kind 0.

        Returns:
            (N, num_labels), (N, C) or (N, T, C).

        Raises:
            ValueError: as `embed` and `encode`.
        """
        hidden = self.encode(self.embed(ids), mask, types)
        if self.config.num_labels:
            return self.classify(hidden)
        return self.pool(hidden) if self.config.pooler else hidden
