"""The metrics of the SmoothTaylor paper against the values of its released program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jxai import metrics

pytestmark = pytest.mark.golden

# ImageNet's, by which the release normalizes.
MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))


def load(golden, name):
    with np.load(golden / f"{name}.npz") as archive:
        return dict(archive)


def network(weights):
    """The network of smooth_taylor.npz, see the README beside it."""

    def convolve(x, name, padding):
        padding = [(padding, padding)] * 2
        numbers = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(
            x, weights[f"{name}_kernel"], (2, 2), padding, dimension_numbers=numbers, precision="highest"
        )
        return jax.nn.relu(y + weights[f"{name}_bias"])

    def f(x):
        features = convolve(convolve(x, "conv1", 2), "conv2", 1).mean(axis=(1, 2))
        return jnp.matmul(features, weights["fc_kernel"], precision="highest") + weights["fc_bias"]

    return f


def error(ours, reference):
    assert ours.shape == reference.shape
    return np.abs(ours - reference).max() / np.abs(reference).max()


def test_golden_metrics_total_variation(golden):
    reference = load(golden, "metrics")
    numbers = [key.removeprefix("heatmap") for key in reference if key.startswith("heatmap")]
    assert numbers

    @jax.jit
    def all_of(heatmap):
        curve = metrics.multiscale_total_variation(heatmap)
        squares = metrics.multiscale_total_variation(heatmap, order=2)
        return metrics.normalized(heatmap)[0], curve[0], squares[0], metrics.autvc(curve)

    for number in numbers:
        found = all_of(reference[f"heatmap{number}"][None])
        names = (f"normalized{number}", f"atv{number}", f"atv_l2_{number}", f"autvc{number}")
        errors = {name: error(ours, reference[name]) for name, ours in zip(names, found, strict=True)}
        assert max(errors.values()) <= 1e-5, errors


def test_golden_metrics_and_smooth_taylor_perturbation(golden):
    reference, weights = load(golden, "metrics"), load(golden, "smooth_taylor")
    window, num_regions = int(reference["perturb_kernel"][0]), int(reference["perturb_regions"][0])
    heatmap, gray = reference["perturb_heatmap"][None], (127.5 / 255 - MEAN) / STD

    @jax.jit
    def all_of(key, x, heatmap, target):
        size = {"window": window, "num_regions": num_regions}
        positions = metrics.perturbation_positions(heatmap, **size)
        curve = metrics.perturbation_curve(
            network(weights), key, x, heatmap, target, low=gray, high=gray, num_draws=2, **size
        )
        return positions, curve, metrics.aupc(curve)

    positions, curve, area = all_of(jax.random.key(0), weights["image"][None], heatmap, weights["target"])
    np.testing.assert_array_equal(positions[0], reference["perturb_positions"])
    initial = reference["perturb_initial_score"]
    expected = np.concatenate([initial, reference["perturb_scores"]]) / np.abs(initial)
    assert error(curve[0], expected) <= 1e-5
    assert error(area, reference["aupc"]) <= 1e-5
