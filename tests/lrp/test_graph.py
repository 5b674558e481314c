"""How functions become graphs: modules keep their places, jitted functions keep no trace, tracing changes nothing."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import formulas
from formulas import explain
from jxai import lrp
from jxai.lrp.engine.trace import trace

X = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
EPSILON = lrp.Composite(((lrp.Kind.DENSE, lrp.Epsilon(0.5)),), name="epsilon alone")
PASS = lrp.Composite(((nn.BatchNorm, lrp.Pass()),))


class Doubled(nn.Module):
    """A user's module without a rule: it is looked into."""

    @nn.compact
    def __call__(self, x):
        return 2 * nn.Dense(3, name="inner")(x)


class Divided(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x / (1 + x.sum())


class Special(nn.Dense):
    """A user's subclass of a module of Flax's own."""


class Methods(nn.Module):
    """Modules made in `setup`, called by a method of another name."""

    def setup(self):
        self.inner = nn.Dense(3)

    def encode(self, x):
        return self.inner(x)


def draw(model, *args, **options):
    """Random variables; biases are 0, as initialized."""
    drawn = formulas.draw(model, *args, **options)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaf * (path[-1].key != "bias"), drawn)


def explained(model, variables, composite=EPSILON, **options):
    _, (relevance,) = explain(lambda x: model.apply(variables, x, **options), X, composite=composite)
    return relevance


def by_hand(kernel, factor=1):
    """Relevance of factor·z with z = x W, started at the scores themselves."""
    z = X @ np.asarray(kernel)
    return X * ((factor * z / (z + 0.5 * np.where(z < 0, -1, 1))) @ np.asarray(kernel).T)


def test_modules_of_a_user_are_looked_into():
    variables = draw(Doubled(), X)
    composite = lrp.Composite(EPSILON.rules, merge_batch_norm=False)
    expected = by_hand(variables["params"]["inner"]["kernel"], 2)
    np.testing.assert_allclose(explained(Doubled(), variables, composite), expected, rtol=1e-5)


@pytest.mark.parametrize("rule", [EPSILON, lrp.Composite(((nn.Dense, lrp.Epsilon(0.5)),))])
def test_subclasses_have_the_rule_of_their_class(rule):
    variables = draw(Special(3), X)
    np.testing.assert_allclose(
        explained(Special(3), variables, rule), by_hand(variables["params"]["kernel"]), rtol=1e-5
    )


def test_modules_of_setup_called_by_another_method():
    variables = draw(Methods(), X, method="encode")
    composite = lrp.Composite((("inner", lrp.Epsilon(0.5)),))
    expected = by_hand(variables["params"]["inner"]["kernel"])
    np.testing.assert_allclose(
        explained(Methods(), variables, composite, method="encode"), expected, rtol=1e-5
    )


def test_refusals_name_the_path_of_nested_modules():
    model = nn.Sequential([nn.Sequential([nn.relu, Divided()])])
    with pytest.raises(ValueError, match=r"Divided at 'layers_0/layers_1' in epsilon alone"):
        explained(model, {})


def test_input_by_keyword_meets_the_rule_too():
    variables = draw(nn.Dense(3), X)
    _, (ours,) = explain(lambda x: nn.Dense(3).apply(variables, inputs=x), X, composite=EPSILON)
    np.testing.assert_allclose(ours, by_hand(variables["params"]["kernel"]), rtol=1e-5)


def test_the_input_keeps_its_place_among_keywords():
    model = nn.BatchNorm()
    variables = draw(model, X, use_running_average=False)
    f = lambda x: model.apply(variables, use_running_average=False, x=x, mutable=["batch_stats"])[0]  # noqa: E731
    y, (ours,) = explain(f, X, composite=PASS)
    np.testing.assert_allclose(ours, y, rtol=1e-5)


def test_calls_of_a_module_several_times_are_several_calls():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            inner = nn.Dense(4, use_bias=False, name="inner")
            return inner(inner(x))

    variables = draw(Twice(), X)
    kernel = variables["params"]["inner"]["kernel"]
    plain = explain(lambda x: (x @ kernel) @ kernel, X, composite=EPSILON)
    ours = explain(lambda x: Twice().apply(variables, x), X, composite=EPSILON)
    chex.assert_trees_all_close(ours, plain, rtol=1e-6)
    graph, _, records = trace(lambda x: Twice().apply(variables, x), (X,))
    assert [record.path for record in records] == ["", "inner", "inner"]
    assert len(graph.calls) == 3


def test_arguments_that_are_no_arrays():
    class Picky(nn.Module):
        @nn.compact
        def __call__(self, parts, *rest, scale=1.0, name_of_option="a"):
            return scale * parts["a"] + rest[0]

    composite = lrp.Composite(((Picky, lrp.Gradient()),))
    y, (ours,) = explain(
        lambda x: Picky().apply({}, {"a": x, "b": None}, x, scale=2.0, name_of_option="b"),
        X,
        composite=composite,
    )
    np.testing.assert_allclose(ours, y, rtol=1e-5)


def test_outside_of_vjp_nothing_is_marked():
    with pytest.raises(ValueError, match="Divided"):
        explained(Divided(), {})
    variables = draw(Doubled(), X)
    f = lambda x: Doubled().apply(variables, x)  # noqa: E731
    before = str(jax.make_jaxpr(f)(X))
    explained(Doubled(), variables)
    assert str(jax.make_jaxpr(f)(X)) == before
    assert "jxai" not in before


def test_errors_of_the_function_come_through():
    def f(x):
        raise RuntimeError("of the user")

    with pytest.raises(RuntimeError, match="of the user"):
        lrp.vjp(f, X, composite=EPSILON)
    variables = draw(nn.Dense(3), X)
    np.testing.assert_allclose(
        explained(nn.Dense(3), variables), by_hand(variables["params"]["kernel"]), rtol=1e-5
    )


def test_jitted_functions_meet_the_rules_and_keep_no_trace_of_them():
    model = nn.Dense(3)
    x = jnp.array([[1.0, -2.0], [0.5, 3.0]])
    variables = draw(model, x)

    def relevance(f):
        y, pullback = lrp.vjp(f, x, composite=lrp.Composite(((nn.Dense, lrp.Epsilon(0.1)),)))
        return pullback(y)[0]

    def plain(x):
        return model.apply(variables, x)

    expected, gradient = relevance(plain), jax.grad(lambda x: plain(x).sum())(x)
    before = jax.jit(plain)
    before(x)
    chex.assert_trees_all_close(relevance(before), expected, rtol=1e-6)
    after = jax.jit(plain)
    chex.assert_trees_all_close(relevance(after), expected, rtol=1e-6)
    chex.assert_trees_all_close(relevance(after), expected, rtol=1e-6)  # again: no call is lost in a cache
    chex.assert_trees_all_close(jax.grad(lambda x: after(x).sum())(x), gradient, rtol=1e-6)
    assert "jxai" not in str(jax.make_jaxpr(after)(x))
    chex.assert_trees_all_close(jax.jit(relevance, static_argnums=0)(after), expected, rtol=1e-6)


class Jitted(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = nn.jit(nn.remat(Doubled))(name=f"block{i}")(x)
        return x


def test_modules_in_caches_of_linen_keep_their_paths():
    variables = draw(Jitted(), X)
    jax.eval_shape(Jitted().apply, variables, X)  # fills the caches without marks
    rules = (("block1/inner", lrp.Flat()), ("block0/inner", lrp.Epsilon(0.5)))
    ours = explained(Jitted(), variables, lrp.Composite(rules))
    plain_rules = ((lambda operation: operation.first, lrp.Epsilon(0.5)), (lrp.Kind.DENSE, lrp.Flat()))

    def plain(x):
        for i in range(2):
            x = Doubled().apply({"params": variables["params"][f"block{i}"]}, x)
        return x

    _, (expected,) = explain(plain, X, composite=lrp.Composite(plain_rules))
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_a_jitted_block_called_several_times_is_several_places():
    # One entry of jit's cache, inlined twice.
    kernel = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    block = jax.jit(lambda x: nn.relu(x @ kernel) + x)
    plain = lambda x: nn.relu(x @ kernel) + x  # noqa: E731
    composite = lrp.Composite(((lrp.first, lrp.Flat()), (lrp.Kind.DENSE, lrp.ZPlus())))
    ours, expected = (explain(lambda x, f=f: f(f(x)), X, composite=composite)[1][0] for f in (block, plain))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_operations_that_no_output_needs_are_left_out():
    # A division without a rule, whose result nobody takes.
    def f(x):
        _ = x / x.sum()
        return 2 * x

    y, (ours,) = explain(f, X, composite=EPSILON | lrp.Composite(complete=False))
    np.testing.assert_allclose(ours, y, rtol=1e-6)


def test_linear_operations_are_one_layer_however_they_compute():
    matrix = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)

    @lrp.linear_operation
    def by_fourier(x, kernel):
        # Parseval: an inner product of transforms, which means nothing to a rule.
        return (jnp.fft.fft(x) @ jnp.conj(jnp.fft.fft(kernel, axis=0))).real / x.shape[-1]

    composite = lrp.Composite(((lrp.Kind.CONVOLUTION, lrp.ZPlus()), (lrp.Kind.DENSE, lrp.ZPlus())))
    ours, expected = (
        explain(f, X, composite=composite)
        for f in (lambda x: by_fourier(x, matrix) + 0.5, lambda x: x @ matrix + 0.5)
    )
    chex.assert_trees_all_close(ours, expected, rtol=1e-4, atol=1e-6)
