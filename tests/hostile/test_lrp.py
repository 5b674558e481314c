"""`jxai.lrp` under hostile input."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from strategies import EFFORTS, Argument, Case, Spoilt, array, integers, number, one_of, search, unheard_of
from tuning_cases import OF_TUNING

from jxai import lrp

EXEMPT = {
    "Application": "what a rule is handed",
    "Conservation": "a structure of results",
    "Coverage": "a table of results",
    "Kind": "names",
    "Linear": "what a rule is handed",
    "LinearRule": "has no rule of its own: subclasses give one",
    "Of": "names",
    "Operation": "what a pattern is handed",
    "Part": "what a rule gives",
    "Row": "a row of results",
    "Rule": "has no rule of its own: subclasses give one",
    "Term": "what a rule gives",
    "attention_weights": "a pattern: takes what the walk hands it",
    "first": "a pattern: takes what the walk hands it",
}


class Network(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(2, (2, 2), name="conv")(x))
        return nn.Dense(self.classes, name="dense")(jnp.tanh(x + x**2).mean((1, 2)))


@functools.cache
def network(shape, classes):
    model = Network(classes)
    with jax.ensure_compile_time_eval():
        variables = model.init(jax.random.key(0), jnp.zeros(shape))
    return lambda x: model.apply(variables, x)


def checked(x):
    """x, where it is images: what a careful user's network makes sure of."""
    if getattr(x, "ndim", None) != 4:
        raise ValueError(f"expected images (N, H, W, C), got {x}: reshape them")
    return x


def scores(x, classes=4):
    """The network that fits the channels of x."""
    return network((1, 2, 2, checked(x).shape[-1]), classes)(x)


def of_itself(f, x, **given):
    """Relevance of what a function starts with where all of its outputs are explained."""
    y, pullback = lrp.vjp(f, x, **given)
    return pullback(y)


def of_composite(make):
    """Relevance of fixed images under what a class makes of its arguments."""

    def call(**given):
        composite = make(**given)
        if isinstance(composite, lrp.Rule):
            composite = lrp.Composite(tuple((kind, composite) for kind in lrp.Kind)) | lrp.EpsilonPlus()
        x = jnp.asarray(np.random.default_rng(0).random((2, 3, 3, 2)), jnp.float32)
        return lrp.relevance(scores, x, jnp.arange(2), composite=composite)

    return call


EPSILON = number(1e-6, 0.01, 0.0, wrong=(-1e-6,), odd=(1e38,))
FLAG = one_of(False, True)
LINEAR = {"epsilon": EPSILON, "only_zeros": FLAG}
PRESET = {"epsilon": EPSILON, "norm": FLAG, "merge_batch_norm": FLAG}
GRADIENTS = {"merge_batch_norm": FLAG, "complete": FLAG}
GAMMA = number(0.25, 0.0, 10.0, wrong=(-0.25,), odd=(1e38,))
ATTENTION = {
    "gamma": GAMMA,
    "convolution_gamma": one_of(
        None, 0.25, bad=[Spoilt(v, refused=True) for v in (-0.25, np.nan, np.inf, "text", 1j, [])]
    ),
    "bias": FLAG,
    **PRESET,
}
LOW = one_of(
    0.0, -1.0, np.zeros(2), bad=[Spoilt(v, refused=True) for v in (5.0, np.nan, np.inf, None, "text", 1j)]
)
HIGH = one_of(
    1.0, np.ones(2), bad=[*(Spoilt(v, refused=True) for v in (-5.0, np.nan, None)), Spoilt(np.ones(3))]
)
IMAGES = array("nhwc")
COMPOSITE = one_of(
    lrp.EpsilonPlus(),
    lrp.sun2020,
    lrp.EpsilonAlpha2Beta1Flat(),
    bad=[*(Spoilt(v, refused=True) for v in (None, 3, "EpsilonPlus", lrp.Epsilon(), lrp.EpsilonPlus))],
)
START = one_of(
    None,
    lambda y: y * 0 + 1,
    bad=[Spoilt(v, refused=True) for v in (3, lambda y: y[:, :1], lambda y: None, lambda y: y * np.nan)],
)
PATHS = [Spoilt(v, refused=True) for v in ("nothing", "conv/", 3, ("conv", 3), ("nothing",))]


def pulled(x, composite, start, watch, masks, relevance, ratios):
    y, pullback = lrp.vjp(scores, x, composite=composite, start=start, watch=watch, masks=masks)
    return pullback(relevance(y), ratios=ratios)


_numbers = itertools.count()


def doubling():
    """A new primitive, 2 x, which nothing knows of."""
    double_p = Primitive(f"hostile_{next(_numbers)}")
    double_p.def_impl(lambda x: 2 * x)
    double_p.def_abstract_eval(lambda x: x)
    ad.deflinear2(double_p, lambda ct, _: [2 * ct])
    batching.primitive_batchers[double_p] = lambda given, axes: (double_p.bind(*given), axes[0])
    return double_p


def declared(what, says):
    """Relevance of what was declared; a name alone, or somebody's kernel, is declared and no more."""
    primitive, name = what()
    lrp.declare(primitive, name=name, **says)
    if not isinstance(primitive, Primitive):
        return None
    return lrp.vjp(primitive.bind, jnp.ones((2, 3)), composite=lrp.AttnLRP())[1](jnp.ones((2, 3)))


CASES = OF_TUNING | {
    "AlphaBeta": Case(
        of_composite(lrp.AlphaBeta),
        {
            "alpha": number(2.0, wrong=(-1.0, 1.0)),
            "beta": number(1.0, wrong=(-1.0, 0.5)),
            "bias": FLAG,
            **LINEAR,
        },
    ),
    "AttnLRP": Case(of_composite(lrp.AttnLRP), ATTENTION),
    "Box": Case(
        of_composite(lambda **given: lrp.Composite(((lrp.first, lrp.Box(**given)),)) | lrp.EpsilonPlus()),
        {"low": LOW, "high": HIGH, **LINEAR},
    ),
    "CPLRP": Case(of_composite(lrp.CPLRP), ATTENTION),
    "Composite": Case(
        of_composite(lrp.Composite),
        {
            "rules": one_of(
                ((lrp.Kind.CONVOLUTION, lrp.ZPlus()), (lrp.Kind.DENSE, lrp.Epsilon())),
                ((nn.Conv, lrp.Flat()), ("dense", lrp.Epsilon()), (lrp.first, lrp.ZPlus())),
                bad=[
                    *(Spoilt(v, refused=True) for v in (None, 3, "text", (3,), ((lrp.Kind.SUM,),))),
                    *(Spoilt(((v, lrp.Epsilon()),), refused=True) for v in (None, 3, int, [])),
                    *(Spoilt(((lrp.Kind.DENSE, v),), refused=True) for v in (None, lrp.Epsilon, "Epsilon")),
                    Spoilt(((lrp.Kind.SUM, lrp.Epsilon()),)),
                ],
            ),
            "merge_batch_norm": FLAG,
            "complete": one_of(False),
        },
    ),
    "Constant": Case(of_composite(lrp.Constant)),
    "DeconvRelu": Case(of_composite(lrp.DeconvRelu)),
    "Deconvnet": Case(of_composite(lrp.Deconvnet), GRADIENTS),
    "Epsilon": Case(of_composite(lrp.Epsilon), {"bias": FLAG, **LINEAR}),
    "EpsilonAlpha2Beta1": Case(of_composite(lrp.EpsilonAlpha2Beta1), PRESET),
    "EpsilonAlpha2Beta1Flat": Case(of_composite(lrp.EpsilonAlpha2Beta1Flat), PRESET),
    "EpsilonGammaBox": Case(
        of_composite(lrp.EpsilonGammaBox), {"low": LOW, "high": HIGH, "gamma": GAMMA, **PRESET}
    ),
    "EpsilonPlus": Case(of_composite(lrp.EpsilonPlus), PRESET),
    "EpsilonPlusFlat": Case(of_composite(lrp.EpsilonPlusFlat), PRESET),
    "ExcitationBackprop": Case(of_composite(lrp.ExcitationBackprop), PRESET),
    "Flat": Case(of_composite(lrp.Flat), LINEAR),
    "Gamma": Case(of_composite(lrp.Gamma), {"gamma": GAMMA, "bias": FLAG, **LINEAR}),
    "Gradient": Case(of_composite(lrp.Gradient)),
    "GuidedBackprop": Case(of_composite(lrp.GuidedBackprop), GRADIENTS),
    "GuidedRelu": Case(of_composite(lrp.GuidedRelu)),
    "HoldGate": Case(of_composite(lrp.HoldGate), {"share_zeros": FLAG}),
    "Norm": Case(of_composite(lrp.Norm), {"epsilon": EPSILON, "share_zeros": FLAG}),
    "Pass": Case(
        of_composite(lambda: lrp.Composite(((lrp.Kind.ACTIVATION, lrp.Pass()),)) | lrp.EpsilonPlus())
    ),
    "Shift": Case(
        lambda x: of_itself(
            lambda x: (images := checked(x)) - images.mean(-1, keepdims=True),
            x,
            composite=lrp.Composite(((lrp.Kind.CENTERING, lrp.Shift()),)) | lrp.EpsilonPlus(),
        ),
        {"x": IMAGES},
    ),
    "Split": Case(of_composite(lrp.Split), {"share_zeros": FLAG}),
    "WSquare": Case(of_composite(lrp.WSquare), LINEAR),
    "ZPlus": Case(of_composite(lrp.ZPlus), {"bias": FLAG, **LINEAR}),
    "conservation": Case(
        lambda **given: lrp.conservation(scores, **given),
        {
            "x": IMAGES,
            "composite": COMPOSITE,
            "start": START,
        },
        holds=lambda found, given: found.start.shape == given["x"].shape[:1],
    ),
    "coverage": Case(
        lambda x, composite: str(lrp.coverage(scores, x, composite=composite)),
        {"x": IMAGES, "composite": COMPOSITE},
        holds=lambda found, given: "convolution" in found,
    ),
    "declare": Case(
        declared,
        {
            "what": one_of(
                lambda: (doubling(), None),
                lambda: (doubling().name, None),
                lambda: ("pallas_call", f"hostile kernel {next(_numbers)}"),
                bad=[
                    *(Spoilt(lambda v=v: (v, None), refused=True) for v in (None, 3, "", jnp.sin, Primitive)),
                    *(Spoilt(lambda v=v: (v, None), refused=True) for v in ("add", jax.lax.mul_p)),
                    *(Spoilt(lambda v=v: ("pallas_call", v), refused=True) for v in (3, "", ["kernel"])),
                ],
            ),
            "says": one_of(
                {"like": jax.lax.neg_p},
                {"means": lambda x: 2 * x},
                {"entrywise": True, "linear": "jointly", "degree": 1},
                {"moves": True, "linear": "jointly", "sign": "kept"},
                bad=[
                    Spoilt(v, refused=True)
                    for v in (
                        {},
                        {"like": jax.lax.neg_p, "means": lambda x: 2 * x},
                        {"like": jax.lax.neg_p, "entrywise": True},
                        *({"like": v} for v in ("neg", 3, jnp.negative, Primitive("hostile_nobody"))),
                        *({"means": v} for v in ("2 * x", 3, jax.lax.neg_p)),
                        *({"linear": v} for v in ("sometimes", 3, True, ["jointly"])),
                        *({"moves": True, "sign": v} for v in ("negative", 1, {})),
                        *({"entrywise": v} for v in ("text", 3, None, jnp.ones(3))),
                        *({"entrywise": True, "degree": v} for v in ("text", np.nan, np.inf, 1j, [1])),
                        *({"moves": True, "values": v} for v in ("text", 1.5, -1)),
                        *({"contracts": True, "kernel": v} for v in ("text", 1.5)),
                        {"unheard_of": True},
                    )
                ],
            ),
        },
    ),
    "fixed": Case(
        lambda x: of_itself(
            lambda v: jnp.tensordot(lrp.fixed(x), v, 0), jnp.ones((1, 2)), composite=lrp.EpsilonPlus()
        ),
        {"x": array("23")},
    ),
    "linear_operation": Case(
        lambda x: lrp.vjp(
            lambda x: lrp.linear_operation(lambda x, kernel: x @ kernel)(x, jnp.eye(3)),
            x,
            composite=lrp.EpsilonPlus(),
        )[1](jnp.ones(x.shape)),
        {
            "x": Argument(
                lambda size: st.integers(0, 3).map(lambda n: jnp.full((2, 3), n, jnp.float32)),
                lambda size: st.sampled_from(
                    [Spoilt(jnp.full((2, 3), v), refused=True) for v in (np.nan, np.inf)]
                ),
            )
        },
    ),
    "mark": Case(
        lambda x, name: of_itself(
            lambda x: lrp.mark(checked(x) * 2.0, name), x, composite=lrp.AttnLRP(), watch=[name]
        ),
        {
            "x": IMAGES,
            "name": one_of("a", "α/b", bad=[Spoilt(v, refused=True) for v in ("", "a#0", None, 3)]),
        },
    ),
    "relevance": Case(
        lambda **given: lrp.relevance(scores, **given),
        {"x": IMAGES, "target": integers("n", below="k"), "composite": COMPOSITE},
        holds=lambda found, given: found.shape == given["x"].shape and found.dtype == given["x"].dtype,
    ),
    "relevance_patching": Case(
        lambda **given: lrp.relevance_patching(scores, **given),
        {
            "clean": IMAGES,
            "patched": IMAGES,
            "taps": one_of(
                ["conv"],
                ("conv", "dense"),
                bad=[*PATHS, *(Spoilt(v, refused=True) for v in ((), None, "conv"))],
            ),
            "composite": one_of(
                None,
                lrp.EpsilonPlus(),
                lrp.GuidedBackprop(),
                bad=[Spoilt(v, refused=True) for v in (3, "EpsilonPlus", lrp.Epsilon(), lrp.EpsilonPlus)],
            ),
        },
        holds=lambda found, given: set(found) == set(given["taps"]),
    ),
    "vjp": Case(
        pulled,
        {
            "x": IMAGES,
            "composite": COMPOSITE,
            "start": one_of(None, "dense", bad=PATHS[:3]),
            "watch": one_of((), ["conv"], bad=PATHS),
            "ratios": one_of(
                False, True, bad=[Spoilt(v, refused=True) for v in (None, "text", 2, np.ones(2))]
            ),
            "masks": one_of(
                None,
                {"conv": np.array([1.0, 0.0])},
                bad=[
                    *(Spoilt({"conv": v}, refused=True) for v in (np.nan, np.ones(3), None, "text", 1j)),
                    *(Spoilt(v, refused=True) for v in (3, ["conv"], {"nothing": 1.0}, {3: 1.0})),
                ],
            ),
            "relevance": one_of(
                lambda y: y,
                lambda y: y * 0,
                bad=[
                    *(
                        Spoilt(v, refused=True)
                        for v in (lambda y: y[:, :1], lambda y: None, lambda y: y * np.nan)
                    ),
                    *(
                        Spoilt(v, refused=True)
                        for v in (lambda y: "text", lambda y: y * 1j, lambda y: (y, y))
                    ),
                    Spoilt(lambda y: y * 3e38),
                ],
            ),
        },
    ),
    "weight_relevance": Case(
        lambda **given: lrp.weight_relevance(
            lambda params, x: jnp.tanh(checked(x).mean((1, 2)) @ params["kernel"]) * 2.0, **given
        ),
        {
            "params": Argument(
                lambda size: (
                    array("ck").good(size).map(lambda kernel: {"kernel": kernel, "count": np.arange(2)})
                ),
                lambda size: st.sampled_from(
                    [
                        *(Spoilt({"kernel": v}, refused=True) for v in (np.full((9, 2), np.nan), "text", 1j)),
                        *(Spoilt(v, refused=True) for v in ({}, None, {"kernel": np.ones((size.c, 2), int)})),
                        Spoilt({"kernel": np.ones((size.c + 1, 2))}),
                    ]
                ),
            ),
            "x": IMAGES,
            "composite": one_of(
                lrp.EpsilonPlus(),
                lrp.AttnLRP(0.25),
                bad=[
                    Spoilt(v, refused=True) for v in (None, 3, "Epsilon", lrp.Epsilon(), lrp.GuidedBackprop())
                ],
            ),
            "start": START,
        },
        holds=lambda found, given: found["kernel"].shape == given["params"]["kernel"].shape,
    ),
}


@pytest.mark.filterwarnings("ignore:expected relevance to reach the inputs, got none")
@EFFORTS
@pytest.mark.parametrize("name", CASES)
def test_an_answer_or_a_clear_error(name, examples):
    with jax.disable_jit():
        search(name, CASES[name], examples)


def test_every_public_function_is_here():
    assert not unheard_of("lrp", CASES, EXEMPT)
