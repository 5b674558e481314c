"""Rules of linear layers against their papers' formulas on the explicit matrix, written a second time in numpy."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from formulas import assert_close, explain, of_layers, shared_out, stabilized
from jxai import lrp

pytestmark = pytest.mark.usefixtures("x64")


# Layers.


@dataclasses.dataclass(frozen=True)
class Layer:
    """z = apply(params, x) with params "kernel" and, perhaps, "bias", and the shapes of them and of one input."""

    apply: Callable
    params: dict[str, tuple[int, ...]]
    shape: tuple[int, ...]


def of_module(module, *shape):
    module = module.clone(param_dtype=jnp.float64, kernel_init=nn.initializers.zeros)
    with jax.enable_x64(True):
        shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *shape)))["params"]
    sizes = {name: leaf.shape for name, leaf in shapes.items()}
    return Layer(lambda params, x: module.apply({"params": params}, x), sizes, shape)


def plain(contract, kernel, bias, shape):
    """Functions of JAX alone."""
    return Layer(lambda p, x: contract(x, p["kernel"]) + p["bias"], {"kernel": kernel, "bias": bias}, shape)


def conv(x, kernel):
    return lax.conv_general_dilated(x, kernel, (2,), [(1, 0)], dimension_numbers=("NHC", "HIO", "NHC"))


@lrp.linear_operation
def pairs(inputs, kernel):
    """Every pair (first, second) by one kernel, without writing the pairs out, as RelationNet's head has it."""
    first, second = inputs
    half = first.shape[-1]
    return (first @ kernel[:half])[:, :, None] + (second @ kernel[half:])[:, None]


MASK = np.array([0.0, 1, 1])[:, None, None] * np.ones((3, 2, 3))
LAYERS = {
    "Dense": of_module(nn.Dense(4), 5),
    "Dense without bias": of_module(nn.Dense(4, use_bias=False), 5),
    "Dense on a grid": of_module(nn.Dense(3), 2, 2, 4),
    "DenseGeneral over two axes": of_module(nn.DenseGeneral((2, 3), axis=(-2, -1)), 2, 3, 2),
    "DenseGeneral over the first axis": of_module(nn.DenseGeneral((2, 2), axis=1), 3, 2),
    "Einsum": of_module(nn.Einsum((3, 2, 4), "...ac,cba->...b", use_bias=True), 4, 3),
    "Einsum with a kernel in front": of_module(nn.Einsum((4, 3), "...ij,ki->...jk"), 3, 2),
    "Conv 1d SAME": of_module(nn.Conv(3, (3,)), 6, 2),
    "Conv 1d CAUSAL": of_module(nn.Conv(2, (3,), padding="CAUSAL"), 5, 2),
    "Conv 1d with a mask": of_module(nn.Conv(3, (3,), mask=jnp.asarray(MASK)), 5, 2),
    "Conv 2d SAME stride 2": of_module(nn.Conv(3, (3, 3), strides=2), 5, 4, 2),
    "Conv 2d VALID": of_module(nn.Conv(3, (2, 3), padding="VALID"), 4, 5, 2),
    "Conv 2d CIRCULAR": of_module(nn.Conv(2, (3, 3), padding="CIRCULAR"), 4, 3, 2),
    "Conv 2d padded unevenly": of_module(nn.Conv(2, (3, 3), (1, 2), padding=((1, 0), (0, 2))), 4, 5, 2),
    "Conv 2d dilated": of_module(nn.Conv(3, (3, 2), kernel_dilation=(2, 1)), 5, 4, 2),
    "Conv 2d input dilated": of_module(nn.Conv(2, (3, 3), input_dilation=2, padding=1), 3, 3, 2),
    "Conv 2d in groups": of_module(nn.Conv(4, (3, 3), feature_group_count=2, padding=1), 3, 4, 4),
    "Conv 2d depthwise": of_module(nn.Conv(6, (3, 3), feature_group_count=3, padding=0), 4, 4, 3),
    "Conv 3d": of_module(nn.Conv(2, (2, 2, 2), padding="SAME"), 3, 2, 3, 2),
    "ConvTranspose 1d SAME": of_module(nn.ConvTranspose(3, (3,), (2,)), 4, 2),
    "ConvTranspose 1d VALID": of_module(nn.ConvTranspose(2, (4,), (3,), padding="VALID"), 3, 2),
    "ConvTranspose 2d SAME": of_module(nn.ConvTranspose(2, (3, 2), (2, 1), transpose_kernel=True), 3, 3, 2),
    "ConvTranspose 2d VALID": of_module(nn.ConvTranspose(2, (2, 3), (1, 2), padding="VALID"), 3, 2, 2),
    "x @ w + b": plain(jnp.matmul, (5, 4), (4,), (5,)),
    "w @ x": plain(lambda x, w: w @ x, (4, 5), (4, 1), (5, 3)),
    "einsum with a kernel a row": plain(
        lambda x, w: jnp.einsum("nij,ijk->nik", x, w), (2, 3, 4), (2, 4), (2, 3)
    ),
    "einsum, result transposed": plain(lambda x, w: jnp.einsum("nij,jk->nki", x, w), (3, 4), (4, 1), (2, 3)),
    "lax convolution": plain(conv, (3, 2, 3), (3,), (5, 2)),
    "lax convolution, channels first": plain(
        lambda x, w: lax.conv(x, w, (1, 2), "SAME"), (3, 2, 2, 3), (3, 1, 1), (2, 3, 4)
    ),
    "linear_operation": plain(lambda x, w: pairs((x[:, :2], x[:, 2:]), w), (4, 3), (3,), (5, 2)),
}


# Rules, of `matrix` [output, input] with x and z = matrix x + bias as rows of a batch.


def shared(parts, z, relevance, rule):
    """Relevance in proportion to `parts` [image, output, input], of which, with a bias, z is the sum."""
    z = np.where(z == 0, rule.epsilon, z) if rule.only_zeros else stabilized(z, rule.epsilon)
    return np.einsum("nji,nj->ni", parts, np.divide(relevance, z, where=z != 0, out=np.zeros_like(z)))


def epsilon_rule(matrix, bias, x, relevance, rule):
    parts = matrix * x[:, None]
    return shared(parts, parts.sum(-1) + (bias if rule.bias else 0), relevance, rule)


def alpha_beta_rule(matrix, bias, x, relevance, rule):
    def part(keep):
        parts = keep(matrix * x[:, None], 0)
        return shared(parts, parts.sum(-1) + (keep(bias, 0) if rule.bias else 0), relevance, rule)

    return rule.alpha * part(np.maximum) - rule.beta * part(np.minimum)


def gamma_rule(matrix, bias, x, relevance, rule):
    def part(keep):
        parts, shift = (a + rule.gamma * keep(a, 0) for a in (matrix * x[:, None], bias))
        return shared(parts, parts.sum(-1) + shift, relevance * (keep(z, 0) != 0), rule)

    z = x @ matrix.T + bias
    return part(np.maximum) + part(np.minimum)


def box_rule(matrix, bias, x, relevance, rule):
    parts = matrix * x[:, None] - np.maximum(matrix, 0) * rule.low - np.minimum(matrix, 0) * rule.high
    return shared(parts, parts.sum(-1), relevance, rule)


def w_square_rule(matrix, bias, x, relevance, rule):
    parts = np.broadcast_to(matrix**2, (len(x), *matrix.shape))
    return shared(parts, parts.sum(-1) + bias**2, relevance, rule)


def flat_rule(matrix, bias, x, relevance, rule):
    parts = np.broadcast_to(matrix != 0, (len(x), *matrix.shape)).astype(x.dtype)
    return shared(parts, parts.sum(-1), relevance, rule)


# name -> (rule, formula)
PROPORTIONAL = {
    "epsilon": (lrp.Epsilon(), epsilon_rule),
    "epsilon 0.25 without bias": (lrp.Epsilon(0.25, bias=False), epsilon_rule),
    "epsilon 0": (lrp.Epsilon(0.0), epsilon_rule),
    "z-plus": (lrp.ZPlus(), alpha_beta_rule),
    "alpha 1 beta 0 only zeros": (lrp.AlphaBeta(1.0, 0.0, bias=False, only_zeros=True), alpha_beta_rule),
    "alpha 2 beta 1": (lrp.AlphaBeta(2.0, 1.0, epsilon=1e-3), alpha_beta_rule),
    "alpha 2 beta 1 only zeros": (lrp.AlphaBeta(2.0, 1.0, only_zeros=True), alpha_beta_rule),
    "alpha 1.5 beta 0.5": (lrp.AlphaBeta(1.5, 0.5, bias=False), alpha_beta_rule),
    "gamma 0.25": (lrp.Gamma(), gamma_rule),
    "gamma 2": (lrp.Gamma(2.0, epsilon=1e-2), gamma_rule),
}
# Inputs of zero get their share too.
UNPROPORTIONAL = {
    "box": (lrp.Box(-5.0, 6.0), box_rule),
    "box by channel": (lrp.Box(-5.0, 6.0), box_rule),  # its bounds: see `rules_for`
    "w-square": (lrp.WSquare(epsilon=1e-3), w_square_rule),
    "flat": (lrp.Flat(), flat_rule),
}
RULES = PROPORTIONAL | UNPROPORTIONAL
# What is known of the input's signs saves each of these something else.
BEHIND_RELU = ("epsilon", "z-plus", "alpha 2 beta 1", "alpha 1.5 beta 0.5", "gamma 2", *UNPROPORTIONAL)


def rules_for(layer, names):
    random, channels = np.random.default_rng(0), layer.shape[-1]
    box = lrp.Box(-5 - random.random(channels), 5 + random.random(channels))
    return {name: (box, box_rule) if name == "box by channel" else RULES[name] for name in names}


def flattened(rule, x):
    """The box rule with a bound for every input."""
    if not isinstance(rule, lrp.Box):
        return rule
    low, high = (np.broadcast_to(bound, x.shape[1:]).ravel() for bound in (rule.low, rule.high))
    return dataclasses.replace(rule, low=low, high=high)


def explicit(layer, params):
    """The matrix, column by column from the unit vectors, and the bias, of the shape of one output."""
    size = int(np.prod(layer.shape))
    (bias,) = layer.apply(params, np.zeros((1, *layer.shape)))
    without = {name: leaf if name == "kernel" else 0 * leaf for name, leaf in params.items()}
    columns = layer.apply(without, np.eye(size).reshape(size, *layer.shape))
    return columns.reshape(size, -1).T, bias


def compare(layer, names, relu=False):
    """Assert that the rules agree with their formulas, for several draws."""
    rules = rules_for(layer, names)
    before = nn.relu if relu else lambda x: x
    of_params = jax.jit(lambda params: explicit(layer, params))

    @jax.jit
    def explain(params, x, relevance):
        found = {}
        for name, (rule, _) in rules.items():
            f = lambda x: layer.apply(params, before(x))  # noqa: E731
            z, pullback = lrp.vjp(f, x, composite=of_layers(rule))
            (found[name],) = pullback(relevance)
        return z, found

    for seed in range(3):
        random = np.random.default_rng(seed)
        params = {name: random.normal(size=shape) for name, shape in layer.params.items()}
        x = random.normal(size=(3, *layer.shape))
        x[..., 0] *= random.random(x.shape[:-1]) > 0.3  # zeros among them
        matrix, bias = map(np.asarray, of_params(params))
        relevance = random.normal(size=(3, *bias.shape))
        z, found = explain(params, x, relevance)
        given = np.maximum(x, 0).reshape(3, -1) if relu else x.reshape(3, -1)
        assert_close(z.reshape(3, -1), given @ matrix.T + bias.ravel())
        for name, (rule, formula) in rules.items():
            expected = formula(matrix, bias.ravel(), given, relevance.reshape(3, -1), flattened(rule, x))
            assert_close(found[name], expected.reshape(x.shape), name=name)


# Layers that meet every rule; others share out one rule of each formula.
ALL = ("Dense", "Conv 2d SAME stride 2")
SOME = ("epsilon", "z-plus", "alpha 2 beta 1", "gamma 2", "box by channel", "w-square", "flat")
# Where not all is as in the papers: flat counts what a kernel's mask takes out, too.
LEFT_OUT = {"Conv 1d with a mask": {"flat"}}


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        *((name, tuple(RULES)) for name in ALL),
        *shared_out([name for name in LAYERS if name not in ALL], SOME),
    ],
)
def test_rules_equal_their_formula_on_the_explicit_matrix(name, rules):
    compare(LAYERS[name], [rule for rule in rules if rule not in LEFT_OUT.get(name, ())])


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        *((name, BEHIND_RELU) for name in ALL),
        *shared_out(
            [
                "DenseGeneral over the first axis",
                "Einsum",
                "ConvTranspose 2d SAME",
                "w @ x",
                "linear_operation",
            ],
            BEHIND_RELU,
        ),
    ],
)
def test_rules_behind_relu_equal_their_formula(name, rules):
    # The same relevance as at ReLU's output, zeros included.
    compare(LAYERS[name], rules, relu=True)


# "epsilon 0" has no answer there.
@pytest.mark.parametrize("name", [name for name in RULES if name not in ("epsilon 0", "box by channel")])
def test_exact_zeros_of_the_result(name):
    random = np.random.default_rng(0)
    kernel, x = random.choice([-2.0, -1, 1], (4, 6)), random.integers(-1, 2, (5, 4)).astype(float)
    z = x @ kernel
    assert (z == 0).any()
    relevance = random.normal(size=z.shape)
    rule, formula = RULES[name]
    _, (ours,) = explain(lambda x: x @ kernel, x, composite=of_layers(rule), relevance=relevance)
    assert_close(ours, formula(kernel.T, np.zeros(6), x, relevance, flattened(rule, x)))


def test_known_signs_save_half_of_the_work():
    kernel, bias = np.ones((4, 3)), np.ones(3)

    def products(rule, before):
        def explain(x):
            y, pullback = lrp.vjp(lambda x: before(x) @ kernel + bias, x, composite=of_layers(rule))
            return pullback(y)

        return str(jax.make_jaxpr(explain)(np.ones((2, 4)))).count("dot_general")

    for rule in (lrp.ZPlus(), lrp.AlphaBeta(2.0, 1.0), lrp.Gamma()):
        # Those of the function without explanation stand in the jaxpr too, once.
        assert products(rule, nn.relu) < products(rule, jnp.tanh), rule
