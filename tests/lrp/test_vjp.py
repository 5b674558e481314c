"""Properties that every composite has, over one registry; conservation; dtypes; what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jxai import lrp
from jxai.lrp.ratio import to_ratio
from jxai.lrp.rules import transpose


@dataclasses.dataclass(frozen=True)
class Flat(lrp.LinearRule):
    """A rule of one's own, whose R_in is not proportional to x: every input 1, every weight 1, no bias."""

    def propagate(self, linear, x, z, relevance):
        ones = jnp.ones_like(linear.kernel)
        share = relevance / linear.map(jnp.ones_like(x), ones)
        return to_ratio(transpose(linear, ones, share, x), x)


def of_linear(rule, first=None):
    rules = ((nn.Dense, rule), (nn.Conv, rule), (nn.BatchNorm, lrp.Pass()))
    return lrp.Composite(rules if first is None else ((lambda module: module.name == "stem", first), *rules))


REGISTRY = {
    "epsilon": of_linear(lrp.Epsilon(1e-2)),
    "epsilon without bias": of_linear(lrp.Epsilon(1e-2, bias=False)),
    "LRP-0": of_linear(lrp.Epsilon(0.0)),
    "z-plus": of_linear(lrp.AlphaBeta()),
    "alpha 2 beta 1": of_linear(lrp.AlphaBeta(2.0, 1.0)),
    "alpha 1.5 beta 0.5": of_linear(lrp.AlphaBeta(1.5, 0.5, bias=False, only_zeros=True)),
    "sun2020": lrp.sun2020,
    "flat first, then epsilon": of_linear(lrp.Epsilon(1e-2), first=Flat()),
}
SHAPE, CLASSES = (4, 4, 2), 3


class Net(nn.Module):
    """A bit of all that lies between modules: ReLU, residual sum, concatenation, slices, max and mean pooling."""

    use_bias: bool = True
    norm: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 3), use_bias=self.use_bias, name="stem")(x)
        if self.norm:
            x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        x = nn.relu(x)
        branch = nn.relu(nn.Conv(3, (3, 3), use_bias=self.use_bias, name="branch")(x))
        x = jnp.concatenate([x + branch, 0.5 * branch[..., :2]], -1)
        x = jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], -1)
        return nn.Dense(CLASSES, use_bias=self.use_bias, name="last")(x)


def draw(model, dtype=np.float32):
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, *SHAPE), np.float32))
    variables = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(dtype), shapes)
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    return variables


def explainer(composite, model=Net(), variables=None):
    """Scores and the relevance of x for every class, of a batch."""
    variables = draw(model) if variables is None else variables

    def explain(x):
        y, pullback = lrp.vjp(lambda x: model.apply(variables, x), x, composite=composite)
        return y, jax.vmap(lambda start: pullback(start * y)[0])(np.eye(CLASSES, dtype=y.dtype)[:, None])

    return explain


@functools.cache
def jitted(name):
    return jax.jit(explainer(REGISTRY[name]))


def images(count=2):
    return np.random.default_rng(1).normal(size=(count, *SHAPE)).astype(np.float32)


def assert_close(ours, expected):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * np.abs(b).max())


@pytest.mark.parametrize("name", REGISTRY)
def test_transformations_change_nothing(name):
    explain, x = explainer(REGISTRY[name]), images()
    expected = jitted(name)(x)
    assert_close(explain(x), expected)  # without jit

    def one(x):
        y, relevance = explain(x[None])
        return y[0], relevance[:, 0]

    batched = (expected[0], jnp.swapaxes(expected[1], 0, 1))
    assert_close(jax.jit(jax.vmap(one))(x), batched)
    assert_close(jax.pmap(one, devices=jax.devices()[: len(x)])(x), batched)
    loop = [jitted(name)(x[n : n + 1]) for n in range(len(x))]
    assert_close(
        [jnp.concatenate(leaves, axis) for axis, leaves in enumerate(zip(*loop, strict=True))], expected
    )


@pytest.mark.parametrize("name", REGISTRY)
def test_all_classes_at_once_equal_one_by_one(name):
    model, x = Net(), images()
    variables = draw(model)
    _, together = explainer(REGISTRY[name], model, variables)(x)
    for target in range(CLASSES):
        alone = lrp.relevance(
            lambda x: model.apply(variables, x), x, np.full(len(x), target), composite=REGISTRY[name]
        )
        assert_close(together[target], alone)


@pytest.mark.parametrize("name", REGISTRY)
def test_relevance_is_finite(name):
    explain = jitted(name)
    for scale in (0.0, 1e-39, 1e-25, 1e-10, 1e10):
        y, relevance = explain(images() * np.float32(scale))
        assert np.isfinite(y).all() and np.isfinite(relevance).all(), scale
    some_zeros = images() * (np.arange(SHAPE[1]) > 1)[:, None].astype(np.float32)
    assert np.isfinite(explain(some_zeros)[1]).all()


@pytest.mark.parametrize("name", REGISTRY)
def test_dtype_is_kept_and_bfloat16_computed_in_float32(name):
    explain = jitted(name)
    narrow = jnp.asarray(images(), jnp.bfloat16)
    y, relevance = explain(narrow)
    wide_y, wide_relevance = explain(narrow.astype(jnp.float32))
    assert (y.dtype, relevance.dtype, wide_relevance.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    np.testing.assert_array_equal(y, wide_y)
    np.testing.assert_array_equal(relevance, wide_relevance.astype(jnp.bfloat16))


@pytest.mark.parametrize("name", REGISTRY)
def test_gradients_through_relevance_agree_with_finite_differences(name):
    model = Net()
    with jax.enable_x64(True):
        variables, x = draw(model, np.float64), images(1).astype(np.float64)
        random = np.random.default_rng(2)
        start, probe = random.normal(size=(1, CLASSES)), random.normal(size=x.shape)

        @jax.jit
        def total(params, x):
            f = lambda x: model.apply(variables | {"params": params}, x)  # noqa: E731
            y, pullback = lrp.vjp(f, x, composite=REGISTRY[name])
            return (pullback(start)[0] * probe).sum() + y.sum()

        where = (variables["params"], x)
        gradient = jax.jit(jax.grad(total, argnums=(0, 1)))(*where)
        for argument in (0, 1):
            direction = [jax.tree.map(lambda leaf: random.normal(size=leaf.shape), part) for part in where]
            direction[1 - argument] = jax.tree.map(jnp.zeros_like, where[1 - argument])
            along = lambda t, d=direction: total(*jax.tree.map(lambda a, b: a + t * b, where, tuple(d)))  # noqa: E731
            # Small against the distance to the next kink of ReLU, maximum or S(z), large against rounding.
            step = 1e-6
            slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, tuple(direction))))
            np.testing.assert_allclose(slope, (along(step) - along(-step)) / (2 * step), rtol=1e-5)


def test_lrp_0_without_bias_conserves_relevance_exactly():
    model = Net(use_bias=False, norm=False)
    with jax.enable_x64(True):
        x = images(3).astype(np.float64)
        variables = draw(model, np.float64)
        y, relevance = jax.jit(explainer(of_linear(lrp.Epsilon(0.0)), model, variables))(x)
        np.testing.assert_allclose(relevance.sum((2, 3, 4)).T, y, rtol=1e-10)
        # There, relevance is input times gradient.
        gradient = jax.jacrev(lambda x: model.apply(variables, x).sum(0))(x)
        np.testing.assert_allclose(relevance, gradient * x, rtol=1e-8, atol=1e-10)


def test_relevance_of_exact_zeros_is_not_lost():
    # Flat gives every pixel its share, whatever its value, so zeros conserve as all else does.
    composite = of_linear(lrp.Epsilon(0.0), first=Flat())
    model = nn.Dense(CLASSES, name="stem")
    x = np.zeros((2, 4), np.float32)
    x[1, :2] = 3
    variables = model.init(jax.random.key(0), x)
    params = variables["params"] | {"bias": jnp.arange(1.0, CLASSES + 1)}

    def f(x):  # through slices, a concatenation and reshapes of zeros
        x = jnp.concatenate([x[:, :2], x[:, 2:]], -1).reshape(2, 2, 2).reshape(2, 4)
        return model.apply({"params": params}, x)

    y, pullback = lrp.vjp(f, x, composite=composite)
    (relevance,) = pullback(y)
    np.testing.assert_allclose(relevance, np.repeat(np.asarray(y.sum(1, keepdims=True)) / 4, 4, 1), rtol=1e-4)


def test_trees_of_primals_and_outputs_and_auxiliary_values():
    def f(parts, scale):
        return {"sum": parts["a"] + scale * parts["b"], "a": parts["a"]}, "handed through"

    parts = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0, -4.0])}
    y, pullback, aux = lrp.vjp(f, parts, jnp.array(2.0), composite=lrp.sun2020, has_aux=True)
    assert aux == "handed through"
    relevance, of_scale = pullback({"sum": y["sum"], "a": jnp.zeros(2)})
    # LRP-0: a sum hands each term its own value.
    np.testing.assert_allclose(relevance["a"], parts["a"], rtol=1e-6)
    np.testing.assert_allclose(relevance["b"], 2 * parts["b"], rtol=1e-6)
    assert of_scale.shape == ()


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.bool_, np.complex64])
def test_primals_without_relevance_are_refused(dtype):
    with pytest.raises(TypeError, match=f"float32, float64 or bfloat16, got {np.dtype(dtype)}"):
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
