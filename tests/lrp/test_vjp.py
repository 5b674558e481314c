"""Properties that every composite has, over one registry; exact conservation of LRP-0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import formulas
from formulas import LRP_0, of_layers
from jxai import attribution, lrp
from jxai.lrp import Kind

SUMS = ((Kind.SUM, lrp.Norm(0.1)), (Kind.MEAN, lrp.Norm(0.1)))
# Composites in which, together, every rule stands.
COMPOSITES = {
    "epsilon without bias": of_layers(lrp.Epsilon(1e-2, bias=False)),
    "LRP-0": LRP_0,
    "alpha 1.5 beta 0.5": of_layers(lrp.AlphaBeta(1.5, 0.5, bias=False, only_zeros=True)),
    "w-square first": of_layers(lrp.Epsilon(1e-2), (lrp.first, lrp.WSquare())),
    "flat everywhere": of_layers(lrp.Flat()),
    "batch norm passes": of_layers(lrp.Epsilon(1e-2), (nn.BatchNorm, lrp.Pass()), merge_batch_norm=False),
    "norm": of_layers(lrp.Epsilon(1e-2), *SUMS),
    "EpsilonPlus": lrp.EpsilonPlus(norm=True),
    "EpsilonAlpha2Beta1Flat": lrp.EpsilonAlpha2Beta1Flat(),
    "EpsilonGammaBox": lrp.EpsilonGammaBox(-5.0, np.array([5.0, 6.0], np.float32)),
    "AttnLRP": lrp.AttnLRP(gamma=0.5),
    "CPLRP": lrp.CPLRP(),
    "GuidedBackprop": lrp.GuidedBackprop(),
    "Deconvnet": lrp.Deconvnet(),
    "sun2020": lrp.sun2020,
}


def mostly_slow(*quick):
    """Every composite, of which these alone are quick."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in COMPOSITES]


SHAPE, CLASSES = (4, 4, 2), 3


class Net(nn.Module):
    """ReLU, residual sum, concatenation, slices, max and mean pooling; batch norm; attention and a gate."""

    use_bias: bool = True
    plain: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 3), use_bias=self.use_bias, name="stem")(x)
        if not self.plain:
            x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        x = nn.relu(x)
        branch = nn.relu(nn.Conv(3, (3, 3), use_bias=self.use_bias, name="branch")(x))
        x = jnp.concatenate([x + branch, 0.5 * branch[..., :2]], -1)
        peaks = x.max((1, 2))
        if not self.plain:
            tokens = x.reshape(len(x), -1, x.shape[-1])
            query = jnp.tanh(tokens)
            x = (nn.softmax(jnp.einsum("nic,njc->nij", query, query)) @ tokens).reshape(x.shape)
        x = jnp.concatenate([x.mean((1, 2)), peaks], -1)
        if not self.plain:
            x = nn.Dense(4, name="value")(x) * nn.sigmoid(nn.Dense(4, name="gate")(x))
        return nn.Dense(CLASSES, use_bias=self.use_bias, name="last")(x)


def draw(model, dtype=np.float32):
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, *SHAPE), np.float32))
    variables = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(dtype), shapes)
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    return variables


def once(composite, model=Net(), dtype=np.float32):
    """Scores and the relevance of a batch, started at them."""
    variables = draw(model, dtype)

    def explain(x):
        y, pullback = lrp.vjp(lambda x: model.apply(variables, x), x, composite=composite)
        return y, pullback(y)[0]

    return explain


def explainer(composite, model=Net(), variables=None):
    """Scores, the relevance of x for every class, and again for the second class, of a batch."""
    variables = draw(model) if variables is None else variables

    def explain(x):
        y, pullback = lrp.vjp(lambda x: model.apply(variables, x), x, composite=composite)
        starts = np.eye(CLASSES, dtype=y.dtype)[:, None]
        return y, jax.vmap(lambda start: pullback(start * y)[0])(starts), pullback(starts[1] * y)[0]

    return explain


@functools.cache
def jitted(name):
    return jax.jit(explainer(COMPOSITES[name]))


def images(count=2):
    return np.random.default_rng(1).normal(size=(count, *SHAPE)).astype(np.float32)


assert_close = functools.partial(formulas.assert_close, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", COMPOSITES)
def test_all_classes_at_once_equal_one_alone(name):
    _, together, alone = jitted(name)(images())
    assert_close(together[1], alone)


@pytest.mark.filterwarnings("ignore:expected every pattern")  # the plain network has no batch norm
@pytest.mark.parametrize("name", mostly_slow("EpsilonAlpha2Beta1Flat", "GuidedBackprop"))
def test_jit_changes_nothing(name):
    explain = once(COMPOSITES[name], Net(plain=True))
    assert_close(explain(images()), jax.jit(explain)(images()))


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("name", mostly_slow("GuidedBackprop", "sun2020"))
def test_images_one_at_a_time_and_on_several_devices(name, devices):
    explain, x = explainer(COMPOSITES[name]), images()

    def one(x):
        y, relevance, alone = explain(x[None])
        return y[0], relevance[:, 0], alone[0]

    if devices == 1:
        y, relevance, alone = jax.jit(jax.vmap(one))(x)
    else:
        y, relevance, alone = jax.pmap(one, devices=jax.devices()[:devices])(x)
    assert_close((y, jnp.swapaxes(relevance, 0, 1), alone), jitted(name)(x))


@pytest.mark.parametrize("name", COMPOSITES)
def test_relevance_is_finite(name):
    explain = jitted(name)
    for scale in (0.0, 1e-39, 1e-25, 1e-10, 1e10):
        y, relevance, _ = explain(images() * np.float32(scale))
        assert np.isfinite(y).all() and np.isfinite(relevance).all(), scale
    some_zeros = images() * (np.arange(SHAPE[1]) > 1)[:, None].astype(np.float32)
    assert np.isfinite(explain(some_zeros)[1]).all()


@pytest.mark.parametrize("name", COMPOSITES)
def test_dtype_is_kept(name):
    explain = once(COMPOSITES[name])
    y, relevance = jax.eval_shape(explain, jax.ShapeDtypeStruct((2, *SHAPE), jnp.bfloat16))
    assert (y.dtype, relevance.dtype) == (jnp.float32, jnp.bfloat16)
    with jax.enable_x64(True):
        explain = once(COMPOSITES[name], dtype=np.float64)
        y, relevance = jax.eval_shape(explain, jax.ShapeDtypeStruct((2, *SHAPE), np.float64))
        assert (y.dtype, relevance.dtype) == (np.float64, np.float64)


def test_bfloat16_is_computed_in_float32():
    explain, narrow = jitted("EpsilonPlus"), jnp.asarray(images(), jnp.bfloat16)
    y, relevance, _ = explain(narrow)
    wide_y, wide_relevance, _ = explain(narrow.astype(jnp.float32))
    np.testing.assert_array_equal(y, wide_y)
    np.testing.assert_array_equal(relevance, wide_relevance.astype(jnp.bfloat16))


@pytest.mark.parametrize("name", mostly_slow("EpsilonAlpha2Beta1Flat", "AttnLRP"))
def test_gradients_through_relevance_agree_with_finite_differences(name):
    model = Net(plain=name not in ("batch norm passes", "AttnLRP", "CPLRP", "sun2020"))
    with jax.enable_x64(True):
        variables, x = draw(model, np.float64), images(1).astype(np.float64)
        random = np.random.default_rng(2)
        start, probe = random.normal(size=(1, CLASSES)), random.normal(size=x.shape)

        def total(where):
            params, x = where
            f = lambda x: model.apply(variables | {"params": params}, x)  # noqa: E731
            y, pullback = lrp.vjp(f, x, composite=COMPOSITES[name])
            return (pullback(start)[0] * probe).sum() + y.sum()

        # Small against the distance to the next kink of ReLU, maximum or S(z), large against rounding.
        where, step = (variables["params"], x), 1e-6
        directions = [jax.tree.map(lambda leaf: random.normal(size=leaf.shape), where) for _ in range(2)]
        zeros = jax.tree.map(np.zeros_like, where)
        directions = [(directions[0][0], zeros[1]), (zeros[0], directions[1][1])]
        moves = [jax.tree.map(lambda a, s=s: s * step * a, d) for d in directions for s in (1, -1)]
        places = jax.tree.map(lambda a, *moved: np.stack([a + m for m in moved]), where, *moves)
        gradient, totals = jax.jit(
            lambda where, places: (jax.grad(total)(where), jax.lax.map(total, places))
        )(where, places)
        for direction, (up, down) in zip(directions, totals.reshape(2, 2), strict=True):
            slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
            np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-5)


def test_lrp_0_without_bias_conserves_relevance_exactly():
    model = Net(use_bias=False, plain=True)
    with jax.enable_x64(True):
        x = images(3).astype(np.float64)
        variables = draw(model, np.float64)
        y, relevance, _ = jax.jit(explainer(COMPOSITES["LRP-0"], model, variables))(x)
        np.testing.assert_allclose(relevance.sum((2, 3, 4)).T, y, rtol=1e-10)
        # There, relevance is input times gradient.
        gradient = jax.jit(jax.jacrev(lambda x: model.apply(variables, x).sum(0)))(x)
        np.testing.assert_allclose(relevance, gradient * x, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "end",
    [lambda y: y, lambda y: y[:, :1] + y[:, 1:2], lambda y: y.mean(1, keepdims=True)],
    ids=["dense", "sum", "mean"],
)
def test_lrp_0_conserves_relevance_exactly_whatever_comes_last(end):
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        x, kernel = random.normal(size=(3, 4)), random.normal(size=(4, 5))
        y, (relevance,) = formulas.explain(lambda x: end(x @ kernel), x)
        np.testing.assert_allclose(relevance.sum(1), y.sum(1), rtol=1e-12)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize(
    "rule", [lrp.Flat(epsilon=0.0), lrp.WSquare(epsilon=0.0), lrp.Box(-1.0, 4.0, epsilon=0.0)]
)
def test_relevance_of_exact_zeros_is_not_lost(rule, twice):
    # Each pixel gets its share, whatever its value, so zeros conserve as all else does.
    kernel = np.random.default_rng(0).normal(size=(4, CLASSES)).astype(np.float32)
    bias = np.arange(1, CLASSES + 1, dtype=np.float32)
    x = np.zeros((2, 4), np.float32)
    x[1, :2] = 3

    def f(x):  # through slices, a concatenation, reshapes, ReLU, and perhaps a sum
        x = nn.relu(jnp.concatenate([x[:, :2], x[:, 2:]], -1).reshape(2, 2, 2).reshape(2, 4))
        return (x + x[:, ::-1] if twice else x) @ kernel + bias

    ones = np.ones((2, CLASSES), np.float32)
    _, (relevance,) = formulas.explain(f, x, composite=of_layers(rule), relevance=ones)
    squares = (kernel**2).sum(0)
    kept = squares / (squares + bias**2) if isinstance(rule, lrp.WSquare) else np.ones(CLASSES)
    np.testing.assert_allclose(relevance.sum(1), kept.sum(), rtol=1e-4)


@pytest.mark.parametrize("name", mostly_slow("EpsilonPlus", "AttnLRP"))
def test_a_check_finds_nothing_and_changes_nothing(name):
    composite, variables = COMPOSITES[name], draw(Net())
    if not composite.relevance:
        pytest.skip("gradients travel")

    @functools.partial(jax.jit, static_argnums=1)
    def explain(x, check):
        f = lambda x: Net().apply(variables, x)  # noqa: E731
        y, pullback = lrp.vjp(f, x, composite=composite, check=check)
        return pullback(y)[0]

    formulas.assert_close(explain(images(), True), explain(images(), False), rtol=1e-5)


def test_a_target_may_be_a_function():
    """As the estimators' (`jxai.attribution`): a contrast is a start at both scores."""
    weights = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6)), jnp.float32)
    target, other = jnp.array([0, 2]), jnp.array([3, 0])

    def f(x):
        return jax.nn.relu(x @ weights) @ weights[:4]

    y, pullback = lrp.vjp(f, x, composite=lrp.EpsilonPlus())
    start = (jax.nn.one_hot(target, 4) - jax.nn.one_hot(other, 4)) * y
    contrast = attribution.contrast(target, other)
    found = lrp.relevance(f, x, contrast, composite=lrp.EpsilonPlus())
    np.testing.assert_array_equal(found, pullback(start)[0])
    found = lrp.relevance(lambda x: {"logits": f(x)}, x, lambda y: y["logits"][:, 1], composite=lrp.AttnLRP())
    np.testing.assert_array_equal(found, lrp.relevance(f, x, [1, 1], composite=lrp.AttnLRP()))
