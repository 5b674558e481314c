"""Few-shot systems small enough to run uncompiled, and episodes for them, right and wrong."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from strategies import Argument, Spoilt, count, one_of

from jxai import fewshot

WAY, SIDE = 2, 4


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(3, (2, 2), name="conv")(x)
        return nn.relu(nn.BatchNorm(use_running_average=not train, name="bn0")(x))


HEADS = {
    "AdaptedHead": fewshot.AdaptedHead(way=WAY),
    "CrossAttentionHead": fewshot.CrossAttentionHead(hidden=2),
    "FEATHead": fewshot.FEATHead(),
    "GraphHead": fewshot.GraphHead(way=WAY, features=3, growth=2, widths=(2,)),
    "MatchingHead": fewshot.MatchingHead(),
    "PrototypeHead": fewshot.PrototypeHead(),
    "RelationHead": fewshot.RelationHead(features=2, hidden=2),
}


@functools.cache
def variables(name):
    with jax.ensure_compile_time_eval(), jax.disable_jit(False):
        init = functools.partial(fewshot.init_variables, Encoder(), HEADS[name], image_size=SIDE)
        return jax.jit(init)(jax.random.key(0))


def maps(n, channels=3, seed=0):
    return np.random.default_rng(seed).random((n, SIDE, SIDE, channels)).astype(np.float32)


def features(n, channels=3):
    """Features or images of n pictures."""
    x = maps(n, channels)
    odd = [
        x * np.nan,
        x * np.inf,
        x * 3e38,
        x[:0],
        x[..., :0],
        x[:, :1],
        x[0],
        x[None],
        x.ravel(),
        np.zeros(()),
    ]
    odd += [
        np.concatenate([x, x]),
        x[..., :1],
        x[:, :1, :1],
        x.astype(np.float16),
        x.astype(np.float64),
        x * 0,
    ]
    wrong = [x.astype(np.int32), x.astype(complex), x.astype(object), x.tolist(), None, "text", {}]
    return Argument(
        lambda size: st.integers(0, 5).map(lambda seed: jnp.asarray(maps(n, channels, seed))),
        lambda size: st.sampled_from(
            [*(Spoilt(jnp.asarray(v)) for v in odd), *(Spoilt(v, refused=True) for v in wrong)]
        ),
    )


def labels(n, *, refused=True):
    right = np.repeat(np.arange(WAY, dtype=np.int32), n // WAY)
    wrong = [right - 1, right + 1, right * 0 + WAY, right[:1], right[:, None], right.astype(np.float32)]
    wrong += [right * np.nan, None, "text", right.tolist(), right.astype(object)]
    bad = [*(Spoilt(v, refused=refused) for v in wrong), Spoilt(right.astype(bool)), Spoilt(right[::-1])]
    return one_of(right, jnp.asarray(right), bad=bad)


SHOT, QUERIES = 2, 4
TASK = {"support": features(WAY * SHOT), "support_labels": labels(WAY * SHOT), "query": features(QUERIES)}
WAYS = count(WAY, odd=(3, 50))
NO_EPISODE = one_of(None, bad=[Spoilt(v, refused=True) for v in (3, "text", {})])
VARIABLES = [Spoilt(v, refused=True) for v in (None, 3, [], "text", {"params": 3})]
NO_MODULE = [Spoilt(v, refused=True) for v in (None, 3, nn.Dense, "conv4")]
ENCODER = one_of(Encoder(), bad=NO_MODULE)
NO_HEADS = [Spoilt(v, refused=True) for v in (None, 3, fewshot.RelationHead)]
HEAD = one_of(*HEADS, bad=NO_HEADS)
GUIDANCE = one_of(
    fewshot.Guidance(), fewshot.PLAIN, bad=[Spoilt(v, refused=True) for v in (None, 1.0, fewshot.Guidance)]
)
SIZE = count(SIDE, 6)
MAYBE = one_of(
    None,
    {"bn0": {"scale": jnp.full(3, 0.3), "shift": jnp.full(3, 0.5)}},
    bad=[Spoilt(v, refused=True) for v in (3, "bn0", {"bn0": 3}, {"bn0": {"scale": jnp.ones(3)}})],
)
TRANSFORMATION = MAYBE._replace(good=lambda size: MAYBE.good(size).map(lambda v: v or {}))
TRANSDUCTION = one_of(
    fewshot.Transduction(counts=(1, 2)),
    fewshot.Transduction(counts=(1,), restart=False, confidence="probability"),
    bad=[*(Spoilt(v, refused=True) for v in (3, (1, 2))), Spoilt(fewshot.Transduction())],
)

NO_LABELS = [Spoilt(v, refused=True) for v in (3, np.zeros(QUERIES), np.zeros(2, int))]
IMAGES = {
    "support": features(WAY * SHOT),
    "support_labels": labels(WAY * SHOT),
    "query": features(QUERIES),
    "query_labels": labels(QUERIES),
    "query_classes": one_of(None, bad=NO_LABELS),
}
NO_EPISODE = one_of(None, bad=[Spoilt(v, refused=True) for v in (3, "text", {})])
SYSTEM = {"head": HEAD, "variables": one_of(None, bad=VARIABLES[1:])}
EPISODE = {
    "encoder": ENCODER,
    **SYSTEM,
    **IMAGES,
    "way": WAYS,
    "episode_given": NO_EPISODE,
}


def episode(support, support_labels, query, query_labels, way, query_classes=None):
    return fewshot.Episode(support, support_labels, query, query_labels, way=way, query_classes=query_classes)


def system(name, given):
    """(head, variables) by the head's name; hostile ones as they are."""
    known = isinstance(name, str) and name in HEADS
    head = HEADS[name] if known else name
    return head, variables(name if known else "RelationHead") if given is None else given


def with_head(function, *, then=lambda found: found):
    """The function of a head by its name and of that head's variables."""

    def call(head, variables, **given):
        head, variables = system(head, variables)
        return then(function(head, variables, **given))

    return call


def of_features(function):
    """The function of head, variables and an episode of features made of its arrays."""

    def call(head, variables, way, episode_given, **given):
        head, variables = system(head, variables)
        arrays = {name: given.pop(name) for name in (*TASK, "query_labels", "query_classes") if name in given}
        one = episode(**arrays, way=way) if episode_given is None else episode_given
        return function(head, fewshot.part(variables, "head"), one, **given)

    return call


def with_episode(function):
    """The function of encoder, head, variables and an episode made of its arrays."""

    def call(encoder, head, variables, way, episode_given, options, **arrays):
        head, variables = system(head, variables)
        one = episode(**arrays, way=way) if episode_given is None else episode_given
        return function(encoder, head, variables, one, **options)

    return call
