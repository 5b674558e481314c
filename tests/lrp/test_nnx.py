"""Functions that call NNX modules: the same composites, the same relevance as of the Linen twin, in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jxai import lrp

X = np.random.default_rng(0).normal(size=(2, 6, 4, 3))


class Twin(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), param_dtype=float, name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, param_dtype=float, name="bn")(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2)).reshape(x.shape[0], -1, 4)
        y = nn.LayerNorm(param_dtype=float, name="ln")(x)
        x = x + nn.MultiHeadDotProductAttention(2, param_dtype=float, name="attention")(y)
        x = nn.Dropout(0.5, deterministic=True)(x)
        x = nn.gelu(nn.Dense(6, param_dtype=float, name="hidden")(x)).mean(1)
        return nn.Dense(3, param_dtype=float, name="last")(x)


class Net(nnx.Module):
    def __init__(self, rngs):
        options = {"param_dtype": float, "rngs": rngs}
        self.conv = nnx.Conv(3, 4, (3, 3), **options)
        self.bn = nnx.BatchNorm(4, **options)
        self.ln = nnx.LayerNorm(4, **options)
        self.attention = nnx.MultiHeadAttention(2, 4, decode=False, **options)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.mlp = nnx.Sequential(nnx.Linear(4, 6, **options), nnx.gelu)
        self.last = nnx.Linear(6, 3, **options)

    def __call__(self, x):
        x = nnx.relu(self.bn(self.conv(x)))
        x = nnx.max_pool(x, (2, 2), strides=(2, 2)).reshape(x.shape[0], -1, 4)
        x = self.dropout(x + self.attention(self.ln(x)))
        return self.last(self.mlp(x).mean(1))


@pytest.fixture(scope="module")
def twins():
    """(NNX module, the Linen twin's variables) of the same random parameters."""
    with jax.enable_x64(True):
        random = np.random.default_rng(1)
        shapes = jax.eval_shape(Twin().init, jax.random.key(0), X)
        variables = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), shapes)
        variables["batch_stats"] = jax.tree.map(lambda leaf: np.abs(leaf) + 0.5, variables["batch_stats"])
        params, stats = variables["params"], variables["batch_stats"]
        net = Net(nnx.Rngs(0))
        net.eval()
        own = {**params, "bn": params["bn"] | stats["bn"], "mlp": {"layers": {0: params["hidden"]}}}
        del own["hidden"]
        state = nnx.state(net, (nnx.Param, nnx.BatchStat))
        flat = {path: own for path, own in nnx.to_flat_state(nnx.State(own))}
        for path, leaf in nnx.to_flat_state(state):
            leaf.set_value(jnp.asarray(flat[path]))
        nnx.update(net, state)
        return net, variables


COMPOSITES = {
    "EpsilonGammaBox": lrp.EpsilonGammaBox(-6.0, 6.0),
    "CPLRP": lrp.CPLRP(),
    "GuidedBackprop": lrp.GuidedBackprop(),
    "by primitive": lrp.Composite(((jax.lax.conv_general_dilated_p, lrp.WSquare()),)) | lrp.EpsilonPlus(),
    # Linen's BatchNorm passes by its class; NNX's by what it computes.
    "sun2020": lrp.sun2020,
}


@pytest.mark.parametrize("name", COMPOSITES)
def test_relevance_equals_the_linen_twins(twins, name):
    def explain(f):
        @jax.jit
        def both(x):
            y, pullback = lrp.vjp(f, x, composite=COMPOSITES[name])
            return y, pullback(y)[0]

        return both(X)

    net, variables = twins
    with jax.enable_x64(True):
        y, ours = explain(net)
        twin_y, expected = explain(lambda x: Twin().apply(variables, x))
    assert np.abs(expected).max() > 0
    # NNX takes the softmax of attention in float32, whatever its inputs.
    np.testing.assert_allclose(y, twin_y, rtol=1e-5)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_training_through_relevance_equals_the_linen_twins(twins):
    net, variables = twins

    def total(f):
        y, pullback = lrp.vjp(f, X, composite=lrp.EpsilonPlus())
        return (pullback(y)[0] ** 2).sum()

    with jax.enable_x64(True):
        definition, params, rest = nnx.split(net, nnx.Param, ...)
        ours = jax.jit(jax.grad(lambda p: total(nnx.merge(definition, p, rest))))(params)
        expected = jax.jit(jax.grad(lambda p: total(lambda x: Twin().apply(variables | {"params": p}, x))))(
            variables["params"]
        )
    for name in ("conv", "ln", "last"):
        for leaf, of_twin in expected[name].items():
            np.testing.assert_allclose(
                ours[name][leaf].get_value(), of_twin, rtol=1e-3, atol=1e-4 * np.abs(of_twin).max()
            )


def test_operations_without_a_rule_are_refused():
    layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"none for other \(div\) in no module in EpsilonPlus"):
        lrp.vjp(lambda x: layer(x) / x.sum(), X.astype(np.float32), composite=lrp.EpsilonPlus())
