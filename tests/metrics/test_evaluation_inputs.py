"""Methods by metrics on inputs that are no images: embeddings, tables and trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution, metrics

KEY = jax.random.key(3)
X = jax.random.uniform(jax.random.key(0), (5, 8, 8, 3))
W = jax.random.normal(jax.random.key(1), (13, 4))
TARGET = jnp.array([0, 1, 2, 3, 0])
MASK = jnp.zeros((5, 8, 8), bool).at[:, 2:5, 2:5].set(True)


def noisy(f, key, x, target):
    return attribution.smooth_grad(f, key, x, target, num_roots=2, noise_scale=0.1)


METHODS = {"gradient × input": attribution.input_x_gradient, "SmoothGrad": noisy}


def test_embeddings_tables_and_trees():
    """The numbers of the metrics themselves; a method is asked for what it knows, a tree or an array."""
    seen = []

    def of_tree(age, words):
        seen.append(words.shape[1:])
        return jnp.tanh(jnp.concatenate([age, words.reshape(len(age), -1)], axis=1) @ W)

    tree = X[:, 0, 0, :1], X[:, :4, 1]  # (5, 1) and (5, 4, 3)
    options = {"metrics": ("deletion", "sparseness"), "batch_size": 2, "progress": False}
    found = metrics.evaluate(of_tree, KEY, tree, TARGET, methods=METHODS, **options)
    table = metrics.as_table(of_tree, tree)
    product = table.flat(attribution.input_x_gradient(of_tree, tree, TARGET))
    assert found.scores["SmoothGrad"]["deletion"].shape == (5,) and set(seen) == {(4, 3)}
    of_table = metrics.evaluate(table.f, KEY, table.values, TARGET, methods=METHODS, **options)
    words = X[:, :4, 1]
    of_words = metrics.evaluate(
        lambda z: of_tree(z[:, 0, :1], z), KEY, words, TARGET, methods=METHODS, **options
    )
    token = attribution.input_x_gradient(lambda z: of_tree(z[:, 0, :1], z), words, TARGET).sum(axis=-1)
    for name, at, f, x, heatmap in (
        ("tree", found, table.f, table.values, product),
        ("table", of_table, table.f, table.values, product),
        ("embeddings", of_words, lambda z: of_tree(z[:, 0, :1], z), words, token),
    ):
        scores = at.scores["gradient × input"]
        curve = metrics.deletion(f, x, heatmap, TARGET, num_steps=20)
        np.testing.assert_allclose(scores["deletion"], metrics.curve_area(curve), rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(scores["sparseness"], metrics.sparseness(heatmap), rtol=1e-5)
    # Another function reaches the method as one of trees, and what moves is the table.
    own = {
        "doubled": lambda c: abs(c.explain(c.x, c.target, f=lambda v: 2 * c.f(v)) - 2 * c.attributions).max(
            1
        ),
        "moved": lambda c: metrics.maximum_sensitivity(c.explain, c.key, c.x, c.target, num_samples=2),
    }
    options |= {"metrics": own, "directions": dict.fromkeys(own, "lower")}
    found = metrics.evaluate(of_tree, KEY, tree, TARGET, methods=METHODS, **options).scores["SmoothGrad"]
    assert (found["doubled"] < 1e-6).all() and (found["moved"] > 0).all()


@pytest.mark.parametrize(
    ("x", "changes", "message"),
    [
        (X[:, 0, 0], {"metrics": ("road",)}, r"\(N, H, W"),
        (X[:, 0, 0], {"metrics": ("insertion",)}, "a baseline for inputs that are no images"),
        (
            X[:, 0],
            {"methods": {"a": lambda f, x, target: x[:, 0]}},
            r"heat maps \(2, 8\) of 'a', got \(2, 3\)",
        ),
        ({"a": X[:, 0]}, {"methods": {"a": lambda f, x, target: x["a"]}}, "expected a tree as the inputs"),
        ({"a": X[:, 0, 0].astype(int)}, {}, "expected floats in every array"),
        ((X, X[:2]), {}, "of one N"),
        (X[:, 0, 0, 0], {}, "add their axis|add the axis"),
        (X[:, 0, 0], {"mask": MASK}, r"a mask of booleans \(5, 3\)"),
    ],
)
def test_what_is_refused_of_other_inputs(x, changes, message):
    def f(*given):
        leaf = jax.tree.leaves(given)[0]
        return jnp.stack([leaf.reshape(len(leaf), -1).sum(axis=1)] * 4, axis=1)

    given = {"methods": METHODS, "metrics": ("sparseness",), "batch_size": 2, "progress": False}
    with pytest.raises((ValueError, TypeError), match=message):
        metrics.evaluate(f, KEY, x, TARGET, **(given | changes))
