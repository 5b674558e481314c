"""Cases of `test_metrics.py`: robustness, localization, axioms."""

import jax.numpy as jnp
import numpy as np
from strategies import BATCH, CHUNKS, Case, Spoilt, array, choice, count, integers, key, mask, number, one_of

from jxai import metrics

HEATMAP = {"heatmap": array("nhw")}

PIXELS = {**BATCH, **HEATMAP, **CHUNKS}

MASKED = {**HEATMAP, "mask": mask("nhw")}

# What `explain` makes of an image goes by the image alone; the second is 0 everywhere.
EXPLAIN = one_of(
    lambda x, target: jnp.sin(x),
    lambda x, target: x * 0,
    bad=[
        Spoilt(lambda x, target: x * jnp.nan, refused=True),
        Spoilt(lambda x, target: None, refused=True),
        Spoilt(lambda x, target: x[:0], refused=True),
        Spoilt(lambda x, target: x * 1e30),
    ],
)

NEAR = {"key": key(), "x": BATCH["x"], "target": BATCH["target"], "num_samples": count(1), **CHUNKS}

# Without the network nobody knows how many classes there are.
ANY_CLASS = integers("n", below="k", refused=False)

BOX = {**NEAR, "target": ANY_CLASS, "explain": EXPLAIN, "radius": number(0.02, 1.0, wrong=(0.0, -1.0))}

STABLE = {
    **NEAR,
    "f": BATCH["f"],
    "explain": EXPLAIN,
    "noise_scale": number(0.05, 1.0, wrong=(0.0, -1.0)),
    "smallest": number(1e-6, wrong=(0.0, -1.0)),
}

UNCOUNTED = "NaN where no neighbor has the input's class"


def one_an_image(found, given):
    return found.shape == given["heatmap"].shape[:1] and found.dtype == jnp.float32


def in_unit(found, given):
    return bool(((found >= 0) & (found <= 1 + 1e-6)).all())


CASES = {
    "attribution_localization": Case(
        metrics.attribution_localization,
        {**MASKED, "weighted": choice(False, True)},
        holds=one_an_image,
    ),
    "average_sensitivity": Case(
        metrics.average_sensitivity,
        BOX,
        undefined="infinite where an explanation of norm 0 moves",
        holds=lambda found, given: not jnp.isnan(found).any(),
    ),
    "consistency": Case(
        metrics.consistency,
        {
            **HEATMAP,
            "prediction": integers("n", below=9, refused=False),
            "discretize": one_of(
                None,
                lambda heatmap: heatmap > 0,
                bad=[
                    Spoilt(lambda heatmap: heatmap, refused=True),
                    Spoilt(lambda heatmap: None, refused=True),
                    Spoilt(lambda heatmap: jnp.zeros(7, jnp.int32), refused=True),
                ],
            ),
        },
        undefined="NaN where no other image has the explanation",
        holds=lambda found, given: bool((jnp.isnan(found) | ((found >= 0) & (found <= 1))).all()),
    ),
    "continuity": Case(
        metrics.continuity,
        {
            "explain": EXPLAIN,
            "x": BATCH["x"],
            "target": ANY_CLASS,
            "shifts": one_of(
                [(0, 1), (-2, 0)],
                ((99, -99),),
                bad=[
                    Spoilt(v, refused=True)
                    for v in (
                        [],
                        [(0, 0)],
                        [1],
                        [(1, 2, 3)],
                        [(0.5, 1)],
                        "text",
                        3,
                        [(0, 10**30)],
                        [("a", 1)],
                    )
                ],
            ),
            "baseline": number(0.0, -1.0),
            **CHUNKS,
        },
        undefined="infinite where an explanation moves and the image does not",
        holds=lambda found, given: not jnp.isnan(found).any(),
    ),
    "effective_complexity": Case(
        metrics.effective_complexity,
        {
            **PIXELS,
            "key": key(),
            "references": array("2hwc"),
            "tolerance": number(0.1, 10.0, wrong=(0.0, -1.0)),
            "num_steps": count(1),
            "num_samples": count(1, 2),
        },
        holds=lambda found, given: bool(((found >= 0) & (found <= given["heatmap"][0].size)).all()),
    ),
    "effective_pixels": Case(
        metrics.effective_pixels,
        {**HEATMAP, "threshold": number(0.0, 1e-5, wrong=(-1.0,))},
        holds=one_an_image,
    ),
    "focus": Case(metrics.focus, MASKED, holds=in_unit),
    "input_invariance": Case(
        metrics.input_invariance,
        {
            "f": BATCH["f"],
            "explain": one_of(
                lambda f, x, target: x * 0 + 1,
                lambda f, x, target: jnp.sin(x),
                bad=[
                    Spoilt(lambda f, x, target: x * jnp.nan, refused=True),
                    Spoilt(lambda f, x, target: None, refused=True),
                    Spoilt(lambda f, x, target: x[:0], refused=True),
                ],
            ),
            "x": BATCH["x"],
            "target": BATCH["target"],
            "shift": number(0.0, 1.0),
            **CHUNKS,
        },
        undefined="infinite where an explanation of norm 0 changes",
        holds=lambda found, given: not jnp.isnan(found).any(),
    ),
    "local_lipschitz_estimate": Case(
        metrics.local_lipschitz_estimate,
        BOX,
        undefined="infinite where an explanation moves and the input, rounded, does not",
        holds=lambda found, given: not jnp.isnan(found).any(),
    ),
    "local_sufficiency": Case(
        metrics.local_sufficiency,
        {
            **HEATMAP,
            "prediction": integers("n", below=9, refused=False),
            "threshold": number(0.6, 0.0, 1.0, wrong=(-0.1, 1.1)),
        },
        undefined="NaN where no other explanation is near",
        holds=lambda found, given: bool((jnp.isnan(found) | ((found >= 0) & (found <= 1))).all()),
    ),
    "localization_auc": Case(metrics.localization_auc, MASKED, holds=in_unit),
    "maximum_sensitivity": Case(
        metrics.maximum_sensitivity,
        BOX,
        undefined="infinite where an explanation of norm 0 moves",
        holds=lambda found, given: not jnp.isnan(found).any(),
    ),
    "mosaics": Case(
        metrics.mosaics,
        {
            "key": key(),
            "x": array("3hwc"),
            "label": one_of(
                jnp.arange(3),
                np.array([7, 7, -1]),
                bad=[
                    Spoilt(v, refused=True)
                    for v in (jnp.ones(3, int), jnp.arange(2), jnp.ones(3), None, "text")
                ],
            ),
            "num_mosaics": count(None, 1, 5),
        },
        holds=lambda found, given: found.x.shape[0] == len(found.target) and bool(found.mask.mean() == 0.5),
    ),
    "non_sensitivity": Case(
        metrics.non_sensitivity,
        {
            **BATCH,
            "chunk_size": count(None),
            "key": key(),
            "attributions": array("nhw"),
            "noise_scale": number(1.0, wrong=(0.0, -1.0)),
            "num_samples": count(1),
            "tolerance": number(0.0, 1e-5, wrong=(-1.0,)),
        },
        holds=lambda found, given: bool(((found >= 0) & (found <= given["attributions"][0].size)).all()),
    ),
    "relative_input_stability": Case(metrics.relative_input_stability, STABLE, undefined=UNCOUNTED),
    "relative_output_stability": Case(metrics.relative_output_stability, STABLE, undefined=UNCOUNTED),
    "relative_representation_stability": Case(
        metrics.relative_representation_stability,
        {
            **STABLE,
            "represent": one_of(
                lambda x: jnp.tanh(x),
                lambda x: x[:, 0] * 0,
                bad=[
                    Spoilt(lambda x: None, refused=True),
                    Spoilt(lambda x: x[:0], refused=True),
                    Spoilt(lambda x: x * jnp.nan, refused=True),
                ],
            ),
        },
        undefined=UNCOUNTED,
    ),
    "top_k_intersection": Case(
        metrics.top_k_intersection,
        {**MASKED, "num_pixels": count(1, 12, odd=(13, 99)), "weighted": choice(False, True)},
        holds=one_an_image,
    ),
}
