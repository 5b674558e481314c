"""Maximum sensitivity of explanations whose movement is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

X = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
TARGET = jnp.asarray([0, 1])


def sensitivity(explain, **options):
    run = jax.jit(lambda key, x: metrics.maximum_sensitivity(explain, key, x, TARGET, **options))
    return np.asarray(run(jax.random.key(0), X))


def test_the_identity_moves_as_far_as_the_corner_of_the_box():
    value = sensitivity(lambda x, target: x, radius=0.1, num_samples=300)
    corner = 0.1 * np.sqrt(2)  # ‖d‖ is at most that, and of 300 draws one comes near
    assert 0.85 * corner < value[0] * 5 <= corner  # ‖(3, 4)‖ = 5
    assert np.isinf(value[1])  # from nothing to something


def test_constant_explanations_do_not_move():
    np.testing.assert_array_equal(sensitivity(lambda x, target: jnp.ones((len(x), 3))), 0)
    np.testing.assert_array_equal(sensitivity(lambda x, target: 0 * x), 0)


def test_it_is_relative_and_the_target_arrives():
    scaled = sensitivity(lambda x, target: 10 * x * (1 + target[:, None]) + 1, num_samples=4)
    plain = sensitivity(lambda x, target: x * (1 + target[:, None]) + 0.1, num_samples=4)
    np.testing.assert_allclose(scaled, plain, rtol=1e-4)


def test_an_estimator_with_a_fixed_key_does_not_move_by_its_own_noise():
    noisy = lambda x, target: 1 + 0 * x + jax.random.normal(jax.random.key(7), x.shape)  # noqa: E731
    np.testing.assert_array_equal(sensitivity(noisy, num_samples=3), 0)
    np.testing.assert_array_equal(sensitivity(noisy, num_samples=3, chunk_size=1), 0)


@pytest.mark.parametrize(
    ("explain", "options", "match"),
    [
        (lambda x, target: x.sum(), {}, "an array"),
        (lambda x, target: x, {"radius": 0.0}, "radius"),
        (lambda x, target: x, {"num_samples": 0}, "num_samples"),
        (lambda x, target: x, {"chunk_size": 0}, "chunk_size"),
    ],
)
def test_errors(explain, options, match):
    with pytest.raises(ValueError, match=match):
        sensitivity(explain, **options)


def test_explanations_that_are_not_finite_are_not_insensitive():
    def run(x):
        return metrics.maximum_sensitivity(
            lambda x, target: x * jnp.nan, jax.random.key(0), x, jnp.array([0]), num_samples=2
        )

    assert jnp.isnan(jax.jit(run)(jnp.ones((1, 3)))).all()
    with pytest.raises(ValueError, match="expected finite explanations, got 1 of 1"):
        run(jnp.ones((1, 3)))
