"""Metrics of several arrays by one table: the numbers of the arrays side by side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution, metrics

KEY = jax.random.key(0)
TREE = {
    "pixels": jax.random.normal(jax.random.key(1), (3, 2, 2, 2)),
    "age": jax.random.normal(jax.random.key(2), (3, 1)).astype(jnp.bfloat16),
    "words": (jax.random.normal(jax.random.key(3), (3, 2, 3)),),
}
W = jax.random.normal(jax.random.key(4), (15, 4))
TARGET = jnp.array([0, 3, 1])


def side_by_side(tree):
    """In the order of the leaves: age, pixels, words."""
    leaves = [np.asarray(tree[name], np.float32) for name in ("age", "pixels")]
    leaves.append(np.asarray(tree["words"][0], np.float32))
    return np.concatenate([leaf.reshape(3, -1) for leaf in leaves], axis=1)


def f(tree):
    assert tree["age"].dtype == jnp.bfloat16 and tree["pixels"].shape[1:] == (2, 2, 2)
    flat = [tree["age"].astype(jnp.float32), tree["pixels"], tree["words"][0]]
    return jnp.tanh(jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in flat], axis=1) @ W)


def test_a_table_holds_all_features_and_gives_them_back():
    table = metrics.as_table(f, TREE)
    np.testing.assert_array_equal(table.values, side_by_side(TREE))
    assert jax.tree.map(lambda a, b: bool((a == b).all()), table.tree(table.values), TREE) == jax.tree.map(
        lambda _: True, TREE
    )
    np.testing.assert_allclose(table.f(table.values), f(TREE), rtol=1e-6)
    filled = table.flat({"pixels": 2.0, "age": 0.0, "words": (TREE["words"][0],)})
    np.testing.assert_array_equal(filled[:, 1:9], np.full((3, 8), 2))


def test_metrics_of_a_table_are_those_of_the_array():
    table, x = metrics.as_table(f, TREE), jnp.asarray(side_by_side(TREE))
    maps = attribution.input_x_gradient(f, TREE, TARGET)
    heatmap = table.flat(maps)

    def g(x):
        # The age is rounded on its way back.
        return jnp.tanh(x.at[:, 0].set(x[:, 0].astype(jnp.bfloat16).astype(jnp.float32)) @ W)

    def explain(values, target):
        return table.flat(attribution.gradient(f, table.tree(values), target))

    for metric in (
        lambda f: metrics.deletion(f, table.values, heatmap, TARGET, num_steps=5),
        lambda f: metrics.insertion(f, table.values, heatmap, TARGET, baseline=table.flat(maps), num_steps=5),
        lambda f: metrics.faithfulness_correlation(f, KEY, table.values, heatmap, TARGET, num_samples=4),
        lambda f: metrics.completeness(f, table.values, heatmap, TARGET).residual,
    ):
        np.testing.assert_allclose(metric(table.f), metric(g), rtol=1e-5)
    assert metrics.maximum_sensitivity(explain, KEY, x, TARGET, num_samples=2).shape == (3,)
    np.testing.assert_allclose(
        metrics.sparseness(heatmap), metrics.sparseness(jnp.asarray(side_by_side(maps)))
    )


def test_a_tuple_is_arguments():
    table = metrics.as_table(lambda a, b: a + b, (TREE["age"], jnp.ones((3, 1))))
    np.testing.assert_allclose(table.f(table.values), TREE["age"] + 1, rtol=1e-2)


def test_what_is_no_table_is_refused():
    for given, error, says in (
        ((3, TREE), TypeError, "expected a function of the inputs"),
        ((f, {}), TypeError, "expected a tree of arrays"),
        ((f, {"a": jnp.ones((2, 3), int)}), TypeError, "expected floats in every array"),
        ((f, {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 3))}), ValueError, "of one N"),
        ((f, {"a": jnp.ones(2)}), ValueError, "add the axis"),
        ((f, {"a": jnp.full((2, 1), jnp.nan)}), ValueError, "expected finite `x`"),
    ):
        with pytest.raises(error, match=says):
            metrics.as_table(*given)
    table = metrics.as_table(f, TREE)
    with pytest.raises(TypeError, match="expected a tree as the inputs"):
        table.flat({"age": 0.0})
    with pytest.raises(ValueError, match="arrays of the inputs' shapes"):
        table.flat(TREE | {"pixels": TREE["pixels"].sum(-1)})
