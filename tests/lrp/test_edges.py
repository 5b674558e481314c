"""Where a walk over operations could go wrong unseen: roots at zero, a value times itself, two names of one place."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from formulas import LRP_0, assert_close, draw, explain, normal
from jxai import lrp

X = normal(3, 4)
KERNEL = normal(4, 2, seed=1)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


INFINITE_AT_ZERO = {
    "square root": lambda x: jnp.sqrt(nn.relu(x)),
    "power": lambda x: jnp.abs(x) ** 0.5,
    "signed square root": lambda x: jnp.sign(x) * jnp.sqrt(jnp.abs(x)),
    "length": lambda x: (
        nn.relu(x) / jnp.maximum(jnp.linalg.norm(nn.relu(x), axis=-1, keepdims=True), 1e-12) @ KERNEL
    ),
}


@pytest.mark.parametrize("name", INFINITE_AT_ZERO)
def test_infinite_derivatives_at_zero_leave_no_mark(name):
    x = X.copy()
    x[0], x[1, 1] = -1, 0  # a row that ReLU empties
    y, (relevance,) = explain(INFINITE_AT_ZERO[name], x)
    assert np.isfinite(y).all() and np.isfinite(relevance).all()


OF_ITSELF = {
    "square": lambda x: x * x,
    "square of a shift": lambda x: (x - 3) * (x - 3),
    "reciprocal": lambda x: 2 / x,
    "times its reciprocal": lambda x: x * (1 / (1 + x * x)),
    "after ReLU": lambda x: nn.relu(x) * nn.relu(x),
}


@pytest.mark.parametrize("name", OF_ITSELF)
def test_functions_of_single_entries_pass_relevance_however_written(name):
    y, (relevance,) = explain(OF_ITSELF[name], X)
    assert_close(relevance, y)


def test_a_norm_is_a_statistic_of_its_own_values_alone():
    gate = np.abs(normal(3, 4, seed=2)) + 0.1
    y, relevances = explain(lambda x, g: x * jnp.sqrt(g), X, gate)
    for relevance in relevances:
        assert_close(relevance, y / 2)
    # Not a mean: three times the sum.
    y, (relevance,) = explain(lambda x: x - 3 * x.sum(1, keepdims=True), X)
    assert_close(relevance.sum(), y.sum())


def test_root_mean_square_by_a_power_is_a_norm():
    by_power = explain(lambda x: x * (jnp.mean(x**2, -1, keepdims=True) + 1e-6) ** -0.5, X)
    by_rsqrt = explain(lambda x: x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6), X)
    assert_close(by_power[1][0], by_rsqrt[1][0])


MOVED = {
    "reversed": (lambda t: t[:, ::-1], lambda r: r[:, ::-1]),
    "shifted": (lambda t: jnp.pad(t, ((0, 0), (1, 0)))[:, :-1], lambda r: np.pad(r[:, 1:], ((0, 0), (0, 1)))),
    "rolled": (lambda t: jnp.roll(t, 1, 1), lambda r: np.roll(r, -1, 1)),
}


@pytest.mark.parametrize("name", MOVED)
def test_tokens_that_change_their_places_keep_their_relevance(name):
    move, back = MOVED[name]
    table, tokens = normal(5, 4), np.array([[1, 4, 2], [0, 0, 3]])
    y, (relevance,) = explain(lambda t: jnp.take(table, move(t), axis=0), tokens)
    assert_close(relevance, back(np.asarray(y).sum(-1)))


def test_box_composites_may_be_made_under_jit():
    def relevance(x):
        composite = lrp.EpsilonGammaBox(np.float32(-4.0), 4.0)
        return lrp.relevance(lambda x: x @ KERNEL, x, jnp.zeros(3, int), composite=composite)

    assert_close(jax.jit(relevance)(X), relevance(X))


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, name="dense", param_dtype=float)(x)
        self.sow("intermediates", "seen", x)
        x = nn.BatchNorm(use_running_average=True, name="norm", param_dtype=float)(x)
        return nn.Dense(2, name="last", param_dtype=float)(nn.relu(x))


@pytest.fixture
def normed(x64):
    variables = jax.tree.map(lambda leaf: 1 + 0.5 * leaf, draw(Normed(), X))
    return {"params": variables["params"], "batch_stats": jax.tree.map(np.abs, variables["batch_stats"])}


def test_two_names_of_one_place_are_both_watched_and_masked(normed):
    f = lambda x: Normed().apply(normed, x)  # noqa: E731
    y, pullback = lrp.vjp(f, X, composite=lrp.EpsilonPlus(), watch=["dense", "norm"])
    _, watched = pullback(y)
    assert np.abs(watched["norm"]).max() > 0
    assert_close(watched["dense"], watched["norm"])
    masks = {"norm": jnp.zeros(4)}
    _, pullback = lrp.vjp(f, X, composite=lrp.EpsilonPlus(), watch=["dense"], masks=masks)
    (relevance,), _ = pullback(y)
    assert not np.any(relevance)


def test_auxiliary_values_change_no_relevance(normed):
    def with_aux(x):
        return Normed().apply(normed, x, mutable=["intermediates"])

    y, pullback, aux = lrp.vjp(with_aux, X, composite=lrp.EpsilonPlus(), has_aux=True)
    _, (expected,) = explain(lambda x: Normed().apply(normed, x), X, composite=lrp.EpsilonPlus())
    assert_close(pullback(y)[0], expected)
    dense = normed["params"]["dense"]
    assert_close(aux["intermediates"]["seen"][0], X @ dense["kernel"] + dense["bias"])
    # What is only handed through needs no rule.
    lrp.vjp(lambda x: (x @ KERNEL, x[:, :1] / x[:, 1:2]), X, composite=lrp.EpsilonPlus(), has_aux=True)


@pytest.mark.parametrize("option", [{"watch": ["dense"]}, {"masks": {"dense": 0.0}}], ids=str)
def test_places_are_refused_where_nothing_can_be_seen(normed, option):
    f = lambda x: Normed().apply(normed, x)  # noqa: E731
    with pytest.raises(ValueError, match="composite of relevance to watch or mask"):
        lrp.vjp(f, X, composite=lrp.GuidedBackprop(), **option)
    above = {name: ["last"] if name == "watch" else {"last": 0.0} for name in option}
    with pytest.raises(ValueError, match="on the way from the inputs to the outputs, got last"):
        lrp.vjp(f, X, composite=lrp.EpsilonPlus(), start="norm", **above)


def test_guided_backpropagation_without_a_relu_warns():
    with pytest.warns(UserWarning, match="every pattern of GuidedBackprop to match"):
        lrp.vjp(lambda x: nn.gelu(x), X, composite=lrp.GuidedBackprop())


def test_pass_of_two_inputs_is_refused():
    composite = lrp.Composite(((lrp.Kind.SUM, lrp.Pass()),))
    with pytest.raises(ValueError, match="one input for Pass"):
        lrp.vjp(lambda x, y: x + y, X, X, composite=composite)


def test_several_outputs_where_one_is_asked_for_are_refused():
    with pytest.raises(ValueError, match=r"one array of scores \(N, K\), got tuple"):
        lrp.relevance(lambda x: (x, x), X, np.zeros(3, int), composite=LRP_0)
    with pytest.raises(ValueError, match="one array from the function, got 2"):
        lrp.conservation(lambda x: (x, x), X, composite=LRP_0)
    with pytest.raises(TypeError, match="images of floats"):
        lrp.conservation(lambda t: jnp.take(KERNEL, t, axis=0), np.ones((2, 3), int), composite=LRP_0)


@pytest.mark.parametrize("other", [int, np.ndarray, lrp.Flat])
def test_classes_that_are_no_modules_are_no_patterns(other):
    with pytest.raises(TypeError, match=r"class of modules \(of Linen, NNX, Equinox, Haiku or Keras\)"):
        lrp.Composite(((other, lrp.Flat()),))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_of_several_dtypes(dtype):
    # Weights of a file are of float32; what they meet may be wider, or become so behind the layer.
    w, b, v = (normal(*shape, seed=9).astype(np.float32) for shape in ((6, 4), (4,), (4, 3)))
    x = normal(2, 6, seed=8).astype(dtype)
    forms = {
        "bias": lambda x: x @ w + b,
        "then wider": lambda x: (x @ w).astype(np.float64) + b,
        "scaled wider": lambda x: 2.0 * (x @ w + b).astype(np.float64),
        "moved and wider": lambda x: (x @ w + b).reshape(2, 2, 2).swapaxes(1, 2) * normal(2, 2, 2, seed=7),
        "next layer": lambda x: jnp.maximum((x @ w).astype(np.float64) + b, 0) @ v,
    }
    with jax.enable_x64(True):
        for name, f in forms.items():
            y, (ours,) = explain(f, x, composite=LRP_0)
            assert y.dtype == jax.eval_shape(f, x).dtype, name
            assert ours.dtype == dtype, name
            _, back = jax.vjp(f, x)
            assert_close(ours, x * back(jnp.ones_like(y))[0], 1e-5, name=name)


@pytest.mark.parametrize("f", ["others", "itself"])
def test_choices_by_other_entries_move_and_by_the_entry_itself_are_functions(f):
    x, relevance = normal(3, 6), normal(3, 6, seed=1)
    f = {
        "others": lambda x: jnp.where(x >= jnp.sort(x, -1)[:, 2:3], x, -7.0),
        "itself": lambda x: jnp.where(x < 0.3, x, 0.3),
    }[f]
    y, (ours,) = explain(f, x, composite=LRP_0, relevance=relevance)
    kept = np.asarray(y) == x
    expected = np.where(kept, relevance, 0) if (np.asarray(y) == -7).any() else relevance
    assert 0 < kept.sum() < kept.size
    assert_close(ours, expected, 1e-5)
