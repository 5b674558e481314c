"""Rules of what lies between linear layers; rules and parameters that are refused."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from formulas import assert_close, draw, explain, normal, of_layers, stabilized
from jxai import lrp
from jxai.lrp import Kind

pytestmark = pytest.mark.usefixtures("x64")


def explained(f, rule, kind, *primals, relevance=None):
    relevance = normal(*jax.eval_shape(f, *primals).shape, seed=9) if relevance is None else relevance
    y, found = explain(f, *primals, composite=lrp.Composite(((kind, rule),)), relevance=relevance)
    return np.asarray(y), relevance, found


@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 0.3])
@pytest.mark.parametrize(
    ("f", "signs"),
    [
        (lambda a, b: a + b, (1, 1)),
        (lambda a, b: a - b, (1, -1)),
        (lambda a, b, c: a + b + c, (1, 1, 1)),
        (lambda a, b, c: a + (b - c), (1, 1, -1)),
    ],
)
def test_norm_of_a_sum(f, signs, epsilon):
    terms = normal(len(signs), 2, 3)
    z, relevance, found = explained(f, lrp.Norm(epsilon), Kind.SUM, *terms)
    for ours, term, sign in zip(found, terms, signs, strict=True):
        assert_close(ours, sign * term * relevance / stabilized(z, epsilon))


@pytest.mark.parametrize("epsilon", [1e-6, 0.3])
@pytest.mark.parametrize(
    ("f", "parts"),
    [
        (lambda x: x.mean((1, 2)), lambda x: x / 8),
        (lambda x: x.sum((1, 2)), lambda x: x),
        (lambda x: nn.avg_pool(x, (4, 2))[:, 0, 0], lambda x: x / 8),
        (lambda x: jnp.mean(x, (1, 2), keepdims=True)[:, 0, 0], lambda x: x / 8),
    ],
)
def test_norm_of_a_mean(f, parts, epsilon):
    (x,) = normal(1, 2, 4, 2, 3)
    z, relevance, (ours,) = explained(f, lrp.Norm(epsilon), Kind.MEAN, x)
    assert_close(ours, parts(x) * (relevance / stabilized(z, epsilon))[:, None, None])


@pytest.mark.parametrize("terms", [2, 3])
def test_norm_shares_a_sum_of_zero_evenly(terms):
    x = normal(terms, 2, 3)
    x[:, 0] = 0
    x[:, 1, 0] = [1.5, -1.5, 0][:terms]
    z, relevance, found = explained(
        lambda *x: sum(x[1:], x[0]), lrp.Norm(0.01, share_zeros=True), Kind.SUM, *x
    )
    for ours, term in zip(found, x, strict=True):
        assert_close(ours, np.where(z == 0, relevance / terms, term * relevance / stabilized(z, 0.01)))


def test_pass_keeps_relevance_whatever_the_entry():
    (x,) = normal(1, 2, 3)
    x[0, 0] = 0
    for f in (nn.gelu, nn.silu, jnp.tanh, nn.relu, lambda x: 2 * x + 1):
        _, relevance, (ours,) = explained(f, lrp.Pass(), lambda operation: True, x)
        assert_close(ours, relevance)


def test_pass_of_a_whole_module():
    (x,) = normal(1, 2, 3)
    x[0, 0] = 0
    for module in (nn.BatchNorm(use_running_average=False), nn.LayerNorm()):
        variables = draw(module.clone(param_dtype=float), x)
        f = lambda x, m=module, v=variables: m.apply(v, x, mutable=["batch_stats"])[0]  # noqa: E731
        y, relevance, (ours,) = explained(f, lrp.Pass(), type(module), x)
        assert_close(y, jax.jit(f)(x))
        assert_close(ours, relevance)


@pytest.mark.parametrize("pattern", [lax.tanh_p, Kind.ACTIVATION])
def test_constant_hands_on_nothing(pattern):
    a, b = normal(2, 2, 3)
    _, relevance, (of_a, of_b) = explained(lambda a, b: a * jnp.tanh(b), lrp.Constant(), pattern, a, b)
    assert_close(of_a, relevance)
    np.testing.assert_array_equal(of_b, 0)


@pytest.mark.parametrize("after", [lambda y: y @ np.eye(3), lambda y: y], ids=["below a layer", "at the end"])
def test_gradient_is_the_ratio_s_derivative(after):
    (x,) = normal(1, 2, 3)
    composite = lrp.Composite(((Kind.ACTIVATION, lrp.Gradient()), (Kind.DENSE, lrp.Epsilon(0.0))))
    relevance = normal(2, 3, seed=9)
    y, (ours,) = explain(lambda x: after(jnp.tanh(x)), x, composite=composite, relevance=relevance)
    assert_close(ours, x * (1 - np.asarray(y) ** 2) * relevance / y)


def test_gradient_of_a_softmax():
    (x,) = normal(1, 2, 3)
    y, relevance, (ours,) = explained(nn.softmax, lrp.Gradient(), Kind.SOFTMAX, x)
    assert_close(ours, x * (relevance - y * relevance.sum(-1, keepdims=True)))


def test_gradient_of_a_dense_layer_as_a_whole():
    (x,) = normal(1, 2, 3)
    module = nn.Dense(4, param_dtype=float)
    variables = draw(module, x)
    y, relevance, (ours,) = explained(lambda x: module.apply(variables, x), lrp.Gradient(), nn.Dense, x)
    assert_close(ours, x * ((relevance / y) @ variables["params"]["kernel"].T))


def test_split_gives_each_factor_its_half():
    a, b = normal(2, 3, 3)
    _, relevance, found = explained(lambda a, b: a * b, lrp.Split(), Kind.PRODUCT, a, b)
    for ours in found:
        assert_close(ours, relevance / 2)
    z, relevance, (of_a, of_b) = explained(lambda a, b: a @ b, lrp.Split(), Kind.CONTRACTION, a, b)
    assert_close(of_a, a * (relevance / (2 * z) @ b.T))
    assert_close(of_b, b * (a.T @ (relevance / (2 * z))))


@pytest.mark.parametrize(
    ("composite", "relu"),
    [
        (lrp.GuidedBackprop(), lambda g, x: np.maximum(g, 0) * (x > 0)),
        (lrp.Deconvnet(), lambda g, x: np.maximum(g, 0)),
    ],
)
def test_gradients_meet_relu_alone(composite, relu):
    first, second = normal(2, 4, 4)
    x, g = normal(2, 3, 4)

    def f(x):
        return jnp.tanh(nn.relu(x @ first + 1) @ second)

    y, (ours,) = explain(f, x, composite=composite, relevance=g)
    z = x @ first + 1
    assert_close(y, np.tanh(np.maximum(z, 0) @ second))
    assert_close(ours, relu(((1 - np.asarray(y) ** 2) * g) @ second.T, z) @ first.T)


# What is refused.


def test_pass_refuses_what_changes_the_shape():
    with pytest.raises(ValueError, match=r"keeps the shape.*reduce_sum.*\(1, 2\) to \(1,\)"):
        explained(lambda x: x.sum(1), lrp.Pass(), Kind.MEAN, np.ones((1, 2)))


@pytest.mark.parametrize(
    ("alpha", "beta"), [(1.0, 1.0), (2.0, 0.0), (-1.0, -2.0), (0.5, -0.5), (float("nan"), 0.0)]
)
def test_alpha_beta_that_would_not_conserve_is_refused(alpha, beta):
    with pytest.raises(ValueError, match=r"alpha - beta = 1|expected alpha finite"):
        lrp.AlphaBeta(alpha, beta)


@pytest.mark.parametrize("epsilon", [-1e-6, float("nan")])
@pytest.mark.parametrize(
    "rule",
    [
        lrp.Epsilon,
        lrp.AlphaBeta,
        lrp.ZPlus,
        lrp.Gamma,
        lrp.WSquare,
        lrp.Flat,
        lrp.Norm,
        functools.partial(lrp.Box, 0, 1),
    ],
)
def test_negative_stabilizer_is_refused(rule, epsilon):
    with pytest.raises(ValueError, match="epsilon of at least 0, got"):
        rule(epsilon=epsilon)


@pytest.mark.parametrize("gamma", [-0.25, float("nan")])
def test_negative_gamma_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma of at least 0, got"):
        lrp.Gamma(gamma)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (1.0, 0.0, "expected low <= high, got low=1.0, high=0.0"),
        ([0.0, 2.0], [1.0, 1.0], "low <= high"),
        (float("nan"), 1.0, "expected finite bounds, low, got 1 of 1"),
        (0.0, np.array([1.0, np.nan]), "expected finite bounds, high, got 1 of 2"),
    ],
)
def test_bounds_that_hold_nothing_are_refused(low, high, message):
    with pytest.raises(ValueError, match=message):
        lrp.Box(low, high)


@pytest.mark.parametrize("box", [lrp.Box(-1.0, 0.5), lrp.Box(0.0, 1.0), lrp.Box(-1.0, [1.0, 0.5])])
@pytest.mark.parametrize("f", [lambda f: f, jax.jit])
def test_bounds_that_do_not_contain_the_input_are_refused(box, f):
    x = np.array([[0.2, 1.0], [-1.0, 0.0]])
    f = f(lambda x: x @ np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"inputs within \[low, high\].*got values from -1.0 to 1.0"):
        lrp.vjp(f, x, composite=of_layers(box))
    lrp.vjp(f, x, composite=of_layers(lrp.Box(-1.0, 1.0)))
    jax.jit(lambda x: lrp.vjp(f, x, composite=of_layers(box))[0])(x)  # values are not seen there
