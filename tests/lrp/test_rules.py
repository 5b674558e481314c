"""Each rule against the formula of its paper on the layer's explicit matrix, written a second time in numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jxai import lrp

MASK = np.array([0.0, 1, 1])[:, None, None] * np.ones((3, 2, 3))

# name -> (module, shape of one input)
LAYERS = {
    "dense": (nn.Dense(4), (5,)),
    "dense on a grid": (nn.Dense(3), (2, 2, 4)),
    "conv1d SAME": (nn.Conv(3, (3,)), (6, 2)),
    "conv1d CAUSAL": (nn.Conv(2, (3,), padding="CAUSAL"), (5, 2)),
    "conv1d with a mask": (nn.Conv(3, (3,), mask=jnp.asarray(MASK, jnp.float32)), (5, 2)),
    "conv2d SAME stride 2": (nn.Conv(3, (3, 3), strides=2), (5, 4, 2)),
    "conv2d VALID": (nn.Conv(3, (2, 3), padding="VALID"), (4, 5, 2)),
    "conv2d CIRCULAR": (nn.Conv(2, (3, 3), padding="CIRCULAR"), (4, 3, 2)),
    "conv2d padded unevenly": (nn.Conv(2, (3, 3), strides=(1, 2), padding=((1, 0), (0, 2))), (4, 5, 2)),
    "conv2d dilated": (nn.Conv(3, (3, 2), kernel_dilation=(2, 1)), (5, 4, 2)),
    "conv2d input dilated": (nn.Conv(2, (3, 3), input_dilation=2, padding=1), (3, 3, 2)),
    "conv2d in groups": (nn.Conv(4, (3, 3), feature_group_count=2, padding=1), (3, 4, 4)),
    "conv2d depthwise": (nn.Conv(6, (3, 3), feature_group_count=3, padding=0), (4, 4, 3)),
    "conv3d": (nn.Conv(2, (2, 2, 2), padding="SAME"), (3, 2, 3, 2)),
}


def stabilised(z, epsilon, only_zeros=False):
    return np.where(z == 0, epsilon, z) if only_zeros else z + epsilon * np.where(z < 0, -1, 1)


def epsilon_rule(parts, bias, relevance, rule):
    """`parts[j, i]` is what input i gives to output j."""
    z = parts.sum(1) + (bias if rule.bias else 0)
    return (parts * (relevance / stabilised(z, rule.epsilon))[:, None]).sum(0)


def alpha_beta_rule(parts, bias, relevance, rule):
    result = 0
    for weight, keep in ((rule.alpha, np.maximum), (-rule.beta, np.minimum)):
        kept = keep(parts, 0)
        z = kept.sum(1) + (keep(bias, 0) if rule.bias else 0)
        share = relevance / stabilised(z, rule.epsilon, rule.only_zeros)
        result = result + weight * (kept * share[:, None]).sum(0)
    return result


RULES = {
    "epsilon": (lrp.Epsilon(), epsilon_rule),
    "epsilon 0.25 without bias": (lrp.Epsilon(0.25, bias=False), epsilon_rule),
    "LRP-0": (lrp.Epsilon(0.0), epsilon_rule),
    "LRP-0 without bias": (lrp.Epsilon(0.0, bias=False), epsilon_rule),
    "z-plus": (lrp.AlphaBeta(), alpha_beta_rule),
    "z-plus without bias": (lrp.AlphaBeta(bias=False), alpha_beta_rule),
    "alpha 2 beta 1": (lrp.AlphaBeta(2.0, 1.0, epsilon=1e-3), alpha_beta_rule),
    "alpha 2 beta 1 only zeros": (lrp.AlphaBeta(2.0, 1.0, bias=False, only_zeros=True), alpha_beta_rule),
    "alpha 1.5 beta 0.5": (lrp.AlphaBeta(1.5, 0.5, bias=False), alpha_beta_rule),
    "alpha 1.5 beta 0.5 only zeros": (lrp.AlphaBeta(1.5, 0.5, only_zeros=True), alpha_beta_rule),
}


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def explicit_matrix(module, kernel, shape):
    """(outputs, inputs), column by column from the unit vectors."""
    size = int(np.prod(shape))
    units = np.eye(size).reshape(size, *shape)
    columns = module.clone(use_bias=False).apply({"params": {"kernel": kernel}}, units)
    return np.asarray(columns).reshape(size, -1).T


@pytest.mark.parametrize("layer", LAYERS)
def test_linear_rules_equal_their_formula_on_the_explicit_matrix(layer):
    module, shape = LAYERS[layer]
    module = module.clone(param_dtype=jnp.float64)
    random = np.random.default_rng(list(LAYERS).index(layer))
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, *shape)))["params"]
    params = {name: random.normal(size=leaf.shape) for name, leaf in shapes.items()}
    matrix = explicit_matrix(module, params["kernel"], shape)
    x = random.normal(size=(3, *shape))
    x[..., 0] *= random.random((3, *shape[:-1])) > 0.3  # zeros among them
    flat = x.reshape(3, -1)
    expected_y = flat @ matrix.T
    bias = np.tile(params["bias"], expected_y.shape[1] // params["bias"].size)
    relevance = random.normal(size=expected_y.shape)

    @jax.jit
    def explain(x, relevance):
        def by(rule):
            composite = lrp.Composite(((type(module), rule),))
            y, pullback = lrp.vjp(lambda x: module.apply({"params": params}, x), x, composite=composite)
            return y.reshape(relevance.shape), pullback(relevance.reshape(y.shape))[0].reshape(flat.shape)

        return {name: by(rule) for name, (rule, _) in RULES.items()}

    for name, (y, ours) in explain(x, relevance).items():
        rule, formula = RULES[name]
        expected = np.stack(
            [formula(matrix * n, bias, r, rule) for n, r in zip(flat, relevance, strict=True)]
        )
        np.testing.assert_allclose(y, expected_y + bias, rtol=1e-10, atol=1e-10)
        atol = 1e-10 * np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=atol, err_msg=name)


@pytest.mark.parametrize("rule", [lrp.AlphaBeta(), lrp.AlphaBeta(2.0, 1.0)])
def test_known_signs_of_the_input_halve_the_work_and_change_nothing(rule):
    random = np.random.default_rng(0)
    kernel, x = random.normal(size=(4, 3)), np.maximum(random.normal(size=(2, 4)), 0)
    relevance = random.normal(size=(2, 3))

    def ratios(nonnegative):
        linear = lrp.Linear(jnp.matmul, jnp.asarray(kernel), jnp.ones(3))
        known = dataclasses.replace(rule, nonnegative=nonnegative)
        backward = lambda relevance: known.propagate(linear, jnp.asarray(x), x @ kernel + 1, relevance)  # noqa: E731
        return backward(relevance), str(jax.make_jaxpr(backward)(relevance)).count("dot_general")

    (both, work), (half, less_work) = ratios(False), ratios(True)
    np.testing.assert_allclose(half * x, both * x, rtol=1e-12)
    assert less_work * 2 == work


def test_pass_hands_relevance_on_unchanged():
    random = np.random.default_rng(0)
    x, relevance = random.normal(size=(2, 3, 4)), random.normal(size=(2, 3, 4))
    x[0, 0] = 0  # nothing is lost where the input is zero
    module = nn.BatchNorm(use_running_average=False, param_dtype=jnp.float64)
    variables = module.init(jax.random.key(0), x)
    y, pullback = lrp.vjp(
        lambda x: module.apply(variables, x, mutable=["batch_stats"])[0], x, composite=lrp.sun2020
    )
    np.testing.assert_allclose(y, module.apply(variables, x, mutable=["batch_stats"])[0])
    np.testing.assert_allclose(pullback(relevance)[0], relevance, rtol=1e-12)


def test_pass_refuses_a_module_that_changes_the_shape():
    module = nn.Dense(3, name="widen")
    x = np.ones((1, 2))
    variables = module.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"keeps the shape.*Dense.*\(1, 2\) to \(1, 3\)"):
        lrp.vjp(lambda x: module.apply(variables, x), x, composite=lrp.Composite(((nn.Dense, lrp.Pass()),)))


@pytest.mark.parametrize(
    ("alpha", "beta"), [(1.0, 1.0), (2.0, 0.0), (-1.0, -2.0), (0.5, -0.5), (float("nan"), 0.0)]
)
def test_alpha_beta_that_would_not_conserve_is_refused(alpha, beta):
    with pytest.raises(ValueError, match="alpha - beta = 1"):
        lrp.AlphaBeta(alpha, beta)


@pytest.mark.parametrize("rule", [lrp.Epsilon, lrp.AlphaBeta])
@pytest.mark.parametrize("epsilon", [-1e-6, float("nan")])
def test_negative_stabiliser_is_refused(rule, epsilon):
    with pytest.raises(ValueError, match="epsilon of at least 0"):
        rule(epsilon=epsilon)


def test_rule_of_linear_layers_refuses_another_module():
    module = nn.LayerNorm()
    x = np.ones((1, 2))
    variables = module.init(jax.random.key(0), x)
    composite = lrp.Composite(((nn.LayerNorm, lrp.Epsilon()),))
    with pytest.raises(ValueError, match=r"linear module.*LayerNorm"):
        lrp.vjp(lambda x: module.apply(variables, x), x, composite=composite)
