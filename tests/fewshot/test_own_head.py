"""Heads that are not ours: a plain classifier as the page has it, and the last layers of a published model."""

import jax
import numpy as np
import pytest
from compiling import quick_jit
from flax import linen as nn

from jxai import fewshot

CLASSES = 4


class Classifier(fewshot.Head):
    def setup(self):
        self.layers = nn.Sequential([nn.Dense(6), nn.relu, nn.Dense(CLASSES)])

    def explained(self, episode, train=False):
        return episode.query.mean((1, 2))

    def scores(self, explained, train=False):
        return self.layers(explained)


@pytest.fixture(scope="module")
def batch():
    """Images of four classes that a linear map can tell apart; no support."""
    random = np.random.default_rng(0)
    labels = np.arange(24) % CLASSES
    images = 0.3 * random.normal(size=(24, 8, 8, 3)) + random.normal(size=(CLASSES, 1, 1, 3))[labels]
    images = images.astype(np.float32)
    return fewshot.Episode(images[:0], labels[:0], images, labels, way=CLASSES)


def by_hand(params, x, start):
    """Relevance by two dense layers with ε = 0.01, their biases left out."""

    def stabilized(z):
        return z + 0.01 * np.where(z < 0, -1, 1)

    first, last = (np.asarray(params["layers"][name]["kernel"]) for name in ("layers_0", "layers_2"))
    hidden = np.maximum(x @ first + np.asarray(params["layers"]["layers_0"]["bias"]), 0)
    of_hidden = hidden * ((start / stabilized(hidden @ last)) @ last.T)
    return x * ((of_hidden / stabilized(x @ first)) @ first.T)


def test_a_plain_classifier_is_explained_where_its_last_layers_see_it(batch):
    head, features = Classifier(), np.abs(batch.query)
    variables = head.init(jax.random.key(0), batch.replace(query=features))
    x = features.mean((1, 2))

    @quick_jit
    def both(variables, features):
        scores = head.apply(variables, features.mean((1, 2)), method="scores")
        _, (_, metrics) = fewshot.head_loss(head, variables, batch.replace(query=features))
        explanation = head.explain(variables, features.mean((1, 2)), scores)
        weighted = head.apply(variables, explanation.weights * features.mean((1, 2)), method="scores")
        return scores, explanation, weighted, metrics

    scores, explanation, weighted, metrics = both(variables, features)
    expected = by_hand(variables["params"], x, np.asarray(fewshot.log_odds(scores)))
    np.testing.assert_allclose(explanation.relevance, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    log_p = np.asarray(jax.nn.log_softmax(weighted))[np.arange(len(x)), batch.query_labels]
    np.testing.assert_allclose(metrics["loss_guided"], -log_p.mean(), rtol=1e-5)


def test_a_plain_classifier_trains_guided_with_its_encoder(tiny, batch):
    head = Classifier()
    init = quick_jit(lambda key: fewshot.init_variables(tiny.encoder, head, key, image_size=tiny.side))
    variables = init(jax.random.key(1))

    @quick_jit
    def step(params):
        def loss(params):
            return fewshot.guided_loss(
                tiny.encoder,
                head,
                variables | {"params": params},
                batch,
                guidance=fewshot.Guidance(guided_weight=1.0),
            )

        (_, (_, metrics)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return metrics, jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient)

    params, history = variables["params"], []
    for _ in range(60):
        metrics, params = step(params)
        history.append(jax.device_get(metrics))
    assert all(np.isfinite(list(metrics.values())).all() for metrics in history)
    assert history[-1]["loss_guided"] < 0.5 * history[0]["loss_guided"]
    assert history[-1]["accuracy"] > 0.9


def test_what_a_plain_classifier_looks_at(tiny, batch):
    """Its episodes have no support: relevance of the pixels is that of its layers behind the encoder."""
    head = Classifier()
    init = quick_jit(lambda key: fewshot.init_variables(tiny.encoder, head, key, image_size=tiny.side))
    explain = quick_jit(fewshot.pixel_relevance, static_argnums=(0, 1))
    relevance, scores = explain(tiny.encoder, head, init(jax.random.key(1)), batch)
    assert relevance.shape == (len(batch.query), CLASSES, *batch.query.shape[1:])
    assert scores.shape == (len(batch.query), CLASSES)
    assert np.isfinite(relevance).all() and np.any(relevance)


class LastLayers(fewshot.Head):
    """The last layers of somebody's classifier, untouched."""

    layers: nn.Module

    def explained(self, episode, train=False):
        return episode.query

    def scores(self, explained, train=False):
        return self.layers(explained)


@pytest.mark.slow
def test_last_layers_of_a_published_resnet_are_guided():
    resnets = pytest.importorskip("jax_resnet")
    model = resnets.ResNet18(n_classes=CLASSES, hidden_sizes=(4, 4, 4, 4))
    head = LastLayers(resnets.Sequential(model.layers[-3:]))  # a residual block, mean, dense
    random = np.random.default_rng(0)
    maps = np.maximum(random.normal(size=(8, 3, 3, 4)), 0).astype(np.float32)
    labels = np.arange(8) % CLASSES
    batch = fewshot.Episode(maps[:0], labels[:0], maps, labels, way=CLASSES)
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), batch))
    variables = jax.tree.map(lambda leaf: np.abs(random.normal(size=leaf.shape)).astype(np.float32), shapes)

    @quick_jit
    def step(variables):
        def loss(params):
            given = variables | {"params": params}
            return fewshot.head_loss(head, given, batch)

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    (_, (statistics, metrics)), gradient = step(variables)
    assert metrics["loss_guided"] != metrics["loss_plain"] and np.isfinite(metrics["loss_guided"])
    assert jax.tree.structure(statistics) == jax.tree.structure(variables["batch_stats"])
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(gradient))
