"""Batch norm: merged into the layer next to it, found by how values flow, or the identity."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from formulas import assert_close, of_layers, shared_out
from jxai import lrp

pytestmark = pytest.mark.usefixtures("x64")


def norm(v, x):
    module = nn.BatchNorm(use_running_average=True)
    return module.apply(
        {"params": {k: v[k] for k in ("scale", "bias")}, "batch_stats": {k: v[k] for k in ("mean", "var")}}, x
    )


def factor(v):
    return v["scale"] / jnp.sqrt(v["var"] + 1e-5)


def offset(v):
    return v["bias"] - v["mean"] * factor(v)


def conv2d(x, kernel, padding="SAME", groups=1):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=numbers, feature_group_count=groups
    )


def shifted(v, x, padding):
    """What a shift of the input gives at every position: less at borders that are padded with zeros."""
    return conv2d(jnp.broadcast_to(offset(v), x.shape), v["kernel"], padding)


def wide(v):
    """A factor of the input as a column over the kernel's inputs."""
    return v["kernel"] * factor(v)[:, None]


# name -> (with batch norm, merged by hand, shape of the kernel (as many inputs as outputs), of one input)
SQUARE, MAP = (3, 3, 2, 2), (4, 3, 2)
MERGED = {
    "conv, norm": (
        lambda v, x: norm(v, conv2d(x, v["kernel"]) + v["b"]),
        lambda v, x: conv2d(x, v["kernel"] * factor(v)) + (v["b"] * factor(v) + offset(v)),
        SQUARE,
        MAP,
    ),
    "conv without bias, norm, ReLU": (
        lambda v, x: nn.relu(norm(v, conv2d(x, v["kernel"]))),
        lambda v, x: nn.relu(conv2d(x, v["kernel"] * factor(v)) + offset(v)),
        SQUARE,
        MAP,
    ),
    "depthwise conv, norm": (
        lambda v, x: norm(v, conv2d(x, v["kernel"], groups=2)),
        lambda v, x: conv2d(x, v["kernel"] * factor(v), groups=2) + offset(v),
        (3, 3, 1, 2),
        MAP,
    ),
    "dense, norm": (
        lambda v, x: norm(v, x @ v["kernel"] + v["b"]),
        lambda v, x: x @ (v["kernel"] * factor(v)) + (v["b"] * factor(v) + offset(v)),
        (2, 2),
        (2,),
    ),
    "norm, conv VALID": (
        lambda v, x: conv2d(norm(v, x), v["kernel"], "VALID") + v["b"],
        lambda v, x: conv2d(x, wide(v), "VALID") + (shifted(v, x, "VALID") + v["b"]),
        SQUARE,
        MAP,
    ),
    "norm, conv SAME": (
        lambda v, x: conv2d(norm(v, x), v["kernel"]) + v["b"],
        lambda v, x: conv2d(x, wide(v)) + (shifted(v, x, "SAME") + v["b"]),
        SQUARE,
        MAP,
    ),
    "norm, dense": (
        lambda v, x: norm(v, x) @ v["kernel"] + v["b"],
        lambda v, x: x @ wide(v) + (offset(v) @ v["kernel"] + v["b"]),
        (2, 2),
        (2,),
    ),
    "norm, dense, norm": (
        lambda v, x: norm(v, norm(v, x) @ v["kernel"]),
        lambda v, x: x @ (wide(v) * factor(v)) + ((offset(v) @ v["kernel"]) * factor(v) + offset(v)),
        (2, 2),
        (2,),
    ),
    "conv, scale": (
        lambda v, x: v["scale"] * conv2d(x, v["kernel"]),
        lambda v, x: conv2d(x, v["kernel"] * v["scale"]),
        SQUARE,
        MAP,
    ),
    "scale, dense": (
        lambda v, x: -(x / v["scale"]) @ v["kernel"] + v["b"],
        lambda v, x: x @ (-v["kernel"] / v["scale"][:, None]) + v["b"],
        (2, 2),
        (2,),
    ),
}
CONV, DENSE = MERGED["conv, norm"][2:], MERGED["dense, norm"][2:]
# name -> (with batch norm, linear layer alone, what it receives), for batch norm as identity
APART = {
    "conv, norm": (
        MERGED["conv, norm"][0],
        lambda v, x: conv2d(x, v["kernel"]) + v["b"],
        lambda v, x: x,
        *CONV,
    ),
    "conv without bias, norm": (
        lambda v, x: norm(v, conv2d(x, v["kernel"])),
        lambda v, x: conv2d(x, v["kernel"]),
        lambda v, x: x,
        *CONV,
    ),
    "norm, dense": (MERGED["norm, dense"][0], lambda v, x: x @ v["kernel"] + v["b"], norm, *DENSE),
}
RULES = {
    "epsilon": lrp.Epsilon(0.25, bias=False),
    "alpha 2 beta 1": lrp.AlphaBeta(2.0, 1.0),
    "gamma": lrp.Gamma(2.0),
    "w-square": lrp.WSquare(epsilon=1e-3),
    "flat": lrp.Flat(),
}


def variables(kernel, shape):
    random = np.random.default_rng(0)
    v = {name: random.normal(size=2) for name in ("b", "scale", "bias", "mean")}
    v |= {"var": 0.5 + random.random(2), "kernel": random.normal(size=kernel)}
    return v, random.normal(size=(2, *shape))


@pytest.mark.parametrize(("name", "rules"), shared_out(MERGED, RULES))
def test_batch_norm_becomes_part_of_its_neighbor(name, rules):
    f, by_hand, *shapes = MERGED[name]
    v, x = variables(*shapes)

    @jax.jit
    def explain(v, x):
        return {
            name: [
                (y, pullback(jnp.cos(jnp.arange(y.size)).reshape(y.shape))[0])
                for g in (f, by_hand)
                for y, pullback in [lrp.vjp(lambda x, g=g: g(v, x), x, composite=of_layers(RULES[name]))]
            ]
            for name in rules
        }

    for rule, (ours, expected) in explain(v, x).items():
        assert_close(ours, expected, name=rule)


@pytest.mark.parametrize(("name", "rules"), shared_out(APART, RULES))
def test_batch_norm_that_is_not_merged_passes_relevance(name, rules):
    f, alone, before, *shapes = APART[name]
    v, x = variables(*shapes)

    @jax.jit
    def explain(v, x):
        found = {}
        for name in rules:
            composite = of_layers(RULES[name], merge_batch_norm=False)
            y, ours = lrp.vjp(lambda x: f(v, x), x, composite=composite)
            _, expected = lrp.vjp(lambda x: alone(v, x), before(v, x), composite=composite)
            relevance = jnp.cos(jnp.arange(y.size)).reshape(y.shape)
            found[name] = ours(relevance)[0], expected(relevance)[0]
        return found

    for name, (ours, expected) in explain(v, x).items():
        assert_close(ours, expected, name=name)
