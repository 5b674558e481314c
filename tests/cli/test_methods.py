"""Every method of the registry on a network of three layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import models
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0
from jxai.cli.explaining.methods import OF_MAPS, Classifier, Settings, composites, methods

X = jnp.asarray(EFFICIENTNET_LITE0(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)))
TARGET = jnp.array([3, 1])
SETTINGS = Settings(num_roots=3, num_steps=4, num_samples=3, num_masks=3, window=4, stride=2)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.Conv(4, (3, 3), name="body")(x))
        return nn.Dense(5, name="head")(y.mean((1, 2)))


def classifier():
    model = Net()
    maps, rest = models.split(model, "body", image_shape=X.shape[1:])
    return Classifier(model.init(jax.random.key(0), X), model.apply, maps, rest)


def explained(names, f, x, mesh=None):
    """Attributions by these methods, in one compiled program."""
    known = methods(SETTINGS, references=X, mesh=mesh)

    @jax.jit
    def explain(f, key, x, target):
        return {name: known[name].explain(f, key, x, target) for name in names}

    return explain(f, jax.random.key(1), x, TARGET)


# One of a kind stands for all: tests/attribution and tests/lrp look after the others.
QUICK = ("input-x-gradient", "integrated-gradients", "smooth-taylor", "grad-cam", "lrp-0")


@pytest.fixture(scope="module")
def quick():
    return explained(QUICK, classifier(), X)


def check(found):
    f, known = classifier(), methods()
    scores = np.asarray(f(X))[np.arange(2), TARGET]
    for name, attributions in found.items():
        one_a_pixel = name in OF_MAPS and name != "guided-grad-cam"
        assert attributions.shape == (*X.shape[:3], 1 if one_a_pixel else 3), name
        assert np.isfinite(attributions).all() and np.any(attributions), name
        if name in ("input-x-gradient", "lrp-0"):
            # Piecewise linear, and the biases are zero at first: the score is handed out in full.
            np.testing.assert_allclose(attributions.sum((1, 2, 3)), scores, rtol=1e-4)
            assert known[name].adds_up


def test_methods_explain_under_jit(quick):
    check(quick)


@pytest.mark.slow
def test_every_method_explains_under_jit():
    f = classifier()
    for name in methods().keys() - set(QUICK):
        check(explained((name,), f, X))


def test_two_devices_give_the_same(quick):
    names = ("input-x-gradient", "smooth-taylor")
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("devices",))
    together = explained(names, classifier(), X, mesh)
    for name in names:
        np.testing.assert_allclose(together[name], quick[name], atol=1e-6)


def test_names_and_labels_are_unique_and_cover_the_composites():
    known = methods()
    assert all(method.name == name for name, method in known.items())
    labels = [method.label for method in known.values()]
    assert len(set(labels)) == len(labels) and set(composites()) < set(labels)
    carry_gradients = {"gradient", "smooth-grad", "guided-backprop", "deconvnet"}
    assert not any(known[name].adds_up for name in carry_gradients)


def test_black_is_the_baseline_and_expected_gradients_wants_pictures():
    space = EFFICIENTNET_LITE0
    assert [space.low, space.gray, space.high] == [-127 / 128, 0, 1]
    assert space.gray_levels == 1
    f, black = classifier(), jnp.full_like(X, space.low)
    assert not np.any(explained(["integrated-gradients"], f, black)["integrated-gradients"])
    with pytest.raises(ValueError, match="expected references for expected gradients, got none"):
        methods()["expected-gradients"].explain(f, jax.random.key(1), X, TARGET)
