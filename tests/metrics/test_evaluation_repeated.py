"""A thousand calls of `evaluate` and of a metric: they compile once, and keep nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution, metrics

KEY = jax.random.key(0)
X = jax.random.uniform(jax.random.key(1), (2, 8, 8, 3))
TARGET = jnp.array([0, 1])
WEIGHTS = jax.random.normal(jax.random.key(2), (8 * 8 * 3, 3))


def scores_of(number):
    weights = WEIGHTS * (1 + 0.001 * number)  # a closure over weights that no call before had
    return lambda x: jnp.tanh(x.reshape(len(x), -1) @ weights / 8)


def removed(c):
    return metrics.curve_area(metrics.deletion(c.f, c.x, c.heatmap, c.target, num_steps=2))


def moved(c):
    return metrics.maximum_sensitivity(c.explain, c.key, c.x, c.target, num_samples=1)


def evaluate(number):
    return metrics.evaluate(
        scores_of(number),
        KEY,
        X,
        TARGET,
        methods={"gradient": attribution.gradient},
        metrics={"deletion": removed, "maximum_sensitivity": moved},
        control=False,
        batch_size=1,
        progress=False,
    ).means()["gradient"]["deletion"]


def deletion(number):
    f = scores_of(number)
    heatmap = attribution.gradient(f, X, TARGET).sum(axis=-1)
    return float(metrics.deletion(f, X, heatmap, TARGET, num_steps=4).mean())


def check(call, count, memory, compilations):
    found, before = [], 0.0
    for number in range(count):
        found.append(call(number))
        if number == 2:
            compilations.clear()
        if number == min(50, count // 2):
            before = memory()
    assert not compilations
    assert memory() - before < 20
    assert np.isfinite(found).all() and len(set(found)) > count // 2


@pytest.mark.parametrize("call", [evaluate, deletion])
def test_calls_compile_once(call, memory, compilations):
    check(call, 5, memory, compilations)


@pytest.mark.long
@pytest.mark.parametrize("call", [evaluate, deletion])
def test_a_thousand_calls_compile_once_and_take_no_memory(call, memory, compilations):
    check(call, 1000, memory, compilations)
