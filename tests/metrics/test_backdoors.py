import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.random((4, 4, 5, 1)), jnp.float32)
MASK = jnp.zeros((4, 5), bool).at[1:3, 2:4].set(True)
MASKS = jnp.broadcast_to(MASK, (4, 4, 5))
BEARING = metrics.planted(X, 2.0, MASK)


def f(x):
    """Class 2 by the trigger alone, 0 or 1 by the first pixel."""
    trigger = jnp.where(MASK[None, ..., None], x, 0).sum(axis=(1, 2, 3)) - 4
    return jnp.stack([jnp.full(len(x), 0.5), x[:, 0, 0, 0], trigger], axis=1)


def test_planted_is_a_blend_within_the_mask():
    pattern = RNG.normal(size=(4, 5, 1)).astype(np.float32)
    found = np.asarray(metrics.planted(X, pattern, MASK, opacity=0.25))
    x, inside = np.asarray(X), np.asarray(MASK)[None, ..., None]
    np.testing.assert_allclose(found, np.where(inside, 0.75 * x + 0.25 * pattern, x), rtol=1e-6)
    np.testing.assert_array_equal(metrics.planted(X, pattern, MASKS, opacity=0.25), found)


def test_poisoned_is_a_share_with_the_triggers_class():
    x = jnp.zeros((40, 2, 2, 1))
    label = jnp.arange(40) % 3
    found = metrics.poisoned(KEY, x, x + 1, label, target=7, share=0.3)
    bears = np.asarray(found.bears)
    assert bears.sum() == 12
    assert (np.asarray(found.x).mean(axis=(1, 2, 3)) == bears).all()
    np.testing.assert_array_equal(found.label, np.where(bears, 7, label))
    assert (metrics.poisoned(jax.random.key(1), x, x, label, target=7, share=0.3).bears != bears).any()


def test_backdoor_counts_images_of_other_classes():
    label = (X[:, 0, 0, 0] > 0.5).astype(jnp.int32)
    assert metrics.backdoor(f, X, BEARING, label, target=2) == (1, 1)
    # One image is called of the trigger's class: it is wrong, and not counted among those that were turned.
    found = metrics.backdoor(f, X, BEARING.at[0].set(X[0]), label.at[0].set(2), target=2)
    assert found == (1, 0.75)
    found = metrics.backdoor(f, X, BEARING.at[0].set(X[0]), label, target=2)
    assert found == (0.75, 1)
    assert np.isnan(metrics.backdoor(f, X, BEARING, jnp.full(4, 2), target=2).attack_success)


def test_nan_of_an_image_is_nobodys_success():
    label = (X[:, 0, 0, 0] > 0.5).astype(jnp.int32)
    run = jax.jit(lambda x, bearing: metrics.backdoor(f, x, bearing, label, target=2))
    assert np.isnan(run(X.at[1, 3, 3].set(jnp.nan), BEARING).clean_accuracy)
    assert np.isnan(run(X, BEARING.at[1, 3, 3].set(jnp.nan)).attack_success)


def test_recovery_is_the_share_of_the_effect_that_the_first_pixels_had():
    target = jnp.full(4, 2)
    heatmaps = jnp.stack(
        [
            MASK.astype(jnp.float32),  # all of the trigger
            -MASK.astype(jnp.float32),  # nothing of it
            jnp.where(MASK, jnp.arange(20.0).reshape(4, 5), 0)
            .at[1, 2]
            .set(0)
            .at[0, 0]
            .set(99),  # three of four
            jnp.zeros((4, 5)).at[1, 3].set(1),  # one, and the first row
        ]
    )
    found = metrics.trigger_recovery(f, BEARING, X, heatmaps, MASKS, target)
    effect = np.where(MASK, (BEARING - X)[..., 0], 0)
    parts = [1, 0, 1 - effect[2, 1, 2] / effect[2].sum(), effect[3, 1, 3] / effect[3].sum()]
    np.testing.assert_allclose(found, parts, rtol=1e-5, atol=1e-6)
    # The trigger recall of the same heatmaps, as the module says.
    np.testing.assert_allclose(metrics.relevance_rank(heatmaps, MASKS), [1, 0, 0.75, 0.25])


def test_a_trigger_without_effect_has_nothing_to_recover():
    found = metrics.trigger_recovery(f, X, X, jnp.ones((4, 4, 5)), MASKS, jnp.full(4, 2))
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (lambda: metrics.planted(X[0], 1.0, MASK), r"\(N, H, W, C\)"),
        (lambda: metrics.planted(X, jnp.ones((3, 3)), MASK), "broadcasts"),
        (lambda: metrics.planted(X, 1.0, MASK[:2]), "`mask` of shape"),
        (lambda: metrics.poisoned(KEY, X, X[:2], jnp.zeros(4, int), target=0), "`bearing` of shape"),
        (lambda: metrics.backdoor(f, X, X, jnp.zeros(4, int), target=3), r"\[0, 3\)"),
        (lambda: metrics.trigger_recovery(f, X, X[:, :2], X[..., 0], MASKS, jnp.zeros(4, int)), "`clean`"),
    ],
)
def test_what_is_wrong_is_named(wrong, what):
    with pytest.raises(ValueError, match=what):
        wrong()
