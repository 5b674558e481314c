"""Composites against the values of zennit, and of the few-shot release down to the pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from formulas import of_layers
from jxai import lrp
from jxai.lrp import Kind

pytestmark = pytest.mark.golden


def composites(low, high, norm):
    """What each name in the archives stands for, see the README beside them."""
    sums = lrp.Composite(((Kind.SUM, lrp.Norm()), (Kind.MEAN, lrp.Norm())) if norm else ())
    return {
        "epsilon_plus": lrp.EpsilonPlus(norm=norm),
        "epsilon_alpha2_beta1": lrp.EpsilonAlpha2Beta1(norm=norm),
        "epsilon_plus_flat": lrp.EpsilonPlusFlat(norm=norm),
        "epsilon_alpha2_beta1_flat": lrp.EpsilonAlpha2Beta1Flat(norm=norm),
        "epsilon_gamma_box": lrp.EpsilonGammaBox(low, high, norm=norm),
        "excitation_backprop": lrp.ExcitationBackprop(norm=norm),
        "epsilon": of_layers(lrp.Epsilon()) | sums,
        "epsilon_025": of_layers(lrp.Epsilon(0.25)) | sums,
        "gamma": of_layers(lrp.Gamma(0.25)) | sums,
        "wsquare_epsilon": lrp.Composite(((lrp.first, lrp.WSquare()),)) | of_layers(lrp.Epsilon()) | sums,
        "guided_backprop": lrp.GuidedBackprop(),
        "deconvnet": lrp.Deconvnet(),
    }


def error(ours, reference):
    assert ours.shape == reference.shape
    return np.abs(ours - reference).max() / np.abs(reference).max()


@pytest.mark.parametrize(
    ("norm", "tolerance"),
    [pytest.param(True, 1e-4, id="norm"), pytest.param(False, 1e-3, id="plain sums", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("archive", ["lrp_vgg", pytest.param("lrp_resnet", marks=pytest.mark.slow)])
def test_golden(golden_network, archive, norm, tolerance):
    model, variables, reference = golden_network(archive)
    names = [key.removeprefix("relevance_") for key in reference if key.startswith("relevance_")]
    known = composites(reference["low"], reference["high"], norm)
    assert names
    assert not set(names) - set(known), f"expected names among {sorted(known)}, got {names} in {archive}"

    @jax.jit
    def explain(image, target):
        found = {}
        for name in names:
            y, pullback = lrp.vjp(lambda x: model.apply(variables, x), image, composite=known[name])
            start = y * jax.nn.one_hot(target, y.shape[1])
            (found[name],) = pullback(start)
        return model.apply(variables, image), found

    logits, found = explain(reference["image"], reference["target"])
    assert error(logits, reference["logits"]) <= 1e-5
    errors = {name: error(ours, reference[f"relevance_{name}"]) for name, ours in found.items()}
    assert max(errors.values()) <= tolerance, errors


def test_golden_resnet10_to_pixels_relevance(golden_resnet10):
    module, variables, reference = golden_resnet10

    @jax.jit
    def explain(image, relevance):
        def features(x):
            return jnp.mean(module.apply(variables, x, train=False), axis=(1, 2))

        y, pullback = lrp.vjp(features, image, composite=lrp.sun2020)
        return y, pullback(relevance)[0]

    features, relevance = explain(reference["image"], reference["relevance_out"])
    assert error(features, reference["features"]) <= 1e-5
    assert error(relevance, reference["relevance"]) <= 1e-4
