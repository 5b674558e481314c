"""Trees of a composite's numbers under hostile input, of `jxai.lrp`."""

import jax
import jax.numpy as jnp
import numpy as np
from strategies import Case, Spoilt, array, one_of

from jxai import lrp


def scores(x):
    """Of images (N, H, W, C), four."""
    if getattr(x, "ndim", None) != 4:
        raise ValueError(f"expected images (N, H, W, C), got {x}: reshape them")
    with jax.named_scope("dense"):
        z = x @ np.linspace(-1, 1, 4 * x.shape[-1], dtype=np.float32).reshape(-1, 4)
    return jnp.tanh(z).mean((1, 2))


def tuned(x, composite, spoil):
    """Relevance under a composite of other numbers."""
    values, composed = lrp.rule_parameters(scores, x, composite=composite)
    return lrp.relevance(scores, x, jnp.zeros(len(x), int), composite=composed(spoil(values)))


def times(factor):
    return lambda values: jax.tree.map(lambda value: value * factor, values)


def of(rule):
    return lrp.Composite(((lrp.Kind.DENSE, rule),))


OF_TUNING = {
    "rule_parameters": Case(
        tuned,
        {
            "x": array("nhwc"),
            "composite": one_of(
                of(lrp.Gamma()),
                of(lrp.AlphaBeta(only_zeros=True)),
                of(lrp.Epsilon(0.0)),
                bad=[Spoilt(v, refused=True) for v in (None, 3, lrp.Epsilon(), lrp.GuidedBackprop())],
            ),
            "spoil": one_of(
                times(1),
                times(3),
                times(0),
                bad=[
                    *(
                        Spoilt(lambda values, v=v: jax.tree.map(lambda _: v, values), refused=True)
                        for v in (-1.0, np.nan, np.inf, np.ones(2), "text", 1j, object())
                    ),
                    *(
                        Spoilt(lambda values, v=v: v, refused=True)
                        for v in (None, {}, [], 3, {"dense": None}, {"dense": {"gamma": 1.0}})
                    ),
                ],
            ),
        },
        holds=lambda found, given: found.shape == given["x"].shape,
    )
}
