"""Continuity against a loop over shifted images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics
from jxai.compiled import Compiled

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 5, 6, 2)).astype(np.float32)
TARGET = np.array([1, 0])


def explain(x, target):
    return (x**2 * (1 + target[:, None, None, None])).sum(axis=-1)


def shifted(x, down, right, baseline):
    out = np.full_like(x, baseline)
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            if 0 <= row - down < x.shape[0] and 0 <= column - right < x.shape[1]:
                out[row, column] = x[row - down, column - right]
    return out


def slow(shifts, baseline):
    values = []
    for x, target in zip(X, TARGET, strict=True):
        heat = (x**2).sum(axis=-1) * (1 + target)
        ratios = []
        for down, right in shifts:
            other = shifted(x, down, right, baseline)
            change = np.abs((other**2).sum(axis=-1) * (1 + target) - heat).sum()
            ratios.append(change / np.linalg.norm(x - other))
        values.append(max(ratios))
    return values


@pytest.mark.parametrize(
    "shifts", [[(1, 0), (-2, 3)], pytest.param(((0, -9), (4, 5)), marks=pytest.mark.slow)]
)
def test_it_is_its_definition(shifts):
    run = jax.jit(lambda x: metrics.continuity(explain, x, TARGET, shifts=shifts, baseline=0.5))
    np.testing.assert_allclose(run(X), slow(shifts, 0.5), rtol=1e-5)


def test_a_program_of_its_own_takes_the_explanations_that_are_known():
    """Of a metric of `evaluate`: the image itself is not explained again."""

    class Program(Compiled):
        def __call__(self, x, target):
            asked.append(x)
            return explain(x, target)

    asked, options = [], {"shifts": [(1, 0), (-2, 3)], "baseline": 0.5}
    found = metrics.continuity(Program(), X, TARGET, explained=explain(X, TARGET), **options)
    np.testing.assert_allclose(found, slow(options["shifts"], 0.5), rtol=1e-5)
    assert len(asked) == 2


def test_shifts_by_default_are_horizontal_up_to_the_edges():
    every = [(0, right) for right in range(-5, 6) if right]
    np.testing.assert_allclose(metrics.continuity(explain, X, TARGET), slow(every, 0), rtol=1e-5)


def test_an_image_that_does_not_change():
    flat = jnp.full((2, 5, 6, 2), 0.5)
    assert not metrics.continuity(explain, flat, TARGET, baseline=0.5).any()
    constant = lambda x, target: jnp.ones(len(x))  # noqa: E731
    assert not metrics.continuity(constant, X, TARGET).any()


def test_an_explanation_that_is_linear_in_the_image():
    """‖a‖₁ / ‖a‖₂ is at most √n."""
    found = metrics.continuity(lambda x, target: x, X, TARGET)
    assert (found >= 1).all() and (found <= np.sqrt(X[0].size)).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"shifts": [(0, 0), (0, 1)]}, "other than"),
        ({"shifts": []}, "at least one"),
        ({"shifts": [1, 2]}, "pairs"),
        ({"baseline": jnp.zeros(7)}, "broadcasts"),
        ({"x": X[..., 0]}, "shifts are of images"),
        ({"explain": lambda x, target: x.sum()}, "one explanation an input"),
    ],
)
def test_errors(options, match):
    given = {"explain": explain, "x": X, **options}
    with pytest.raises(ValueError, match=match):
        metrics.continuity(given.pop("explain"), given.pop("x"), TARGET, **given)
