"""Language models of the LLaMA kind: LLaMA, SmolLM, Mistral, Qwen2, Qwen3, Gemma 3.

They differ in what a configuration says, and share one module. See *LLaMA* by Touvron et al., 2023, *Qwen2* and
*Qwen3 Technical Report* by Yang et al., 2024 and 2025, *Gemma 3 Technical Report* by the Gemma team, 2025.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai.models.transformers.decoder_config import FULL, SLIDING, DecoderConfig
from jxai.models.transformers.layers import (
    MLP,
    Attention,
    RMSNorm,
    causal_mask,
    check_mask,
    check_module,
    check_sequence,
    check_tokens,
    computed,
    init_normal,
    make_layers,
    run_layers,
    with_padding,
)
from jxai.models.transformers.rope import RopeScaling, rotations


class DecoderBlock(nn.Module):
    """Norm, attention, sum with the input; norm, gated MLP, sum again.

    Attributes:
        config: of the model.
    """

    config: DecoderConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: Any = None, rotation: tuple[jax.Array, jax.Array] | None = None
    ) -> jax.Array:
        """Output of the block.

        Args:
            x: tokens, (N, T, C).
            mask: which key (last axis) a query may see, of a shape that broadcasts to (N, T, T); None for all.
            rotation: cosines and sines of the positions, (T, head_dim) each; None for none.

        Returns:
            Tokens, (N, T, C).

        Raises:
            TypeError: x is no array.
            ValueError: it has another rank, or no or too many tokens.
        """
        check_module(self, DecoderConfig)
        check_sequence(x, rank=3, what="tokens (N, T, C)", context=self.config.max_position_embeddings)
        config = self.config

        def norm(*, name: str) -> RMSNorm:
            return RMSNorm(config.rms_norm_eps, config.norm_offset, name=name)

        y = Attention(
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            use_bias=config.attention_bias,
            out_bias=config.attention_out_bias,
            scale=(config.query_pre_attn_scalar or config.head_dim) ** -0.5,
            qk_norm=norm if config.qk_norm else None,
            name="attention",
        )(norm(name="norm1")(x), mask, rotation)
        x = x + (norm(name="norm1_post")(y) if config.post_norms else y)
        y = MLP(
            config.intermediate_size,
            config.hidden_act,
            use_bias=config.mlp_bias,
            gated=True,
            name="mlp",
        )(norm(name="norm2")(x))
        return x + (norm(name="norm2_post")(y) if config.post_norms else y)


class Decoder(nn.Module):
    """Tokens to scores of the next one: embeddings, blocks, a norm, products with the vocabulary.

    Attributes:
        config: sizes and variants.
        scan: whether the blocks are one loop (parameters of all of them below "layers", stacked), which compiles one
            of them; otherwise "layer0", "layer1", and so on. The numbers are the same.
        remat: whether what is inside of a block is computed again on the way back, which saves memory.
    """

    config: DecoderConfig
    scan: bool = True
    remat: bool = False

    def setup(self) -> None:
        """Modules."""
        check_module(self, DecoderConfig)
        config = self.config
        self.embedding = nn.Embed(config.vocab_size, config.hidden_size, embedding_init=init_normal)
        make_layers(self, lambda: DecoderBlock(config), config.num_hidden_layers)
        self.norm = RMSNorm(config.rms_norm_eps, config.norm_offset)
        if not config.tie_word_embeddings:
            self.head = nn.Dense(config.vocab_size, use_bias=False, kernel_init=init_normal)

    def embed(self, ids: jax.Array) -> jax.Array:
        """Embeddings of tokens.

        Args:
            ids: numbers of tokens, (N, T).

        Returns:
            (N, T, C), of at least float32; Gemma's times the root of C.

        Raises:
            TypeError: they are no integers.
            ValueError: there are none, more than the context, or one is not in the vocabulary.
        """
        config = self.config
        check_tokens(ids, vocab_size=config.vocab_size, context=config.max_position_embeddings)
        x = computed(self.embedding(ids))
        return x * config.hidden_size**0.5 if config.scale_embeddings else x

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
        what = "embeddings (N, T, C)"
        check_sequence(
            x, rank=3, what=what, context=config.max_position_embeddings, channels=config.hidden_size
        )
        check_mask(mask, x)
        x = computed(jnp.asarray(x))
        length = x.shape[1]

        def seen(kind: str) -> tuple[Any, ...]:
            """Mask, cosines and sines of the blocks of a kind."""
            local = kind == SLIDING and config.rope_local_base_freq is not None
            cosines, sines = rotations(
                length,
                config.head_dim,
                theta=config.rope_local_base_freq if local else config.rope_theta,  # pyright: ignore[reportArgumentType]
                scaling=RopeScaling() if local else config.rope_scaling,
            )
            window = config.sliding_window if kind == SLIDING else None
            allowed = with_padding(causal_mask(length, window=window), mask)
            return allowed, jnp.asarray(cosines, x.dtype), jnp.asarray(sines, x.dtype)

        full, sliding = (seen(kind) if kind in config.layer_types else None for kind in (FULL, SLIDING))

        def step(block: nn.Module, x: jax.Array, slides: Any) -> jax.Array:
            if isinstance(slides, bool):
                own: Any = sliding if slides else full
            else:
                own = jax.tree.map(lambda one, other: jnp.where(slides, one, other), sliding, full)
            allowed, *rotation = own
            return block(x, allowed, tuple(rotation))

        each = [kind == SLIDING for kind in config.layer_types]
        return self.norm(run_layers(self, x, step, each=each))

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """Scores of the next token before the softmax.

        Args:
            hidden: (..., C), as `encode` gives them.

        Returns:
            (..., vocab_size).
        """
        return self.embedding.attend(hidden) if self.config.tie_word_embeddings else self.head(hidden)

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
