"""Robustness, localization and complexity against the values of Quantus 0.6 (`quantus.npz`)."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jxai import metrics

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def quantus(golden):
    with np.load(golden / "quantus.npz") as archive:
        return dict(archive)


def network(weights):
    """Two convolutions of 3 x 3 with ReLU, the second of stride 2, their mean, a dense layer."""

    def convolve(x, name, stride):
        numbers, padding = ("NHWC", "HWIO", "NHWC"), [(1, 1)] * 2
        y = lax.conv_general_dilated(
            x,
            weights[f"{name}_kernel"],
            (stride, stride),
            padding,
            dimension_numbers=numbers,
            precision="highest",
        )
        return jax.nn.relu(y + weights[f"{name}_bias"])

    def f(x):
        features = convolve(convolve(x, "conv1", 1), "conv2", 2).mean(axis=(1, 2))
        return jnp.matmul(features, weights["dense_kernel"], precision="highest") + weights["dense_bias"]

    return f


def close(ours, reference):
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-5 * np.abs(reference).max())


def test_golden_quantus_network(quantus):
    close(jax.jit(network(quantus))(quantus["image"]), quantus["logits"])


# Quantus takes absolute values where these do. Its threshold of effective complexity is not in the name.
ABSOLUTE = {
    "attribution_localisation": metrics.attribution_localization,
    "relevance_mass": metrics.relevance_mass,
    "relevance_rank": metrics.relevance_rank,
}
SIGNED = {"auc": metrics.localization_auc, "pointing_game": metrics.pointing_game}
ALONE = {
    "complexity": metrics.complexity,
    "effective_complexity_eps": lambda heatmap: metrics.effective_pixels(heatmap, threshold=0.05),
    # It adds 1e-7 to every value.
    "sparseness": lambda heatmap: metrics.sparseness(jnp.abs(heatmap) + 1e-7),
}


@pytest.mark.parametrize("name", ALONE)
def test_golden_quantus_heatmap_alone(quantus, name):
    close(ALONE[name](quantus["heatmap"]), quantus[f"quantus_{name}"])


@pytest.mark.parametrize("name", [*ABSOLUTE, *SIGNED])
def test_golden_quantus_localization(quantus, name):
    heatmap, mask = quantus["heatmap"], quantus["mask"]
    found = ABSOLUTE[name](np.abs(heatmap), mask) if name in ABSOLUTE else SIGNED[name](heatmap, mask)
    close(found, quantus[f"quantus_{name}"])


def test_golden_quantus_top_k(quantus):
    numbers = [int(found[1]) for key in quantus if (found := re.fullmatch(r"quantus_topk_(\d+)", key))]
    assert numbers
    for number in numbers:
        found = metrics.top_k_intersection(quantus["heatmap"], quantus["mask"], num_pixels=number)
        close(found, quantus[f"quantus_topk_{number}"])


def test_golden_quantus_sparseness_of_the_paper(quantus):
    """Without the 1e-7: the Gini index in float64, over all pairs of pixels."""
    pixels = np.abs(quantus["heatmap"].astype(np.float64)).reshape(len(quantus["heatmap"]), -1)
    gini = [np.abs(one[:, None] - one).mean() / (2 * one.mean()) for one in pixels]
    close(metrics.sparseness(quantus["heatmap"]), np.asarray(gini))


def test_golden_quantus_continuity(quantus):
    """Quantus walks from the left edge to the right in 6 steps of 2W + 1 positions; its black is the least value."""
    x, target, num_steps = quantus["image"], quantus["target"], 6
    width, f = x.shape[2], network(quantus)
    rights = [(2 * width + 1) // num_steps * (step + 1) - width for step in range(num_steps)]
    shifts = [(0, right) for right in rights if right]  # where nothing moves nothing changes

    def explain(x, target):
        def total(x):
            return jnp.take_along_axis(f(x), target[:, None], axis=1).sum()

        return jnp.abs((x * jax.grad(total)(x)).sum(axis=-1))

    found = metrics.continuity(
        explain, x, target, shifts=shifts, baseline=x.min(axis=(1, 2, 3), keepdims=True)
    )
    close(found, quantus["quantus_continuity_black"])
