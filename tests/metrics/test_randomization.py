"""Model randomization of a network whose layers matter in a known way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6)), jnp.float32)


def arrays(seed):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=(6, 6)), jnp.float32) for name in ("kernel", "bias")}


def tree(seed):
    return {
        "params": {"bottom": {"conv": arrays(seed)}, "top": arrays(seed + 1), "unused": arrays(seed + 2)},
        "batch_stats": {"bottom": {"conv": {"mean": jnp.full((6, 6), float(seed))}}},
    }


VARIABLES, RANDOM = tree(0), tree(10)


def explain(variables):
    """A stand-in for a heatmap: batch statistics count, one layer does not."""
    parameters, statistics = variables["params"], variables["batch_stats"]
    bottom = X * parameters["bottom"]["conv"]["kernel"] + statistics["bottom"]["conv"]["mean"]
    return bottom * parameters["top"]["kernel"]


def mixed(*names):
    return {
        **VARIABLES,
        "params": {**VARIABLES["params"], **{name: RANDOM["params"][name] for name in names}},
    }


def likeness(others):
    """Both metrics of what is explained and the others: (N, others) each."""
    pairs = jnp.concatenate([explain(VARIABLES)] * len(others)), jnp.concatenate(others)
    both = metrics.rank_correlation(*pairs), metrics.structural_similarity(*pairs)
    return [values.reshape(len(others), -1).T for values in both]


@pytest.mark.parametrize("cascading", [True, False])
def test_each_step_is_the_explanation_of_a_mixed_model(cascading):
    layers = ("unused", "top", "bottom")
    options = {"layers": layers, "cascading": cascading}
    result = jax.jit(lambda: metrics.model_randomization(explain, VARIABLES, RANDOM, **options))()
    names = [layers[: step + 1] if cascading else layers[step : step + 1] for step in range(3)]
    expected = jax.jit(lambda: likeness([explain(mixed(*changed)) for changed in names]))()
    for field, values in zip(result, expected, strict=True):
        assert field.shape == (2, 3)
        np.testing.assert_allclose(field, values, atol=1e-5)
        np.testing.assert_allclose(field[:, 0], 1, atol=1e-5)  # what is not used
        assert (field[:, 1:] < 0.9).all()


def test_nothing_randomized_is_likeness_of_one():
    result = jax.jit(lambda: metrics.model_randomization(explain, VARIABLES, VARIABLES, cascading=False))()
    for field in result:
        np.testing.assert_allclose(field, 1, atol=1e-5)


def test_explain_is_traced_a_fixed_number_of_times():
    def count(*layers):
        traces = []

        def counted(variables):
            traces.append(1)
            return explain(variables)

        jax.eval_shape(lambda: metrics.model_randomization(counted, VARIABLES, RANDOM, layers=layers))
        return len(traces)

    assert count("top") == count("unused", "top", "bottom") <= 3


def test_layers_by_default_are_the_tree_reversed():
    assert metrics.randomization_layers(VARIABLES) == ("unused", "top", "bottom/conv")
    assert metrics.randomization_layers([jnp.ones(2), {"w": jnp.ones(3)}]) == ("1", "0")


def test_shuffled_parameters_keep_their_values():
    shuffled = jax.jit(lambda: metrics.shuffled_parameters(jax.random.key(0), VARIABLES))()
    assert jax.tree.structure(shuffled) == jax.tree.structure(VARIABLES)
    for before, after in zip(jax.tree.leaves(VARIABLES), jax.tree.leaves(shuffled), strict=True):
        np.testing.assert_array_equal(np.sort(before, axis=None), np.sort(after, axis=None))
    kernel, bias = (np.asarray(shuffled["params"]["top"][name]) for name in ("kernel", "bias"))
    assert (kernel != np.asarray(VARIABLES["params"]["top"]["kernel"])).any()
    assert (np.argsort(kernel, axis=None) != np.argsort(bias, axis=None)).any()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"layers": ["head"]}, r"\['head'\]: there are unused, top, bottom/conv"),
        ({"layers": ["bottom", "bottom/conv"]}, "of their own"),  # the first took everything
        ({"layers": []}, "got none"),
        ({}, "from the top down for a cascade"),
        ({"randomized": {"params": {}}}, "a tree like"),
        ({"explain": lambda variables: X[..., None], "cascading": False}, "sum attributions"),
    ],
)
def test_errors(change, match):
    arguments = {"explain": explain, "variables": VARIABLES, "randomized": RANDOM, **change}
    with pytest.raises(ValueError, match=match):
        metrics.model_randomization(**arguments)
