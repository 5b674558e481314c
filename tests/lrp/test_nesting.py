"""Loops, branches and wrapped modules: the same relevance as without them."""

import re
from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from formulas import KERNEL, LRP_0, X, assert_close, draw, explain, normal
from jxai import lrp

pytestmark = pytest.mark.usefixtures("x64")


class Cell(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm(param_dtype=float)(x)
        return x + nn.gelu(nn.Dense(6, param_dtype=float)(y))


class ScanCell(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return Cell(name="cell")(x), x.mean()


class Loop(nn.Module):
    cell: type = ScanCell

    @nn.compact
    def __call__(self, x):
        loop = nn.scan(self.cell, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return nn.Dense(2, param_dtype=float)(loop(name="loop")(x, None)[0])


class Unrolled(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i in range(3):
            x = Cell(name=f"cell{i}")(x)
        return nn.Dense(2, param_dtype=float)(x)


def unrolled(params):
    cells = {f"cell{i}": jax.tree.map(lambda leaf, i=i: leaf[i], params["loop"]["cell"]) for i in range(3)}
    return {**cells, "Dense_0": params["Dense_0"]}


@pytest.mark.parametrize(
    ("composite", "cell"),
    [
        (lrp.AttnLRP(), ScanCell),
        (lrp.AttnLRP(gamma=0.25), nn.remat(ScanCell)),
        (lrp.ExcitationBackprop(), ScanCell),
        (lrp.GuidedBackprop(), nn.remat(ScanCell)),
        (lrp.Deconvnet(), ScanCell),
    ],
)
def test_linen_scan_equals_the_unrolled_model(composite, cell):
    params = draw(Loop(), X)["params"]
    ours = explain(lambda x: Loop(cell).apply({"params": params}, x), X, composite=composite)
    plain = explain(lambda x: Unrolled().apply({"params": unrolled(params)}, x), X, composite=composite)
    assert_close(ours, plain, 1e-4)


WRAPPED = {"remat": nn.remat(Cell), "jit": nn.jit(Cell), "remat of jit": nn.remat(nn.jit(Cell))}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_modules_equal_the_plain_one(name):
    params = draw(Cell(), X)
    ours = explain(lambda x: WRAPPED[name]().apply(params, x), X)
    assert_close(ours, explain(lambda x: Cell().apply(params, x), X), 1e-6)


class Mapped(nn.Module):
    @nn.compact
    def __call__(self, x):
        dense = nn.vmap(
            nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=1, out_axes=1
        )
        return nn.gelu(dense(3, param_dtype=float, name="dense")(x))


def test_linen_vmap_equals_a_loop():
    params = draw(Mapped(), X)["params"]

    def loop(x):
        layers = [jax.tree.map(lambda leaf, i=i: leaf[i], params["dense"]) for i in range(4)]
        return jnp.stack([nn.gelu(x[:, i] @ p["kernel"] + p["bias"]) for i, p in enumerate(layers)], 1)

    composite = lrp.AttnLRP(gamma=0.25)
    ours = explain(lambda x: Mapped().apply({"params": params}, x), X, composite=composite)
    assert_close(ours, explain(loop, X, composite=composite), 1e-6)


WEIGHTS = normal(3, 6, 6)


def step(x, w):
    return nn.relu(x @ w + 0.1) + x


def repeated(x):
    for w in WEIGHTS:
        x = step(x, w)
    return x @ KERNEL


def carried(x):
    carry, found = jnp.zeros((2, 6)), []
    for i in (3, 2, 1, 0):
        found.append(carry)
        carry = step(carry, KERNEL) + x[:, i]
    return jnp.stack(found[::-1], 1)


@cache
def repeated_relevance(composite):
    return explain(repeated, X, composite=composite)


# name -> (with the transformation, without)
TRANSFORMED = {
    "checkpoint": (jax.checkpoint(repeated), repeated),
    "checkpoint with a policy": (
        jax.checkpoint(repeated, policy=jax.checkpoint_policies.dots_saveable),
        repeated,
    ),
    "jit": (jax.jit(repeated), repeated),
    "vmap": (jax.vmap(repeated), repeated),
    "map": (lambda x: lax.map(repeated, x), repeated),
    "scan over weights": (
        lambda x: lax.scan(lambda x, w: (step(x, w), None), x, WEIGHTS)[0] @ KERNEL,
        repeated,
    ),
    "scan, unrolled twice": (
        lambda x: lax.scan(lambda x, w: (step(x, w), None), x, WEIGHTS, unroll=2)[0] @ KERNEL,
        repeated,
    ),
    "scan of checkpoint": (
        lambda x: lax.scan(lambda x, w: (jax.checkpoint(step)(x, w), None), x, WEIGHTS)[0] @ KERNEL,
        repeated,
    ),
    "scan over the input, in reverse": (
        lambda x: lax.scan(
            lambda c, x: (step(c, KERNEL) + x, c * 2), jnp.zeros((2, 6)), x.swapaxes(0, 1), reverse=True
        )[1].swapaxes(0, 1),
        lambda x: 2 * carried(x),
    ),
    "fori_loop": (
        lambda x: lax.fori_loop(0, 3, lambda i, x: step(x, jnp.asarray(WEIGHTS)[i]), x) @ KERNEL,
        repeated,
    ),
    "cond": (lambda x: lax.cond(X.sum() > -1e9, repeated, lambda x: x, x), repeated),
    "cond by the input": (lambda x: lax.cond(x.sum() < 1e9, repeated, jnp.zeros_like, x), repeated),
    "switch": (
        lambda x: lax.switch(jnp.asarray(1), [jnp.zeros_like, repeated, lambda x: -x], x),
        repeated,
    ),
    "cond in scan": (
        lambda x: (
            lax.scan(lambda x, w: (lax.cond(w[0, 0] < 1e9, step, lambda x, w: x, x, w), None), x, WEIGHTS)[0]
            @ KERNEL
        ),
        repeated,
    ),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformed_functions_equal_the_plain_one(name):
    transformed, plain = TRANSFORMED[name]
    loops = {"scan of checkpoint", "fori_loop", "cond by the input", "cond in scan"}
    for composite in (lrp.AttnLRP(gamma=0.25), lrp.GuidedBackprop())[: 2 if name in loops else 1]:
        expected = (
            repeated_relevance(composite) if plain is repeated else explain(plain, X, composite=composite)
        )
        assert_close(explain(transformed, X, composite=composite), expected, 1e-4)


def test_refusals_inside_of_loops_name_the_module():
    class DividedCell(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return x / (1 + x.sum()), None

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.scan(DividedCell, length=2)(name="loop")(x, None)[0]

    with pytest.raises(ValueError, match=re.escape("other (div) in DividedCell at 'loop' in LRP-0")):
        lrp.vjp(lambda x: Outer().apply({}, x), X, composite=LRP_0)
