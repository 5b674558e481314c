"""Calls outside of `jax.jit`, one after the other: what they compile they compile once, and they keep nothing."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

_spec = importlib.util.spec_from_file_location("nan_cases", Path(__file__).with_name("test_nan.py"))
nan = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(nan)

# Each runs loops of JAX whose bodies are closures.
CALLS = {
    "adaptive_noise": lambda: nan.OF_NO_FUNCTION["adaptive_noise"](nan.X),
    "continuity": lambda: nan.OF_IMAGES["continuity"](nan.X),
    "maximum_sensitivity": lambda: nan.OF_IMAGES["maximum_sensitivity"](nan.X),
    "model_randomization": lambda: nan.OF_HEATMAPS["model_randomization"](nan.HEATMAP),
    "perturbation_curve": lambda: nan.OF_BOTH["perturbation_curve"](nan.X, nan.HEATMAP),
    "perturbation_positions": lambda: nan.OF_HEATMAPS["perturbation_positions"](nan.HEATMAP),
    "random_logit": lambda: nan.OF_IMAGES["random_logit"](nan.X),
    "relative_representation_stability": lambda: nan.OF_IMAGES["relative_representation_stability"](nan.X),
    "smooth_model_randomization": lambda: nan.OF_IMAGES["smooth_model_randomization"](nan.X),
    "smooth_taylor": lambda: nan.ESTIMATORS["smooth_taylor"](nan.X),
}


def make_functions(number):
    """A network and an explanation, closures over weights that no call before had."""
    weights = nan.WEIGHTS + 0.01 * number

    def f(x):
        return jax.nn.relu(x.reshape(len(x), -1) @ weights) + 1

    return f, lambda x, target: jnp.sin(jax.nn.relu(x)) * weights[0, 0]


@pytest.mark.long
@pytest.mark.parametrize("name", CALLS)
def test_two_hundred_calls_compile_nothing_and_take_no_memory(name, monkeypatch, compilations, memory):
    found = []
    for number in range(200):
        f, explain = make_functions(number)
        monkeypatch.setattr(nan, "f", f)
        monkeypatch.setattr(nan, "explain", explain)
        found.append(np.asarray(jax.tree.leaves(CALLS[name]())[0]))
        if number == 3:
            compilations.clear()
        if number == 50:
            before = memory()
    assert not compilations
    assert memory() - before < 20
    assert np.isfinite(found).all()
