"""One network, relu(x V + b) W, in every library, and its LRP-0 by hand."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jxai import lrp

equinox = pytest.importorskip("equinox")
haiku = pytest.importorskip("haiku")
keras = pytest.importorskip("keras")

_RANDOM = np.random.default_rng(0)
X, V, W = (_RANDOM.normal(size=shape).astype(np.float32) for shape in ((2, 4), (4, 5), (5, 3)))
B = _RANDOM.normal(size=5).astype(np.float32)
LRP_0 = lrp.Composite(((lrp.Kind.DENSE, lrp.Epsilon(0.0)),), name="LRP-0")


@dataclasses.dataclass(frozen=True)
class Case:
    """relu(x V + b) W in one library.

    Attributes:
        apply: of (variables, x).
        variables: its weights.
        hidden: path of the first layer.
        head: path of the last.
        kind: class of both, None where there is none.
        f: as a user would hand it over.
    """

    apply: Callable[[Any, Any], Any]
    variables: Any
    hidden: str
    head: str
    kind: type | None
    f: Callable[[Any], Any] | None = None

    def __call__(self, x):
        return self.f(x) if self.f is not None else self.apply(self.variables, x)


def linen():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, use_bias=False, name="head")(nn.relu(nn.Dense(5, name="hidden")(x)))

    variables = {"params": {"hidden": {"kernel": V, "bias": B}, "head": {"kernel": W}}}
    return Case(Net().apply, variables, "hidden", "head", nn.Dense)


def in_nnx():
    layers = nnx.Linear(4, 5, rngs=nnx.Rngs(0)), nnx.Linear(5, 3, use_bias=False, rngs=nnx.Rngs(0))
    layers[0].kernel.set_value(jnp.array(V))
    layers[0].bias.set_value(jnp.array(B))
    layers[1].kernel.set_value(jnp.array(W))
    net = nnx.Sequential(layers[0], nnx.relu, layers[1])
    graph, state = nnx.split(net)
    return Case(lambda v, x: nnx.merge(graph, v)(x), state, "layers/0", "layers/2", nnx.Linear, net)


def in_equinox():
    net = equinox.nn.MLP(4, 3, 5, 1, use_final_bias=False, key=jax.random.key(0))
    at = lambda m: (m.layers[0].weight, m.layers[0].bias, m.layers[1].weight)  # noqa: E731
    net = equinox.tree_at(at, net, (jnp.array(V.T), jnp.array(B), jnp.array(W.T)))
    arrays, rest = equinox.partition(net, equinox.is_array)
    apply = lambda v, x: jax.vmap(equinox.combine(v, rest))(x)  # noqa: E731
    return Case(apply, arrays, "layers/0", "layers/1", equinox.nn.Linear, jax.vmap(net))


def in_haiku():
    def net(x):
        return haiku.Linear(3, False, name="head")(jax.nn.relu(haiku.Linear(5, name="hidden")(x)))

    params = {"hidden": {"w": V, "b": B}, "head": {"w": W}}
    apply = haiku.without_apply_rng(haiku.transform(net)).apply
    return Case(apply, params, "hidden", "head", haiku.Linear)


def in_keras():
    layer = keras.layers.Dense
    layers = [layer(5, name="hidden"), keras.layers.ReLU(), layer(3, use_bias=False, name="head")]
    net = keras.Sequential([keras.Input((4,)), *layers])
    net.set_weights([V, B, W])
    variables = [v.value for v in net.trainable_variables]
    apply = lambda v, x: net.stateless_call(v, [], x)[0]  # noqa: E731
    return Case(apply, variables, "hidden", "head", layer, net)


def scopes():
    def apply(variables, x):
        with jax.named_scope("net/hidden"):
            x = x @ variables[0] + variables[1]
        x = jax.nn.relu(x)
        with jax.named_scope("net"), jax.named_scope("head"):
            return jax.jit(jnp.matmul)(x, variables[2])

    return Case(apply, (V, B, W), "net/hidden", "net/head", None)


def marks():
    def apply(variables, x):
        x = lrp.mark(x @ variables[0] + variables[1], "hidden")
        return lrp.mark(jax.nn.relu(x) @ variables[2], "head")

    return Case(apply, (V, B, W), "hidden", "head", None)


LIBRARIES = {
    "Linen": linen,
    "NNX": in_nnx,
    "Equinox": in_equinox,
    "Haiku": in_haiku,
    "Keras": in_keras,
    "named_scope": scopes,
    "mark": marks,
}


# The network's values and its LRP-0, by hand.
Z = X @ V + B
Y = np.maximum(Z, 0) @ W


def of_hidden(start):
    """LRP-0 at the hidden layer's output, before ReLU, of relevance `start` of the outputs."""
    return np.maximum(Z, 0) * ((start / Y) @ W.T)


def of_input(hidden):
    """LRP-0 at the input, of relevance at the hidden layer's output."""
    return X * ((hidden / Z) @ V.T)


START = np.eye(3, dtype=np.float32)[[0, 2]] * Y


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)
