"""F-Fidelity and planted triggers, for test_metrics.py."""

import jax.numpy as jnp
from faithfulness_cases import BASELINES, FEATURES
from strategies import BATCH, CHUNKS, Case, Spoilt, array, count, integers, key, mask, number, one_of

from jxai import metrics

BEARING = {
    "x": BATCH["x"],
    "bearing": array("nhwc"),
    "label": integers("n", below="k"),
    "target": count(0, 1, least=0),
}
SHARE = number(0.1, 0.5, 1.0, wrong=(0.0, 1.5, -1.0))
SIZES = one_of(
    (0.1, 0.5), [0.9], bad=[Spoilt(v, refused=True) for v in ((), (0.0,), (1.0,), 0.5, None, "0.5", ("a",))]
)

CASES = {
    "backdoor": Case(
        metrics.backdoor,
        {**BEARING, "f": BATCH["f"], **CHUNKS},
        undefined="NaN where all images are of the trigger's class",
        holds=lambda found, given: 0 <= found.clean_accuracy <= 1,
    ),
    "f_fidelity": Case(
        metrics.f_fidelity,
        {
            **FEATURES,
            "key": key(),
            "sizes": SIZES,
            "alpha_plus": SHARE,
            "alpha_minus": SHARE,
            "beta": SHARE,
            "num_samples": count(1, 2),
        },
        holds=lambda found, given: found.plus.shape == (len(given["x"]), len(given["sizes"])),
    ),
    "planted": Case(
        metrics.planted,
        {
            "x": BATCH["x"],
            "pattern": array("hwc"),
            "mask": mask("hw"),
            "opacity": number(0.2, 1.0, wrong=(0.0, 2.0)),
        },
        holds=lambda found, given: found.shape == given["x"].shape,
    ),
    "poisoned": Case(
        metrics.poisoned,
        {**BEARING, "label": integers("n", below="k", refused=False), "key": key(), "share": SHARE},
        holds=lambda found, given: bool(found.bears.sum() >= 1),
    ),
    "randomly_masked": Case(
        metrics.randomly_masked,
        {"key": key(), "x": BATCH["x"], "share": SHARE, "baseline": BASELINES},
        holds=lambda found, given: found.shape == given["x"].shape,
    ),
    "trigger_recovery": Case(
        metrics.trigger_recovery,
        {**BATCH, **CHUNKS, "clean": array("nhwc"), "heatmap": array("nhw"), "mask": mask("nhw")},
        holds=lambda found, given: bool(jnp.isfinite(found).all()),
    ),
}
