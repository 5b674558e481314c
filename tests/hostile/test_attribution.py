"""`jxai.attribution` under hostile input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategies import (
    BATCH,
    CHUNKS,
    EFFORTS,
    Case,
    Spoilt,
    array,
    choice,
    count,
    given_as,
    integers,
    key,
    number,
    one_of,
    search,
    unheard_of,
)

from jxai import attribution

EXEMPT = {"AdaptiveNoise": "a tuple of results"}


RANDOM = {"key": key(), **BATCH}
ROOTS = {"num_roots": count(1, 3), "noise_scale": number(0.2, 1.0, wrong=(0.0, -1.0)), **CHUNKS}
BASELINE = array("nhwc")


def _labels(size):
    return np.arange(size.h * size.w).reshape(size.h, size.w, 1) // 5


# Feature masks: superpixels of five pixels, for all images alike.
FEATURES = {
    "feature_mask": given_as(
        _labels,
        *(
            Spoilt(v, refused=True)
            for v in (np.full((1, 1, 1), 1), np.zeros((7, 9), int), -np.ones((1, 1, 1), int))
        ),
        *(Spoilt(v, refused=True) for v in (np.zeros((1, 1, 1)), "text", object(), {}, [[1.0], [2.0, 3.0]])),
    ),
    **CHUNKS,
}
GAME = {**FEATURES, "baseline": BASELINE}


def like_x(found, given):
    return found.shape == given["x"].shape and found.dtype == given["x"].dtype


def maps(x):
    return jnp.abs(x[:, ::2, ::2])


def of_activations(found, given):
    return found.shape == maps(given["x"]).shape and found.dtype == given["x"].dtype


HEAD = given_as(lambda size: lambda maps: jnp.tanh(maps.mean((1, 2))) @ jnp.ones((size.c, size.k)))
MAPS = one_of(
    maps, bad=[Spoilt(lambda x: x.sum((1, 2, 3)), refused=True), Spoilt(lambda x: None, refused=True)]
)
LAYER = {
    "features": MAPS,
    "head": HEAD,
    "x": BATCH["x"],
    "target": BATCH["target"],
    "baseline": BASELINE,
    "num_steps": count(1, 3),
    "method": choice("right", "trapezoid", "midpoint", "gauss-legendre"),
    **CHUNKS,
}

CAM = {
    "features": one_of(maps, bad=[Spoilt(lambda x: x.sum((1, 2))), Spoilt(lambda x: None, refused=True)]),
    "head": HEAD,
    "x": BATCH["x"],
    "target": BATCH["target"],
    "channel_axis": one_of(None, -1, bad=[0, 2, "last", 1.5]),
    "grid": one_of(None, bad=[3, (0, 1), (1,), "text", (2.5, 1)]),
    "relu": choice(True, False),
    "enlarge": choice(True, False),
}


def of_picture(found, given):
    size = given["x"].shape[1:3] if given["enlarge"] else maps(given["x"]).shape[1:3]
    right = found.shape == (len(given["x"]), *size, 1)
    return right and (not given["relu"] or bool((found >= 0).all()))


CASES = {
    "adaptive_noise": Case(
        attribution.adaptive_noise,
        {
            "objective": one_of(
                lambda key, x, scale: (scale - 0.7) ** 2,
                bad=[
                    Spoilt(lambda key, x, scale: scale * jnp.nan),
                    Spoilt(lambda key, x, scale: scale[0]),
                    Spoilt(lambda key, x, scale: None, refused=True),
                ],
            ),
            "key": key(),
            "x": array("nhwc"),
            "start": number(None, 0.5, wrong=(0.0, -1.0)),
            "step": number(0.1, 0.5, wrong=(0.0, -1.0)),
            "decay": number(0.9, 1.0, wrong=(0.0, 1.5)),
            "max_stops": count(0, 2, least=0),
            "max_iterations": count(1, 3),
            "fresh": one_of(False, True),
        },
        undefined="scales and values after an image's last evaluation are NaN",
        holds=lambda found, given: bool(
            np.isfinite(found.noise_scale).all() and np.isfinite(found.value).all()
        ),
    ),
    "blur_ig": Case(
        attribution.blur_ig,
        {**BATCH, "max_sigma": number(0.5, 2.0, wrong=(0.0, -1.0)), "num_steps": count(1, 3), **CHUNKS},
        holds=like_x,
    ),
    "blurred_baseline": Case(
        attribution.blurred_baseline,
        {"x": array("nhwc"), "sigma": number(0.5, 2.0, wrong=(0.0, -1.0))},
        holds=like_x,
    ),
    "conductance": Case(attribution.conductance, LAYER, holds=of_activations),
    "contrast": Case(
        attribution.contrast,
        {"target": integers("n", below="k", refused=False), "other": integers("n", below="k", refused=False)},
        holds=lambda found, given: callable(found[0]) and found[1].shape == given["target"].shape,
    ),
    "convergence_delta": Case(
        attribution.convergence_delta,
        {**BATCH, "attributions": array("nhwc"), "baseline": BASELINE},
        holds=lambda found, given: found.shape == given["target"].shape,
    ),
    "deep_lift": Case(attribution.deep_lift, {**BATCH, "baseline": BASELINE, **CHUNKS}, holds=like_x),
    "deep_lift_shap": Case(
        attribution.deep_lift_shap, {**BATCH, "references": array("nhwc"), **CHUNKS}, holds=like_x
    ),
    "eigen_cam": Case(
        attribution.eigen_cam,
        {name: CAM[name] for name in ("features", "x", "channel_axis", "grid", "relu", "enlarge")},
        holds=of_picture,
    ),
    "expected_gradients": Case(
        attribution.expected_gradients,
        {**RANDOM, "references": array("nhwc"), "num_samples": count(1, 3), **CHUNKS},
        holds=like_x,
    ),
    "feature_ablation": Case(attribution.feature_ablation, {**BATCH, **GAME}, holds=like_x),
    "feature_permutation": Case(
        attribution.feature_permutation, {**RANDOM, **FEATURES, "num_permutations": count(1, 2)}, holds=like_x
    ),
    "grad_cam": Case(attribution.grad_cam, CAM, holds=of_picture),
    "grad_cam_plus_plus": Case(attribution.grad_cam_plus_plus, CAM, holds=of_picture),
    "gradient": Case(attribution.gradient, BATCH, holds=like_x),
    "guided_grad_cam": Case(
        attribution.guided_grad_cam,
        {
            **{name: CAM[name] for name in ("features", "head", "x", "target", "channel_axis", "grid")},
            "explain": one_of(attribution.gradient),
        },
        holds=like_x,
    ),
    "guided_ig": Case(
        attribution.guided_ig,
        {
            **BATCH,
            "baseline": BASELINE,
            "num_steps": count(1, 3),
            "fraction": number(0.25, 1.0, wrong=(0.0, 1.5)),
            "max_distance": number(0.0, 0.3, wrong=(-0.1, 1.5)),
            **CHUNKS,
        },
        holds=like_x,
    ),
    "input_x_gradient": Case(attribution.input_x_gradient, BATCH, holds=like_x),
    "integrated_gradients": Case(
        attribution.integrated_gradients,
        {
            **BATCH,
            "baseline": BASELINE,
            "num_steps": count(1, 3),
            "method": choice("right", "trapezoid", "midpoint", "gauss-legendre"),
            **CHUNKS,
        },
        holds=like_x,
    ),
    "internal_influence": Case(attribution.internal_influence, LAYER, holds=of_activations),
    "kernel_shap": Case(
        attribution.kernel_shap, {**RANDOM, **GAME, "num_samples": count(1, 20)}, holds=like_x
    ),
    "layer_cam": Case(attribution.layer_cam, CAM, holds=of_picture),
    "lime": Case(
        attribution.lime,
        {
            **RANDOM,
            **GAME,
            "num_samples": count(1, 20),
            "kernel_width": number(0.25, 2.0, wrong=(0.0, -1.0)),
            "ridge": number(0.0, 1.0, wrong=(-1.0,)),
        },
        holds=like_x,
    ),
    "neuron_conductance": Case(
        attribution.neuron_conductance, {**LAYER, "neurons": number(1.0, 0.0)}, holds=like_x
    ),
    "occlusion": Case(
        attribution.occlusion,
        {
            **BATCH,
            "window": count(2, 3),
            "stride": count(2),
            "channel_axis": one_of(-1, bad=[0, 2, "last"]),
            "baseline": BASELINE,
            **CHUNKS,
        },
        holds=like_x,
    ),
    "rise": Case(
        attribution.rise,
        {
            **RANDOM,
            "num_masks": count(1, 3),
            "cells": count(1, 3),
            "probability": number(0.1, 0.5, wrong=(0.0, 1.0)),
            "baseline": BASELINE,
            **CHUNKS,
        },
        holds=like_x,
    ),
    "score_cam": Case(attribution.score_cam, {**CAM, **CHUNKS}, holds=of_picture),
    "shapley_sampling": Case(
        attribution.shapley_sampling, {**RANDOM, **GAME, "num_permutations": count(1, 2)}, holds=like_x
    ),
    "smooth_grad": Case(
        attribution.smooth_grad,
        {**RANDOM, **ROOTS, "statistic": choice("mean", "square", "variance")},
        holds=like_x,
    ),
    "smooth_taylor": Case(attribution.smooth_taylor, {**RANDOM, **ROOTS}, holds=like_x),
    "taylor_at_roots": Case(
        attribution.taylor_at_roots, {**BATCH, "roots": array("2nhwc"), **CHUNKS}, holds=like_x
    ),
    "uniform_baselines": Case(
        attribution.uniform_baselines,
        {
            "key": key(),
            "x": array("nhwc"),
            "count": count(1, 3),
            "low": number(-1.0, 0.0, wrong=(5.0,)),
            "high": number(0.0, 2.0),
        },
        holds=lambda found, given: found.shape == (given["count"], *given["x"].shape),
    ),
}


@EFFORTS
@pytest.mark.parametrize("name", CASES)
def test_an_answer_or_a_clear_error(name, examples):
    # Not compiled: programs of many shapes and options would take the time.
    with jax.disable_jit():
        search(name, CASES[name], examples)


def test_every_public_function_is_here():
    assert not unheard_of("attribution", CASES, EXEMPT)
