"""Every loss of `jxai.guidance` as a function of explanations (N, 6, 5, C), for the properties."""

import jax
import jax.numpy as jnp
import numpy as np

from jxai import guidance

N, H, W, C = 3, 6, 5, 2
RNG = np.random.default_rng(0)
R = jnp.asarray(RNG.normal(size=(N, H, W, C)), jnp.float32)
OTHER = jnp.asarray(RNG.normal(size=(N, H, W, C)), jnp.float32)
MASK = jnp.asarray(RNG.random((N, H, W)) < 0.5)
CONCEPT = jnp.asarray([0.6, 0.8], jnp.float32)
HEAD = jnp.asarray(RNG.normal(size=(H * W * C, 3)) / 5, jnp.float32)
TARGET = jnp.asarray([2, 0, 1])
ONE_HOT = jax.nn.one_hot(TARGET, 3)


def head(z):
    return jnp.tanh(z.reshape(len(z), -1)) @ HEAD.astype(z.dtype)


def rows(array, r):
    """What belongs to the explanations beside them, of their number and dtype."""
    array = array[: len(r)]
    return array if array.dtype == bool else array.astype(r.dtype)


LOSSES = {
    "right_reasons": lambda r: guidance.right_reasons(r, rows(MASK, r)),
    "background": lambda r: guidance.background(r, rows(MASK, r)),
    "background, ranked": lambda r: guidance.background(r, rows(MASK, r), decay=0.7, scale=0.5),
    "foreground_range": lambda r: guidance.foreground_range(r, rows(MASK, r), least=5, most=8),
    "disagreement": lambda r: guidance.disagreement(r, rows(OTHER, r)),
    "inconsistency": lambda r: guidance.inconsistency(jnp.sin, lambda z: jnp.cumsum(z, axis=2), r),
    "roughness": lambda r: guidance.roughness(r.sum(axis=-1)),
    "density": lambda r: guidance.density(r.sum(axis=-1)),
    "concept_sensitivity": lambda r: guidance.concept_sensitivity(head, r, rows(ONE_HOT, r), CONCEPT),
    "weighted_scores": lambda r: guidance.weighted_scores(head, jnp.sin, r).sum(axis=1),
    "weighted_scores, through": lambda r: guidance.weighted_scores(head, jnp.sin, r, through=True).sum(1),
    "unfaithfulness": lambda r: guidance.unfaithfulness(
        head, rows(OTHER, r), r.sum(axis=-1), TARGET[: len(r)]
    ),
    "sum_of_logs": lambda r: guidance.sum_of_logs(r.reshape(len(r), -1)),
}
SCALED = (
    "background",
    "background, ranked",
    "disagreement",
    "roughness",
    "density",
    "unfaithfulness",
)  # the same for a multiple
