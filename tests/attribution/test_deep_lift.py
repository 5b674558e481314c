"""DeepLIFT: what its rules say of single operations, and summation to delta through whole networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution

RANDOM = np.random.default_rng(6)
X, BASELINE = (jnp.asarray(RANDOM.normal(size=(2, 6)), jnp.float32) for _ in range(2))
IMAGES, OTHERS = (jnp.asarray(RANDOM.normal(size=(2, 8, 8, 3)), jnp.float32) for _ in range(2))
TARGET = jnp.array([1, 0])
W, V = (jnp.asarray(RANDOM.normal(size=shape), jnp.float32) for shape in ((6, 5), (5, 2)))

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "elu": jax.nn.elu,
    "leaky relu": jax.nn.leaky_relu,
    "square": jnp.square,
    "where": lambda z: jnp.where(z > 0.3, z**3, 0.1 * z),
    "a condition on both sides": lambda z: jnp.where(z > 0, 1.0, jnp.exp(z)) * z,
    "absolute": jnp.abs,
    "clip": lambda z: jnp.clip(z, -0.5, 0.5),
    "round": jnp.round,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_rescale_rule(name):
    """m = Wᵀ (Δy / Δz ⊙ V), however an activation is written."""
    act = ACTIVATIONS[name]
    found = jax.jit(lambda x: attribution.deep_lift(lambda x: act(x @ W) @ V, x, TARGET, baseline=BASELINE))(
        X
    )
    z, z0 = np.asarray(X @ W), np.asarray(BASELINE @ W)
    slopes = (np.asarray(act(jnp.asarray(z))) - np.asarray(act(jnp.asarray(z0)))) / (z - z0)
    expected = (np.asarray(X) - np.asarray(BASELINE)) * ((slopes * np.asarray(V).T[TARGET]) @ np.asarray(W).T)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


def test_where_nothing_changes_the_multiplier_is_the_derivative():
    """Δz = 0 of one unit, though its inputs change: it hands on nothing, and nothing is NaN."""
    w = jnp.array([[1.0, 1.0], [-1.0, 1.0]])
    x, baseline = jnp.array([[2.0, 2.0]]), jnp.array([[1.0, 1.0]])
    found = attribution.deep_lift(lambda x: jnp.tanh(x @ w), x, [1], baseline=baseline)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(), jnp.tanh(4.0) - jnp.tanh(2.0), rtol=1e-4)
    # The second unit alone hardly changes: an activation's slope there is its derivative.
    near = attribution.deep_lift(lambda x: jnp.tanh(x).sum(axis=1, keepdims=True), x, [0], baseline=x)
    assert (near == 0).all()


def test_the_largest():
    """Of (3, 1) against (0, 2): the maximum rises from 2 to 3, by the first entry."""
    x, baseline = jnp.array([[3.0, 1.0], [0.0, 2.0]]), jnp.array([[0.0, 2.0], [3.0, 1.0]])
    found = attribution.deep_lift(lambda x: x.max(axis=1, keepdims=True), x, [0, 0], baseline=baseline)
    np.testing.assert_allclose(found, [[1.0, 0.0], [-1.0, 0.0]], atol=1e-6)
    found = attribution.deep_lift(lambda x: x.min(axis=1, keepdims=True), -x, [0, 0], baseline=-baseline)
    np.testing.assert_allclose(found, [[-1.0, 0.0], [1.0, 0.0]], atol=1e-6)


def test_products_share_their_change_evenly():
    x, baseline = jnp.array([[3.0, 5.0]]), jnp.array([[1.0, 2.0]])
    found = attribution.deep_lift(lambda x: x[:, :1] * x[:, 1:], x, [0], baseline=baseline)
    np.testing.assert_allclose(found, [[2 * 3.5, 3 * 2.0]], rtol=1e-6)
    found = attribution.deep_lift(lambda x: x[:, :1] / x[:, 1:], x, [0], baseline=baseline)
    np.testing.assert_allclose(found.sum(), 3 / 5 - 1 / 2, rtol=1e-4)


class Network(nn.Module):
    """All that a network of these years is made of."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.BatchNorm(use_running_average=True)(nn.max_pool(x, (2, 2), (2, 2)))
        x = nn.LayerNorm()(nn.gelu(nn.Conv(4, (3, 3))(x)))
        x = x.reshape(len(x), -1, 4)
        x = x + nn.MultiHeadDotProductAttention(2)(x)
        return nn.Dense(3)(nn.silu(x).mean(axis=1))


@pytest.fixture(scope="module")
def network():
    model = Network()
    variables = model.init(jax.random.key(1), IMAGES)
    return lambda x: model.apply(variables, x)


@pytest.mark.slow
def test_summation_to_delta(network):
    def change(start):
        return (network(IMAGES) - network(start))[jnp.arange(2), TARGET]

    run = jax.jit(lambda x: attribution.deep_lift(network, x, TARGET, baseline=OTHERS))
    found = run(IMAGES)
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), change(OTHERS), rtol=1e-3, atol=1e-4)
    several = jax.jit(lambda x: attribution.deep_lift_shap(network, x, TARGET, references=OTHERS))(IMAGES)
    each = (change(OTHERS[:1]) + change(OTHERS[1:])) / 2
    np.testing.assert_allclose(several.sum(axis=(1, 2, 3)), each, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (lambda x: jnp.sort(x, axis=1), "sort"),
        (lambda x: jax.lax.scan(lambda c, _: (jnp.tanh(c), None), x, length=3)[0], "scan"),
        (lambda x: x[:, :2] ** x[:, 2:4], "pow"),
        (lambda x: (x > 0).astype(jnp.float32) * x, "convert_element_type"),
        (lambda x: jnp.linalg.inv(x.reshape(2, 2, 3)[:, :, :2])[:, 0], "lu|custom|triangular"),
    ],
)
def test_what_has_no_rule_is_named(f, name):
    with pytest.raises(ValueError, match=f"expected operations that DeepLIFT has a rule for, got .*({name})"):
        attribution.deep_lift(f, X, TARGET)


def test_wrong_references_are_named():
    with pytest.raises(ValueError, match=r"references of shape \(B, \*\(6,\)\)"):
        attribution.deep_lift_shap(lambda x: x @ W, X, TARGET, references=jnp.ones((3, 5)))
