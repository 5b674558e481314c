import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jxai import metrics

KEY = jax.random.key(0)
SHAPE = (3, 6, 5, 2)
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=SHAPE), jnp.float32)
WEIGHTS = jnp.asarray(RNG.normal(size=SHAPE[1:]), jnp.float32)
TARGET = jnp.array([0, 1, 0])


def linear(x):
    score = (x * WEIGHTS).sum(axis=(1, 2, 3))
    return jnp.stack([score, -score], axis=1)


def test_of_a_linear_network_it_is_the_masked_features_mean_contribution():
    # Every feature of the explanation goes with the probability count / size: FFid+ is that share of its sum.
    contributions = np.asarray((X * WEIGHTS).sum(axis=-1)) * np.array([1, -1, 1])[:, None, None]
    found = metrics.f_fidelity(
        linear, KEY, X, jnp.asarray(contributions), TARGET, sizes=(0.2, 0.5), beta=0.25, num_samples=4000
    )
    order = np.sort(contributions.reshape(3, -1), axis=1)[:, ::-1]
    for column, size in enumerate((6, 15)):
        # Of 30 features β = 1/4 are 7 at most; α = 1/2.
        plus = min(size // 2, 7) / size * order[:, :size].sum(axis=1)
        minus = min((30 - size) // 2, 7) / (30 - size) * order[:, size:].sum(axis=1)
        np.testing.assert_allclose(found.plus[:, column], plus, atol=0.15)
        np.testing.assert_allclose(found.minus[:, column], minus, atol=0.15)
    assert (found.plus > found.minus).all()


@pytest.mark.parametrize(
    ("size", "alpha", "beta", "plus", "minus"),
    [(0.2, 0.5, 1.0, 3, 12), (0.2, 0.5, 0.1, 3, 3), (0.8, 1.0, 0.1, 3, 3), (0.01, 0.1, 0.01, 1, 1)],
)
def test_so_many_features_go_and_none_of_the_other_side(size, alpha, beta, plus, minus):
    heatmap = jnp.asarray(RNG.permutation(30).reshape(1, 6, 5), jnp.float32)
    count = max(1, round(size * 30))
    relevant = heatmap >= 30 - count
    ones = jnp.ones((1, 6, 5, 1))
    both = jnp.stack([relevant, ~relevant], axis=-1).astype(jnp.float32)
    # The score of class 0 counts what is left of the explanation, of class 1 what is left of the rest.
    for target in (0, 1):
        found = metrics.f_fidelity(
            lambda x: (x * both).sum(axis=(1, 2)),
            KEY,
            ones,
            heatmap,
            jnp.array([target]),
            sizes=(size,),
            alpha_plus=alpha,
            alpha_minus=alpha,
            beta=beta,
            num_samples=3,
        )
        assert found.plus.item() == pytest.approx(plus * (target == 0), abs=1e-5)
        assert found.minus.item() == pytest.approx(minus * (target == 1), abs=1e-5)


def test_masks_are_uniform_up_to_the_share_and_take_all_channels():
    masked = metrics.randomly_masked(KEY, jnp.ones((4000, 5, 4, 2)), share=0.29 + 0.01, baseline=-1.0)
    gone = np.asarray(masked) == -1
    assert (gone[..., 0] == gone[..., 1]).all()
    counts = np.bincount(gone[..., 0].sum(axis=(1, 2)), minlength=7)
    # 0 to 6 of 20, each a seventh of 4000 (571, standard deviation 22).
    assert len(counts) == 7 and (abs(counts - 4000 / 7) < 90).all()
    assert np.ptp(gone[..., 0].mean(axis=0)) < 0.05
    table = metrics.randomly_masked(KEY, jnp.ones((50, 10)), share=0.3)
    assert set(np.unique((np.asarray(table) == 0).sum(axis=1))) == {0, 1, 2, 3}


def test_a_mask_depends_on_the_key_and_the_place_alone():
    whole = metrics.randomly_masked(KEY, X, share=0.5)
    np.testing.assert_array_equal(whole[:2], metrics.randomly_masked(KEY, X[:2], share=0.5))
    assert (whole != metrics.randomly_masked(jax.random.key(1), X, share=0.5)).any()
    np.testing.assert_array_equal(jax.jit(metrics.randomly_masked)(KEY, X), metrics.randomly_masked(KEY, X))


def test_a_tuned_network_minds_masks_less_than_the_explanation():
    # Class 1 where the mean of four equal columns is positive; untuned, it looks at all 8 alike by chance.
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, 256)
    x = rng.normal(size=(256, 8)).astype(np.float32)
    x[:, :4] += (2 * label - 1)[:, None]
    x, label = jnp.asarray(x), jnp.asarray(label)
    params = jnp.zeros((8, 2))
    optimizer = optax.adam(0.05)

    def loss(params, x):
        return optax.softmax_cross_entropy_with_integer_labels(x @ params, label).mean()

    @jax.jit
    def step(carry, key):
        params, state = carry
        updates, state = optimizer.update(
            jax.grad(loss)(params, metrics.randomly_masked(key, x, share=0.5)), state
        )
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(KEY, 60))
    relevance = jnp.tile(jnp.where(jnp.arange(8) < 4, 1.0, 0.0), (256, 1))
    right, wrong = (
        metrics.f_fidelity(
            lambda x: jax.nn.softmax(x @ params), KEY, x, sign * relevance, label, sizes=(0.5,), beta=0.5
        )
        for sign in (1, -1)
    )
    assert right.plus.mean() > 0.03 + right.minus.mean()
    assert wrong.plus.mean() + 0.03 < wrong.minus.mean()


def test_one_feature_has_nothing_beside_it():
    with pytest.raises(ValueError, match="two features"):
        metrics.f_fidelity(lambda x: x, KEY, jnp.ones((2, 1)), jnp.ones((2, 1)), jnp.zeros(2, int))


def test_a_baseline_that_is_not_finite_is_refused_before_a_network_learns_from_it():
    nowhere = lambda x, mask, key: jnp.full_like(x, jnp.nan)  # noqa: E731
    with pytest.raises(ValueError, match="expected finite masked inputs"):
        metrics.randomly_masked(KEY, jnp.ones((2, 10)), share=1.0, baseline=nowhere)
