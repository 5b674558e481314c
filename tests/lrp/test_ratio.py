import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai.lrp.rules import ratio

# Exact zeros of both signs, a subnormal number, values below and above TINY.
VALUES = [0.0, -0.0, 1e-39, 1e-25, -1e-25, 1e-12, -3.0, 7.0, 1e30]


@pytest.mark.parametrize("relevance", [0.0, -2.0, 1e-3, 1e15])
def test_relevance_comes_back_whole_from_any_activation(relevance):
    x = jnp.array(VALUES)
    through = ratio.to_ratio(jnp.full_like(x, relevance), x)
    assert np.isfinite(through).all()
    np.testing.assert_allclose(ratio.to_relevance(through, x), relevance, rtol=1e-6)


def test_ratio_is_the_quotient_away_from_zero():
    x = jnp.array([1e-12, -3.0, 7.0])
    np.testing.assert_allclose(ratio.to_ratio(jnp.ones(3), x), 1 / x, rtol=1e-6)


def test_gradients_are_finite_at_zero():
    x = jnp.array(VALUES)
    for relevance in (0.0, 1.0):
        there_and_back = lambda x, r=relevance: (  # noqa: E731
            ratio.to_relevance(ratio.to_ratio(jnp.full_like(x, r), 2 * x), x).sum()
        )
        assert np.isfinite(jax.grad(there_and_back)(x)).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtype_is_kept(dtype):
    x = jnp.array([0.0, 2.0], dtype)
    assert ratio.to_ratio(x, x).dtype == ratio.to_relevance(x, x).dtype == dtype
    assert ratio.stabilize(x, 0.1).dtype == ratio.replace_zeros(x, 0.1).dtype == dtype


def test_the_sign_of_zero_is_positive_in_the_stabilizer():
    z = jnp.array([-2.0, 0.0, 3.0])
    np.testing.assert_allclose(ratio.stabilize(z, 0.5), [-2.5, 0.5, 3.5])
    np.testing.assert_allclose(ratio.replace_zeros(z, 0.5), [-2.0, 0.5, 3.0])
