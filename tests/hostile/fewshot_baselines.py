"""SimpleShot and probes of an episode's features, made of their arguments."""

import jax
import jax.numpy as jnp
import numpy as np
from fewshot_systems import NO_EPISODE, QUERIES, TASK, WAY, WAYS, episode
from strategies import Case, Spoilt, count, number, one_of

from jxai import fewshot


def baseline_case(function, **fields):
    def call(support, support_labels, query, way, episode_given, **given):
        one = episode(support, support_labels, query, None, way) if episode_given is None else episode_given
        with jax.disable_jit(False):  # one at a time, their steps take long
            return function(one, **given)

    return Case(
        call,
        {**TASK, "way": WAYS, "episode_given": NO_EPISODE, **fields},
        undefined="NaN of NaN",
        holds=lambda found, given: found.shape == (QUERIES, WAY) and bool(jnp.isfinite(found).all()),
    )


BASELINES = {
    "cosine_probe": baseline_case(
        fewshot.cosine_probe,
        scale=number(2.0, 10.0, wrong=(0.0, -1.0)),
        learning_rate=number(1.0, wrong=(0.0, -1.0)),
        num_steps=count(1, 3),
    ),
    "linear_probe": baseline_case(
        fewshot.linear_probe, penalty=number(1.0, 0.01, wrong=(0.0, -1.0)), num_steps=count(1, 3)
    ),
    "nearest_centroid": baseline_case(
        fewshot.nearest_centroid,
        center=one_of(
            None,
            np.zeros(3, np.float32),
            bad=[
                *(
                    Spoilt(v, refused=True)
                    for v in (np.zeros(2), np.zeros((1, 3)), np.full(3, np.nan), 3, "text")
                ),
                Spoilt(np.zeros(3, int)),
            ],
        ),
        normalize=one_of(True, False, bad=[Spoilt(v, refused=True) for v in (None, 1, "yes")]),
    ),
}
