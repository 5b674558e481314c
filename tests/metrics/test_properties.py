"""What all metrics have in common: finite, one value an image, the same in any batch, chunk and compilation.

Each program below holds many metrics: a compilation for each would take longer than all else here.
"""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

SHAPE = (3, 12, 13, 2)
KEY = jax.random.key(0)
WEIGHTS = np.random.default_rng(1).normal(size=(SHAPE[1] * SHAPE[2] * SHAPE[3], 3)).astype(np.float32) / 10


def f(x):
    return jnp.tanh(x.reshape(len(x), -1) @ WEIGHTS.astype(x.dtype)) + 2


def data(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(2, *SHAPE))
    target, mask = jnp.asarray([2, 0, 1]), jnp.asarray(rng.random(SHAPE[:3]) < 0.2)
    x, other = jnp.asarray(x, dtype), jnp.asarray(other, dtype)
    return SimpleNamespace(x=x, attributions=other, heatmap=other.sum(axis=-1), target=target, mask=mask)


TREES = {"a": {"w": jnp.ones(13)}}, {"a": {"w": jnp.arange(13.0)}}


def of_masks(d, **options):
    options = {"sizes": (0.2, 0.6), "beta": 0.3, "num_samples": 3, **options}
    return jnp.concatenate(metrics.f_fidelity(f, KEY, d.x, d.heatmap, d.target, **options), axis=1)


def smoothly_randomized(d):
    result = metrics.smooth_model_randomization(
        lambda variables, x: x.sum(axis=-1) * variables["a"]["w"],
        KEY,
        d.x,
        *TREES,
        cascading=False,
        num_samples=2,
    )
    return jnp.concatenate(result, axis=1)


def randomized(d):
    result = metrics.model_randomization(
        lambda variables: d.heatmap * variables["a"]["w"],
        *TREES,
        cascading=False,
    )
    return jnp.concatenate(result, axis=1)


def explain(x, target):
    return jnp.sin(x) * (1 + target.reshape(-1, 1, 1, 1))


def of_tokens(metric, d, *key, **options):
    """A metric of tokens: rows of pixels are the tokens."""
    return metric(
        f, *key, d.x.reshape(*d.x.shape[:2], -1), d.heatmap.sum(axis=-1), d.target, baseline=0.5, **options
    )


def summed(x, target):
    return explain(x, target).sum(axis=-1)


def near(metric, d, *functions, **options):
    """A metric of neighbors."""
    return metric(*functions, KEY, d.x, d.target, num_samples=3, **options)


# name -> of (d, options of chunks) to (N,) or (N, S)
CHUNKED = {
    "average_sensitivity": lambda d, **o: near(metrics.average_sensitivity, d, explain, **o),
    "comprehensiveness": lambda d, **o: of_tokens(metrics.comprehensiveness, d, **o),
    "completeness": lambda d, **o: metrics.completeness(f, d.x, d.attributions, d.target, **o).residual,
    "continuity": lambda d, **o: metrics.continuity(
        explain, d.x, d.target, shifts=[(1, 2), (0, -3)], baseline=0.5, **o
    ),
    "deletion": lambda d, **o: metrics.deletion(f, d.x, d.heatmap, d.target, num_steps=4, **o),
    "effective_complexity": lambda d, **o: metrics.effective_complexity(
        f, KEY, d.x, d.heatmap, d.target, d.attributions, tolerance=0.2, num_steps=4, num_samples=2, **o
    ),
    "f_fidelity": of_masks,
    "faithfulness_correlation": lambda d, **o: metrics.faithfulness_correlation(
        f, KEY, d.x, d.attributions, d.target, num_samples=5, **o
    ),
    "faithfulness_estimate": lambda d, **o: metrics.faithfulness_estimate(
        f, d.x, d.heatmap, d.target, group_size=40, **o
    ),
    "infidelity": lambda d, **o: metrics.infidelity(
        f, KEY, d.x, d.attributions, d.target, num_samples=4, **o
    ),
    "input_invariance": lambda d, **o: metrics.input_invariance(
        lambda f, x, target: x * f(x)[:, :1, None, None], f, d.x, d.target, **o
    ),
    "insertion": lambda d, **o: metrics.insertion(f, d.x, d.heatmap, d.target, num_steps=4, **o),
    "irof": lambda d, **o: metrics.irof(f, d.x, d.heatmap, d.target, num_segments=4, **o),
    "local_lipschitz_estimate": lambda d, **o: near(metrics.local_lipschitz_estimate, d, explain, **o),
    "maximum_sensitivity": lambda d, **o: near(metrics.maximum_sensitivity, d, explain, **o),
    "non_sensitivity": lambda d, **o: metrics.non_sensitivity(
        f, KEY, d.x, d.heatmap, d.target, tolerance=0.05, **o
    ),
    "monotonicity": lambda d, **o: metrics.monotonicity(f, d.x, d.heatmap, d.target, group_size=40, **o),
    "monotonicity_correlation": lambda d, **o: metrics.monotonicity_correlation(
        f, KEY, d.x, d.heatmap, d.target, group_size=40, num_samples=2, **o
    ),
    "perturbation_curve": lambda d, **o: metrics.perturbation_curve(
        f, KEY, d.x, d.heatmap, d.target, low=0.5, high=0.5, window=3, num_regions=3, num_draws=2, **o
    ),
    "pixel_flipping": lambda d, **o: metrics.pixel_flipping(f, d.x, d.heatmap, d.target, num_steps=4, **o),
    "random_logit": lambda d, **o: metrics.random_logit(summed, KEY, d.x, d.target, num_classes=3, **o),
    "relative_input_stability": lambda d, **o: near(metrics.relative_input_stability, d, f, explain, **o),
    "relative_output_stability": lambda d, **o: near(metrics.relative_output_stability, d, f, explain, **o),
    "relative_representation_stability": lambda d, **o: near(
        metrics.relative_representation_stability, d, f, explain, lambda x: x**2, **o
    ),
    "region_perturbation": lambda d, **o: metrics.region_perturbation(
        f, d.x, d.heatmap, d.target, num_regions=3, patch_size=6, **o
    ),
    "road": lambda d, **o: metrics.road(f, KEY, d.x, d.heatmap, d.target, shares=(0.2, 0.7), noise=0.0, **o),
    "selectivity": lambda d, **o: metrics.selectivity(f, d.x, d.heatmap, d.target, patch_size=6, **o),
    "sensitivity_n": lambda d, **o: metrics.sensitivity_n(
        f, KEY, d.x, d.heatmap, d.target, sizes=(20, 60), num_samples=4, **o
    ),
    "soft_comprehensiveness": lambda d, **o: of_tokens(metrics.soft_comprehensiveness, d, KEY, **o),
    "soft_sufficiency": lambda d, **o: of_tokens(metrics.soft_sufficiency, d, KEY, **o),
    "sufficiency": lambda d, **o: of_tokens(metrics.sufficiency, d, **o),
    "token_deletion": lambda d, **o: of_tokens(metrics.token_deletion, d, num_tokens=4, **o),
    "token_insertion": lambda d, **o: of_tokens(metrics.token_insertion, d, num_tokens=4, **o),
    "trigger_recovery": lambda d, **o: metrics.trigger_recovery(
        f, d.x, jnp.where(d.mask[..., None], 0.5, d.x), d.heatmap, d.mask, d.target, **o
    ),
}
WHOLE = {
    "attribution_localization": lambda d: metrics.attribution_localization(d.heatmap, d.mask, weighted=True),
    "aupc": lambda d: metrics.aupc(d.heatmap[:, 0]),
    "autvc": lambda d: metrics.autvc(d.heatmap[:, 0]),
    "average_total_variation": lambda d: metrics.average_total_variation(d.heatmap),
    "complexity": lambda d: metrics.complexity(d.heatmap),
    "consistency": lambda d: metrics.consistency(
        d.heatmap, d.target // 2, discretize=lambda heatmap: heatmap[:, 0, :0] > 0
    ),
    "curve_area": lambda d: metrics.curve_area(d.heatmap[:, 0]),
    "effective_pixels": lambda d: metrics.effective_pixels(d.heatmap, threshold=1.0),
    "efficient_model_randomization": lambda d: metrics.efficient_model_randomization(
        lambda variables: d.heatmap * variables["a"]["w"], *TREES, num_bins=5
    ),
    "focus": lambda d: metrics.focus(d.heatmap, d.mask),
    "local_sufficiency": lambda d: metrics.local_sufficiency(d.heatmap, d.target // 2, threshold=1.0),
    "localization_auc": lambda d: metrics.localization_auc(d.heatmap, d.mask),
    "model_randomization": randomized,
    "multiscale_total_variation": lambda d: metrics.multiscale_total_variation(d.heatmap, smallest=8),
    "pointing_game": lambda d: metrics.pointing_game(d.heatmap, d.mask),
    "rank_correlation": lambda d: metrics.rank_correlation(d.heatmap, d.x[..., 0]),
    "relevance_mass": lambda d: metrics.relevance_mass(d.heatmap, d.mask),
    "relevance_rank": lambda d: metrics.relevance_rank(d.heatmap, d.mask),
    "smooth_model_randomization": smoothly_randomized,
    "sparseness": lambda d: metrics.sparseness(d.heatmap),
    "structural_similarity": lambda d: metrics.structural_similarity(d.heatmap, d.x[..., 0]),
    "top_k_intersection": lambda d: metrics.top_k_intersection(d.heatmap, d.mask, num_pixels=30),
}
METRICS = {**CHUNKED, **WHOLE}
# Their noise goes by an image's place in the batch, or they compare the images of one.
RANDOM = {
    "average_sensitivity",
    "consistency",
    "effective_complexity",
    "f_fidelity",
    "faithfulness_correlation",
    "infidelity",
    "local_sufficiency",
    "local_lipschitz_estimate",
    "maximum_sensitivity",
    "monotonicity_correlation",
    "non_sensitivity",
    "random_logit",
    "relative_input_stability",
    "relative_output_stability",
    "relative_representation_stability",
    "sensitivity_n",
    "smooth_model_randomization",
    "soft_comprehensiveness",
    "soft_sufficiency",
}


def values(d, names=tuple(METRICS), **options):
    return {name: METRICS[name](d, **options) for name in names}


def compiled(d, **options):
    function = lambda arrays: values(SimpleNamespace(**arrays), **options)  # noqa: E731
    return jax.tree.map(np.asarray, jax.jit(function)(vars(d)))


@pytest.fixture(scope="module")
def reference():
    return {**compiled(data(), names=tuple(CHUNKED), chunk_size=2), **compiled(data(), names=tuple(WHOLE))}


@pytest.fixture(scope="module")
def plain():
    return values(data())


@pytest.fixture(scope="module")
def looped():
    d = data()
    run = jax.jit(
        lambda arrays: values(
            SimpleNamespace(**arrays), names=[name for name in METRICS if name not in RANDOM]
        )
    )
    parts = [run({name: array[n : n + 1] for name, array in vars(d).items()}) for n in range(SHAPE[0])]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


@pytest.fixture(scope="module")
def halved():
    return compiled(data(jnp.bfloat16)), compiled(
        SimpleNamespace(
            **{
                name: array.astype(jnp.float32) if array.dtype == jnp.bfloat16 else array
                for name, array in vars(data(jnp.bfloat16)).items()
            }
        )
    )


close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


def test_every_score_is_here():
    assert set(metrics.DIRECTIONS) <= set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_one_float32_or_curve_an_image(name):
    # Traced and not compiled: each metric's own file looks at the values.
    value = jax.eval_shape(lambda arrays: METRICS[name](SimpleNamespace(**arrays)), vars(data()))
    assert value.shape[0] == SHAPE[0] and value.ndim in (1, 2)
    assert value.dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_finite(name, reference):
    assert np.isfinite(reference[name]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_compiling_and_chunks_change_nothing(name, reference, plain):
    close(plain[name], reference[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METRICS if name not in RANDOM])
def test_a_batch_is_a_loop(name, reference, looped):
    close(looped[name], reference[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_bfloat16(name, halved):
    low, high = (value[name] for value in halved)
    assert low.dtype == np.float32
    # f itself computes in bfloat16, 8 bits, on inputs that are equal, and copies with noise are rounded to it; what
    # needs neither is float32 inside.
    if name in {*CHUNKED, "smooth_model_randomization"}:
        assert np.isfinite(low).all()
    else:
        close(low, high)
