"""The guided loss: its pieces against their formulas, what it leaves out, and what it is differentiated through."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jxai import fewshot, guidance


@functools.partial(jax.jit, static_argnums=0)
def explain(head, variables, explained, scores, strength=1.0):
    return head.explain(variables, explained, scores, strength=strength)


def of_head(tiny):
    return fewshot.part(tiny.variables, "head")


def head_loss(tiny, guidance, shot=None, head=None):
    """A function of (variables, support, query) with the labels filled in."""
    episode = tiny.features(shot=tiny.shot if shot is None else shot)

    def loss(variables, support, query):
        given = episode.replace(support=support, query=query)
        return fewshot.head_loss(tiny.head if head is None else head, variables, given, guidance=guidance)

    return loss


@pytest.mark.parametrize("way", [2, 5, 20])
def test_log_odds(way):
    random = np.random.default_rng(0)
    scores = random.normal(size=(4, way)) * 3
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    expected = np.log((way - 1) * (p + 0.01) / (1.01 - p))
    np.testing.assert_allclose(fewshot.log_odds(jnp.asarray(scores)), expected, rtol=1e-4, atol=1e-5)
    # At chance exactly 0 for two ways; 0.01 beside p leaves log(4 · 0.21 / 0.81) = 0.036 for five.
    at_chance = fewshot.log_odds(jnp.zeros((1, way)))
    np.testing.assert_allclose(
        at_chance, np.log((way - 1) * (1 / way + 0.01) / (1.01 - 1 / way)), rtol=1e-4, atol=1e-6
    )
    assert np.abs(at_chance).max() < {2: 1e-6, 5: 0.04, 20: 0.18}[way]


def test_log_odds_of_certainty_is_finite():
    np.testing.assert_allclose(
        fewshot.log_odds(jnp.array([[1e4, 0.0, 0.0]]))[0],
        np.log(2 * np.array([101, 1 / 101, 1 / 101])),
        rtol=1e-4,
    )


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_relevance_weights(strength):
    relevance = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)
    relevance[0, 0] = 0
    weights = np.asarray(guidance.relevance_weights(jnp.asarray(relevance), strength=strength))
    np.testing.assert_array_equal(weights[0, 0], 1)
    largest = np.abs(relevance).max(-1, keepdims=True)
    np.testing.assert_allclose(weights[1:], 1 + strength * relevance[1:] / largest[1:], rtol=1e-6)
    assert weights.min() >= 1 - strength and weights.max() <= 1 + strength
    assert np.isclose(np.abs(weights[1:] - 1).max(-1), strength).all()


@pytest.mark.parametrize(("shot", "weight"), [(1, 0.5), (2, 0.625), (3, 0.75), (5, 1.0), (20, 1.0)])
def test_released_weight(shot, weight):
    assert fewshot.released_weight(shot) == weight


@pytest.mark.parametrize("name", ["plain_weight", "guided_weight", "strength"])
def test_negative_weights_are_refused(name):
    with pytest.raises(ValueError, match=f"expected {name} of at least 0.*-0.5"):
        fewshot.Guidance(**{name: -0.5})


@pytest.mark.parametrize(("shot", "guided_weight"), [(1, None), (2, None), (2, 0.3)])
def test_loss_is_the_weighted_sum_of_both(tiny, shot, guided_weight):
    guidance = fewshot.Guidance(plain_weight=0.7, guided_weight=guided_weight)
    episode = tiny.features(shot=shot)
    assert episode.shot == shot
    loss, (_, metrics) = jax.jit(head_loss(tiny, guidance, shot))(
        of_head(tiny), episode.support, episode.query
    )
    weight = fewshot.released_weight(shot) if guided_weight is None else guided_weight
    np.testing.assert_allclose(loss, 0.7 * metrics["loss_plain"] + weight * metrics["loss_guided"], rtol=1e-6)
    assert metrics["loss"] == loss
    assert metrics["loss_guided"] != metrics["loss_plain"]


def test_metrics_and_statistics_are_those_of_the_plain_pass(tiny):
    episode = tiny.features()
    results = [
        jax.jit(head_loss(tiny, guidance))(of_head(tiny), episode.support, episode.query)
        for guidance in (fewshot.PLAIN, fewshot.Guidance())
    ]
    (_, (plain_stats, plain)), (_, (guided_stats, guided)) = results
    # The weighted pass leaves no trace in the running averages.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), plain_stats, guided_stats)
    before = of_head(tiny)["batch_stats"]
    assert jax.tree.structure(before) == jax.tree.structure(plain_stats)
    assert all(
        (np.asarray(a) != b).any()
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(plain_stats), strict=True)
    )
    assert set(guided) - set(plain) == {"loss_guided"}
    scores = tiny.head.apply(of_head(tiny), episode, mutable=["batch_stats"])[0]
    assert plain["accuracy"] == guided["accuracy"] == np.mean(scores.argmax(-1) == episode.query_labels)
    np.testing.assert_allclose(plain["loss_plain"], tiny.head.loss(scores, episode.query_labels), rtol=1e-5)


def test_without_weight_no_explanation_is_computed(tiny, monkeypatch):
    episode = tiny.features()
    where = of_head(tiny), episode.support, episode.query

    def operations(guidance):
        program = str(jax.make_jaxpr(head_loss(tiny, guidance))(*where))
        convolutions = re.findall(r"\b(?:convolution|conv_general_dilated)\[", program)
        return len(convolutions), program.count("dot_general[")

    # Prototypes, queries, second convolution; prototypes' mean and two dense layers.
    assert operations(fewshot.PLAIN) == (3, 3)
    assert all(np.array(operations(fewshot.Guidance())) > (3, 3))
    monkeypatch.setattr(type(tiny.head), "explain", None)
    jax.eval_shape(head_loss(tiny, fewshot.Guidance(guided_weight=0.0)), *where)


@pytest.mark.slow
def test_no_gradient_passes_through_the_weights(tiny):
    """The gradient is that of the loss with the weights as constants, and that one is checked by differences."""
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), of_head(tiny))
        episode = tiny.features(dtype=np.float64)

        def explained_and_scores(variables, support, query):
            given = episode.replace(support=support, query=query)
            explained = tiny.head.apply(variables, given, method="explained")
            return explained, scores(variables, explained)

        def scores(variables, explained):
            return tiny.head.apply(variables, explained, True, method="scores", mutable=["batch_stats"])[0]

        explanation = explain(
            tiny.head, variables, *explained_and_scores(variables, episode.support, episode.query)
        )

        def frozen(variables, support, query):
            explained, plain = explained_and_scores(variables, support, query)
            weighted = scores(variables, explained * explanation.weights)
            labels = episode.query_labels
            return tiny.head.loss(plain, labels) + 0.8 * tiny.head.loss(weighted, labels)

        where = (variables, episode.support, episode.query)
        guided = head_loss(tiny, fewshot.Guidance(guided_weight=0.8))
        losses = (lambda *where: guided(*where)[0], frozen)
        both = jax.jit(lambda *where: [jax.value_and_grad(f, argnums=(0, 1, 2))(*where) for f in losses])
        (value, gradient), (expected_value, expected) = both(*where)
        np.testing.assert_allclose(value, expected_value, rtol=1e-10)
        for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-12)

        random = np.random.default_rng(3)
        direction = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), where)
        step, along = 1e-6, jax.jit(lambda t: frozen(*jax.tree.map(lambda a, d: a + t * d, where, direction)))
        slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
        np.testing.assert_allclose(slope, (along(step) - along(-step)) / (2 * step), rtol=1e-5)


def test_explanation_of_the_head(tiny):
    variables = of_head(tiny)
    explained = tiny.head.apply(variables, tiny.features(), method="explained")
    scores = tiny.head.apply(variables, explained, True, method="scores", mutable=["batch_stats"])[0]
    explanation = explain(tiny.head, variables, explained, scores)
    assert explanation.relevance.shape == explanation.weights.shape == explained.shape
    np.testing.assert_allclose(explanation.start, fewshot.log_odds(scores))
    np.testing.assert_allclose(explanation.weights, guidance.relevance_weights(explanation.relevance))
    # Where a feature is zero, z-plus gives it nothing, so its weight is one.
    zeros = np.asarray(explained.dense()) == 0
    assert zeros.any() and np.allclose(np.asarray(explanation.weights)[zeros], 1)
    tripled = explain(tiny.head, variables, explained, scores, strength=3.0)
    np.testing.assert_allclose(tripled.weights - 1, 3 * (explanation.weights - 1), rtol=1e-5, atol=1e-6)


class PooledHead(fewshot.Head):
    """A head of one's own: two dense layers on pooled vectors of prototype and query; no batch norm."""

    def setup(self):
        self.hidden, self.out = nn.Dense(6), nn.Dense(1)

    def explained(self, episode, train=False):
        prototypes = fewshot.prototypes(episode.support.mean((1, 2)), episode.support_labels, episode.way)
        q, p = jnp.broadcast_arrays(episode.query.mean((1, 2))[:, None], prototypes[None])
        return jnp.concatenate([p, q], -1)

    def scores(self, explained, train=False):
        return self.out(nn.relu(self.hidden(explained)))[..., 0]


def test_a_head_of_ones_own_is_explained(tiny):
    head, episode = PooledHead(), tiny.features()
    variables = head.init(jax.random.key(1), episode)
    x = np.asarray(head.apply(variables, episode, method="explained"))
    scores = head.apply(variables, x, method="scores")
    explanation = explain(head, variables, jnp.asarray(x), scores)
    # By hand: dense layers with ε = 0.01 without bias, as released; biases are zero here.
    first, last = (np.asarray(variables["params"][name]["kernel"]) for name in ("hidden", "out"))

    def stabilized(z):
        return z + 0.01 * np.where(z < 0, -1, 1)

    z = x @ first
    hidden = np.maximum(z, 0)
    share = np.asarray(explanation.start)[..., None] / stabilized(hidden @ last)
    expected = x * ((hidden * (share @ last.T) / stabilized(z)) @ first.T)
    np.testing.assert_allclose(explanation.relevance, expected, rtol=1e-3, atol=1e-5)


def test_a_head_of_ones_own_trains(tiny):
    head = PooledHead()
    variables = fewshot.init_variables(tiny.encoder, head, jax.random.key(1), image_size=tiny.side)
    assert variables["batch_stats"]["head"] == {}
    episode = tiny.episode()

    @jax.jit
    def step(params):
        loss = lambda params: fewshot.guided_loss(tiny.encoder, head, variables | {"params": params}, episode)  # noqa: E731
        (value, (statistics, _)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return value, statistics, gradient, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)

    params, losses = variables["params"], []
    for _ in range(10):
        loss, statistics, gradient, params = step(params)
        losses.append(float(loss))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert losses[-1] < losses[0]
    assert jax.tree.structure(statistics) == jax.tree.structure(variables["batch_stats"])


def test_heads_that_give_no_scores_say_so():
    with pytest.raises(NotImplementedError):
        fewshot.Head().init(
            jax.random.key(0), fewshot.Episode(np.ones((1, 2)), np.zeros(1, int), np.ones((1, 2)), way=1)
        )
