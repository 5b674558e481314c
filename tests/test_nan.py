"""NaN is never a good score: under `jit` a NaN of one image is that image's NaN, and nobody else's.

XLA's `max` and `maximum`, and with them ReLU, make numbers of NaN on a CPU, where arrays are not small.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution, metrics

N, SIDE = 3, 32
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(N, SIDE, SIDE, 3)), jnp.float32).at[:, 0, 0, 0].set(0)
HEATMAP = jnp.asarray(RNG.normal(size=(N, SIDE, SIDE)), jnp.float32)
OTHER = jnp.asarray(RNG.normal(size=(N, SIDE, SIDE)), jnp.float32)
MASK = jnp.asarray(RNG.random((N, SIDE, SIDE)) < 0.2)
TARGET = jnp.array([2, 0, 1])
WEIGHTS = jnp.asarray(RNG.normal(size=(SIDE * SIDE * 3, 3)) / 50, jnp.float32)
MARK = 7.0  # an image that begins with it has NaN scores


def f(x):
    """Scores behind a maximum and ReLU: under jit, NaN of x is not always theirs."""
    scores = jax.nn.relu(jnp.maximum(x, -1).reshape(len(x), -1) @ WEIGHTS + 1) + 1
    return scores + jnp.where(x[:, 0, 0, :1] == MARK, jnp.nan, 0)


def explain(x, target):
    return jnp.sin(jax.nn.relu(x))


def randomized(heatmap):
    found = metrics.model_randomization(
        lambda variables: heatmap * variables["a"]["w"][None, None],
        {"a": {"w": jnp.ones(SIDE)}},
        {"a": {"w": jnp.arange(SIDE, dtype=jnp.float32)}},
        cascading=False,
    )
    return jnp.concatenate(found, axis=1)


TREES = {"w": jnp.ones(SIDE)}, {"w": jnp.arange(SIDE, dtype=jnp.float32)}


def smoothly_randomized(x):
    found = metrics.smooth_model_randomization(
        lambda variables, x: x.sum(axis=-1) * variables["w"][None, None],
        KEY,
        x,
        *TREES,
        cascading=False,
        num_samples=2,
    )
    return jnp.concatenate(found, axis=1)


def pyramid(heatmap):
    levels = metrics.gaussian_pyramid(heatmap, smallest=8)
    return jnp.stack([level.mean(axis=(1, 2)) for level in levels], axis=1)


def positions(heatmap):
    none = metrics.perturbation_positions(heatmap, window=5, num_regions=3) < 0
    return jnp.where(none.all(axis=(1, 2)), jnp.nan, 1)


def marked(labels):
    return jnp.where((labels < 0).all(axis=(1, 2)), jnp.nan, labels.mean(axis=(1, 2)))


def curve(heatmap):
    return heatmap.mean(axis=1)


def tokens(metric, *keys, **options):
    """A metric of tokens, of the rows of images."""

    def scores(x, *present):
        return f(x.reshape(len(x), SIDE, SIDE, 3))

    return lambda x, h: metric(scores, *keys, x.reshape(len(x), SIDE, -1), h.mean(axis=2), TARGET, **options)


AT = {"num_steps": 4}
DRAWS = {"low": -1.0, "high": 1.0, "window": 5, "num_regions": 3, "num_draws": 3}
# name -> of heatmaps to (N, ...)
OF_HEATMAPS = {
    "attribution_localization": lambda h: metrics.attribution_localization(h, MASK, weighted=True),
    "aupc": lambda h: metrics.aupc(curve(h)),
    "autvc": lambda h: metrics.autvc(metrics.multiscale_total_variation(h, smallest=8)),
    "average_total_variation": metrics.average_total_variation,
    "average_total_variation, order 2": lambda h: metrics.average_total_variation(h, order=2),
    "complexity": metrics.complexity,
    # All have one code, and each a class of its own.
    "consistency": lambda h: metrics.consistency(h, TARGET, discretize=lambda h: h[:, 0, 0] > 1e9),
    "curve_area": lambda h: metrics.curve_area(curve(h)),
    "effective_pixels": metrics.effective_pixels,
    "efficient_model_randomization": lambda h: metrics.efficient_model_randomization(
        lambda variables: h * variables["w"][None, None], *TREES
    ),
    "focus": lambda h: metrics.focus(h, MASK),
    "gaussian_pyramid": pyramid,
    "local_sufficiency": lambda h: metrics.local_sufficiency(h, TARGET, threshold=1.0),
    "localization_auc": lambda h: metrics.localization_auc(h, MASK),
    "model_randomization": randomized,
    "multiscale_total_variation": lambda h: metrics.multiscale_total_variation(h, smallest=8),
    "normalized": lambda h: metrics.normalized(h).mean(axis=(1, 2)),
    "perturbation_positions": positions,
    "pointing_game": lambda h: metrics.pointing_game(h, MASK),
    "rank_correlation": lambda h: metrics.rank_correlation(OTHER, h),
    "relevance_mass": lambda h: metrics.relevance_mass(h, MASK),
    "relevance_rank": lambda h: metrics.relevance_rank(h, MASK),
    "simpson": lambda h: metrics.simpson(curve(h)),
    "sparseness": metrics.sparseness,
    "structural_similarity": lambda h: metrics.structural_similarity(OTHER, h),
    "top_k_intersection": lambda h: metrics.top_k_intersection(h, MASK, num_pixels=30),
}
# name -> of (images, heatmaps) to (N, ...)
OF_BOTH = {
    "comprehensiveness": tokens(metrics.comprehensiveness, shares=(0.5,)),
    "completeness": lambda x, h: metrics.completeness(f, x, h, TARGET).residual,
    "deletion": lambda x, h: metrics.deletion(f, x, h, TARGET, **AT),
    "effective_complexity": lambda x, h: metrics.effective_complexity(
        f, KEY, x, h, TARGET, X, num_steps=2, num_samples=2
    ),
    "f_fidelity": lambda x, h: jnp.concatenate(
        metrics.f_fidelity(f, KEY, x, h, TARGET, sizes=(0.3,), num_samples=2), axis=1
    ),
    "faithfulness_correlation": lambda x, h: metrics.faithfulness_correlation(
        f, KEY, x, h, TARGET, num_samples=3
    ),
    "faithfulness_estimate": lambda x, h: metrics.faithfulness_estimate(f, x, h, TARGET, group_size=300),
    "infidelity": lambda x, h: metrics.infidelity(f, KEY, x, h[..., None] * x, TARGET, num_samples=3),
    "infidelity, scaled": lambda x, h: metrics.infidelity(
        f, KEY, x, h[..., None] * x, TARGET, num_samples=3, scaled=True
    ),
    "insertion": lambda x, h: metrics.insertion(f, x, h, TARGET, **AT),
    "non_sensitivity": lambda x, h: metrics.non_sensitivity(f, KEY, x, h, TARGET),
    "irof": lambda x, h: metrics.irof(f, x, h, TARGET, num_segments=4),
    "monotonicity": lambda x, h: metrics.monotonicity(f, x, h, TARGET, group_size=300),
    "monotonicity_correlation": lambda x, h: metrics.monotonicity_correlation(
        f, KEY, x, h, TARGET, group_size=300, num_samples=2
    ),
    "perturbation_curve": lambda x, h: metrics.perturbation_curve(f, KEY, x, h, TARGET, **DRAWS),
    "pixel_flipping": lambda x, h: metrics.pixel_flipping(f, x, h, TARGET, **AT),
    "region_perturbation": lambda x, h: metrics.region_perturbation(
        f, x, h, TARGET, patch_size=16, num_regions=2
    ),
    "road": lambda x, h: metrics.road(f, KEY, x, h, TARGET, shares=(0.0, 0.3), noise=0.0),
    "selectivity": lambda x, h: metrics.selectivity(f, x, h, TARGET, patch_size=16),
    "sensitivity_n": lambda x, h: metrics.sensitivity_n(f, KEY, x, h, TARGET, sizes=(9, 99), num_samples=3),
    "soft_comprehensiveness": tokens(metrics.soft_comprehensiveness, KEY, num_samples=2),
    "soft_sufficiency": tokens(metrics.soft_sufficiency, KEY, num_samples=2),
    "sufficiency": tokens(metrics.sufficiency, shares=(0.5,)),
    "token_deletion": tokens(metrics.token_deletion),
    "token_deletion, removed": tokens(metrics.token_deletion, removed=True),
    "token_insertion": tokens(metrics.token_insertion),
    "trigger_recovery": lambda x, h: metrics.trigger_recovery(f, x, X / 2, h, MASK, TARGET),
}
OF_IMAGES = {
    "average_sensitivity": lambda x: metrics.average_sensitivity(explain, KEY, x, TARGET, num_samples=2),
    "continuity": lambda x: metrics.continuity(explain, x, TARGET, shifts=[(1, 0), (0, -3)]),
    "input_invariance": lambda x: metrics.input_invariance(
        lambda f, x, target: explain(x, target) + f(x)[:, :1, None, None], f, x, TARGET
    ),
    "local_lipschitz_estimate": lambda x: metrics.local_lipschitz_estimate(
        explain, KEY, x, TARGET, num_samples=2
    ),
    "slic_segments": lambda x: marked(metrics.slic_segments(x, num_segments=4)),
    "maximum_sensitivity": lambda x: metrics.maximum_sensitivity(explain, KEY, x, TARGET, num_samples=2),
    "maximum_sensitivity, chunks": lambda x: metrics.maximum_sensitivity(
        explain, KEY, x, TARGET, num_samples=2, chunk_size=2
    ),
    "planted": lambda x: metrics.planted(x, 1.0, MASK).mean(axis=(1, 2, 3)),
    "poisoned": lambda x: metrics.poisoned(KEY, x, x, TARGET, target=0).x.mean(axis=(1, 2, 3)),
    "random_logit": lambda x: metrics.random_logit(
        lambda x, target: explain(x, target).sum(axis=-1) * (1 + target[:, None, None].astype(x.dtype)),
        KEY,
        x,
        TARGET,
        num_classes=3,
    ),
    "randomly_masked": lambda x: metrics.randomly_masked(KEY, x, share=0.5).mean(axis=(1, 2, 3)),
    "relative_input_stability": lambda x: metrics.relative_input_stability(
        f, explain, KEY, x, TARGET, num_samples=2
    ),
    "relative_output_stability": lambda x: metrics.relative_output_stability(
        f, explain, KEY, x, TARGET, num_samples=2
    ),
    "relative_representation_stability": lambda x: metrics.relative_representation_stability(
        f, explain, jnp.tanh, KEY, x, TARGET, num_samples=2
    ),
    "smooth_model_randomization": smoothly_randomized,
}
NO_SCORES = {
    "Backdoor": "results",
    "FFidelity": "results",
    "Poisoned": "results",
    "Table": "results",
    "as_table": "what is given, side by side",
    "backdoor": "of all images together; tests/metrics/test_backdoors.py",
    "Case": "what a metric is given",
    "Completeness": "results",
    "Evaluation": "results",
    "evaluate": "refuses attributions that are not finite by name; scores are what the metrics give",
    "DIRECTIONS": "names",
    "ModelRandomization": "results",
    "Mosaics": "results",
    "mosaics": "what is given, put together",
    "blur_baseline": "a function; what it puts in is looked at where it is put in",
    "grid_segments": "labels, of numbers alone",
    "inpainting_baseline": "a function",
    "mean_baseline": "a function",
    "noise_baseline": "a function",
    "randomization_layers": "names",
    "shuffled_parameters": "what is given, shuffled",
}


def searched(x):
    found = attribution.adaptive_noise(
        lambda key, x, scale: (scale - x.mean(axis=(1, 2, 3))) ** 2, KEY, x, max_iterations=3
    )
    return jnp.stack([found.noise_scale, found.value], axis=1)


def below(x):
    """A layer that keeps the mark, and a maximum that may lose NaN."""
    return jnp.maximum(x, -MARK)


ROOTS = {"num_roots": 2}
HALVES = np.arange(X.shape[1]).reshape(-1, 1, 1) // (X.shape[1] // 2)
OF_NO_FUNCTION = {
    "adaptive_noise": searched,
    "blurred_baseline": lambda x: attribution.blurred_baseline(x, sigma=1.0),
}
ESTIMATORS = {
    "blur_ig": lambda x: attribution.blur_ig(f, x, TARGET, num_steps=2, max_sigma=2.0),
    "conductance": lambda x: attribution.conductance(below, f, x, TARGET, num_steps=2),
    "convergence_delta": lambda x: attribution.convergence_delta(f, x, TARGET, jnp.ones_like(x)),
    "deep_lift": lambda x: attribution.deep_lift(f, x, TARGET),
    "deep_lift_shap": lambda x: attribution.deep_lift_shap(f, x, TARGET, references=X[:2]),
    "eigen_cam": lambda x: attribution.eigen_cam(lambda x: x[:, ::4, ::4] * 1, x),
    "expected_gradients": lambda x: attribution.expected_gradients(
        f, KEY, x, TARGET, references=X[:2], num_samples=2
    ),
    "feature_ablation": lambda x: attribution.feature_ablation(f, x, TARGET, feature_mask=HALVES),
    "grad_cam": lambda x: attribution.grad_cam(lambda x: x * 1, f, x, TARGET),
    "grad_cam_plus_plus": lambda x: attribution.grad_cam_plus_plus(lambda x: x * 1, f, x, TARGET),
    "gradient": lambda x: attribution.gradient(f, x, TARGET),
    "guided_grad_cam": lambda x: attribution.guided_grad_cam(
        lambda x: x * 1, f, x, TARGET, explain=attribution.gradient
    ),
    "guided_ig": lambda x: attribution.guided_ig(f, x, TARGET, num_steps=2),
    "input_x_gradient": lambda x: attribution.input_x_gradient(f, x, TARGET),
    "integrated_gradients": lambda x: attribution.integrated_gradients(f, x, TARGET, num_steps=3),
    "internal_influence": lambda x: attribution.internal_influence(below, f, x, TARGET, num_steps=2),
    "kernel_shap": lambda x: attribution.kernel_shap(f, KEY, x, TARGET, feature_mask=HALVES, num_samples=3),
    "layer_cam": lambda x: attribution.layer_cam(lambda x: x * 1, f, x, TARGET),
    "lime": lambda x: attribution.lime(f, KEY, x, TARGET, feature_mask=HALVES, num_samples=3),
    "neuron_conductance": lambda x: attribution.neuron_conductance(
        below, f, x, TARGET, neurons=1.0, num_steps=2
    ),
    "occlusion": lambda x: attribution.occlusion(f, x, TARGET, window=16, stride=16),
    "rise": lambda x: attribution.rise(f, KEY, x, TARGET, num_masks=2, cells=3),
    "score_cam": lambda x: attribution.score_cam(lambda x: x * 1, f, x, TARGET),
    "shapley_sampling": lambda x: attribution.shapley_sampling(
        f, KEY, x, TARGET, feature_mask=HALVES, num_permutations=1
    ),
    "smooth_grad": lambda x: attribution.smooth_grad(f, KEY, x, TARGET, **ROOTS),
    "smooth_grad, variance": lambda x: attribution.smooth_grad(
        f, KEY, x, TARGET, statistic="variance", **ROOTS
    ),
    "smooth_taylor": lambda x: attribution.smooth_taylor(f, KEY, x, TARGET, **ROOTS),
    "taylor_at_roots": lambda x: attribution.taylor_at_roots(f, x, jnp.stack([X, X + 1]), TARGET),
}
NO_ATTRIBUTIONS = {
    "AdaptiveNoise": "results",
    "contrast": "classes alone",
    "feature_permutation": "images meet: what one lacks, others do",
    "uniform_baselines": "goes by the shape of x alone",
}
# At x itself: the others see scores at other points.
AT_X = (
    "conductance",
    "internal_influence",
    "neuron_conductance",
    "deep_lift",
    "deep_lift_shap",
    "feature_ablation",
    "kernel_shap",
    "lime",
    "shapley_sampling",
    "convergence_delta",
    "gradient",
    "input_x_gradient",
    "integrated_gradients",
    "occlusion",
)

WHERE = {
    "one pixel": (1, 7, 11),
    "the first": (1, 0, 0),
    "the last": (1, -1, -1),
    "all": (1,),
}
places = pytest.mark.parametrize(
    "where", [pytest.param(name, marks=[pytest.mark.slow] * (name != "one pixel")) for name in WHERE]
)


@functools.cache
def program(kind):
    """All of a kind in one program: a compilation for each would take longer than all else."""
    if kind == "heatmaps":
        return jax.jit(lambda x, h: {name: one(h) for name, one in OF_HEATMAPS.items()})
    if kind == "both":
        return jax.jit(lambda x, h: {name: one(x, h) for name, one in OF_BOTH.items()})
    of_images = {**OF_IMAGES, **OF_NO_FUNCTION, **ESTIMATORS}
    return jax.jit(lambda x, h: {name: one(x) for name, one in of_images.items()})


@functools.cache
def whole(kind):
    return program(kind)(X, HEATMAP)


def is_the_images_own(kind, x, h, names=None, *, everywhere=True):
    for name, spoilt in program(kind)(x, h).items():
        if names is None or name in names:
            spoilt, right = np.asarray(spoilt), np.asarray(whole(kind)[name])
            assert np.isfinite(right).all(), name
            assert np.isnan(spoilt[1]).all() if everywhere else np.isnan(spoilt[1]).any(), name
            np.testing.assert_allclose(spoilt[[0, 2]], right[[0, 2]], rtol=1e-4, atol=1e-5, err_msg=name)


def test_every_public_name_is_here():
    def known(*registries):
        return {name.split(",")[0] for registry in registries for name in registry}

    assert known(OF_HEATMAPS, OF_BOTH, OF_IMAGES, NO_SCORES) == set(metrics.__all__)
    assert known(OF_NO_FUNCTION, ESTIMATORS, NO_ATTRIBUTIONS) == set(attribution.__all__)


@places
def test_of_a_heatmap(where):
    is_the_images_own("heatmaps", X, HEATMAP.at[WHERE[where]].set(jnp.nan))
    is_the_images_own("both", X, HEATMAP.at[WHERE[where]].set(jnp.nan))


@places
def test_of_an_image(where):
    # A pixel of NaN times a heatmap is the attributions' too.
    is_the_images_own("both", X.at[WHERE[where]].set(jnp.nan), HEATMAP)
    is_the_images_own("images", X.at[WHERE[where]].set(jnp.nan), HEATMAP, everywhere=False)


@pytest.mark.slow
def test_what_is_infinite_has_no_score_either():
    curves = ("aupc", "curve_area", "simpson")  # whose areas are infinite
    names = [name for name in OF_HEATMAPS if name not in curves]
    is_the_images_own("heatmaps", X, HEATMAP.at[1, 7, 11].set(jnp.inf), names)
    is_the_images_own("heatmaps", X, HEATMAP.at[1, 7, 11].set(-jnp.inf), names)


def test_of_scores():
    spoilt = X.at[1, 0, 0, 0].set(MARK)
    is_the_images_own("both", spoilt, HEATMAP, everywhere=False)
    is_the_images_own("images", spoilt, HEATMAP, AT_X, everywhere=False)


def test_a_search_passes_by_scales_whose_objective_is_not_a_number():
    def objective(key, x, scale):
        value = (scale - 0.4) ** 2
        # At the start of the first image, next to the best scale of the second, and everywhere of the third.
        bad = jnp.stack([scale[0] == 0.5, jnp.abs(scale[1] - 0.45) < 0.01, scale[2] < 99])
        return jnp.where(bad, jnp.nan, value)

    found = jax.jit(lambda x: attribution.adaptive_noise(objective, KEY, x, start=0.5))(X)
    np.testing.assert_allclose(found.noise_scale[:2], 0.4, atol=0.03)
    assert np.isfinite(found.value[:2]).all()
    assert np.isnan(found.noise_scale[2]) and np.isnan(found.value[2])
    with pytest.raises(ValueError, match="expected finite the objective"):
        attribution.adaptive_noise(objective, KEY, X, start=0.5)
