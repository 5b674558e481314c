"""Estimators against the values of the SmoothTaylor paper's release."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution

pytestmark = pytest.mark.golden
TOLERANCE = 1e-5


def error(ours, reference):
    assert ours.shape == reference.shape
    return np.abs(ours - reference).max() / np.abs(reference).max()


def test_golden_smooth_taylor(released):
    f, x, target, reference = released
    roots = x + float(reference["noise_scale"][0]) * jnp.asarray(reference["noise"])[:, None]

    @jax.jit
    def explain(x, roots):
        gradients = jax.vmap(lambda z: attribution.gradient(f, z, target))(roots)
        return f(x)[0], attribution.taylor_at_roots(f, x, roots, target)[0], gradients.mean(axis=0)[0]

    for found, name in zip(explain(x, roots), ("logits", "smooth_taylor", "smooth_grad"), strict=True):
        assert error(found, reference[name]) <= TOLERANCE, name


def test_golden_smooth_taylor_integrated_gradients(released):
    f, x, target, reference = released
    steps = [int(name.removeprefix("ig_")) for name in reference if name.startswith("ig_")]
    assert steps
    for num_steps in steps:
        options = {"baseline": reference["baseline"], "num_steps": num_steps, "chunk_size": 7}
        found = jax.jit(functools.partial(attribution.integrated_gradients, f, target=target, **options))(x)
        assert error(found[0], reference[f"ig_{num_steps}"]) <= TOLERANCE


def test_golden_metrics_adaptive_noise(golden):
    # float64, as the release: near an objective of 0, float32 leaves nothing to compare.
    with np.load(golden / "metrics.npz") as archive, jax.enable_x64(True):
        names = sorted({name.split("_")[0] for name in archive if name.startswith("adaptive")})
        assert names
        for name in names:
            case = {
                key: archive[f"{name}_{key}"] for key in ("optimum", "scale", "init", "best_noise", "trace")
            }
            optimum, scale, start = (jnp.asarray(case[key]) for key in ("optimum", "scale", "init"))

            def objective(key, x, noise_scale, optimum=optimum, scale=scale):
                return scale * (jnp.log(noise_scale) - jnp.log(optimum)) ** 2

            found = attribution.adaptive_noise(objective, jax.random.key(0), jnp.ones((1, 2)), start=start)
            length = len(case["trace"])
            assert found.num_evaluations.tolist() == [length]
            np.testing.assert_allclose(found.scales[0, :length], case["trace"][:, 0], atol=1e-6)
            assert np.isnan(found.scales[0, length:]).all()
            assert abs(found.noise_scale[0] - case["best_noise"][0]) <= 1e-6
            stored = jax.vmap(lambda s, o=objective: o(None, None, s[None])[0])(
                jnp.asarray(case["trace"][:, 0])
            )
            # The stored scales are the release's float32: at the optimum the objective is their rounding.
            assert np.abs(stored - case["trace"][:, 1]).max() <= 1e-5 * max(
                1.0, np.abs(case["trace"][:, 1]).max()
            )
