"""The metrics of faithfulness, what takes a feature's place and regions, for test_metrics.py."""

import jax.numpy as jnp
import numpy as np
from strategies import BATCH, CHUNKS, Case, Spoilt, array, choice, count, given_as, key, number, one_of

from jxai import metrics

BASELINES = one_of(
    0.0,
    -1.0,
    metrics.mean_baseline(),
    lambda x, mask, key: x * 2,
    bad=[
        *(
            Spoilt(v, refused=True)
            for v in (
                np.nan,
                "text",
                np.zeros(7, np.float32),
                lambda x, mask, key: None,
                lambda x, mask, key: x[:1],
                lambda x, mask, key: mask,
            )
        ),
        Spoilt(lambda x, mask, key: x + jnp.nan),
        Spoilt(3e38),
    ],
)
FEATURES = {
    **BATCH,
    "chunk_size": count(None, 50),  # in chunks of 4, dozens of sets are many calls where nothing is compiled
    "attributions": array("nhw"),
    "baseline": BASELINES,
}
GROUPS = {"group_size": count(None, 3, odd=(99,))}
NO_LABELS = [
    Spoilt(v, refused=True)
    for v in ("text", 3, 1.5, np.zeros((2, 2), int), np.full((4, 5), -1), np.zeros((4, 5)))
]
PIXELS = {**BATCH, **CHUNKS, "heatmap": array("nhw")}
REGIONS = {**PIXELS, "baseline": BASELINES, "patch_size": count(2, 9)}
# Without them `slic_segments` finds some, which has its own case.
LABELS = given_as(lambda size: np.arange(size.h * size.w).reshape(size.h, size.w) // 3, *NO_LABELS)


def within_one(found, given):
    return bool((jnp.abs(found) <= 1 + 1e-6).all())


CASES = {
    "blur_baseline": Case(metrics.blur_baseline, {"sigma": number(0.5, 2.0, wrong=(0.0, -1.0, 1e9))}),
    "faithfulness_correlation": Case(
        metrics.faithfulness_correlation,
        {
            **FEATURES,
            "key": key(),
            "subset_size": count(None, 2, odd=(99,)),
            "num_samples": count(2, 3, least=2),
        },
        holds=within_one,
    ),
    "faithfulness_estimate": Case(metrics.faithfulness_estimate, {**FEATURES, **GROUPS}, holds=within_one),
    "grid_segments": Case(
        metrics.grid_segments, {"height": count(), "width": count(), "patch_size": count()}
    ),
    "inpainting_baseline": Case(metrics.inpainting_baseline, {"noise": number(0.0, 0.1, wrong=(-1.0,))}),
    "irof": Case(
        metrics.irof,
        {
            **PIXELS,
            "baseline": BASELINES,
            "num_segments": count(None, 7, odd=(2, 99)),
            "segments": LABELS,
        },
        holds=lambda found, given: bool((found <= 1 + 1e-6).all()),
    ),
    "mean_baseline": Case(metrics.mean_baseline),
    "monotonicity": Case(metrics.monotonicity, {**FEATURES, **GROUPS}, holds=within_one),
    "monotonicity_correlation": Case(
        metrics.monotonicity_correlation,
        {**FEATURES, **GROUPS, "key": key(), "num_samples": count(1, 2)},
        holds=within_one,
    ),
    "noise_baseline": Case(
        metrics.noise_baseline, {"low": number(-1.0, 0.0, wrong=(5.0,)), "high": number(0.0, 2.0)}
    ),
    "region_perturbation": Case(
        metrics.region_perturbation,
        {
            **REGIONS,
            "num_regions": count(None, 1, odd=(99,)),
            "order": choice("most_relevant", "least_relevant"),
        },
    ),
    "selectivity": Case(metrics.selectivity, {**REGIONS, "segments": one_of(None)}),
    "selectivity:segments": Case(
        metrics.selectivity,
        {
            **PIXELS,
            "segments": LABELS,
            "num_segments": count(None, 7, odd=(2, 99)),
        },
    ),
    "sensitivity_n": Case(
        metrics.sensitivity_n,
        {
            **FEATURES,
            "key": key(),
            "sizes": one_of(
                None,
                (1, 3),
                [2],
                bad=[Spoilt(v, refused=True) for v in ((), (0,), (99,), (1.5,), "12", 3, (None,))],
            ),
            "num_samples": count(2, 3, least=2),
        },
        holds=within_one,
    ),
    "slic_segments": Case(
        metrics.slic_segments,
        {
            "x": BATCH["x"],
            "num_segments": count(2, 4, odd=(99,)),
            "compactness": number(0.5, 10.0, wrong=(0.0, -1.0)),
            "num_iterations": count(1, 2),
        },
        holds=lambda found, given: bool(((found >= 0) & (found < given["num_segments"])).all()),
    ),
}
