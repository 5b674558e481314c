"""Losses against their papers' formulas in NumPy, and what they do to a training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from guidance_registry import CONCEPT, HEAD, MASK, ONE_HOT, OTHER, TARGET, N, R, head

from jxai import attribution, guidance, lrp

r, other, mask = np.asarray(R, float), np.asarray(OTHER, float), np.asarray(MASK)


def test_right_reasons_are_those_of_the_paper():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5)), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(5, 3)), jnp.float32)
    inside = jnp.asarray([[1, 0, 1, 0, 1], [0, 0, 0, 1, 1]], bool)
    gradient = attribution.gradient(lambda x: x @ weights, x, guidance.sum_of_logs)
    # ∂/∂x Σ_k log p_k = Σ_k (W_k − Σ_j p_j W_j)
    p = np.asarray(jax.nn.softmax(x @ weights), float)
    wide = np.asarray(weights, float)
    slope = wide.sum(axis=1)[None] - 3 * p @ wide.T
    np.testing.assert_allclose(
        guidance.right_reasons(gradient, inside), ((np.asarray(inside) * slope) ** 2).sum(axis=1), rtol=1e-5
    )


@pytest.mark.parametrize("decay", [1.0, 0.6])
def test_background_is_that_of_the_paper(decay):
    for i, found in enumerate(guidance.background(R, MASK, decay=decay, scale=2.0, stabilizer=1e-9)):
        h = np.abs(r[i]) / np.abs(r[i])[mask[i]].mean()
        outside = np.sort((h * ~mask[i][..., None]).ravel())[::-1]
        weights = decay ** np.arange(outside.size)
        pooled = (weights * outside).sum() / weights.sum()
        np.testing.assert_allclose(found, -np.log(1 - pooled / (pooled + 2)), rtol=1e-5)


def test_background_without_a_foreground_is_bounded():
    nowhere, all_over = jnp.zeros_like(MASK), jnp.ones_like(MASK)
    assert guidance.background(R, all_over).tolist() == [0] * N
    np.testing.assert_allclose(guidance.background(R, nowhere), np.log1p(1000), rtol=1e-4)


def test_the_foreground_has_a_range():
    held = np.abs(r * mask[..., None]).sum(axis=(1, 2, 3))
    least, most = float(held.mean()), float(held.mean()) * 1.01
    wanted = np.maximum(0, 1 - held / least) ** 2 + np.maximum(0, held / most - 1) ** 2
    np.testing.assert_allclose(guidance.foreground_range(R, MASK, least=least, most=most), wanted, rtol=1e-4)


def test_disagreement_is_one_less_the_cosine():
    flat, reference = r.reshape(N, -1), other.reshape(N, -1)
    cosine = (flat * reference).sum(1) / np.linalg.norm(flat, axis=1) / np.linalg.norm(reference, axis=1)
    np.testing.assert_allclose(guidance.disagreement(R, OTHER), 1 - cosine, rtol=1e-5)
    assert guidance.disagreement(R, jnp.zeros_like(R)).tolist() == [1] * N


def test_unfaithfulness_without_softness_is_of_pixels_that_are_there_or_not():
    x, sums = np.asarray(OTHER, float), r.sum(axis=-1)
    shares, base = (0.2, 0.5, 0.9), np.array([0.3, -0.2])
    right = np.zeros(N)
    for i in range(N):
        order = np.argsort(-sums[i].ravel())
        for share in shares:
            top = np.isin(np.arange(order.size), order[: round(share * order.size)]).reshape(sums[i].shape)
            rows = [np.where(gone[..., None], base, x[i])[None] for gone in (top, ~top)]
            without, alone = (np.asarray(head(jnp.asarray(row, jnp.float32)))[0, TARGET[i]] for row in rows)
            right[i] += (without - alone) / len(shares)
    options = {"shares": shares, "softness": 1e-4, "baseline": base}
    np.testing.assert_allclose(
        guidance.unfaithfulness(head, OTHER, R.sum(axis=-1), TARGET, **options), right, atol=1e-4
    )
    whole = guidance.unfaithfulness(head, OTHER, jnp.ones_like(R), TARGET)
    np.testing.assert_allclose(whole, 0, atol=1e-5)  # all are alike: half of each everywhere


def test_the_softer_the_more_entries_have_a_slope():
    counts = [
        (
            np.abs(
                jax.grad(
                    lambda one, s=softness: guidance.unfaithfulness(
                        head, OTHER, one, TARGET, shares=(0.5,), softness=s
                    ).sum()
                )(R)
            )
            > 1e-4
        ).sum()
        for softness in (0.02, 0.2, 0.8)
    ]
    assert counts[0] < counts[1] < counts[2]


def test_unfaithfulness_refuses_what_does_not_fit():
    for spoilt, says in (
        ({"relevance": R[:, :3]}, "expected relevance"),
        ({"target": TARGET[:2]}, "expected target"),
        ({"target": TARGET + 5}, r"expected target in \[0, 3\)"),
        ({"target": TARGET * 1.0}, "expected target of integers"),
        ({"shares": (0.0,)}, "expected shares in"),
        ({"shares": 0.5}, "expected shares of the entries"),
        ({"softness": 0.0}, "expected softness in"),
        ({"baseline": np.ones(7)}, "expected a baseline that broadcasts"),
        ({"baseline": np.nan}, "expected finite baseline"),
        ({"f": lambda x: head(x)[:, 0]}, "expected f to give scores"),
    ):
        given = {"f": head, "x": OTHER, "relevance": R, "target": TARGET} | spoilt
        with pytest.raises(ValueError, match=says):
            guidance.unfaithfulness(**given)


def test_an_equivariant_explanation_is_consistent():
    def flip(z):
        return z[:, :, ::-1]

    np.testing.assert_allclose(guidance.inconsistency(jnp.sin, flip, R), 0, atol=1e-6)
    assert (guidance.inconsistency(lambda z: jnp.cumsum(z, axis=2), flip, R) > 0.1).all()


def test_roughness_counts_neighbors():
    board = jnp.asarray(np.indices((64, 64)).sum(axis=0) % 2 * 2 - 1, jnp.float32)
    # 2 · 64 · 63 pairs that differ by 2, 64² values of 1
    np.testing.assert_allclose(guidance.roughness(board[None]), 4 * 63 / 64, rtol=1e-6)
    assert guidance.roughness(jnp.ones((1, 4, 4))).tolist() == [0]


def test_density_is_1_of_what_is_spread_and_a_pixels_share_of_what_is_not():
    one = jnp.zeros((1, 4, 5)).at[0, 2, 2].set(-3)
    np.testing.assert_allclose(
        guidance.density(jnp.concatenate([one, jnp.ones_like(one)])), [1 / 20, 1], rtol=1e-6
    )


def test_a_concept_is_the_difference_of_means():
    present = jnp.asarray([True, False, True])
    pooled = r.mean(axis=(1, 2))
    apart = pooled[[0, 2]].mean(axis=0) - pooled[1]
    found = guidance.concept_vector(R, present)
    np.testing.assert_allclose(found, apart / np.linalg.norm(apart), rtol=1e-5)
    covariance = np.cov(pooled.T, np.asarray(present, float), bias=True)[:2, 2]
    np.testing.assert_allclose(found, covariance / np.linalg.norm(covariance), rtol=1e-5)


def test_concept_sensitivity_is_the_gradients_product_with_the_concept():
    gradient = jax.grad(lambda a: (ONE_HOT * head(a)).sum())(R)
    wanted = (np.asarray(gradient) @ np.asarray(CONCEPT)).sum(axis=(1, 2)) ** 2
    np.testing.assert_allclose(guidance.concept_sensitivity(head, R, ONE_HOT, CONCEPT), wanted, rtol=1e-4)


def test_a_concept_is_held_at_its_origin_where_it_shall_be():
    origin = jnp.asarray([0.5, -1.0])
    changed = guidance.without_concept(R, CONCEPT, origin)
    np.testing.assert_allclose(changed @ CONCEPT, jnp.full(R.shape[:-1], origin @ CONCEPT), atol=1e-5)
    across = jnp.asarray([-0.8, 0.6])
    np.testing.assert_allclose(changed @ across, R @ across, atol=1e-5)
    where = jnp.asarray([False, True, False])
    some = guidance.without_concept(R, CONCEPT, origin, where=where)
    np.testing.assert_array_equal(some, jnp.where(where[:, None, None, None], changed, R))


def test_drawn_classes_are_the_label_half_of_the_time_and_all_others_alike():
    labels = jnp.full(30_000, 2)
    shares = np.bincount(guidance.drawn_classes(jax.random.key(0), labels, 4), minlength=4) / 30_000
    np.testing.assert_allclose(shares, [1 / 6, 1 / 6, 1 / 2, 1 / 6], atol=0.01)


def test_weighted_scores_are_those_of_the_weighted_features():
    def explain(z):
        return lrp.relevance(head, z, jnp.asarray([2, 0, 1]), composite=lrp.EpsilonPlus())

    weights = 1 + 0.5 * np.asarray(explain(R)) / np.abs(np.asarray(explain(R))).max(axis=-1, keepdims=True)
    found = guidance.weighted_scores(head, explain, R, strength=0.5)
    np.testing.assert_allclose(found, np.tanh((r * weights).reshape(N, -1)) @ np.asarray(HEAD), rtol=1e-4)
    # Through the weights or not is the gradient's matter alone.
    np.testing.assert_array_equal(
        found, guidance.weighted_scores(head, explain, R, strength=0.5, through=True)
    )
    slopes = [
        jax.grad(
            lambda z, through=through: guidance.weighted_scores(head, explain, z, through=through).sum()
        )(R)
        for through in (False, True)
    ]
    assert np.abs(slopes[0] - slopes[1]).max() > 1e-3


def dense(params, x):
    return jax.nn.relu(x @ params["a"]) @ params["b"]


def attentive(params, x):
    """A block of attention with layer norm and a gated network, on four tokens of one number each."""
    tokens = x[..., None] * params["a"][0]
    apart = tokens - tokens.mean(-1, keepdims=True)
    normed = apart * jax.lax.rsqrt((apart**2).mean(-1, keepdims=True) + 0.1)
    weights = jax.nn.softmax(normed @ normed.swapaxes(1, 2))
    tokens = tokens + weights @ (normed * params["a"][1])
    return (jax.nn.silu(tokens * params["a"][2]) * tokens).mean(axis=1) @ params["b"]


@pytest.mark.parametrize(
    ("network", "composite"),
    [
        (dense, lrp.EpsilonPlus()),
        (dense, lrp.EpsilonAlpha2Beta1()),
        (dense, lrp.EpsilonGammaBox(low=-3.0, high=3.0)),
        (attentive, lrp.AttnLRP(epsilon=0.1)),
        (attentive, lrp.AttnLRP(gamma=0.2)),
    ],
)
def test_gradients_of_a_loss_on_relevance_by_parameters_are_those_of_finite_differences(network, composite):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(3).normal(size=(2, 4)))
        params = {
            "a": jnp.asarray(np.random.default_rng(4).normal(size=(4, 6))),
            "b": jnp.asarray(np.random.default_rng(5).normal(size=(6, 3))),
        }
        inside = jnp.asarray([[1, 0, 0, 1], [0, 1, 0, 0]], bool)

        def loss(params):
            f = functools.partial(network, params)
            relevance = lrp.relevance(f, x, jnp.asarray([0, 2]), composite=composite)
            return (
                guidance.background(relevance, inside).sum() + guidance.right_reasons(relevance, inside).sum()
            )

        way = jax.tree.map(lambda w: jnp.cos(jnp.arange(w.size, dtype=w.dtype)).reshape(w.shape), params)
        moved = [loss(jax.tree.map(lambda w, d, s=s: w + s * d, params, way)) for s in (1e-6, -1e-6)]
        gradient = jax.grad(loss)(params)
        slope = sum((gradient[name] * way[name]).sum() for name in params)
        np.testing.assert_allclose(slope, (moved[0] - moved[1]) / 2e-6, rtol=1e-5)


def test_a_concept_without_a_direction_has_a_gradient():
    same, present = jnp.ones((4, 3)), jnp.array([True, False, True, False])
    gradient = jax.jacobian(lambda activations: guidance.concept_vector(activations, present))(same)
    assert jnp.isfinite(gradient).all()
    # Lengths beyond float32's squares too: the vector is of length 1 whatever the activations' unit.
    apart = same.at[0, 1].add(3.0).at[2, 0].add(4.0)
    for unit in (1e-30, 1.0, 1e30):
        found = guidance.concept_vector(apart * unit, present)
        np.testing.assert_allclose(found, [0.8, 0.6, 0.0], rtol=1e-5, atol=1e-6)
