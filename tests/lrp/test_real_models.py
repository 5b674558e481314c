"""Real architectures, as they stand in `jxai.models`, which know nothing of LRP: finite, conserved, by hand."""

import math
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from formulas import LRP_0
from jxai import lrp
from jxai.models import Classifier, ResNet18
from jxai.models.bottleneck import BottleneckResNet
from jxai.models.densenet import DenseNet
from jxai.models.efficientnet import EfficientNet, MobileStage
from jxai.models.squeezenet import SqueezeNet
from jxai.models.transformers.vision import VisionTransformer
from jxai.models.vgg import VGG

STAGES = (MobileStage(1, 4, expansion=1), MobileStage(2, 6, kernel=5, stride=2, expansion=2))
CONVOLUTIONAL = {
    "VGG": VGG(5, (1, 2), (6, 8), (10,)),
    "VGG with batch norm": VGG(5, (1, 2), (6, 8), (10,), batch_norm=True),
    "SqueezeNet": SqueezeNet(5, 6, (((4, 6),), ((5, 8),))),
    "DenseNet": DenseNet(5, (2, 2), growth=4, bottleneck=2, stem_width=6),
    "ResNet18": Classifier(ResNet18(widths=(6, 8, 8, 10)), 5),
    "bottleneck ResNet": BottleneckResNet(5, (2, 2), (4, 6), expansion=2, stem_width=6),
    "EfficientNet-Lite": EfficientNet(5, stages=STAGES, stem_width=6, head_width=8),
    "EfficientNet-B": EfficientNet(5, squeeze_excite=True, stages=STAGES, stem_width=6, head_width=8),
}
# Of one family with others; or explained by another preset.
SIBLINGS = ("VGG", "DenseNet", "bottleneck ResNet", "EfficientNet-Lite", "EfficientNet-B")
VIT = VisionTransformer(5, patch_size=8, width=6, depth=2, num_heads=2, mlp_width=10)
pytestmark = pytest.mark.usefixtures("x64")
X = np.random.default_rng(1).normal(size=(2, 40, 32, 3))


@cache
def draw(module, bias):
    """Variables in float64: biases, running means and positions are `bias` times normal."""
    random = np.random.default_rng(0)

    def leaf(path, shape):
        drawn = random.normal(size=shape.shape)
        if path[-1].key == "kernel":
            return drawn * np.sqrt(2 / math.prod(shape.shape[:-1]))
        return 0.5 + np.abs(drawn) if path[-1].key in ("scale", "var") else bias * drawn

    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), X, train=False))
    return jax.tree_util.tree_map_with_path(leaf, shapes)


@cache
def explainer(module, composite, gradient=True):
    """A function of (variables, x) to scores, relevance from each image's first score, and input times gradient."""

    @jax.jit
    def explain(variables, x):
        f = lambda x: module.apply(variables, x, train=False)  # noqa: E731
        y, pullback = lrp.vjp(f, x, composite=composite)
        start = jnp.eye(y.shape[1])[0]
        expected = x * jax.vjp(f, x)[1](jnp.broadcast_to(start, y.shape))[0] if gradient else None
        return y, pullback(y * start)[0], expected

    return explain


# Of the larger ones EfficientNet-B stands for Lite, and ResNet18 for those of bottlenecks.
LARGE = ("bottleneck ResNet", "EfficientNet-Lite")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in CONVOLUTIONAL]
)
def test_lrp_0_without_biases_conserves_relevance_exactly(name):
    # Piecewise linear, or gated, without biases: nothing absorbs relevance.
    module = CONVOLUTIONAL[name]
    y, relevance, _ = explainer(module, LRP_0)(draw(module, 0.0), X)
    assert np.abs(y[:, 0]).min() > 0
    # SqueezeNet ends in a mean, which is stabilized by 1e-6, see the next test.
    np.testing.assert_allclose(relevance.sum((1, 2, 3)), y[:, 0], rtol=1e-3 if name == "SqueezeNet" else 1e-8)


def test_lrp_0_of_a_mean_at_the_end_conserves_relevance_exactly():
    module = CONVOLUTIONAL["SqueezeNet"]
    y, relevance, _ = explainer(module, LRP_0)(draw(module, 0.0), X)
    np.testing.assert_allclose(relevance.sum((1, 2, 3)), y[:, 0], rtol=1e-8)


# DenseNet's batch norm passes before its ReLU, EfficientNet-B's SiLU passes and its gates take half.
@pytest.mark.parametrize("name", [n for n in CONVOLUTIONAL if n not in ("DenseNet", "EfficientNet-B")])
def test_lrp_0_is_input_times_gradient_where_all_is_piecewise_linear(name):
    module = CONVOLUTIONAL[name]
    variables = draw(module, 0.1)
    if name == "EfficientNet-Lite":  # ReLU6 is linear below 6 alone
        variables = jax.tree.map(lambda leaf: leaf / 4 if leaf.ndim > 1 else leaf, variables)
    _, relevance, expected = explainer(module, LRP_0)(variables, X)
    rtol = 1e-3 if name == "SqueezeNet" else 1e-8
    np.testing.assert_allclose(relevance, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


def test_batch_norm_before_relu_passes_and_behind_a_convolution_is_merged():
    # DenseNet: BN -> ReLU -> convolution behind a concatenation. In the twin those batch norms have constant ratios.
    # The stem's bias leaves its ReLU no zeros, whose ratio would be infinite.
    module, variables = CONVOLUTIONAL["DenseNet"], draw(CONVOLUTIONAL["DenseNet"], 0.1)
    stem = {**variables["params"]["bn1"], "bias": np.full(6, 20.0)}
    variables = {**variables, "params": {**variables["params"], "bn1": stem}}

    def freeze(next_fun, args, kwargs, context):
        y = next_fun(*args, **kwargs)
        *outer, name = context.module.path or ("",)
        alone = name.endswith(("_bn", "bn_last")) or (outer and name == "bn1")
        return args[0] * lax.stop_gradient(y / args[0]) if alone else y

    @jax.jit
    def twin(x):
        with nn.intercept_methods(freeze):
            return x * jax.grad(lambda x: module.apply(variables, x, train=False)[:, 0].sum())(x)

    _, relevance, _ = explainer(module, LRP_0)(variables, X)
    expected = twin(X)
    np.testing.assert_allclose(relevance, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "composite"),
    [
        *((name, lrp.EpsilonPlus()) for name in ("VGG with batch norm", "SqueezeNet", "ResNet18")),
        pytest.param("EfficientNet-B", lrp.EpsilonGammaBox(-6.0, 6.0), marks=pytest.mark.slow),
        ("DenseNet", lrp.EpsilonAlpha2Beta1Flat(norm=True)),
        *(pytest.param(name, lrp.EpsilonPlus(), marks=pytest.mark.slow) for name in SIBLINGS),
    ],
)
def test_presets_explain_every_model(name, composite):
    module = CONVOLUTIONAL[name]
    explain, variables = explainer(module, composite, gradient=False), draw(module, 0.1)
    _, relevance, _ = explain(variables, X)
    assert np.isfinite(relevance).all() and np.any(relevance)
    _, relevance, _ = explain(variables, 0 * X)
    assert np.isfinite(relevance).all()


def test_z_plus_conserves_relevance_where_every_result_has_positive_contributions():
    # With batch norm that is part of no layer, too.
    module = CONVOLUTIONAL["DenseNet"]
    variables = draw(module, 0.0)
    variables = {**variables, "params": jax.tree.map(np.abs, variables["params"])}
    y, relevance, _ = explainer(module, lrp.EpsilonPlus(), gradient=False)(variables, np.abs(X))
    np.testing.assert_allclose(relevance.sum((1, 2, 3)), y[:, 0], rtol=1e-4)
    assert relevance.min() >= 0


# Vision transformer. Relevance is not conserved: a softmax's derivative sums to zero (AttnLRP), layer norm takes away
# a deviation which is held constant, biases and positions absorb. So it is compared with input times gradient of a
# second ViT, in which what is held constant is cut off by hand.


def halved(x):
    return x / 2 + lax.stop_gradient(x / 2)


def vit_by_hand(params, x, *, constant_attention):
    def norm(x, p):
        mean, std = x.mean(-1, keepdims=True), jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return (x - mean) / lax.stop_gradient(std) * p["scale"] + p["bias"]

    def passed(x):  # the ratio of GELU is constant: relevance stays
        return x * lax.stop_gradient(nn.gelu(x, approximate=False) / x)

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    def attention(x, p):
        q, k, v = (
            dense(x, p[n]).reshape(*x.shape[:2], VIT.num_heads, -1).swapaxes(1, 2)
            for n in ("query", "key", "value")
        )
        weights = nn.softmax(halved(q) @ halved(k).swapaxes(2, 3) / np.sqrt(q.shape[-1]))
        y = lax.stop_gradient(weights) @ v if constant_attention else halved(weights) @ halved(v)
        return dense(y.swapaxes(1, 2).reshape(x.shape), p["out"])

    side = VIT.patch_size
    n, height, width, channels = x.shape
    x = x.reshape(n, height // side, side, width // side, side, channels).swapaxes(2, 3)
    x = jnp.einsum("nhwabc,abcd->nhwd", x, params["patches"]["kernel"]) + params["patches"]["bias"]
    token = jnp.broadcast_to(params["class_token"], (n, 1, VIT.width))
    x = jnp.concatenate([token, x.reshape(n, -1, VIT.width)], 1) + params["positions"]
    for i in range(VIT.depth):
        p = params[f"layer{i}"]
        x = x + attention(norm(x, p["norm1"]), p["attention"])
        x = x + dense(passed(dense(norm(x, p["norm2"]), p["mlp"]["up"])), p["mlp"]["down"])
    return dense(norm(x, params["norm"])[:, 0], params["head"])


@pytest.mark.parametrize("constant", [False, True], ids=["AttnLRP", "CPLRP"])
def test_vision_transformer_equals_the_gradient_of_its_frozen_twin(constant):
    composite = (lrp.CPLRP if constant else lrp.AttnLRP)(epsilon=0.0)
    y, ours, _ = explainer(VIT, composite, gradient=False)(draw(VIT, 0.1), X)
    by_hand = partial(vit_by_hand, draw(VIT, 0.1)["params"], constant_attention=constant)
    twin_y, expected = jax.jit(lambda x: (by_hand(x), x * jax.grad(lambda x: by_hand(x)[:, 0].sum())(x)))(X)
    np.testing.assert_allclose(y, twin_y, rtol=1e-10)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


@pytest.mark.slow
def test_vision_transformer_is_finite_with_its_presets_and_on_zeros():
    variables = draw(VIT, 0.1)

    @jax.jit
    def all_of_them(x):
        found = []
        for composite in (lrp.AttnLRP(gamma=0.25), lrp.CPLRP(), lrp.EpsilonPlus(norm=True)):
            y, pullback = lrp.vjp(lambda x: VIT.apply(variables, x, train=False), x, composite=composite)
            found.append(pullback(y)[0])
        return found

    for x in (X, 0 * X):
        assert all(np.isfinite(relevance).all() for relevance in all_of_them(x))
    assert np.abs(all_of_them(0 * X)[0]).max() < 1e-15
