"""The search for noise scales, against the paper's procedure written out for one image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution

KEY = jax.random.key(0)
X = jnp.ones((1, 2))


def slow_search(objective, start, step, decay, max_stops, max_iterations):
    """METHODS, section 3, as a loop over iterations."""
    scale = best = start
    value = best_value = objective(scale)
    trace, stops = [(scale, value)], 0
    for _ in range(max_iterations):
        tried = abs(scale + step)
        found = objective(tried)
        trace.append((tried, found))
        before = value
        if found > value:
            tried = abs(scale - step)
            found = objective(tried)
            trace.append((tried, found))
        scale, value = tried, found
        if value > before:
            if stops >= max_stops:
                break
            step, stops = decay * step, stops + 1
        else:
            stops = 0
            if value < best_value:
                best, best_value = scale, value
    return best, best_value, np.array(trace)


def bumpy(scale):
    return (scale - 0.8) ** 2 + 0.02 * jnp.sin(40 * scale)


@pytest.mark.parametrize("start", [0.05, 0.5, 1.3, 2.6])
def test_against_the_procedure(start):
    with jax.enable_x64(True):
        options = {"step": 0.13, "decay": 0.8, "max_stops": 2, "max_iterations": 11}
        best, value, trace = slow_search(lambda scale: float(bumpy(scale)), start, **options)
        x = jnp.asarray(X, jnp.float64)
        found = attribution.adaptive_noise(lambda key, x, scale: bumpy(scale), KEY, x, start=start, **options)
        count = int(found.num_evaluations[0])
        assert count == len(trace)
        np.testing.assert_allclose(found.scales[0, :count], trace[:, 0], rtol=1e-10)
        np.testing.assert_allclose(found.values[0, :count], trace[:, 1], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose([found.noise_scale[0], found.value[0]], [best, value], rtol=1e-9)


def test_many_images_at_once_are_each_alone():
    starts = jnp.array([0.05, 0.5, 1.3, 2.6])
    search = jax.jit(
        lambda starts: attribution.adaptive_noise(
            lambda key, x, scale: bumpy(scale), KEY, jnp.ones((len(starts), 2)), start=starts
        )
    )
    together = search(starts)
    assert together.scales.shape == (4, 41)
    for index in range(4):
        alone = search(starts[index : index + 1])
        for many, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(many[index], one[0], rtol=1e-5, atol=1e-6)


def test_one_program_evaluates_the_objective_once_a_round():
    calls = []

    def objective(key, x, scale):
        calls.append(scale.shape)
        return bumpy(scale)

    jax.jit(lambda x: attribution.adaptive_noise(objective, KEY, x))(jnp.ones((3, 2)))
    assert (
        set(calls) == {(3,)} and len(calls) <= 3
    )  # traced for its shape and for the loop, not once an evaluation


def test_draws_are_the_same_or_fresh():
    def objective(key, x, scale):
        return scale * 0 + jax.random.uniform(key)

    same = attribution.adaptive_noise(objective, KEY, X)
    values = same.values[0, : int(same.num_evaluations[0])]
    assert len(set(values.tolist())) == 1
    fresh = attribution.adaptive_noise(objective, KEY, X, fresh=True)
    values = fresh.values[0, : int(fresh.num_evaluations[0])].tolist()
    assert len(set(values)) == len(values)


def test_the_start_is_the_mean_magnitude():
    x = jnp.array([[1.0, -3.0], [0.0, 0.0]])
    found = attribution.adaptive_noise(lambda key, x, scale: scale, KEY, x, max_iterations=1)
    np.testing.assert_allclose(found.scales[:, 0], [2.0, 0.1])  # a black image starts at the step


def test_trees():
    """The objective gets the tree, ids and all; the start is the mean magnitude of its floats."""
    tree = {
        "a": jnp.array([[1.0], [2.0]]),
        "b": jnp.array([[3.0, -5.0], [0.0, 4.0]]),
        "ids": jnp.array([[7], [8]]),
    }

    def objective(key, x, scale):
        return (scale - x["b"][:, 1] / x["ids"][:, 0]) ** 2

    found = attribution.adaptive_noise(objective, KEY, tree, max_iterations=2)
    np.testing.assert_allclose(found.scales[:, 0], [3.0, 2.0])
    one = {name: leaf[1:] for name, leaf in tree.items()}
    alone = attribution.adaptive_noise(objective, KEY, one, max_iterations=2)
    np.testing.assert_allclose(alone.values[0], found.values[1], rtol=1e-6)
    for x, error, says in (
        ({"a": jnp.ones((2, 1)), "b": jnp.ones(())}, ValueError, "of one N"),
        ({"ids": jnp.ones((2, 3), int)}, TypeError, "expected floats in `x`, got int32"),
        ({"a": jnp.full((2, 1), jnp.nan)}, ValueError, "finite"),
    ):
        with pytest.raises(error, match=says):
            attribution.adaptive_noise(objective, KEY, x)


def test_nan_is_worse_than_anything():
    def objective(key, x, scale):
        return jnp.where(scale > 0.55, jnp.nan, -scale)

    found = attribution.adaptive_noise(objective, KEY, X, start=0.3)
    assert np.isfinite(found.value[0])
    assert 0.4 < found.noise_scale[0] <= 0.55


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0.0}, "step above 0"),
        ({"decay": 1.5}, r"decay in \(0, 1\]"),
        ({"max_stops": -1}, "max_stops of at least 0"),
        ({"max_iterations": 0}, "max_iterations of at least 1"),
        ({"start": -0.5}, "start above 0"),
        ({"start": jnp.ones(3)}, "one an image"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        attribution.adaptive_noise(lambda key, x, scale: scale, KEY, X, **options)


def test_an_objective_of_another_shape_is_named():
    with pytest.raises(ValueError, match="one value an image"):
        attribution.adaptive_noise(lambda key, x, scale: scale.sum(), KEY, X)
