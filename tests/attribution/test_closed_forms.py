"""Estimators where the answer is known: linear, quadratic and smooth functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution as library
from jxai import lrp


class Compiled:
    """The library's functions, each call compiled as a whole: operation by operation takes ten times as long."""

    def __getattr__(self, name):
        def run(*args, **options):
            call = functools.partial(getattr(library, name), *args, **options)
            return jax.jit(call)()

        return run


attribution = Compiled()
KEY = jax.random.key(0)
RANDOM = np.random.default_rng(1)
X = jnp.asarray(RANDOM.normal(size=(2, 6)), jnp.float32)
TARGET = jnp.array([1, 0])
WEIGHTS = jnp.asarray(RANDOM.normal(size=(6, 3)), jnp.float32)
METHODS = ("right", "trapezoid", "midpoint", "gauss-legendre")


def linear(x):
    return x @ WEIGHTS + 1.0


def of_target():
    return WEIGHTS.T[TARGET]


@pytest.mark.parametrize("method", METHODS)
def test_integrated_gradients_of_a_linear_function(method):
    baseline = jnp.asarray(RANDOM.normal(size=X.shape), jnp.float32)
    found = attribution.integrated_gradients(linear, X, TARGET, baseline=baseline, method=method, num_steps=3)
    np.testing.assert_allclose(found, (X - baseline) * of_target(), rtol=1e-5, atol=1e-6)


def test_smooth_taylor_of_a_linear_function_is_the_mean_distance_times_the_weights():
    roots = X + jnp.asarray(RANDOM.normal(size=(9, *X.shape)), jnp.float32)
    found = attribution.taylor_at_roots(linear, X, roots, TARGET)
    np.testing.assert_allclose(found, (X - roots.mean(axis=0)) * of_target(), rtol=1e-4, atol=1e-6)


def test_smooth_taylor_of_a_quadratic_is_minus_the_diagonal():
    # f = ½ xᵀAx: the expectation is −σ² diag(A).
    a = RANDOM.normal(size=(6, 6))
    a = jnp.asarray(a + a.T, jnp.float32)

    def f(x):
        return 0.5 * jnp.einsum("ni,ij,nj->n", x, a, x)[:, None]

    target, count, scale = jnp.zeros(2, int), 10_000, jnp.array([0.5, 2.0])
    found = attribution.smooth_taylor(f, KEY, X, target, noise_scale=scale, num_roots=count, chunk_size=3000)
    expected = -(scale[:, None] ** 2) * jnp.diag(a)
    # A term's deviation is below σ |A| (|x| + 2 σ |A's norm|); five of its mean's deviations.
    deviation = scale[:, None] * (jnp.linalg.norm(a, axis=1) * (2 * scale[:, None]) + jnp.abs(X @ a))
    assert (jnp.abs(found - expected) <= 5 * deviation / jnp.sqrt(count)).all()


def test_smooth_grad_and_vargrad_of_a_quadratic():
    """∇(½ Σ a x²) = a x: its mean is a x, its variance (σ range a)², its mean square the sum of both."""
    a = jnp.arange(1.0, 7.0)
    scale, count = 0.2, 4_000

    def run(statistic):
        return attribution.smooth_grad(
            lambda x: 0.5 * (a * x**2).sum(axis=1, keepdims=True),
            KEY,
            X,
            jnp.zeros(2, int),
            noise_scale=scale,
            num_roots=count,
            statistic=statistic,
        )

    deviation = scale * (X.max(axis=1) - X.min(axis=1))[:, None] * a
    mean, square, variance = (run(statistic) for statistic in ("mean", "square", "variance"))
    assert (jnp.abs(mean - a * X) <= 5 * deviation / np.sqrt(count)).all()
    np.testing.assert_allclose(variance, deviation**2, rtol=5 * np.sqrt(2 / count))
    np.testing.assert_allclose(square, mean**2 + variance, rtol=1e-4)


def test_vargrad_keeps_a_small_variance_of_large_gradients():
    def f(x):
        return (1e4 * x + 0.5 * x**2).sum(axis=1, keepdims=True)

    found = attribution.smooth_grad(
        f, KEY, X, jnp.zeros(2, int), noise_scale=0.1, num_roots=2000, statistic="variance"
    )
    expected = (0.1 * (X.max(axis=1) - X.min(axis=1))[:, None] * jnp.ones(6)) ** 2
    np.testing.assert_allclose(found, expected, rtol=0.2)  # the difference of the sums has errors of 6 here


@pytest.mark.parametrize("method", METHODS)
def test_convergence_delta_falls_with_the_steps(method):
    with jax.enable_x64(True):
        kernel = jnp.asarray(RANDOM.normal(size=(6, 8)))

        def f(x):
            return jnp.tanh(x @ kernel) @ jnp.ones((8, 1))

        x, target = jnp.asarray(X, jnp.float64), jnp.zeros(2, int)

        def delta(num_steps):
            found = attribution.integrated_gradients(f, x, target, num_steps=num_steps, method=method)
            return float(jnp.abs(attribution.convergence_delta(f, x, target, found)).max())

        few, many = delta(10), delta(50)
        # Errors fall as 1/M and 1/M²; Gauss-Legendre's is at rounding.
        bound = {"right": 1 / 4, "trapezoid": 1 / 20, "midpoint": 1 / 20, "gauss-legendre": 1}[method]
        assert many <= bound * few or many <= 1e-12
        if method == "gauss-legendre":
            assert many <= 1e-6


def test_several_baselines_are_a_mean():
    baselines = attribution.uniform_baselines(KEY, X, count=4, low=-2.0, high=jnp.arange(6.0))
    assert baselines.shape == (4, *X.shape)
    assert (baselines >= -2).all() and (baselines <= jnp.arange(6.0)).all()
    assert (
        attribution.uniform_baselines(KEY, X[:1], count=2, low=-2.0, high=jnp.arange(6.0))
        == baselines[:2, :1]
    ).all()

    def f(x):
        return jnp.tanh(x) @ WEIGHTS

    found = attribution.integrated_gradients(f, X, TARGET, baseline=baselines, num_steps=5)
    each = [attribution.integrated_gradients(f, X, TARGET, baseline=one, num_steps=5) for one in baselines]
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-5, atol=1e-6)
    delta = attribution.convergence_delta(f, X, TARGET, found, baseline=baselines)
    several = [
        attribution.convergence_delta(f, X, TARGET, one, baseline=baseline)
        for one, baseline in zip(each, baselines, strict=True)
    ]
    np.testing.assert_allclose(delta, np.mean(several, axis=0), rtol=1e-4, atol=1e-5)


def test_blurred_baseline_is_a_gaussian_of_repeated_edges():
    image = RANDOM.normal(size=(1, 7, 6, 2)).astype(np.float32)
    found = attribution.blurred_baseline(jnp.asarray(image), sigma=1.3)
    radius = int(4 * 1.3 + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / 1.3) ** 2)
    weights /= weights.sum()
    padded = np.pad(image, ((0, 0), (radius, radius), (radius, radius), (0, 0)), mode="edge")
    expected = np.zeros_like(image)
    for i, down in enumerate(weights):
        for j, across in enumerate(weights):
            expected += (down * across * padded[:, i : i + 7, j : j + 6]).astype(np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_expected_gradients_sum_to_the_difference_from_the_references():
    references = jnp.asarray(RANDOM.normal(size=(5, 6)), jnp.float32)

    def f(x):
        return jnp.tanh(x) @ WEIGHTS

    found = attribution.expected_gradients(f, KEY, X, TARGET, references=references, num_samples=5_000)
    difference = jnp.take_along_axis(f(X) - f(references).mean(axis=0), TARGET[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(found.sum(axis=1), difference, atol=0.2)
    exact = attribution.expected_gradients(linear, KEY, X, TARGET, references=references[:1], num_samples=3)
    np.testing.assert_allclose(exact, (X - references[0]) * of_target(), rtol=1e-5, atol=1e-6)


def test_occlusion_against_a_loop(small):
    f, x, target, _ = small
    found = attribution.occlusion(f, x, target, window=4, stride=3, baseline=0.5)
    total, cover = np.zeros(x.shape[:3]), np.zeros(x.shape[1:3])
    before = np.asarray(f(x))
    for top in (0, 3, 5):  # 9 rows: 5 is the last
        for left in (0, 3, 4):
            covered = np.array(x)
            covered[:, top : top + 4, left : left + 4] = 0.5
            drop = (before - np.asarray(f(jnp.asarray(covered))))[np.arange(3), np.asarray(target)]
            total[:, top : top + 4, left : left + 4] += drop[:, None, None]
            cover[top : top + 4, left : left + 4] += 1
    np.testing.assert_allclose(found.sum(axis=-1), total / cover, rtol=1e-4, atol=1e-5)


def test_grad_cam_against_the_formula(small):
    _, x, target, _ = small
    features = jax.nn.relu

    def head(maps):
        return (maps**2).mean(axis=(1, 2)) @ jnp.array([[1.0, -1.0, 0.5], [2.0, 0.0, -3.0]])

    found = attribution.grad_cam(features, head, x, target)
    maps = np.maximum(np.asarray(x), 0)
    weights = np.array([[1.0, -1.0, 0.5], [2.0, 0.0, -3.0]]).T[np.asarray(target)]
    slopes = (2 * maps / maps[0, ..., 0].size).mean(axis=(1, 2)) * weights
    expected = np.maximum((slopes[:, None, None] * maps).sum(axis=-1), 0)
    assert found.shape == (*x.shape[:3], 1)
    np.testing.assert_allclose(found[..., 0], expected, rtol=1e-5, atol=1e-6)
    pooled = attribution.grad_cam(lambda x: x[:, ::2, ::2] ** 2, head, x, target)
    assert pooled.shape == (*x.shape[:3], 1) and pooled.min() >= 0


def test_relevance_in_the_place_of_the_gradient():
    def relevance(f, x, target):
        return lrp.relevance(f, x, target, composite=lrp.Composite(((lrp.Kind.DENSE, lrp.Epsilon(0.0)),)))

    def f(x):
        return x @ WEIGHTS

    roots = X + jnp.asarray(RANDOM.normal(size=(4, *X.shape)), jnp.float32)
    found = attribution.taylor_at_roots(f, X, roots, TARGET, explain=relevance)
    expected = ((X - roots) * roots * of_target()).mean(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_sums_many_small_shares():
    x = jnp.ones((1, 4), jnp.bfloat16)
    for num_steps in (150, 300):
        found = attribution.integrated_gradients(
            lambda x: x.sum(axis=1, keepdims=True), x, jnp.array([0]), num_steps=num_steps
        )
        assert found.dtype == jnp.bfloat16 and (found == 1).all()


def test_blur_keeps_float64():
    with jax.enable_x64(True):
        image = jnp.full((1, 6, 5, 1), 1 / 3, jnp.float64)
        np.testing.assert_allclose(attribution.blurred_baseline(image, sigma=1.0), 1 / 3, rtol=1e-12)
