"""`jxai.models` that are transformers under hostile input; in `test_models.py`'s list."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
from strategies import Case, Spoilt, choice, count, given_as, number, one_of

from jxai import models

NO_FILE = [
    *(Spoilt(v, refused=True) for v in (3, [], None)),
    *map(Spoilt, ("/no/such.gguf", "/tmp", "a\0b.gguf", "x" * 5000)),
]
SIZES = {
    "vocab_size": 7,
    "hidden_size": 8,
    "intermediate_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "max_position_embeddings": 5,
}
DECODER = models.DecoderConfig(**SIZES)
FLAG = choice(True, False)
NO_CONFIG = [Spoilt(v, refused=True) for v in (None, 3, {}, "text", models.DecoderConfig)]
IDS = np.arange(6, dtype=np.int32).reshape(2, 3)


def tokens(ids, *odd, vocabulary):
    """Tokens (N, T), none of which may be left out, be of no word, or be too many for a context of 5."""
    wrong = [
        ids[:0],
        ids[:, :0],
        ids[0],
        ids[None],
        ids.astype(np.float32),
        ids + vocabulary,
        ids - vocabulary,
    ]
    wrong += [
        np.tile(ids, (1, 2)),
        ids.tolist(),
        None,
        "text",
        3,
        ids.astype(complex),
        ids.astype(object),
        *odd,
    ]
    return one_of(ids, bad=[Spoilt(v, refused=True) for v in wrong])


def masks(ids):
    right = np.ones(ids.shape, bool)
    wrong = [right[:1], right[:, :2], right[0], right.tolist(), "text", 3, right.astype(np.float32)]
    return one_of(None, right, right.astype(np.int32), bad=[Spoilt(v, refused=True) for v in wrong])


def embeddings(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    wrong = [x[:0], x[:, :0], x[0], x[None], x.astype(np.int32), x.tolist(), None, "text", 3, x.astype(str)]
    return one_of(x, bad=[Spoilt(v, refused=True) for v in wrong])


def module(kind):
    """What a model's first call gives, run and not traced, so that tokens are known."""

    def call(ids, mask, **fields):
        made = kind(**fields)
        variables = jax.eval_shape(made.init, jax.random.key(0), IDS)
        variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)
        return made.apply(variables, ids, mask)

    return call


def block(kind):
    def call(x, **fields):
        found, _ = jax.eval_shape(lambda: kind(**fields).init_with_output(jax.random.key(0), x))
        return found.shape

    return call


def unless_missing(function):
    def call(**given):
        try:
            return function(**given)
        except FileNotFoundError as error:
            assert str(error).startswith("expected ")
            return None

    return call


def loaded(module, **given):
    made = models.Loaded(module=module, tokenizer=None, report=models.WeightsReport((), (), ()), **given)
    return jax.jit(lambda model, x: model(x))(made, np.ones((1, 2), np.float32))


CASES = {
    "Decoder": Case(
        module(models.Decoder),
        {
            "ids": tokens(IDS, vocabulary=7),
            "mask": masks(IDS),
            "config": one_of(DECODER, bad=NO_CONFIG),
            "scan": FLAG,
            "remat": FLAG,
        },
    ),
    "DecoderBlock": Case(
        block(models.DecoderBlock),
        {"x": embeddings((2, 3, 8)), "config": one_of(DECODER, bad=NO_CONFIG)},
    ),
    "DecoderConfig": Case(
        lambda **given: dataclasses.asdict(models.DecoderConfig(**{**SIZES, **given}))["vocab_size"],
        {
            **{name: count(value) for name, value in SIZES.items() if name != "head_dim"},
            "head_dim": count(2, 4, odd=(3,)),
            "hidden_act": choice("silu", "gelu_pytorch_tanh"),
            "rms_norm_eps": number(1e-6, wrong=(0, -1.0, "text", None)),
            "rope_theta": number(1e4, wrong=(0, -1.0, "text", None)),
            "query_pre_attn_scalar": number(None, 8, wrong=(0, -1.0)),
            "rope_scaling": one_of(
                models.RopeScaling(), bad=[Spoilt(v, refused=True) for v in (None, 3, {}, "linear")]
            ),
            "layer_types": one_of(
                (),
                ("full_attention",) * 2,
                bad=[Spoilt(v, refused=True) for v in (None, "text", ("text",) * 2, ("full_attention",) * 9)],
            ),
        },
    ),
    "Loaded": Case(
        loaded,
        {
            "module": one_of(nn.Dense(2)),
            "variables": given_as(lambda size: {"params": {"kernel": np.ones((2, 2)), "bias": np.ones(2)}}),
        },
    ),
    "RopeScaling": Case(
        lambda **given: models.RopeScaling(**given).kind,
        {
            "kind": choice("default", "linear"),
            "factor": number(1.0, 8.0, wrong=(0, -1.0, "text", None)),
            "attention_factor": number(0.0, wrong=(-1.0, "text", None)),
        },
    ),
    "load_transformer": Case(
        unless_missing(models.load_transformer),
        {
            "path": one_of("/none.gguf", bad=NO_FILE),
            "scan": FLAG,
            "remat": FLAG,
            "dtype": one_of(
                None,
                "bfloat16",
                np.float32,
                bad=[Spoilt(v, refused=True) for v in ("text", "float16", int, 3, [])],
            ),
        },
    ),
    "smollm2": Case(
        unless_missing(models.smollm2),
        {"path": one_of("/none.gguf", bad=NO_FILE[:2] + NO_FILE[3:]), "scan": FLAG, "remat": FLAG},
    ),
}
# They ask for a file that nobody put there.
NEVER_ANSWERED = ("load_transformer", "smollm2")
