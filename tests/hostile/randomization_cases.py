"""Cases of `test_metrics.py`: sanity checks by random parameters and classes."""

import jax.numpy as jnp
import numpy as np
from strategies import BATCH, CHUNKS, Case, Spoilt, array, count, given_as, key, number, one_of

from jxai import metrics

# Heatmaps, of the image alone.
SUMMED = one_of(
    lambda x, target: jnp.sin(x).sum(axis=-1) * (1 + target[:, None, None]),
    lambda x, target: x[..., 0] * 0,
    bad=[
        Spoilt(lambda x, target: x[..., 0] * jnp.nan, refused=True),
        Spoilt(lambda x, target: None, refused=True),
        Spoilt(lambda x, target: x[:0, ..., 0], refused=True),
        Spoilt(lambda x, target: x[:, 0], refused=False),
        Spoilt(lambda x, target: x, refused=True),
    ],
)


def parameters(size, seed=0):
    rng = np.random.default_rng(seed)
    kernel, bias, scale = (
        jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((size.h, size.w), (size.w,), (size.w,))
    )
    return {"params": {"a": {"kernel": kernel, "bias": bias}, "b": {"scale": scale}}}


NO_PARAMETERS = [
    Spoilt({"params": {"a": {"kernel": "text"}}}),
    Spoilt({"params": {"a": {"kernel": None}}}),
    Spoilt({}),
    Spoilt(None),
    Spoilt({"params": {"a": {"kernel": jnp.ones((4, 1)), "bias": jnp.full(1, jnp.nan)}}}),
]

TREE = given_as(parameters, *NO_PARAMETERS)


def explain_variables(variables):
    layers = variables["params"]
    scale = layers.get("b", {}).get("scale", 1.0)
    return (layers["a"]["kernel"] * jnp.cos(layers["a"]["kernel"]) + layers["a"]["bias"] * scale)[None]


def as_a_cascade_of_one(found, given):
    """A layer alone is a cascade that ends with its first layer."""
    name = [*(given["layers"] or ("b", "a"))][-1]
    one = metrics.model_randomization(**{**given, "layers": (name,), "cascading": True})
    return all((a[:, -1] == b[:, 0]).all() for a, b in zip(found, one, strict=True))


RANDOMIZATION = {
    "explain": one_of(
        explain_variables,
        bad=[
            Spoilt(lambda variables: None, refused=True),
            Spoilt(lambda variables: jnp.zeros(3), refused=True),
            Spoilt(lambda variables: jnp.full((1, 3, 3), jnp.nan), refused=True),
        ],
    ),
    "variables": TREE,
    "randomized": given_as(lambda size: parameters(size, seed=1), *NO_PARAMETERS),
}

SMOOTH = {
    **RANDOMIZATION,
    "explain": one_of(
        lambda variables, x: explain_variables(variables) * x.sum(axis=(1, 2, 3))[:, None, None],
        bad=[
            Spoilt(lambda variables, x: None, refused=True),
            Spoilt(lambda variables, x: x, refused=True),
            Spoilt(lambda variables, x: jnp.full((1, 3, 3), jnp.nan), refused=True),
        ],
    ),
    "key": key(),
    "x": array("nhwc"),
    "noise_scale": number(0.1, wrong=(0.0, -1.0)),
    "num_samples": count(1),
    "cascading": one_of(False),
}

NO_LAYERS = [Spoilt(v, refused=True) for v in ((), ("c",), "c", 3, (None,), ("",))]

CASES = {
    "efficient_model_randomization": Case(
        metrics.efficient_model_randomization,
        {**RANDOMIZATION, "num_bins": count(2, 100, least=2)},
        undefined="infinite where the entropy was 0",
        holds=lambda found, given: not jnp.isnan(found).any(),
    ),
    "model_randomization": Case(
        metrics.model_randomization,
        {
            **RANDOMIZATION,
            "layers": one_of(("a",), ["b", "a"], bad=[*NO_LAYERS, Spoilt(None, refused=True)]),
            "cascading": one_of(True),
        },
        holds=lambda found, given: found.rank_correlation.shape == (1, len(given["layers"])),
    ),
    "model_randomization:alone": Case(
        metrics.model_randomization,
        {
            **RANDOMIZATION,
            "layers": one_of(None, ("a",), ["a", "b"], bad=NO_LAYERS),
            "cascading": one_of(False),
        },
        holds=as_a_cascade_of_one,
    ),
    "random_logit": Case(
        metrics.random_logit,
        {
            **CHUNKS,
            "key": key(),
            "x": BATCH["x"],
            "target": BATCH["target"],
            "explain": SUMMED,
            "num_classes": count(3, 9),
        },
        holds=lambda found, given: bool((jnp.abs(found) <= 1 + 1e-5).all()),
    ),
    "randomization_layers": Case(metrics.randomization_layers, {"variables": TREE}),
    "shuffled_parameters": Case(
        metrics.shuffled_parameters, {"key": key(), "variables": TREE}, undefined="as given"
    ),
    "smooth_model_randomization": Case(
        metrics.smooth_model_randomization,
        {**SMOOTH, "layers": one_of(("a",), bad=NO_LAYERS)},
        holds=lambda found, given: len(found.rank_correlation) == len(given["x"]),
    ),
}
