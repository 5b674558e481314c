"""Properties that every composite has, over one registry; conservation; dtypes; what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jxai import lrp
from jxai.lrp import Kind

# Compiled once, run a few times: code that is quick to make.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def of_layers(rule, *front, **options):
    return lrp.Composite((*front, (Kind.CONVOLUTION, rule), (Kind.DENSE, rule)), **options)


SUMS = ((Kind.SUM, lrp.Norm(0.1)), (Kind.MEAN, lrp.Norm(0.1)))
# Composites in which, together, every rule stands.
RULES = {
    "epsilon without bias": of_layers(lrp.Epsilon(1e-2, bias=False)),
    "LRP-0": of_layers(lrp.Epsilon(0.0)),
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
REGISTRY = RULES | {
    "ExcitationBackprop": lrp.ExcitationBackprop(),
    "EpsilonAlpha2Beta1": lrp.EpsilonAlpha2Beta1(),
    "EpsilonPlusFlat": lrp.EpsilonPlusFlat(),
}
# Those that are compared without jit and on several devices, which takes long to compile.
SOME = ("LRP-0", "EpsilonAlpha2Beta1Flat", "GuidedBackprop", "sun2020")
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
    return jit(explainer(REGISTRY[name]))


def images(count=2):
    return np.random.default_rng(1).normal(size=(count, *SHAPE)).astype(np.float32)


def assert_close(ours, expected):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * np.abs(b).max())


@pytest.mark.parametrize("name", REGISTRY)
def test_all_classes_at_once_equal_one_alone(name):
    _, together, alone = jitted(name)(images())
    assert_close(together[1], alone)


@pytest.mark.parametrize("name", SOME)
def test_jit_changes_nothing(name):
    model = Net(plain=True)
    variables = draw(model)

    def explain(x):
        y, pullback = lrp.vjp(lambda x: model.apply(variables, x), x, composite=REGISTRY[name])
        return y, pullback(y)[0]

    assert_close(explain(images()), jit(explain)(images()))


@pytest.mark.parametrize(
    ("name", "devices"),
    [*((name, 1) for name in REGISTRY if name not in SOME), *((name, 2) for name in SOME)],
)
def test_images_one_at_a_time_and_on_several_devices(name, devices):
    explain, x = explainer(REGISTRY[name]), images()

    def one(x):
        y, relevance, alone = explain(x[None])
        return y[0], relevance[:, 0], alone[0]

    if devices == 1:
        y, relevance, alone = jit(jax.vmap(one))(x)
    else:
        y, relevance, alone = jax.pmap(one, devices=jax.devices()[:devices])(x)
    assert_close((y, jnp.swapaxes(relevance, 0, 1), alone), jitted(name)(x))


ZERO_PRODUCT = pytest.mark.xfail(
    strict=True, reason="relevance of a product that is exactly zero is multiplied by a factor"
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=ZERO_PRODUCT if name == "flat everywhere" else ()) for name in REGISTRY]
)
def test_relevance_is_finite(name):
    explain = jitted(name)
    for scale in (0.0, 1e-39, 1e-25, 1e-10, 1e10):
        y, relevance, _ = explain(images() * np.float32(scale))
        assert np.isfinite(y).all() and np.isfinite(relevance).all(), scale
    some_zeros = images() * (np.arange(SHAPE[1]) > 1)[:, None].astype(np.float32)
    assert np.isfinite(explain(some_zeros)[1]).all()


@pytest.mark.parametrize("name", REGISTRY)
def test_dtype_is_kept(name):
    explain = explainer(REGISTRY[name])
    y, relevance, _ = jax.eval_shape(explain, jax.ShapeDtypeStruct((2, *SHAPE), jnp.bfloat16))
    assert (y.dtype, relevance.dtype) == (jnp.float32, jnp.bfloat16)
    with jax.enable_x64(True):
        explain = explainer(REGISTRY[name], variables=draw(Net(), np.float64))
        y, relevance, _ = jax.eval_shape(explain, jax.ShapeDtypeStruct((2, *SHAPE), np.float64))
        assert (y.dtype, relevance.dtype) == (np.float64, np.float64)


def test_bfloat16_is_computed_in_float32():
    explain, narrow = jitted("EpsilonPlus"), jnp.asarray(images(), jnp.bfloat16)
    y, relevance, _ = explain(narrow)
    wide_y, wide_relevance, _ = explain(narrow.astype(jnp.float32))
    np.testing.assert_array_equal(y, wide_y)
    np.testing.assert_array_equal(relevance, wide_relevance.astype(jnp.bfloat16))


@pytest.mark.parametrize("name", RULES)
def test_gradients_through_relevance_agree_with_finite_differences(name):
    model = Net(plain=name not in ("batch norm passes", "AttnLRP", "CPLRP", "sun2020"))
    with jax.enable_x64(True):
        variables, x = draw(model, np.float64), images(1).astype(np.float64)
        random = np.random.default_rng(2)
        start, probe = random.normal(size=(1, CLASSES)), random.normal(size=x.shape)

        def total(where):
            params, x = where
            f = lambda x: model.apply(variables | {"params": params}, x)  # noqa: E731
            y, pullback = lrp.vjp(f, x, composite=REGISTRY[name])
            return (pullback(start)[0] * probe).sum() + y.sum()

        # Small against the distance to the next kink of ReLU, maximum or S(z), large against rounding.
        where, step = (variables["params"], x), 1e-6
        directions = [jax.tree.map(lambda leaf: random.normal(size=leaf.shape), where) for _ in range(2)]
        zeros = jax.tree.map(np.zeros_like, where)
        directions = [(directions[0][0], zeros[1]), (zeros[0], directions[1][1])]
        moves = [jax.tree.map(lambda a, s=s: s * step * a, d) for d in directions for s in (1, -1)]
        places = jax.tree.map(lambda a, *moved: np.stack([a + m for m in moved]), where, *moves)
        gradient, totals = jit(lambda where, places: (jax.grad(total)(where), jax.lax.map(total, places)))(
            where, places
        )
        for direction, (up, down) in zip(directions, totals.reshape(2, 2), strict=True):
            slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
            np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-5)


def test_lrp_0_without_bias_conserves_relevance_exactly():
    model = Net(use_bias=False, plain=True)
    with jax.enable_x64(True):
        x = images(3).astype(np.float64)
        variables = draw(model, np.float64)
        y, relevance, _ = jit(explainer(REGISTRY["LRP-0"], model, variables))(x)
        np.testing.assert_allclose(relevance.sum((2, 3, 4)).T, y, rtol=1e-10)
        # There, relevance is input times gradient.
        gradient = jit(jax.jacrev(lambda x: model.apply(variables, x).sum(0)))(x)
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
        y, pullback = lrp.vjp(lambda x: end(x @ kernel), x, composite=of_layers(lrp.Epsilon(0.0)))
        np.testing.assert_allclose(pullback(y)[0].sum(1), y.sum(1), rtol=1e-12)


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

    y, pullback = lrp.vjp(f, x, composite=of_layers(rule))
    (relevance,) = pullback(jnp.ones_like(y))
    squares = (kernel**2).sum(0)
    kept = squares / (squares + bias**2) if isinstance(rule, lrp.WSquare) else np.ones(CLASSES)
    np.testing.assert_allclose(relevance.sum(1), kept.sum(), rtol=1e-4)


def test_trees_of_primals_and_outputs_and_auxiliary_values():
    def f(parts, scale):
        return {"sum": parts["a"] + scale * parts["b"], "a": parts["a"]}, "handed through"

    parts = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0, -4.0])}
    y, pullback, aux = lrp.vjp(f, parts, jnp.array(2.0), composite=lrp.EpsilonPlus(), has_aux=True)
    assert aux == "handed through"
    relevance, of_scale = pullback({"sum": y["sum"], "a": jnp.zeros(2)})
    # A sum hands each term its own value, a product each factor its half.
    np.testing.assert_allclose(relevance["a"], parts["a"], rtol=1e-5)
    np.testing.assert_allclose(relevance["b"], parts["b"], rtol=1e-5)
    np.testing.assert_allclose(of_scale, parts["b"].sum(), rtol=1e-5)


# Somewhere else than from the outputs to the inputs.


class Middle(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Dense(3, name="inner")(x))


class Steps(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(4, name="first")(x))
        return nn.Dense(2, name="last")(Middle(name="middle")(x))


@pytest.fixture(scope="module")
def steps():
    """(function of x and options of `vjp` to its results, function from the middle's input, params, x)."""
    x = np.random.default_rng(3).normal(size=(2, 5)).astype(np.float32)
    variables = Steps().init(jax.random.key(1), x)

    def explain(**options):
        return lrp.vjp(lambda x: Steps().apply(variables, x), x, composite=lrp.EpsilonPlus(), **options)

    def part(name, x):
        params = {"params": variables["params"][name]}
        return lrp.vjp(lambda x: nn.Dense(4).apply(params, x), x, composite=lrp.EpsilonPlus())

    return explain, part, x


def test_start_at_a_module(steps):
    explain, part, x = steps
    y, pullback = explain(start="first")
    expected_y, expected = part("first", x)
    assert_close(y, expected_y)
    relevance = np.random.default_rng(0).normal(size=y.shape).astype(np.float32)
    assert_close(pullback(relevance), expected(relevance))
    y, _ = explain(start="middle/inner")
    assert y.shape == (2, 3)
    with pytest.raises(ValueError, match=r"relevance of the outputs' shapes \(2, 3\), got \(2, 2\)"):
        explain(start="middle")[1](np.ones((2, 2)))


def test_watched_modules(steps):
    explain, part, x = steps
    y, pullback = explain(watch=["first", "middle", "last"])
    (relevance,), watched = pullback(y)
    assert set(watched) == {"first", "middle", "last"}
    assert [watched[name].shape for name in ("first", "middle", "last")] == [(2, 4), (2, 3), (2, 2)]
    assert_close(watched["last"], y)
    assert_close(relevance, part("first", x)[1](watched["first"])[0])
    assert_close(relevance, explain()[1](y)[0])


def test_masked_channels(steps):
    explain, part, x = steps
    y, pullback = explain(watch=["first"])
    (whole,), watched = pullback(y)
    parts = []
    for mask in np.eye(4, dtype=np.float32):
        y, pullback = explain(masks={"first": mask}, watch=["first"])
        (relevance,), seen = pullback(y)
        assert_close(seen["first"], watched["first"])  # what arrives, before the mask
        assert_close(relevance, part("first", x)[1](watched["first"] * mask)[0])
        parts.append(relevance)
    assert_close(sum(parts), whole)
    y, pullback = explain(start="middle", masks={"first": np.zeros(4)})
    np.testing.assert_array_equal(pullback(y)[0], 0)


@pytest.mark.parametrize(
    "option", [{"start": "nowhere"}, {"watch": ["nowhere"]}, {"masks": {"nowhere": 1.0}}]
)
def test_paths_of_no_module_are_refused(steps, option):
    with pytest.raises(ValueError, match=r"'nowhere' with no call: take one of .*first.*middle/inner"):
        steps[0](**option)


def test_a_module_called_twice_is_no_place():
    layer = nn.Dense(3)
    x = np.ones((1, 3), np.float32)
    variables = layer.init(jax.random.key(0), x)
    f = lambda x: layer.apply(variables, layer.apply(variables, x))  # noqa: E731
    with pytest.raises(ValueError, match=r"called once .* with 2 calls"):
        lrp.vjp(f, x, composite=lrp.EpsilonPlus(), start="")


# Other inputs than one array of floats.


def test_several_inputs_of_a_layer():
    random = np.random.default_rng(0)
    a, b, kernel = (random.normal(size=shape).astype(np.float32) for shape in ((2, 3), (2, 2), (5, 4)))
    y, pullback = lrp.vjp(
        lambda a, b: jnp.concatenate([a, b], 1) @ kernel, a, b, composite=of_layers(lrp.Epsilon(0.1))
    )
    ratio = y / (y + 0.1 * np.where(y < 0, -1, 1))
    of_a, of_b = pullback(y)
    assert_close(of_a, a * (ratio @ kernel[:3].T))
    assert_close(of_b, b * (ratio @ kernel[3:].T))


class Text(nn.Module):
    @nn.compact
    def __call__(self, tokens, scale):
        rows = nn.Embed(7, 5, name="table")(tokens) * scale
        return nn.Dense(3, name="last")(nn.relu(nn.Dense(4, name="hidden")(rows)).mean(1))


def test_relevance_of_tokens_is_that_of_their_rows():
    tokens, scale = np.array([[0, 3, 3], [6, 1, 0]]), np.float32(1.5)
    variables = jit(Text().init)(jax.random.key(0), tokens, scale)

    def from_rows(rows):
        params = variables["params"]
        hidden = nn.relu(nn.Dense(4).apply({"params": params["hidden"]}, rows))
        return nn.Dense(3).apply({"params": params["last"]}, hidden.mean(1))

    @jit
    def explain(tokens, scale):
        def by(f, *primals):
            y, pullback = lrp.vjp(f, *primals, composite=lrp.EpsilonPlus())
            return y, *pullback(y)

        rows = variables["params"]["table"]["embedding"][tokens] * scale
        return (
            by(lambda *args: Text().apply(variables, *args), tokens, scale),
            by(lambda tokens: Text().apply(variables, tokens, 1.5), tokens),
            by(from_rows, rows),
        )

    both, alone, (expected_y, of_rows) = explain(tokens, scale)
    assert (both[1].shape, both[1].dtype, both[2].shape) == (tokens.shape, np.float32, ())
    assert_close(alone, (expected_y, of_rows.sum(-1)))
    # A product shares evenly among its two factors.
    assert_close(both, (expected_y, of_rows.sum(-1) / 2, of_rows.sum() / 2))


def test_integers_in_no_embedding_are_refused():
    with pytest.raises(
        TypeError, match=r"looked up in a table, as nn.Embed does, got int32 of shape \(2, 3\)"
    ):
        lrp.vjp(lambda x: x @ np.ones((3, 2)), np.ones((2, 3), np.int32), composite=lrp.EpsilonPlus())


# What is refused.


@pytest.mark.parametrize("dtype", [np.float16, np.bool_, np.complex64])
def test_primals_without_relevance_are_refused(dtype):
    with pytest.raises(
        TypeError, match=f"float32, float64 or bfloat16, or integers .* got {np.dtype(dtype)}"
    ):
        lrp.vjp(lambda x: x, np.ones(2, dtype), composite=lrp.sun2020)


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones((2, 1)), 1.0, {"y": np.ones(2)}, (np.ones(2),)])
def test_relevance_of_another_shape_is_refused(wrong):
    _, pullback = lrp.vjp(lambda x: 2 * x, np.ones(2, np.float32), composite=lrp.sun2020)
    with pytest.raises(ValueError, match=r"relevance of the outputs' shapes \(2,\), got"):
        pullback(wrong)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (np.zeros(3, int), ValueError, r"`target` of shape \(N,\), got \(2, 4\) and \(3,\)"),
        (np.zeros((2, 1), int), ValueError, "one class index an image"),
        (np.zeros(2), TypeError, "`target` of integers, got float32"),
        (np.array([0, 4]), ValueError, r"`target` in \[0, 4\), got values from 0 to 4"),
        (np.array([-1, 0]), ValueError, "got values from -1 to 0"),
    ],
)
def test_wrong_targets_are_refused(target, error, message):
    with pytest.raises(error, match=message):
        lrp.relevance(lambda x: x, np.ones((2, 4), np.float32), target, composite=lrp.sun2020)


def test_scores_without_a_class_axis_are_refused():
    with pytest.raises(ValueError, match=r"scores \(N, K\)"):
        lrp.relevance(
            lambda x: x.sum(1), np.ones((2, 4), np.float32), np.zeros(2, int), composite=lrp.sun2020
        )
