"""`jxai.metrics` under hostile input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faithfulness_cases import BASELINES
from faithfulness_cases import CASES as OF_FAITHFULNESS
from fidelity_cases import CASES as OF_FIDELITY
from randomization_cases import CASES as RANDOMIZATION
from robustness_cases import CASES as ROBUSTNESS
from robustness_cases import EXPLAIN
from strategies import (
    BATCH,
    CHUNKS,
    EFFORTS,
    Case,
    Spoilt,
    array,
    count,
    given_as,
    key,
    mask,
    number,
    one_of,
    search,
    unheard_of,
)

from jxai import metrics

EXEMPT = {
    "Case": "what a metric is given",
    "Evaluation": "results, examined by tests/metrics/test_evaluation.py",
    "Completeness": "a tuple of results",
    "ModelRandomization": "a tuple of results",
    "Mosaics": "a tuple of results",
    "Backdoor": "a tuple of results",
    "FFidelity": "a tuple of results",
    "Poisoned": "a tuple of results",
    "Table": "what as_table gives, examined by tests/metrics/test_trees.py",
}
HEATMAP = {"heatmap": array("nhw")}


def f_of_trees(tree):
    return tree["a"].mean((1, 2))


PIXELS = {**BATCH, **HEATMAP, **CHUNKS}
REMOVAL = {**PIXELS, "baseline": BASELINES, "num_steps": count(1, 3)}
MASKED = {**HEATMAP, "mask": mask("nhw")}


def token_network(size):
    weights = np.random.default_rng(0).normal(size=(size.h * size.c, size.k)).astype(np.float32)

    def f(x, *present):
        return jnp.tanh(x.reshape(len(x), -1) @ jnp.asarray(weights, x.dtype) / 10) + 2

    return f


TOKENS = {
    "f": given_as(
        token_network,
        Spoilt(lambda x, *present: jnp.zeros(len(x)), refused=True),
        Spoilt(lambda x, *present: None, refused=True),
        Spoilt(lambda x, *present: jnp.full((len(x), 4), jnp.nan), refused=True),
        Spoilt(lambda x, *present: jnp.zeros((len(x), 4))),
    ),
    "x": array("nhc"),
    "relevance": array("nh"),
    "target": BATCH["target"],
    "baseline": number(0.0, 1.0),
    "mask": mask("nh", optional=True),
    **CHUNKS,
}
DELETED = {**TOKENS, "removed": one_of(False, True)}
SHARES = one_of(
    (0.1, 0.5), [1.0], bad=[Spoilt(v, refused=True) for v in ((), (0.0,), (1.5,), 0.5, None, "0.5", ("a",))]
)
SOFT = {
    **TOKENS,
    "key": key(),
    "keep": number(None, 0.5, wrong=(0.0, 1.0, -1.0)),
    "num_samples": count(1, 2),
}


def one_an_image(found, given):
    return found.shape == given["heatmap"].shape[:1] and found.dtype == jnp.float32


def in_unit(found, given):
    return bool(((found >= 0) & (found <= 1 + 1e-6)).all())


def judged(f, key, x, target, method, metric, batch_size):
    """A method's and the control's scores by one metric, (2, N)."""
    methods = {"method": lambda f, x, target: method(x, target)}
    options = {"metrics": (metric,), "batch_size": batch_size, "progress": False}
    found = metrics.evaluate(f, key, x, target, methods=methods, **options)
    return np.stack([next(iter(of.values())) for of in found.scores.values()])


CASES = {
    **OF_FIDELITY,
    **RANDOMIZATION,
    **ROBUSTNESS,
    "aupc": Case(metrics.aupc, {"curve": array("n3")}),
    "autvc": Case(metrics.autvc, {"curve": array("n3")}),
    "average_total_variation": Case(
        metrics.average_total_variation,
        {**HEATMAP, "order": number(1, 2.5, wrong=(0.5, -1.0))},
        holds=one_an_image,
    ),
    "completeness": Case(
        metrics.completeness,
        {
            **BATCH,
            **CHUNKS,
            "attributions": array("nhwc"),
            "baseline": number(None, 0.0, 0.5),
            "tolerance": number(0.1, wrong=(0.0, -1.0)),
        },
        undefined="a residual is infinite where the score does not change and the sum is not 0",
        holds=lambda found, given: not jnp.isnan(found.residual).any(),
    ),
    "complexity": Case(metrics.complexity, HEATMAP, holds=lambda found, given: bool((found >= 0).all())),
    "comprehensiveness": Case(metrics.comprehensiveness, {**DELETED, "shares": SHARES}),
    "curve_area": Case(metrics.curve_area, {"curve": array("n3")}),
    "deletion": Case(metrics.deletion, REMOVAL, holds=in_unit),
    "evaluate": Case(
        judged,
        {
            **BATCH,
            "key": key(),
            "method": EXPLAIN,
            "metric": one_of(
                "sparseness",
                "complexity",
                bad=[Spoilt(name, refused=True) for name in ("sparse", "relevance_mass", None, 3, "")],
            ),
            "batch_size": count(1, 3),
        },
        holds=lambda found, given: found.shape == (2, len(given["x"])),
    ),
    "gaussian_pyramid": Case(
        metrics.gaussian_pyramid,
        {
            **HEATMAP,
            "factor": number(1.5, 2.0, wrong=(1.0, 0.5, -2.0), odd=(1e9, 1 + 1e-12)),
            "smallest": count(1, 2),
        },
    ),
    "infidelity": Case(
        metrics.infidelity,
        {
            **BATCH,
            **CHUNKS,
            "key": key(),
            "attributions": array("nhwc"),
            "noise_scale": number(0.2, wrong=(0.0, -1.0)),
            "num_samples": count(1, 3),
            "scaled": one_of(False, True),
        },
        holds=lambda found, given: bool((found >= 0).all()),
    ),
    "insertion": Case(metrics.insertion, {**REMOVAL, "baseline": number(None, 0.0)}, holds=in_unit),
    "multiscale_total_variation": Case(
        metrics.multiscale_total_variation,
        {
            **HEATMAP,
            "factor": number(1.5, 2.0, wrong=(1.0, -2.0)),
            "smallest": count(1, 2),
            "order": number(1, 2, wrong=(0.0,)),
        },
    ),
    "normalized": Case(metrics.normalized, HEATMAP, holds=in_unit),
    "perturbation_curve": Case(
        metrics.perturbation_curve,
        {
            **PIXELS,
            "key": key(),
            "low": number(-1.0, 0.0, wrong=(5.0,)),
            "high": number(0.0, 2.0),
            "window": count(1, 2),
            "num_regions": count(1, odd=(50,)),
            "num_draws": count(1, 2),
        },
        undefined="no number where the initial logit is 0",
        holds=lambda found, given: bool(jnp.isfinite(found).all()),  # logits of our network are above 1
    ),
    "perturbation_positions": Case(
        metrics.perturbation_positions, {**HEATMAP, "window": count(1, 2), "num_regions": count(1, odd=(50,))}
    ),
    "pixel_flipping": Case(metrics.pixel_flipping, REMOVAL),
    "pointing_game": Case(
        metrics.pointing_game,
        {**MASKED, "tolerance": number(0.0, 15, wrong=(-1.0,), odd=(1e300,))},
        holds=one_an_image,
    ),
    "rank_correlation": Case(
        metrics.rank_correlation, {**HEATMAP, "other": array("nhw")}, holds=one_an_image
    ),
    "relevance_mass": Case(metrics.relevance_mass, MASKED, holds=in_unit),
    "relevance_rank": Case(metrics.relevance_rank, MASKED, holds=in_unit),
    "road": Case(
        metrics.road,
        {
            **PIXELS,
            "key": key(),
            "shares": one_of(
                (0.1, 0.5),
                [0.0],
                bad=[
                    Spoilt(v, refused=True)
                    for v in ((), (1.0,), (-0.5,), (jnp.nan,), 0.5, None, "0.5", ("a",))
                ],
            ),
            "most_relevant_first": one_of(True, False),
            "noise": number(0.0, 0.01, wrong=(-1.0,)),
        },
        holds=in_unit,
    ),
    "simpson": Case(metrics.simpson, {"values": array("n3")}),
    "soft_comprehensiveness": Case(
        metrics.soft_comprehensiveness, SOFT, holds=lambda found, given: bool((found >= 0).all())
    ),
    "soft_sufficiency": Case(
        metrics.soft_sufficiency, SOFT, holds=lambda found, given: bool((found <= 1).all())
    ),
    "as_table": Case(
        lambda f, x: metrics.as_table(f, {"a": x, "b": (x,)}).values,
        {
            "f": one_of(f_of_trees, bad=[Spoilt(v, refused=True) for v in (None, 3, "f")]),
            "x": array("nhwc"),
        },
        holds=lambda found, given: found.shape == (len(given["x"]), 2 * given["x"][0].size),
    ),
    "sparseness": Case(metrics.sparseness, HEATMAP, holds=in_unit),
    "structural_similarity": Case(
        metrics.structural_similarity, {**HEATMAP, "other": array("nhw")}, holds=one_an_image
    ),
    "sufficiency": Case(metrics.sufficiency, {**DELETED, "shares": SHARES}),
    "token_deletion": Case(metrics.token_deletion, {**DELETED, "num_tokens": count(None, 2, odd=(99,))}),
    "token_insertion": Case(metrics.token_insertion, {**DELETED, "num_tokens": count(None, 2)}),
}

CASES |= OF_FAITHFULNESS


@EFFORTS
@pytest.mark.parametrize("name", CASES)
def test_an_answer_or_a_clear_error(name, examples):
    with jax.disable_jit():
        search(name, CASES[name], examples)


def test_every_public_function_is_here():
    assert not unheard_of("metrics", CASES, EXEMPT)
