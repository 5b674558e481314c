"""`jxai.models` that are transformers under hostile input; in `test_models.py`'s list."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
from strategies import Case, Spoilt, choice, count, given_as, number, one_of

from jxai import models

NO_PATH = [  # None is the installed package's
    *(Spoilt(v, refused=True) for v in (3, [])),
    *map(Spoilt, ("/no/such.gguf", "/tmp", "a\0b.gguf", "x" * 5000)),
]
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
IMAGE = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
BYTES = np.random.default_rng(0).integers(0, 257, (2, 32)).astype(np.int32)
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


def magika(ids, **fields):
    made = models.Magika(**fields)
    variables = jax.eval_shape(made.init, jax.random.key(0), ids)
    return made.apply(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables), ids)


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


BERT = models.EncoderConfig(
    vocab_size=7,
    hidden_size=8,
    intermediate_size=6,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=5,
    num_labels=3,
)
GPT = models.GPT2Config(vocab_size=7, n_embd=8, n_layer=2, n_head=2, n_positions=5)


def sizes(config, *others):
    """Every count of a configuration but these."""
    given = dataclasses.asdict(config)
    return {name: count(value) for name, value in given.items() if type(value) is int and name not in others}


def configuration(kind, config):
    return lambda **given: dataclasses.asdict(kind(**{**dataclasses.asdict(config), **given}))["vocab_size"]


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
    "Encoder": Case(
        module(models.Encoder),
        {
            "ids": tokens(IDS, vocabulary=7),
            "mask": masks(IDS),
            "config": one_of(BERT, bad=NO_CONFIG),
            "scan": FLAG,
            "remat": FLAG,
        },
    ),
    "EncoderBlock": Case(
        block(models.EncoderBlock), {"x": embeddings((2, 3, 8)), "config": one_of(BERT, bad=NO_CONFIG)}
    ),
    "EncoderConfig": Case(
        configuration(models.EncoderConfig, BERT),
        {
            **sizes(BERT, "num_labels"),
            "num_labels": count(0, 3, least=0),
            "hidden_act": choice("gelu", "relu"),
            "layer_norm_eps": number(1e-6, wrong=(0, -1.0, "text", None)),
            "pooler": choice(True),
        },
    ),
    "FocusNet": Case(
        lambda x, **given: (
            jax.eval_shape(lambda: models.FocusNet(**given).init_with_output(jax.random.key(0), x))[0].shape
        ),
        {
            "x": one_of(
                IMAGE,
                bad=[
                    Spoilt(v, refused=True)
                    for v in (IMAGE[0], IMAGE[:, :3], IMAGE[:0], IMAGE[None], IMAGE.tolist(), None, "text", 3)
                ],
            ),
            "depth": one_of(1, bad=[Spoilt(v, refused=True) for v in (0, -1, 2.5, None, "text")]),
            "width": one_of(4, bad=[Spoilt(v, refused=True) for v in (0, -1, 2.5, None, "text")]),
            "num_heads": count(1, 2, odd=(3,)),
            "mlp_width": count(4),
            "patch_size": one_of(2, bad=[Spoilt(v, refused=True) for v in (0, -1, 3, 2.5, None, "text")]),
            "position_grid": count(3),
            "widths": one_of(
                (4,), bad=[Spoilt(v, refused=True) for v in ((), (0,), (2.5,), None, 3, "text")]
            ),
            "scan": FLAG,
            "remat": FLAG,
        },
    ),
    "GPT2": Case(
        module(models.GPT2),
        {
            "ids": tokens(IDS, vocabulary=7),
            "mask": masks(IDS),
            "config": one_of(GPT, bad=NO_CONFIG),
            "scan": FLAG,
            "remat": FLAG,
        },
    ),
    "GPT2Config": Case(
        configuration(models.GPT2Config, GPT),
        {
            **sizes(GPT),
            "n_inner": count(None, 4),
            "activation_function": choice("gelu", "relu"),
            "layer_norm_epsilon": number(1e-6, wrong=(0, -1.0, "text", None)),
        },
    ),
    "Loaded": Case(
        loaded,
        {
            "module": one_of(nn.Dense(2)),
            "variables": given_as(lambda size: {"params": {"kernel": np.ones((2, 2)), "bias": np.ones(2)}}),
        },
    ),
    "Magika": Case(
        magika,
        {
            "ids": one_of(
                BYTES,
                bad=[
                    Spoilt(v, refused=True)
                    for v in (BYTES[:, :8], BYTES[0], BYTES + 257, BYTES - 300, BYTES * 1.0, None, "text", 3)
                ],
            ),
            "num_classes": count(2),
            "num_bytes": one_of(
                32, bad=[Spoilt(v, refused=True) for v in (0, 30, 16, 64, 2.5, None, "text")]
            ),
            "width": count(2),
            "conv_width": count(2),
            "conv_size": one_of(5, bad=[Spoilt(v, refused=True) for v in (0, 9, 2.5, None, "text")]),
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
    "byte_features": Case(
        models.byte_features,
        {
            "content": one_of(
                b"  #!/bin/sh  ",
                b" " * 5000,
                bad=[Spoilt(v, refused=True) for v in (b"", "text", None, 3, [1], np.zeros(3))],
            ),
            "num_bytes": one_of(
                4, 2048, bad=[Spoilt(v, refused=True) for v in (0, 3, -2, 2.0, None, "text", True)]
            ),
        },
        holds=lambda found, given: found.shape == (1, given["num_bytes"]) and found.max() <= 256,
    ),
    "focus": Case(
        unless_missing(models.focus),
        {"path": one_of("/none.onnx", bad=NO_PATH), "scan": FLAG, "remat": FLAG},
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
    "magika": Case(unless_missing(models.magika), {"path": one_of("/none.onnx", bad=NO_PATH)}),
    "minilm": Case(
        unless_missing(models.minilm),
        {"path": one_of("/none", bad=NO_PATH), "scan": FLAG, "remat": FLAG},
    ),
    "smollm2": Case(
        unless_missing(models.smollm2),
        {"path": one_of("/none.gguf", bad=NO_PATH), "scan": FLAG, "remat": FLAG},
    ),
}
# They ask for a file that nobody put there.
NEVER_ANSWERED = ("focus", "load_transformer", "magika", "minilm", "smollm2")
