"""A model in two functions: their composition, what is refused, gradients between them."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jxai import attribution, lrp
from jxai.models import Classifier, DenseNet, ResNet, split
from jxai.models.published_names import NETWORKS

X = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
SMALL = (8, 8, 3)


class Net(nn.Module):
    """Two convolutions, of which the second can be led around; "twice" is called two times."""

    around: str = ""

    @nn.compact
    def __call__(self, x, *, gain=1.0):
        low = nn.relu(nn.Conv(4, (3, 3), name="low")(x))
        high = nn.Conv(4, (3, 3), name="high")(low)
        if self.around == "sum":
            high = high + low
        if self.around == "select":
            high = jnp.where(
                jax.lax.stop_gradient(low).sum() > 1, high, -high
            )  # the gradient does not see it
        high = nn.relu(high)
        twice = nn.Dense(4, name="twice")
        return nn.Dense(2, name="head")(twice(twice(high)).mean(axis=(1, 2))) * gain


@pytest.fixture(scope="module")
def variables(draw_variables):
    return draw_variables(Net(), X)


def test_composition_is_the_model(variables):
    features, head = split(Net(), "high", image_shape=SMALL, gain=3.0)

    @jax.jit
    def run(variables, x):
        maps = features(variables, x)
        return maps, head(variables, maps), head(variables, 0 * maps), Net().apply(variables, x, gain=3.0)

    maps, got, other, want = run(variables, X)
    assert maps.shape == (3, 8, 8, 4) and (maps < 0).any()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert not np.allclose(other, want)


def test_relevance_through_both_is_that_of_the_model(variables):
    """Marks of the model's own trace are none of LRP's: their numbers were modules that LRP had not met."""
    features, head = split(Net(), "high", image_shape=SMALL)
    target = jnp.array([0, 1, 1])
    for composite in (lrp.GuidedBackprop(), lrp.EpsilonPlus()):
        found, want = (
            lrp.relevance(f, jnp.asarray(X), target, composite=composite)
            for f in (lambda x: head(variables, features(variables, x)), lambda x: Net().apply(variables, x))
        )
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


class Looped(nn.Module):
    """Modules inside of a loop, rematerialized, and of a jitted function."""

    @nn.compact
    def __call__(self, x):
        class Block(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.relu(nn.Dense(4)(x)), None

        options = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "length": 2}
        x, _ = nn.scan(nn.remat(Block), **options)()(nn.Dense(4)(x), None)
        x = nn.Dense(4, name="middle")(x)
        return nn.Dense(2, name="head")(nn.relu(nn.jit(nn.Dense)(5, name="late")(nn.relu(x))))


def test_marks_inside_of_loops_and_jitted_functions_are_none_of_lrps_either(draw_variables):
    x = jnp.asarray(X[:, 0, 0])
    variables, target = draw_variables(Looped(), x), jnp.array([0, 1, 1])
    features, head = split(Looped(), "middle", image_shape=(3,))
    found, want = (
        lrp.relevance(f, x, target, composite=lrp.EpsilonPlus())
        for f in (lambda x: head(variables, features(variables, x)), lambda x: Looped().apply(variables, x))
    )
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_gradients_through_both(variables):
    features, head = split(Net(), "high", image_shape=SMALL)

    def through(x):
        maps, pull_features = jax.vjp(lambda x: features(variables, x), x)
        score, pull = jax.vjp(lambda maps: head(variables, maps)[:, 0].sum(), maps)
        return pull_features(*pull(jnp.ones_like(score)))[0]

    want = jax.grad(lambda x: Net().apply(variables, x)[:, 0].sum())
    got, want = jax.jit(lambda x: (through(x), want(x)))(X)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    one_by_one = jax.vmap(lambda x: head(variables, features(variables, x[None]))[0])
    got, want = jax.jit(lambda x: (one_by_one(x), Net().apply(variables, x)))(X)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_nothing_below_is_computed_when_compiled(variables):
    _, head = split(Net(), "high", image_shape=SMALL)
    text = jax.jit(head).lower(variables, jnp.ones((3, 8, 8, 4))).compile().as_text()
    assert "convolution" not in text


_STAGES = {"stage_sizes": (1, 1), "widths": (4, 6), "stem_width": 5}


@pytest.mark.parametrize(
    ("model", "path", "shape"),
    [
        (Classifier(ResNet(**_STAGES), 2), "encoder", (4, 4, 6)),
        (DenseNet(2, stage_sizes=(1, 1), growth=2, stem_width=4), "activation_last", (4, 4, 5)),
    ],
    ids=["ResNet", "DenseNet"],
)
def test_networks_with_batch_norm(model, path, shape, draw_variables):
    x = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    variables = draw_variables(model, x, train=False)
    features, head = split(model, path, image_shape=(32, 32, 3), train=False)

    @jax.jit
    def run(variables, x):
        maps = features(variables, x)
        cam = attribution.grad_cam(partial(features, variables), partial(head, variables), x, [0, 1])
        return maps, head(variables, maps), model.apply(variables, x, train=False), cam

    maps, got, want, cam = run(variables, x)
    assert maps.shape == (2, *shape)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    # Below a mean and a dense layer, Grad-CAM is the class activation map (Selvaraju et al. 2017, section 3.1).
    assert maps.min() >= 0
    weights = np.asarray(variables["params"]["head"]["kernel"])[:, [0, 1]].T
    coarse = np.maximum((maps * weights[:, None, None]).sum(axis=-1, keepdims=True) / maps[0, ..., 0].size, 0)
    whole = jax.image.resize(coarse, cam.shape, "bilinear")
    np.testing.assert_allclose(cam, whole, rtol=1e-4, atol=1e-4 * float(whole.max()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "path", "shape"),
    [
        ("VGG16", "relu12", (14, 14, 512)),
        ("VGG16 with batch norm", "relu12", (14, 14, 512)),
        ("ResNet18", "encoder", (7, 7, 512)),
        ("ResNet34", "encoder", (7, 7, 512)),
        ("ResNet50", "block15", (7, 7, 2048)),
        ("ResNet101", "block32", (7, 7, 2048)),
        ("ResNet152", "block49", (7, 7, 2048)),
        ("DenseNet121", "activation_last", (7, 7, 1024)),
        ("SqueezeNet 1.1", "fire7", (13, 13, 512)),
        ("EfficientNet-Lite0", "activation_last", (7, 7, 1280)),
    ],
)
def test_last_maps_of_whole_networks(name, path, shape, evaluate_shapes):
    _, variables = evaluate_shapes(NETWORKS[name], 224)
    features, head = split(NETWORKS[name], path, train=False)
    maps = jax.eval_shape(features, variables, jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32))
    assert maps.shape == (2, *shape)
    assert jax.eval_shape(head, variables, maps).shape == (2, 1000)


@pytest.mark.parametrize("around", ["sum", "select"])
def test_what_leads_around_is_refused(around):
    model = Net(around)
    with pytest.raises(
        ValueError, match="all of the image's influence goes through, got 'high': the scores also"
    ):
        split(model, "high", image_shape=SMALL)
    split(model, "low", image_shape=SMALL)  # below the branch


def test_inside_of_a_residual_block_is_refused():
    model = Classifier(ResNet(**_STAGES), 2)
    for path in ("encoder/block1/bn2", "encoder/block1/conv1", "encoder/block1/bn_shortcut"):
        with pytest.raises(ValueError, match=f"got '{path}': the scores also depend on the image around it"):
            split(model, path, image_shape=(32, 32, 3), train=False)


def test_wrong_modules():
    with pytest.raises(ValueError, match="that the model calls, got 'hihg': it calls head, high, low, twice"):
        split(Net(), "hihg", image_shape=SMALL)
    with pytest.raises(ValueError, match="called once, got 'twice', called 2 times"):
        split(Net(), "twice", image_shape=SMALL)


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x, x


class Other(nn.Module):
    """A module that returns two arrays, and modules inside of transformations."""

    @nn.compact
    def __call__(self, x):
        x, _ = Pair(name="pair")(x)
        return nn.remat(Net)(name="net")(nn.Dense(3, name="first")(x))


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        body = nn.scan(Body, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return body(name="scan")(x, None)[0].mean()


class Body(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Dense(3, name="dense")(x), None


def test_modules_of_no_array_and_inside_of_transformations():
    with pytest.raises(ValueError, match="returns one array, got tuple from 'pair'"):
        split(Other(), "pair", image_shape=SMALL)
    with pytest.raises(ValueError, match=r"own trace, got 'net/high', called inside of nn\.scan, nn\.remat"):
        split(Other(), "net/high", image_shape=SMALL)
    with pytest.raises(ValueError, match="own trace, got 'net'"):  # its call too is inside
        split(Other(), "net", image_shape=SMALL)
    with pytest.raises(ValueError, match="own trace, got 'scan/dense'"):
        split(Scanned(), "scan/dense", image_shape=SMALL)
    split(Other(), "first", image_shape=SMALL)  # below what is transformed


class Small(nnx.Module):
    def __init__(self, rngs):
        self.convolutions = nnx.List([nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.Conv(4, 4, (3, 3), rngs=rngs)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.last = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        for convolution in self.convolutions:
            x = nnx.relu(self.norm(convolution(x)))
        return self.last(lrp.mark(x.mean((1, 2)), "pooled"))


def test_nnx_modules():
    model = Small(nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        split(model, "convolutions/1", image_shape=SMALL)
    model.eval()
    state = nnx.state(model)
    for path, shape in (("convolutions/1", (8, 8, 4)), ("norm#1", (8, 8, 4)), ("pooled", (4,))):
        features, head = split(model, path, image_shape=SMALL)
        maps, scores = jax.jit(lambda s, x, f=features, h=head: (f(s, x), h(s, f(s, x))))(state, X)
        assert maps.shape == (3, *shape)
        np.testing.assert_allclose(scores, model(X), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"called once, got 'norm', called 2 times: .*norm#0, norm#1"):
        split(model, "norm", image_shape=SMALL)


def test_one_call_of_several(variables):
    features, head = split(Net(), "twice#0", image_shape=SMALL)
    np.testing.assert_allclose(
        head(variables, features(variables, X)), Net().apply(variables, X), rtol=1e-5, atol=1e-6
    )


def test_inside_of_a_jitted_function(variables):
    f = jax.jit(lambda variables, x: jax.jit(Net().apply)(variables, x) + 1)
    f(variables, X)  # what it was traced to is not taken
    features, head = split(f, "high", variables=variables, image_shape=SMALL)
    np.testing.assert_allclose(head(variables, features(variables, X)), f(variables, X), rtol=1e-5, atol=1e-6)


def test_functions_that_are_no_models():
    with pytest.raises(TypeError, match="expected a module of Flax, or a function"):
        split(3, "high", image_shape=SMALL)
    with pytest.raises(ValueError, match="came without `variables`"):
        split(lambda v, x: x, "high", image_shape=SMALL)


def test_wrong_shapes(variables):
    features, head = split(Net(), "high", image_shape=SMALL)
    with pytest.raises(ValueError, match=r"expected x of shape \(N, 8, 8, 3\), got \(1, 9, 8, 3\)"):
        features(variables, jnp.ones((1, 9, 8, 3)))
    with pytest.raises(
        ValueError, match=r"expected maps of shape \(N, 8, 8, 4\), got \(8, 8, 4\): .*image_shape"
    ):
        head(variables, jnp.ones((8, 8, 4)))
