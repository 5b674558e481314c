"""`jxai.guidance` under hostile input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategies import (
    BATCH,
    EFFORTS,
    Argument,
    Case,
    F,
    Spoilt,
    array,
    count,
    given_as,
    integers,
    key,
    mask,
    network,
    number,
    one_of,
    search,
    unheard_of,
)

from jxai import guidance

# Squares of what is near the end of float32 are not in it.
OVERFLOW = "squares in the explanations' unit may overflow"


def region():
    """Booleans of pixels, or shares; all false or true is a region too."""
    pixels = mask("nhw")
    good = lambda size: pixels.good(size) | pixels.good(size).map(lambda m: m.astype(jnp.float32))  # noqa: E731
    wrong = [np.full((2, 4, 5), 2.0), np.full((2, 4, 5), np.nan), np.zeros((2, 3)), None, "left", object()]
    return Argument(good, given_as(lambda size: None, *[Spoilt(v, refused=True) for v in wrong]).bad)


def vector(refused=True):
    return given_as(
        lambda size: jnp.ones(size.c) / size.c**0.5,
        *[
            Spoilt(v, refused=refused)
            for v in (jnp.ones(17), jnp.ones((1, 1)), None, "up", jnp.full(3, jnp.nan))
        ],
    )


def of_two(activations):
    """A concept needs an example with it and one without."""
    one = isinstance(activations, jax.Array) and activations.shape[:1] == (1,)
    return jnp.concatenate([activations, activations]) if one else activations


def one_hot(size):
    return jax.nn.one_hot(jnp.arange(size.n) % size.k, size.k)


NO_FUNCTIONS = [Spoilt(v, refused=True) for v in (None, 3, "sin")]
NOTHING = Spoilt(lambda z: None, refused=True)
SIN = one_of(jnp.sin, bad=[*NO_FUNCTIONS, NOTHING, Spoilt(lambda z: z[..., 0], refused=True)])
# Heat maps without channels are explanations too.
HEATMAPS = one_of(jnp.sin, lambda z: z.sum(axis=-1), bad=[*NO_FUNCTIONS, NOTHING])
MAP = {"relevance": array("nhwc")}
CASES = {
    "background": Case(
        guidance.background,
        {
            **MAP,
            "foreground": region(),
            "decay": number(1.0, 0.5, wrong=(0.0, 1.5)),
            "scale": number(1.0, 2, wrong=(0.0, -1.0)),
            "stabilizer": number(1e-3, wrong=(0.0,)),
        },
        holds=lambda found, given: bool((found >= 0).all()),
    ),
    "concept_sensitivity": Case(
        guidance.concept_sensitivity,
        {
            "f": F,
            "activations": array("nhwc"),
            "target": given_as(
                one_hot, *[Spoilt(v, refused=True) for v in (None, jnp.ones(9), jnp.ones((1, 1), int))]
            ),
            "concept": vector(),
        },
        undefined=OVERFLOW,
    ),
    "concept_vector": Case(
        lambda activations, present: guidance.concept_vector(of_two(activations), present),
        {
            "activations": array("nhwc"),
            "present": given_as(
                lambda size: jnp.arange(max(size.n, 2)) % 2 == 0,
                *[Spoilt(v, refused=True) for v in (None, jnp.ones(9), jnp.zeros(2, bool), "all")],
            ),
        },
    ),
    "density": Case(guidance.density, {"heatmap": array("nhw")}),
    "disagreement": Case(
        guidance.disagreement,
        {**MAP, "reference": array("nhwc")},
        holds=lambda found, given: bool(((found >= -1e-5) & (found <= 2 + 1e-5)).all()),
    ),
    "drawn_classes": Case(
        guidance.drawn_classes,
        {"key": key(), "labels": integers("n", below=3), "num_classes": count(3, least=2)},
        holds=lambda found, given: bool(((found >= 0) & (found < given["num_classes"])).all()),
    ),
    "foreground_range": Case(
        guidance.foreground_range,
        {
            **MAP,
            "foreground": region(),
            "least": number(1.0, wrong=(0.0,)),
            "most": number(2.0, wrong=(0.5,)),
        },
        undefined=OVERFLOW,
    ),
    "inconsistency": Case(
        guidance.inconsistency,
        {"explain": HEATMAPS, "x": array("nhwc"), "transform": one_of(jnp.cos, bad=NO_FUNCTIONS)},
    ),
    "relevance_weights": Case(
        guidance.relevance_weights,
        {"relevance": array("nhwc"), "strength": number(1.0, 0.0, wrong=(-1.0,))},
        holds=lambda found, given: bool(((found >= -1e-6) & (found <= 2 + 1e-6)).all()),
    ),
    "right_reasons": Case(
        guidance.right_reasons, {"attributions": array("nhwc"), "mask": region()}, undefined=OVERFLOW
    ),
    "roughness": Case(guidance.roughness, {"heatmap": array("nhw")}),
    "sum_of_logs": Case(guidance.sum_of_logs, {"scores": array("nk")}),
    "unfaithfulness": Case(
        guidance.unfaithfulness,
        {
            **BATCH,
            "relevance": array("nhw"),
            "shares": one_of(
                (0.5,), (0.1, 0.9), bad=[Spoilt(v, refused=True) for v in ((), (0.0,), 0.5, "half")]
            ),
            "softness": number(0.2, 1.0, wrong=(0.0, 1.5)),
            "baseline": number(0.0, 1.0),
        },
    ),
    "weighted_scores": Case(
        guidance.weighted_scores,
        {
            "head": given_as(network, *NO_FUNCTIONS),
            "features": array("nhwc"),
            "explain": SIN,
            "strength": number(1.0, wrong=(-1.0,)),
            "through": one_of(False, True),
        },
    ),
    "without_concept": Case(
        guidance.without_concept,
        {
            "activations": array("nhwc"),
            "concept": vector(),
            "origin": vector(),
            "where": given_as(
                lambda size: jnp.arange(size.n) % 2 == 0,
                *[Spoilt(v, refused=True) for v in (jnp.ones(9), "all", jnp.zeros(2))],
            ),
        },
    ),
}


def test_every_public_name_has_a_case():
    assert not unheard_of("guidance", CASES, {})


@EFFORTS
@pytest.mark.parametrize("name", CASES)
def test_an_answer_or_a_clear_error(name, examples):
    search(name, CASES[name], examples)
