"""RelationNet's head against the original program's values (tests/golden, written by it in float32)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import fewshot
from jxai.lrp.rules.composites import Composite

ARCHIVES = ("relation_head_1shot", "relation_head_5shot")
MODULES = ("conv1", "bn1", "conv2", "bn2", "fc1", "fc2")


def error(ours, reference):
    reference = np.asarray(reference)
    return np.max(np.abs(np.asarray(ours).reshape(reference.shape) - reference)) / np.max(np.abs(reference))


class Case:
    """Everything that an archive says, in our shapes."""

    def __init__(self, path):
        z = self.reference = dict(np.load(path))
        self.way, images = z["features"].shape[:2]
        num_query = z["relation_logits"].shape[0] // self.way
        self.shot = images - num_query
        self.head = fewshot.RelationHead(features=z["conv1_bias"].size, hidden=z["fc1_bias"].size)
        params = {m: {k[len(m) + 1 :]: v for k, v in z.items() if k.startswith(m + "_")} for m in MODULES}
        statistics = {
            m: {"mean": jnp.zeros_like(params[m]["bias"]), "var": jnp.ones_like(params[m]["bias"])}
            for m in ("bn1", "bn2")
        }
        self.variables = {"params": params, "batch_stats": statistics}
        self.features = z["features"]
        self.support_labels = np.repeat(np.arange(self.way), self.shot)
        self.query_labels = np.repeat(np.arange(self.way), num_query)

    def episode(self, features):
        support, query = (
            part.reshape(-1, *features.shape[2:])
            for part in (features[:, : self.shot], features[:, self.shot :])
        )
        return fewshot.Episode(support, self.support_labels, query, self.query_labels, way=self.way)

    def explained(self):
        return self.head.apply(self.variables, self.episode(self.features), method="explained")

    def scores(self, explained):
        return self.head.apply(self.variables, explained, True, method="scores", mutable=["batch_stats"])[0]

    def loss(self, features, variables):
        return fewshot.head_loss(self.head, variables, self.episode(features))


@pytest.fixture(params=[ARCHIVES[0], pytest.param(ARCHIVES[1], marks=pytest.mark.slow)])
def case(request, golden):
    return Case(golden / f"{request.param}.npz")


@pytest.mark.golden
def test_golden_relation_head_forward(case):
    z = case.reference
    explained = case.explained()
    scores = case.scores(explained)
    assert error(explained.dense(), z["pairs"]) <= 1e-5
    assert error(scores, z["relation_logits"]) <= 1e-5
    assert error(jax.nn.sigmoid(scores), z["scores"]) <= 1e-5
    assert error(case.scores(explained.dense()), z["relation_logits"]) <= 1e-5


@pytest.mark.golden
@pytest.mark.parametrize("nonnegative", [True, False])
def test_golden_relation_head_explanation(case, nonnegative):
    z = case.reference
    head = case.head.clone(nonnegative=nonnegative)
    explained = case.explained()
    explanation = head.explain(case.variables, explained, case.scores(explained))
    assert error(explanation.start, z["relevance_init"]) <= 1e-4
    assert error(explanation.relevance, z["relevance"]) <= 1e-4
    assert error(explanation.weights, z["weights"]) <= 1e-4
    weighted = case.scores(explained * explanation.weights)
    assert error(jax.nn.sigmoid(weighted), z["scores_lrp"]) <= 1e-5


@pytest.mark.golden
def test_golden_relation_head_by_interception(case):
    """The engine's own rules on the pairs written out give what the shared halves give."""
    head, variables = case.head, case.variables
    dense = case.explained().dense()
    relevance = super(type(head), head).relevance(variables, dense, case.reference["relevance_init"])
    assert isinstance(head.composite, Composite)
    assert error(relevance, case.reference["relevance"]) <= 1e-4


@pytest.mark.golden
def test_golden_relation_head_losses_and_gradients(case):
    z = case.reference
    value_and_grad = jax.jit(jax.value_and_grad(case.loss, argnums=(0, 1), has_aux=True))
    (loss, (_, metrics)), (features, variables) = value_and_grad(case.features, case.variables)
    assert error(metrics["loss_plain"], z["loss_plain"]) <= 1e-4
    assert error(metrics["loss_guided"], z["loss_lrp"]) <= 1e-4
    assert error(loss, z["loss"]) <= 1e-4
    assert error(features, z["grad_features"]) <= 1e-4
    assert error(variables["params"]["conv1"]["kernel"], z["grad_conv1_kernel"]) <= 1e-4
    assert error(variables["params"]["fc2"]["kernel"], z["grad_fc2_kernel"]) <= 1e-4
