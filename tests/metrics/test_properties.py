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


def randomized(d):
    result = metrics.model_randomization(
        lambda variables: d.heatmap * variables["a"]["w"],
        {"a": {"w": jnp.ones(13)}},
        {"a": {"w": jnp.arange(13.0)}},
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


# name -> of (d, options of chunks) to (N,) or (N, S)
CHUNKED = {
    "comprehensiveness": lambda d, **o: of_tokens(metrics.comprehensiveness, d, **o),
    "completeness": lambda d, **o: metrics.completeness(f, d.x, d.attributions, d.target, **o).residual,
    "deletion": lambda d, **o: metrics.deletion(f, d.x, d.heatmap, d.target, num_steps=4, **o),
    "faithfulness_correlation": lambda d, **o: metrics.faithfulness_correlation(
        f, KEY, d.x, d.attributions, d.target, num_samples=5, **o
    ),
    "faithfulness_estimate": lambda d, **o: metrics.faithfulness_estimate(
        f, d.x, d.heatmap, d.target, group_size=40, **o
    ),
    "infidelity": lambda d, **o: metrics.infidelity(
        f, KEY, d.x, d.attributions, d.target, num_samples=4, **o
    ),
    "insertion": lambda d, **o: metrics.insertion(f, d.x, d.heatmap, d.target, num_steps=4, **o),
    "irof": lambda d, **o: metrics.irof(f, d.x, d.heatmap, d.target, num_segments=4, **o),
    "maximum_sensitivity": lambda d, **o: metrics.maximum_sensitivity(
        explain, KEY, d.x, d.target, num_samples=3, **o
    ),
    "monotonicity": lambda d, **o: metrics.monotonicity(f, d.x, d.heatmap, d.target, group_size=40, **o),
    "monotonicity_correlation": lambda d, **o: metrics.monotonicity_correlation(
        f, KEY, d.x, d.heatmap, d.target, group_size=40, num_samples=2, **o
    ),
    "perturbation_curve": lambda d, **o: metrics.perturbation_curve(
        f, KEY, d.x, d.heatmap, d.target, low=0.5, high=0.5, window=3, num_regions=3, num_draws=2, **o
    ),
    "pixel_flipping": lambda d, **o: metrics.pixel_flipping(f, d.x, d.heatmap, d.target, num_steps=4, **o),
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
}
WHOLE = {
    "aupc": lambda d: metrics.aupc(d.heatmap[:, 0]),
    "autvc": lambda d: metrics.autvc(d.heatmap[:, 0]),
    "average_total_variation": lambda d: metrics.average_total_variation(d.heatmap),
    "complexity": lambda d: metrics.complexity(d.heatmap),
    "curve_area": lambda d: metrics.curve_area(d.heatmap[:, 0]),
    "model_randomization": randomized,
    "multiscale_total_variation": lambda d: metrics.multiscale_total_variation(d.heatmap, smallest=8),
    "pointing_game": lambda d: metrics.pointing_game(d.heatmap, d.mask),
    "rank_correlation": lambda d: metrics.rank_correlation(d.heatmap, d.x[..., 0]),
    "relevance_mass": lambda d: metrics.relevance_mass(d.heatmap, d.mask),
    "relevance_rank": lambda d: metrics.relevance_rank(d.heatmap, d.mask),
    "sparseness": lambda d: metrics.sparseness(d.heatmap),
    "structural_similarity": lambda d: metrics.structural_similarity(d.heatmap, d.x[..., 0]),
}
METRICS = {**CHUNKED, **WHOLE}
# Their noise goes by an image's place in the batch.
RANDOM = {
    "faithfulness_correlation",
    "infidelity",
    "maximum_sensitivity",
    "monotonicity_correlation",
    "sensitivity_n",
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
    # f itself computes in bfloat16, 8 bits, on inputs that are equal; what needs no f is float32 inside.
    if name in CHUNKED:
        assert np.isfinite(low).all()
    else:
        close(low, high)
