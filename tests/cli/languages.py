"""A language model of random weights and a tokenizer of a few words, for commands and experiments."""

import jax
import jax.numpy as jnp
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models

from jxai import models

WORDS = (
    "?",
    "The",
    " capital",
    " of",
    " France",
    " is",
    " Paris",
    " Lon",
    "don",
    " <b>",
    " Rome",
    "Rome",
    "\x1b",
)


def tokenizer():
    found = Tokenizer(tokenizer_models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    found.pre_tokenizer = pre_tokenizers.Split(Regex(r" Lon| ?[^ ]+"), "isolated")
    found.decoder = decoders.Fuse()
    return found


def language_model(*, scan=True):
    config = models.DecoderConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        max_position_embeddings=16,
        tie_word_embeddings=True,
    )
    module = models.Decoder(config, scan=scan)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    # Of unit size, so that something is said.
    variables = jax.tree.map(lambda p: p * 20 if p.ndim > 1 else p, variables)
    return models.Loaded(module, variables, tokenizer(), models.WeightsReport((), (), ()))
