"""Targets that are functions of the outputs: of every estimator, the same as of a function to scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimators import ESTIMATORS, KEY

from jxai import attribution, lrp

RANDOM = np.random.default_rng(2)
X = jnp.asarray(RANDOM.normal(size=(3, 4, 4, 2)), jnp.float32)
KERNEL = jnp.asarray(RANDOM.normal(size=(2, 3)), jnp.float32)
REGIONS = jnp.asarray(RANDOM.random((3, 4, 4)) < 0.5)


def segmentation(x):
    """(N, H, W, 3) scores, one map a class."""
    return jnp.tanh(x @ KERNEL) + x[..., :1] ** 2


def of_region(maps, region):
    return (maps[..., 1] * region).sum(axis=(1, 2))


def test_the_gradient_of_a_region_of_a_segmentation_map():
    found = attribution.gradient(segmentation, X, (of_region, REGIONS))
    expected = jax.grad(lambda x: (segmentation(x)[..., 1] * REGIONS).sum())(X)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (np.asarray(found)[~np.asarray(REGIONS)] == 0).all()


def test_classes_of_maps_are_sums_over_them():
    classes = jnp.array([2, 0, 1])
    found = attribution.gradient(segmentation, X, classes)
    expected = attribution.gradient(lambda x: segmentation(x).sum(axis=(1, 2)), X, classes)
    np.testing.assert_array_equal(found, expected)
    found = attribution.gradient(lambda x: {"logits": segmentation(x)}, X, classes)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("column", [False, True])
def test_one_number_an_image_needs_no_target(column):
    def f(x):
        return x.sum(axis=(1, 2, 3), keepdims=False)[:, None] if column else x.sum(axis=(1, 2, 3))

    np.testing.assert_array_equal(attribution.gradient(f, X, None), jnp.ones_like(X))
    if not column:  # cases/attribution/01: a class names the one number too
        np.testing.assert_array_equal(attribution.gradient(f, X, [0, 1, 2]), jnp.ones_like(X))


def test_outputs_of_any_kind():
    weights = X.reshape(3, -1)[0]

    def boxes(x):
        flat = x.reshape(len(x), -1)
        return {"score": flat @ weights, "box": (flat[:, :4], flat.sum(axis=1) ** 2)}

    found = attribution.gradient(boxes, X, lambda outputs: outputs["score"] + outputs["box"][1])
    flat = X.reshape(3, -1)
    expected = (weights[None] + 2 * flat.sum(axis=1, keepdims=True)).reshape(X.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    # Scores (N,) of a regression.
    found = attribution.integrated_gradients(lambda x: x.sum(axis=(1, 2, 3)), X, lambda y: y, num_steps=2)
    np.testing.assert_allclose(found, X, rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=() if name in ("gradient", "IG right", "feature ablation") else pytest.mark.slow
        )
        for name in ESTIMATORS
    ],
)
def test_every_estimator_takes_a_contrast(name, small):
    """Images in another order, in chunks, twice: each keeps its own classes."""
    target, other = jnp.array([2, 0, 1]), jnp.array([0, 1, 2])
    options = {} if name in ("gradient", "input x gradient") else {"chunk_size": 4}
    contrast = attribution.contrast(target, other)
    found = jax.jit(lambda x: ESTIMATORS[name](small.f, KEY, x, contrast, **options))(small.x)

    pairs = jnp.stack([target, other])

    def differences(x):
        scores = small.f(x)
        return scores[:, pairs[0]] - scores[:, pairs[1]]  # one column an image's pair

    expected = jax.jit(lambda x: ESTIMATORS[name](differences, KEY, x, jnp.arange(3), **options))(small.x)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_a_contrast_is_the_difference_of_two_explanations(small):
    target, other = jnp.array([2, 0, 1]), jnp.array([0, 1, 2])
    explain = jax.jit(lambda t: attribution.gradient(small.f, small.x, t))
    found = jax.jit(lambda x: attribution.gradient(small.f, x, attribution.contrast(target, other)))(small.x)
    np.testing.assert_allclose(found, explain(target) - explain(other), rtol=1e-4, atol=1e-5)


def test_relevance_and_grad_cam_take_a_function():
    weights = jnp.ones((32, 3)) * jnp.arange(1.0, 4)

    def f(x):
        return x.reshape(len(x), -1) @ weights

    composite = lrp.Composite(((lrp.Kind.DENSE, lrp.Epsilon(0.0)),))
    explain = functools.partial(lrp.relevance, composite=composite)
    found = attribution.input_x_gradient(f, X, attribution.contrast([2, 2, 2], [0, 1, 0]), explain=explain)
    share = jnp.array([2.0, 1.0, 2.0]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(found, X * X * share, rtol=1e-4, atol=1e-4)
    region = (lambda maps, region: (maps[..., 0] * region).sum((1, 2)), REGIONS)
    cam = attribution.grad_cam(jax.nn.relu, lambda maps: maps, X, region)
    slope = REGIONS.mean(axis=(1, 2)).reshape(3, 1, 1)
    np.testing.assert_allclose(cam[..., 0], slope * jax.nn.relu(X[..., 0]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda y: y, r"expected the target's function to give shape \(3,\), got shape \(3, 4, 4, 3\)"),
        (lambda y: None, r"to give shape \(3,\), got None"),
        (lambda y: y.sum(), r"to give shape \(3,\), got shape \(\)"),
        ((of_region, REGIONS[:2]), r"of shape \(3, ...\), got \(2, 4, 4\)"),
    ],
)
def test_wrong_functions_are_named(target, message):
    with pytest.raises(ValueError, match=message):
        attribution.gradient(segmentation, X, target)
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda x: attribution.gradient(segmentation, x, target))(X)


def test_wrong_kinds_are_named():
    with pytest.raises(TypeError, match="expected the target's function to give floats, got int32"):
        attribution.gradient(segmentation, X, lambda y: y.argmax(axis=-1).sum(axis=(1, 2)))
    with pytest.raises(ValueError, match="one number an image where `target` is None"):
        attribution.gradient(segmentation, X, None)
    with pytest.raises(ValueError, match=r"2 arrays \(\['a'\], \['b'\]\): give `target` as a function"):
        attribution.gradient(lambda x: {"a": x[:, 0, 0], "b": x[:, 0, 0]}, X, [0, 1, 0])
    with pytest.raises(ValueError, match="move their classes last"):
        attribution.gradient(lambda x: jnp.moveaxis(segmentation(x), -1, 1), X[:, :, :, :2], [0, 1, 2])
    with pytest.raises(TypeError, match="expected `other` of integers"):
        attribution.contrast([0], [0.5])
    with pytest.raises(ValueError, match=r"of one shape \(N,\)"):
        attribution.contrast([0], [1, 2])
    with pytest.raises(ValueError, match="of at least 0, got -1"):
        attribution.contrast([0], [-1])
    with pytest.raises(ValueError, match=r"scores \(N, K\) with K above 3"):
        attribution.gradient(lambda x: x.mean(axis=(1, 2)), X, attribution.contrast([0] * 3, [3] * 3))
