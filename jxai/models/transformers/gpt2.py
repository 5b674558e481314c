"""GPT-2: learned positions, layer norms with biases, no gate.

See *Language Models are Unsupervised Multitask Learners* by Radford et al., 2019.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai.checks import check_choice, check_count, check_number
from jxai.errors import InputError
from jxai.models.transformers.block import TransformerBlock
from jxai.models.transformers.config import from_fields, refuse_others
from jxai.models.transformers.layers import (
    ACTIVATIONS,
    causal_mask,
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
class GPT2Config:
    """Sizes of a `GPT2`, by Hugging Face's names.

    Attributes:
        vocab_size: tokens of the vocabulary.
        n_embd: channels of a token.
        n_layer: blocks.
        n_head: attention heads; they share the channels equally.
        n_inner: hidden units of an MLP; None for four times the channels.
        n_positions: the most tokens of a sequence.
        activation_function: of the MLP.
        layer_norm_epsilon: of every norm.
    """

    vocab_size: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int | None = None
    n_positions: int = 1024
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.n_inner is None:
            object.__setattr__(self, "n_inner", 4 * check_count("n_embd", self.n_embd))
        for name in ("vocab_size", "n_embd", "n_layer", "n_head", "n_inner", "n_positions"):
            check_count(name, getattr(self, name))
        check_choice("activation_function", self.activation_function, ACTIVATIONS)
        check_number("layer_norm_epsilon", self.layer_norm_epsilon, above=0)
        if self.n_embd % self.n_head:
            raise InputError(
                f"expected n_embd as a multiple of n_head {self.n_head}, got {self.n_embd}: change one"
            )

    @property
    def max_position_embeddings(self) -> int:
        """`n_positions`, as the other families call it."""
        return self.n_positions

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> "GPT2Config":
        """Of Hugging Face's config.json.

        Args:
            config: what `json.load` gives of it.

        Returns:
            The configuration; what the file leaves out is as transformers has it.

        Raises:
            ValueError: it lacks a size, or asks for what is not computed here.
        """
        refuse_others(
            config, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, tie_word_embeddings=True
        )
        return from_fields(cls, config)


class GPT2(nn.Module):
    """Tokens to scores of the next one: embeddings and positions, blocks, a norm, products with the vocabulary.

    Attributes:
        config: sizes.
        scan: whether the blocks are one loop (parameters of all of them below "layers", stacked), which compiles one
            of them; otherwise "layer0", "layer1", and so on. The numbers are the same.
        remat: whether what is inside of a block is computed again on the way back, which saves memory.
    """

    config: GPT2Config
    scan: bool = True
    remat: bool = False

    def setup(self) -> None:
        """Modules."""
        check_module(self, GPT2Config)
        config = self.config
        self.embedding = nn.Embed(config.vocab_size, config.n_embd, embedding_init=init_normal)
        self.positions = nn.Embed(config.n_positions, config.n_embd, embedding_init=init_normal)

        def make() -> TransformerBlock:
            return TransformerBlock(
                config.n_head,
                config.n_inner,  # pyright: ignore[reportArgumentType]
                config.activation_function,
                config.layer_norm_epsilon,
            )

        make_layers(self, make, config.n_layer)
        self.norm = layer_norm(config.layer_norm_epsilon)

    def embed(self, ids: jax.Array) -> jax.Array:
        """Embeddings of tokens, before positions.

        Args:
            ids: numbers of tokens, (N, T).

        Returns:
            (N, T, C), of at least float32.

        Raises:
            TypeError: they are no integers.
            ValueError: there are none, more than the context, or one is not in the vocabulary.
        """
        check_tokens(ids, vocab_size=self.config.vocab_size, context=self.config.n_positions)
        return computed(self.embedding(ids))

    def encode(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Hidden states behind the last norm.

        Args:
            x: embeddings, (N, T, C).
            mask: true where there is a token, (N, T); None for all.

        Returns:
            (N, T, C).

        Raises:
            TypeError: x holds no floats, or the mask no booleans.
            ValueError: a shape is wrong, or there are more tokens than the context.
        """
        config = self.config
        check_sequence(
            x, rank=3, what="embeddings (N, T, C)", context=config.n_positions, channels=config.n_embd
        )
        check_mask(mask, x)
        x = computed(jnp.asarray(x))
        positions = self.positions.embedding[: x.shape[1]]
        x = x + positions[None].astype(x.dtype)
        allowed = with_padding(causal_mask(x.shape[1]), mask)
        each = [False] * config.n_layer
        return self.norm(run_layers(self, x, lambda block, x, _: block(x, allowed), each=each))

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """Scores of the next token before the softmax.

        Args:
            hidden: (..., C), as `encode` gives them.

        Returns:
            (..., vocab_size).
        """
        return self.embedding.attend(hidden)

    def __call__(self, ids: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Scores of the token after each.

        Args:
            ids: numbers of tokens, (N, T).
            mask: true where there is a token, (N, T); None for all.

        Returns:
            Scores before the softmax, (N, T, vocab_size).

        Raises:
            ValueError: as `embed` and `encode`.
        """
        return self.unembed(self.encode(self.embed(ids), mask))
