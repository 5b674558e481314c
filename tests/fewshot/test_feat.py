"""FEAT's head: attention, its contrastive loss, and relevance, written a second time in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import fewshot, lrp
from jxai.fewshot.heads.feat import Adaptation

WAY, SHOT, QUERIES, WIDTH = 3, 2, 2, 4
HEAD = fewshot.FEATHead(temperature=4.0, contrast=0.5, contrast_temperature=2.0)


def draw(seed=0, scale=1.0):
    random = np.random.default_rng(seed)
    support, query = (scale * random.normal(size=(WAY * n, WIDTH)) for n in (SHOT, QUERIES))
    labels = [np.repeat(np.arange(WAY, dtype=np.int32), n) for n in (SHOT, QUERIES)]
    return fewshot.Episode(support, labels[0], query, labels[1], way=WAY)


@pytest.fixture(scope="module")
def variables():
    with jax.enable_x64(True):
        shapes = jax.eval_shape(lambda: HEAD.init(jax.random.key(0), draw()))
    random = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape), shapes)


def run(variables, episode):
    with jax.enable_x64(True):
        return jax.device_get(_run(variables, episode))


@jax.jit
def _run(variables, episode):
    explained, scores = HEAD.apply(variables, episode, method="forward")
    explanation = HEAD.explain(variables, explained, scores)
    weighted = HEAD.apply(variables, explained * explanation.weights, method="scores")
    auxiliary = HEAD.apply(variables, explained, episode, method="auxiliary_loss")
    return explained, scores, explanation, weighted, auxiliary


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Twin:
    """The adaptation of one set, (n, C), with what its relevance needs."""

    def __init__(self, variables, x):
        self.of = of = variables["params"]["adaptation"]
        self.x = x
        query, key, self.value = (x @ of[name]["kernel"] for name in ("query", "key", "value"))
        self.attention = softmax(query @ key.T / np.sqrt(x.shape[1]))
        self.mixed = self.attention @ self.value
        self.out = self.mixed @ of["out"]["kernel"] + of["out"]["bias"]
        self.sum = x + self.out
        self.deviation = np.sqrt(self.sum.var(-1, keepdims=True) + 1e-5)
        self.y = (self.sum - self.sum.mean(-1, keepdims=True)) / self.deviation
        self.y = self.y * of["norm"]["scale"] + of["norm"]["bias"]

    def relevance(self, relevance):
        """Of the set, by that of what it became."""
        # The normalization's deviation is constant: what it multiplies is linear, and its bias takes its share.
        ratio = relevance / self.y * self.of["norm"]["scale"] / self.deviation
        ratio = ratio - ratio.mean(-1, keepdims=True)
        of_sum = ratio * self.sum
        share = of_sum / stabilized(self.sum)
        of_mixed = dense(self.mixed, self.of["out"]["kernel"], self.out * share)
        of_value = np.zeros_like(self.value)
        for i in range(len(self.x)):
            for j in range(len(self.x)):
                of_value[j] += self.attention[i, j] * self.value[j] * of_mixed[i] / self.mixed[i]
        return self.x * share + dense(self.x, self.of["value"]["kernel"], of_value)


def stabilized(z):
    return z + 0.01 * np.where(z < 0, -1, 1)


def dense(x, kernel, relevance):
    return x * ((relevance / stabilized(x @ kernel)) @ kernel.T)


def prototypes_of(episode):
    return np.stack([episode.support[episode.support_labels == k].mean(0) for k in range(WAY)])


def test_scores_and_relevance_of_queries(variables):
    episode = draw()
    explained, scores, explanation, weighted, _ = run(variables, episode)
    adapted = Twin(variables, prototypes_of(episode)).y
    np.testing.assert_allclose(explained.context, adapted, rtol=1e-10)
    for i, q in enumerate(episode.query):
        distances = np.sum((q - adapted) ** 2, -1)
        np.testing.assert_allclose(scores[i], (q @ q - distances) / 4, rtol=1e-10)
        shares = adapted * q * (explanation.start[i] / stabilized(2 * adapted @ q))[:, None] * 2
        np.testing.assert_allclose(explanation.relevance[i], shares.sum(0), rtol=1e-6, atol=1e-10)
        own = q * explanation.weights[i]
        distances = np.sum((own - adapted) ** 2, -1)
        np.testing.assert_allclose(weighted[i], (own @ own - distances) / 4, rtol=1e-10)


@jax.jit
def adapted_relevance(variables, prototypes, relevance):
    adaptation = Adaptation()
    return lrp.vjp(
        lambda x: adaptation.apply({"params": variables["params"]["adaptation"]}, x),
        prototypes,
        composite=HEAD.composite,
    )[1](relevance)[0]


def test_relevance_of_prototypes_before_their_adaptation(variables):
    prototypes = prototypes_of(draw())
    relevance = np.random.default_rng(5).normal(size=prototypes.shape)
    with jax.enable_x64(True):
        found = adapted_relevance(variables, prototypes, relevance)
    expected = Twin(variables, prototypes).relevance(relevance)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_relevance_is_conserved_down_to_the_supports_where_there_is_no_bias(variables):
    of = {name: dict(leaves) for name, leaves in variables["params"]["adaptation"].items()}
    of["norm"]["bias"] = of["norm"]["bias"] * 0
    of["out"]["bias"] = of["out"]["bias"] * 0
    episode = draw(scale=1e7)  # beside which stabilizers are nothing

    @jax.jit
    def of_supports(support, start):
        def scores(support):
            return HEAD.apply({"params": {"adaptation": of}}, episode.replace(support=support))

        return lrp.vjp(scores, support, composite=HEAD.composite)[1](start)[0]

    _, _, explanation, _, _ = run({"params": {"adaptation": of}}, episode)
    with jax.enable_x64(True):
        relevance = jax.device_get(of_supports(episode.support, explanation.start))
    np.testing.assert_allclose(relevance.sum(), explanation.start.sum(), rtol=1e-4)
    np.testing.assert_allclose(explanation.relevance.sum(-1), explanation.start.sum(-1), rtol=1e-4)


def test_contrastive_loss_adapts_each_class_by_itself(variables):
    episode = draw()
    *_, auxiliary = run(variables, episode)
    with jax.enable_x64(True):
        nothing = fewshot.FEATHead(contrast=None).apply(variables, None, episode, method="auxiliary_loss")
    images = np.concatenate([episode.support, episode.query])
    classes = np.concatenate([episode.support_labels, episode.query_labels])
    centers = [Twin(variables, images[classes == k]).y.mean(0) for k in range(WAY)]
    scores = np.array([[-np.sum((x - center) ** 2) / 2 for center in centers] for x in images])
    expected = -np.log(softmax(scores)[np.arange(len(images)), classes]).mean()
    np.testing.assert_allclose(auxiliary, 0.5 * expected, rtol=1e-10)
    assert nothing is None


def test_classes_in_another_order_have_their_scores_in_that_order(variables):
    episode, order = draw(), np.array([2, 0, 1])
    renamed = episode.replace(
        support_labels=order[episode.support_labels].astype(np.int32),
        query_labels=order[episode.query_labels].astype(np.int32),
    )
    _, scores, explanation, _, auxiliary = run(variables, episode)
    _, again, theirs, _, of_theirs = run(variables, renamed)
    np.testing.assert_allclose(again[:, order], scores, rtol=1e-10)
    np.testing.assert_allclose(theirs.relevance, explanation.relevance, rtol=1e-8)
    np.testing.assert_allclose(of_theirs, auxiliary, rtol=1e-10)


def test_maps_are_pooled_or_flattened():
    maps = np.random.default_rng(0).normal(size=(6, 2, 2, 4)).astype(np.float32)
    labels = np.repeat(np.arange(3), 2)
    episode = fewshot.Episode(maps, labels, maps, way=3)
    for pool, width in ((True, 4), (False, 16)):
        head = fewshot.FEATHead(pool=pool)
        shapes = jax.eval_shape(lambda head=head: head.init_with_output(jax.random.key(0), episode))
        assert shapes[0].shape == (6, 3)
        assert shapes[1]["params"]["adaptation"]["value"]["kernel"].shape == (width, width)


@pytest.mark.parametrize("wrong", [{"contrast": 0.0}, {"contrast": -1.0}, {"temperature": 0.0}])
def test_weights_and_temperatures_are_above_zero(wrong):
    with pytest.raises(ValueError, match=f"expected {next(iter(wrong))} above 0"):
        jax.eval_shape(
            lambda: fewshot.FEATHead(**wrong).init(jax.random.key(0), jax.tree.map(jnp.asarray, draw()))
        )
