"""`jxai.text` under hostile input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from strategies import (
    EFFORTS,
    Argument,
    Case,
    Spoilt,
    array,
    choice,
    count,
    given_as,
    integers,
    mask,
    number,
    one_of,
    search,
    unheard_of,
)
from tokenizers import Tokenizer, decoders, models

from jxai import attribution, lrp, text

VOCABULARY = 6
EXEMPT = {
    "LayerRelevance": "a tuple of results",
    "Pieces": "what `pieces` returns",
    "Similarity": "a tuple of results",
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Model:
    """One layer of means over what a token may see, in whatever dtype."""

    table: jax.Array

    def embed(self, ids):
        return self.table[ids]

    def encode(self, x, mask=None):
        seen = jnp.tril(jnp.ones(x.shape[1:2] * 2, x.dtype))[None]
        if mask is not None:
            seen = seen * mask[:, None].astype(x.dtype)
        with jax.named_scope("layer0"):
            with jax.named_scope("attention/context"):
                context = seen @ x
            with jax.named_scope("mlp/neurons"):
                hidden = jnp.tanh(context)
            return context + hidden

    def unembed(self, hidden):
        return hidden @ self.table.T

    def sentence(self, hidden, mask):
        total = (hidden * mask[..., None].astype(hidden.dtype)).sum(axis=1)
        return total / jnp.sqrt((total**2).sum(axis=-1, keepdims=True))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Attending(Model):
    """With probabilities."""

    def encode(self, x, mask=None):
        scores = jnp.einsum("ntc,nsc->nts", x, x)[:, None]
        with jax.named_scope("attention/weights"):
            weights = jax.nn.softmax(scores, axis=-1)
        return weights[:, 0] @ x


TABLE = jnp.asarray(np.random.default_rng(0).normal(size=(VOCABULARY, 4)), jnp.float32)
MODEL = one_of(Model(TABLE), bad=[Spoilt(Model(TABLE * jnp.nan), refused=True)])
IDS = integers("nh", below=VOCABULARY, refused=False)
TOKEN = integers("n", below=VOCABULARY)
METHOD = one_of(
    lrp.AttnLRP(),
    attribution.gradient,
    bad=[
        Spoilt(v, refused=True)
        for v in (None, "lrp", 3, lambda f, x, target: x[:, 0], lambda f, x, target: x * jnp.nan)
    ],
)
COMPOSITE = one_of(lrp.AttnLRP(), bad=[Spoilt(v, refused=True) for v in (None, "lrp", 3)])
MASK = mask("nh", optional=True)
POSITIONS = one_of(
    None, -1, 0, bad=[Spoilt(v, refused=True) for v in (99, -99, 1.5, "text", np.zeros(7, int), np.nan)]
)
SENTENCES = {"model": MODEL, "ids": IDS, "other": IDS, "mask": MASK, "other_mask": MASK}


def tokenizer(size):
    found = Tokenizer(models.WordLevel({"a": 0, " b": 1, "##c": 2, "<0xE2>": 3}, unk_token="a"))
    found.decoder = decoders.ByteFallback()
    return found


PIECES = Argument(
    lambda size: st.lists(st.integers(0, 3), max_size=6),
    lambda size: st.sampled_from(
        [
            *(
                Spoilt(v, refused=True)
                for v in ([9], [-1], [[1]], 3, None, "text", [0.5], [np.nan], ["a"], [10**12])
            ),
            Spoilt(np.zeros(3, bool)),
        ]
    ),
)
CASES = {
    "attention": Case(
        text.attention,
        {
            "model": one_of(
                Attending(TABLE),
                bad=[Spoilt(Attending(TABLE * jnp.nan), refused=True), Spoilt(Model(TABLE), True)],
            ),
            "ids": IDS,
            "mask": MASK,
        },
        holds=lambda found, given: found.shape[1:3] == (1, 1),
    ),
    "attention_rollout": Case(
        text.attention_rollout,
        {
            "attention": given_as(
                lambda size: np.full((size.n, 2, 2, size.h, size.h), 1 / size.h, np.float32),
                *(
                    Spoilt(v, refused=True)
                    for v in (
                        None,
                        np.ones((1, 1, 1, 2, 2)),
                        np.full((1, 1, 1, 1, 1), np.nan),
                        np.ones((2, 2)),
                        np.ones((1, 1, 1, 1, 1)) * 1j,
                        np.zeros((0, 1, 1, 1, 1)),
                    )
                ),
            ),
            "residual": number(0.5, 0.0, 1.0, wrong=(-0.1, 1.5)),
        },
        holds=lambda found, given: bool((abs(found.sum(-1) - 1) < 1e-5).all()),
    ),
    "explain": Case(
        text.explain,
        {
            "model": MODEL,
            "ids": IDS,
            "target": TOKEN,
            "positions": POSITIONS,
            "score": choice("logit", "log-probability"),
            "method": METHOD,
            "mask": MASK,
            "channels": one_of(False, True),
        },
        holds=lambda found, given: found.shape[:2] == given["ids"].shape,
    ),
    "explain:span": Case(
        text.explain,
        {
            "model": MODEL,
            "ids": IDS,
            "target": one_of(None),
            "span": one_of(
                (1, 2),
                [1, 3],
                bad=[Spoilt(v, refused=True) for v in ((0, 1), (2, 2), (1, 99), 3, "12", (1.0, 2))],
            ),
            "contrast": TOKEN,
            "method": METHOD,
            "chunk_size": count(1, 4),
        },
    ),
    "join": Case(
        text.join,
        {
            "relevance": array("nh", strange=False),
            "groups": given_as(
                lambda size: tuple(i // 2 for i in range(size.h)),
                *(
                    Spoilt(v, refused=True)
                    for v in (None, (), (0,), (99,) * 4, (0.5,) * 4, (-1, 0, 0, 0), "text")
                ),
            ),
            "axis": one_of(-1, 1, bad=[Spoilt(v, refused=True) for v in (9, -9, None, 0.5, "text")]),
        },
        undefined="as given",
    ),
    "layers": Case(
        text.layers,
        {
            "model": MODEL,
            "ids": IDS,
            "target": TOKEN,
            "num_heads": count(1, 2, odd=(3,)),
            "num_layers": count(1, odd=(2,)),
            "positions": POSITIONS,
            "score": choice("logit", "log-probability"),
            "composite": COMPOSITE,
            "mask": MASK,
        },
    ),
    "logits": Case(text.logits, {"model": MODEL, "x": array("nh4", strange=False), "mask": MASK}),
    "pieces": Case(
        text.pieces,
        {
            "ids": PIECES,
            "tokenizer": given_as(tokenizer, *(Spoilt(v, refused=True) for v in (None, "gpt2", 3, object()))),
        },
        holds=lambda found, given: len(found.texts) == len(found.words) == len(given["ids"]),
    ),
    "similarity": Case(text.similarity, {**SENTENCES, "method": METHOD}),
    "strongest": Case(
        text.strongest,
        {"relevance": array("nhwc", wrap=np.asarray), "count": count(1, 99)},
    ),
    "token_pairs": Case(
        text.token_pairs,
        {**SENTENCES, "composite": COMPOSITE, "chunk_size": count(1, 2)},
    ),
    "token_relevance": Case(
        text.token_relevance,
        {
            "f": given_as(
                lambda size: lambda x: jnp.tanh(x.sum(axis=1)),
                Spoilt(lambda x: None, refused=True),
                Spoilt(lambda x: jnp.zeros(len(x)), refused=True),
            ),
            "x": array("nhc"),
            "target": integers("n", below=1),
            "method": METHOD,
            "channels": one_of(False, True),
        },
    ),
}


@EFFORTS
@pytest.mark.parametrize("name", CASES)
def test_an_answer_or_a_clear_error(name, examples):
    with jax.disable_jit():
        search(name, CASES[name], examples)


def test_every_public_function_is_here():
    assert not unheard_of("text", CASES, EXEMPT)
