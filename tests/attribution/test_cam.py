"""The family of Grad-CAM: each formula in NumPy, of one head whose gradients are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution, lrp, models

RANDOM = np.random.default_rng(10)
X = jnp.asarray(RANDOM.normal(size=(2, 8, 6, 3)), jnp.float32)
TARGET = jnp.array([1, 0])
MIX = jnp.asarray(RANDOM.normal(size=(3, 4)), jnp.float32)
V = jnp.asarray(RANDOM.normal(size=(4, 2)), jnp.float32)


def features(x):
    return jax.nn.relu(x[:, ::2, ::2] @ MIX)


def head(maps):
    return ((maps**2).mean(axis=(1, 2)) / 2) @ V + maps[:, 1, 1] @ V


MAPS = np.asarray(features(X), np.float64)
SLOPES = MAPS / 12 * np.asarray(V).T[np.asarray(TARGET)][:, None, None]
SLOPES[:, 1, 1] += np.asarray(V).T[np.asarray(TARGET)]


def plus_plus():
    below = 2 * SLOPES**2 + SLOPES**3 * MAPS.sum(axis=(1, 2), keepdims=True)
    alpha = np.divide(SLOPES**2, below, out=np.zeros_like(below), where=(SLOPES != 0))
    return ((alpha * np.maximum(SLOPES, 0)).sum(axis=(1, 2), keepdims=True) * MAPS).sum(axis=-1)


RAW = {
    "grad_cam": lambda: (SLOPES.mean(axis=(1, 2), keepdims=True) * MAPS).sum(axis=-1),
    "grad_cam_plus_plus": plus_plus,
    "layer_cam": lambda: (np.maximum(SLOPES, 0) * MAPS).sum(axis=-1),
}


@pytest.mark.parametrize("name", RAW)
def test_against_the_formula_raw_and_shown(name):
    run = functools.partial(getattr(attribution, name), features, head, X, TARGET)
    raw = run(relu=False, enlarge=False)
    assert raw.shape == (2, 4, 3, 1)
    np.testing.assert_allclose(raw[..., 0], RAW[name](), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(run(enlarge=False), np.maximum(raw, 0), rtol=1e-5, atol=1e-6)
    large = jax.image.resize(jnp.maximum(raw, 0), (2, 8, 6, 1), "bilinear")
    np.testing.assert_allclose(run(), large, rtol=1e-4, atol=1e-5)
    first = functools.partial(
        getattr(attribution, name),
        lambda x: features(x).transpose(0, 3, 1, 2),
        lambda maps: head(maps.transpose(0, 2, 3, 1)),
    )
    np.testing.assert_allclose(first(X, TARGET, channel_axis=1), run(), rtol=1e-4, atol=1e-5)


def test_score_cam_against_a_loop():
    found = attribution.score_cam(features, head, X, TARGET, relu=False, enlarge=False, chunk_size=3)
    for image in range(2):
        scores = []
        for channel in range(4):
            large = np.asarray(jax.image.resize(MAPS[image, ..., channel], (8, 6), "bilinear"))
            mask = (large - large.min()) / (large.max() - large.min())
            z = X[image : image + 1] * mask[None, ..., None].astype(np.float32)
            scores.append(float(head(features(z))[0, TARGET[image]]))
        weights = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(found[image, ..., 0], MAPS[image] @ weights, rtol=1e-4, atol=1e-5)
    whole = attribution.score_cam(features, head, X, TARGET)
    assert whole.shape == (2, 8, 6, 1) and (whole >= 0).all()


def test_score_cam_of_maps_that_are_dead():
    found = attribution.score_cam(lambda x: features(x) * 0, head, X, TARGET)
    assert (found == 0).all()


def test_eigen_cam_is_the_first_component():
    found = attribution.eigen_cam(features, X, enlarge=False)
    for image in range(2):
        left, values, _ = np.linalg.svd(MAPS[image].reshape(12, 4))
        component = left[:, 0] * values[0] * np.sign((left[:, 0]).sum())
        np.testing.assert_allclose(
            found[image, ..., 0], np.maximum(component, 0).reshape(4, 3), rtol=1e-3, atol=1e-4
        )
    signed = attribution.eigen_cam(lambda x: -features(x), X, enlarge=False, relu=False)
    np.testing.assert_allclose(signed, found, rtol=1e-3, atol=1e-4)  # the sign of maps says nothing


def test_guided_grad_cam_is_a_product():
    weights = jnp.asarray(RANDOM.normal(size=(4, 2)), jnp.float32)

    def top(maps):
        return maps.mean(axis=(1, 2)) @ weights

    explain = functools.partial(lrp.relevance, composite=lrp.GuidedBackprop())
    found = attribution.guided_grad_cam(features, top, X, TARGET, explain=explain)
    where = attribution.grad_cam(features, top, X, TARGET)
    pixels = explain(lambda x: top(features(x)), X, TARGET)
    assert found.shape == X.shape and np.abs(found).max() > 0
    np.testing.assert_allclose(found, where * pixels, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*RAW, "score_cam"])
def test_under_jit_and_with_wrong_options(name):
    cam = getattr(attribution, name)
    np.testing.assert_allclose(
        jax.jit(lambda x: cam(features, head, x, TARGET))(X),
        cam(features, head, X, TARGET),
        rtol=1e-4,
        atol=1e-5,
    )
    found = jax.jit(lambda x: cam(features, head, x, TARGET))(X.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="relu among True, False, got 1"):
        cam(features, head, X, TARGET, relu=1)
    with pytest.raises(ValueError, match="enlarge among True, False, got None"):
        cam(features, head, X, TARGET, enlarge=None)
    with pytest.raises(ValueError, match="before its pooling"):
        cam(lambda x: x.mean(axis=(1, 2)), head, X, TARGET)


# A transformer's tokens.


def written_out():
    """(tokens, the head above them, images) of 3 x 4 patches behind three tokens, written out."""
    x = jax.random.normal(jax.random.key(0), (2, 12, 16, 3))

    def tokens(x):
        patches = jnp.tanh(x.reshape(len(x), 3, 4, 4, 4, 3).mean(axis=(2, 4)).reshape(len(x), 12, 3) @ MIX)
        return jnp.concatenate([patches[:, :3] + 1, patches], axis=1)

    return tokens, lambda tokens: (tokens * tokens[:, :1]).sum(axis=1) @ jnp.concatenate([V, V], axis=1), x


def transformer():
    """The same of a vision transformer, whose prefix are a class token and two registers."""
    model = models.VisionTransformer(
        num_classes=3, patch_size=4, width=8, depth=2, num_heads=2, mlp_width=16, num_registers=2
    )
    x = jax.random.normal(jax.random.key(0), (2, 12, 16, 3))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    variables = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(2), p.shape), variables)
    features, head = models.split(model, "layer0", image_shape=(12, 16, 3))
    return functools.partial(features, variables), functools.partial(head, variables), x


@pytest.mark.parametrize(
    "cam",
    [
        attribution.grad_cam,
        attribution.grad_cam_plus_plus,
        attribution.layer_cam,
        attribution.score_cam,
    ],
)
@pytest.mark.parametrize("model", [written_out, pytest.param(transformer, marks=pytest.mark.slow)])
def test_tokens_on_their_grid(cam, model):
    """As maps (N, 3, 4, 8) of the patches alone, under a head that knows the tokens before them."""
    tokens, head, x = model()
    tokens, head = jax.jit(tokens), jax.jit(head)
    target = jnp.array([0, 2])
    options = {"relu": False, "enlarge": False}
    found = jax.jit(lambda x: cam(tokens, head, x, target, grid=(3, 4), **options))(x)
    before = tokens(x)[:, :3]

    def patches(x):
        return tokens(x)[:, 3:].reshape(len(x), 3, 4, -1)

    def above(maps):
        return head(jnp.concatenate([before, maps.reshape(len(maps), 12, -1)], axis=1))

    if cam is attribution.score_cam:  # whose scores are of other pictures, with tokens of their own
        scores = []
        for k in range(before.shape[-1]):
            mask = jax.image.resize(patches(x)[..., k], (2, 12, 16), "bilinear")
            low, high = mask.min(axis=(1, 2), keepdims=True), mask.max(axis=(1, 2), keepdims=True)
            shown = x * ((mask - low) / (high - low))[..., None]
            scores.append(head(tokens(shown))[jnp.arange(2), target])
        weights = jax.nn.softmax(jnp.stack(scores, axis=1), axis=1)
        expected = (patches(x) * weights[:, None, None]).sum(axis=-1)[..., None]
    else:
        expected = cam(patches, above, x, target, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found).max() > 0


def test_pictures_with_channels_first_are_refused():
    first = jnp.zeros((2, 3, 8, 12))
    run = functools.partial(
        attribution.grad_cam, lambda x: x, lambda maps: maps.mean(axis=(2, 3)), target=[0, 1]
    )
    with pytest.raises(ValueError, match=r"give jnp\.moveaxis\(x, 1, -1\)"):
        run(x=first, channel_axis=1)


def test_tokens_that_do_not_fit_their_grid_are_refused():
    tokens, head, x = written_out()
    run = functools.partial(attribution.grad_cam, tokens, head, x, [0, 2])
    with pytest.raises(ValueError, match=r"give grid=\(h, w\) for a transformer's tokens"):
        run()
    with pytest.raises(ValueError, match=r"of at least 4 x 4 patches, got \(2, 12, 16, 3\) and \(2, 15, 4\)"):
        run(grid=(4, 4))
    with pytest.raises(ValueError, match=r"expected grid as \(h, w\), got 3"):
        run(grid=3)
    with pytest.raises(ValueError, match="grid of at least 1, got 0"):
        run(grid=(0, 4))
    with pytest.raises(ValueError, match="channel_axis or grid, got both"):
        run(grid=(3, 4), channel_axis=-1)
    with pytest.raises(ValueError, match=r"expected images \(N, H, W, C\) and tokens"):
        attribution.eigen_cam(lambda x: x, x, grid=(3, 4))
    shape = attribution.guided_grad_cam(
        tokens, head, x, [0, 2], explain=attribution.gradient, grid=(3, 4)
    ).shape
    assert shape == x.shape
    assert attribution.eigen_cam(tokens, x, grid=(3, 4)).shape == (2, 12, 16, 1)
