"""`jxai.fewshot` explained down to pixels, under hostile input; in `test_fewshot.py`'s list."""

import jax.numpy as jnp
import numpy as np
from fewshot_systems import EPISODE, NO_HEADS, QUERIES, SIDE, WAY, labels, with_episode
from strategies import Case, Spoilt, one_of

from jxai import fewshot, lrp

UNLABELED = {**EPISODE, "query_labels": labels(QUERIES, refused=False)}  # explained without labels too
RELEVANCE_CASES = {
    "episode_relevance": Case(
        with_episode(fewshot.episode_relevance),
        {
            **UNLABELED,
            # Uncompiled, the other heads take a second an example; `tests/fewshot` explains them.
            "head": one_of("PrototypeHead", "MatchingHead", "AdaptedHead", bad=NO_HEADS),
            "options": one_of(
                {"chunk_size": 3},
                {"composite": lrp.EpsilonPlus(), "target": np.array([1, 0, 0, 1])},
                {"queries": jnp.array([3, 0]), "contrast": jnp.array([1, 0])},
                bad=[
                    *(Spoilt({"composite": v}, refused=True) for v in (None, 3, lrp.Epsilon())),
                    *(Spoilt({"chunk_size": v}, refused=True) for v in (0, -1, 1.5, "2")),
                    *(
                        Spoilt({name: v}, refused=True)
                        for name in ("target", "contrast", "queries")
                        for v in (np.array([0, 1, 2, 9]), np.zeros(4), np.zeros((4, 1), int), "text", -1)
                    ),
                    *(Spoilt({name: np.arange(2)}, refused=True) for name in ("target", "contrast")),
                ],
            ),
        },
        holds=lambda found, given: (
            len(found[0]) == len(found[1]) == len(found[2])
            and found[0].shape[1:] == given["support"].shape
            and found[1].shape[1:] == given["query"].shape[1:]
        ),
    ),
    "pixel_relevance": Case(
        with_episode(fewshot.pixel_relevance),
        {
            **UNLABELED,
            "options": one_of(
                {},
                {"composite": lrp.EpsilonPlus()},
                bad=[Spoilt({"composite": v}, refused=True) for v in (None, 3, lrp.Epsilon())],
            ),
        },
        holds=lambda found, given: found[0].shape == (QUERIES, WAY, SIDE, SIDE, 3),
    ),
}
