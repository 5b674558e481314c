"""SimpleShot, probes and fine-tuning, made of their arguments."""

import jax
import jax.numpy as jnp
import numpy as np
from fewshot_systems import ENCODER, NO_EPISODE, QUERIES, SYSTEM, TASK, WAY, WAYS, episode, system
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


def fine_tuned(encoder, variables, support, support_labels, query, way, episode_given, **given):
    variables = system("PrototypeHead", variables)[1]
    one = episode(support, support_labels, query, None, way) if episode_given is None else episode_given
    with jax.disable_jit(False):  # as above
        return fewshot.fine_tuned_scores(encoder, variables, one, **given)


BASELINES = {
    "cosine_probe": baseline_case(
        fewshot.cosine_probe,
        scale=number(2.0, 10.0, wrong=(0.0, -1.0)),
        learning_rate=number(1.0, wrong=(0.0, -1.0)),
        num_steps=count(1, 3),
    ),
    "fine_tuned_scores": Case(
        fine_tuned,
        {
            "encoder": ENCODER,
            "variables": SYSTEM["variables"],
            **TASK,
            "way": WAYS,
            "episode_given": NO_EPISODE,
            "scale": one_of(None, 2.0, bad=[Spoilt(v, refused=True) for v in (0.0, -1.0, np.nan, "text")]),
            "learning_rate": number(1e-3, wrong=(0.0, -1.0)),
            "num_steps": count(1, 2),
        },
        undefined="NaN of NaN",
        holds=lambda found, given: found.shape == (QUERIES, WAY) and bool(jnp.isfinite(found).all()),
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
