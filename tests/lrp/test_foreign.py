"""Models from PyPI that nobody here wrote, untouched: finite, conserved, equal to input times gradient in float64.

`pip install --no-deps jax-resnet==0.0.4 jax-models==0.0.5` brings them.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from formulas import LRP_0
from jxai import lrp

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("x64")]

X = np.random.default_rng(1).normal(size=(2, 64, 64, 3))


def resnet18():
    models = pytest.importorskip("jax_resnet")
    return models.ResNet18(n_classes=5), {"mutable": False}


def resnet_d():
    models = pytest.importorskip("jax_resnet")
    return models.ResNetD18(n_classes=5), {"mutable": False}


def resnest():
    """Softmax attention over splits."""
    models = pytest.importorskip("jax_resnet")
    return models.ResNeSt50Fast(n_classes=5), {"mutable": False}


def cait():
    """Talking-head attention, then a class token that attends to the patches."""
    models = pytest.importorskip("jax_models.models.cait")
    return models.CaiT(patch_size=8, depth=2, embed_dim=32, num_heads=2, num_classes=5, init_scale=1.0), {}


def draw(module, bias, *args):
    random = np.random.default_rng(0)

    def leaf(path, shape):
        drawn = random.normal(size=shape.shape)
        if path[-1].key == "kernel":
            return drawn * np.sqrt(2 / math.prod(shape.shape[:-1]))
        return 0.5 + np.abs(drawn) if path[-1].key in ("scale", "var") else bias * drawn

    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    shapes = jax.eval_shape(lambda: module.init(keys, X, *args))
    return jax.tree_util.tree_map_with_path(leaf, shapes)


def explain(model, composite, bias=0.1):
    """(scores, relevance from each image's first score, input times its gradient)."""
    module, options = model
    args = () if options else (True,)
    variables = draw(module, bias, *args)

    @jax.jit
    def both(x):
        f = lambda x: module.apply(variables, x, *args, **options)  # noqa: E731
        y, pullback = lrp.vjp(f, x, composite=composite)
        start = jnp.eye(y.shape[1])[0]
        return y, pullback(y * start)[0], x * jax.grad(lambda x: (f(x) * start).sum())(x)

    return both(X)


@pytest.mark.parametrize("model", [resnet18, resnet_d])
def test_resnets_conserve_relevance_and_are_piecewise_linear(model):
    y, relevance, _ = explain(model(), LRP_0, bias=0.0)
    np.testing.assert_allclose(relevance.sum((1, 2, 3)), y[:, 0], rtol=1e-8)
    _, relevance, expected = explain(model(), LRP_0)
    np.testing.assert_allclose(relevance, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("model", "composite"),
    [
        (resnet18, lrp.EpsilonPlus()),
        (resnest, lrp.EpsilonPlus()),
        (cait, lrp.EpsilonPlus()),
        (cait, lrp.AttnLRP(gamma=0.25)),
    ],
)
def test_foreign_models_are_explained(model, composite):
    _, relevance, _ = explain(model(), composite)
    assert np.isfinite(relevance).all() and np.abs(relevance).sum() > 0


def test_cait_equals_the_gradient_of_itself_with_constants_cut_off(monkeypatch):
    model = cait()
    _, relevance, _ = explain(model, lrp.CPLRP(epsilon=0.0))
    softmax, gelu = nn.softmax, nn.gelu

    def cut_off(next_fun, args, kwargs, context):
        y, (x, *_), module = next_fun(*args, **kwargs), args or (None,), context.module
        if not isinstance(module, nn.LayerNorm) or context.method_name != "__call__":
            return y
        mean, std = x.mean(-1, keepdims=True), jnp.sqrt(x.var(-1, keepdims=True) + module.epsilon)
        scale, bias = (module.get_variable("params", name) for name in ("scale", "bias"))
        return (x - mean) / lax.stop_gradient(std) * scale + bias

    monkeypatch.setattr(nn, "softmax", lambda x, axis=-1: lax.stop_gradient(softmax(x, axis)))
    monkeypatch.setattr(nn, "gelu", lambda x, **options: x * lax.stop_gradient(gelu(x, **options) / x))
    module, _ = model
    variables = draw(module, 0.1, True)

    @jax.jit
    def twin(x):
        with nn.intercept_methods(cut_off):
            return x * jax.grad(lambda x: module.apply(variables, x, True)[:, 0].sum())(x)

    expected = twin(X)
    np.testing.assert_allclose(relevance, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
