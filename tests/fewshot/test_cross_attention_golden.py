"""The cross-attention head against the original program's values (tests/golden, written by it in float32)."""

import functools

import jax
import numpy as np
import pytest

from jxai import fewshot

ARCHIVES = ("can_head_1shot", "can_head_5shot")


def error(ours, reference):
    reference = np.asarray(reference)
    return np.max(np.abs(np.asarray(ours).reshape(reference.shape) - reference)) / np.max(np.abs(reference))


class Case:
    """Everything that an archive says, in our shapes."""

    def __init__(self, path):
        z = self.reference = dict(np.load(path))
        self.way = int(z["query_labels"].max()) + 1
        self.shot = len(z["support"]) // self.way
        self.head = fewshot.CrossAttentionHead(z["classifier_bias"].size, hidden=z["cam_bn_bias"].size)

        def dense(name):
            return {kind: z[f"{name}_{kind}"] for kind in ("kernel", "bias")}

        norm = {"scale": z["cam_bn_scale"], "bias": z["cam_bn_bias"]}
        attention = {"fc1": dense("cam_conv1"), "bn": norm, "fc2": dense("cam_conv2")}
        params = {"attention": attention, "classifier": dense("classifier")}
        fresh = {"mean": np.zeros_like(norm["bias"]), "var": np.ones_like(norm["bias"])}
        self.variables = {"params": params, "batch_stats": {"attention": {"bn": fresh}}}

    @functools.partial(jax.jit, static_argnums=0)
    def compute(self, support, query):
        """All that the archive has, in one program."""
        z, head, variables = self.reference, self.head, self.variables

        def episode(support, query):
            return fewshot.Episode(
                support,
                z["support_labels"],
                query,
                z["query_labels"],
                way=self.way,
                query_classes=z["global_labels"],
            )

        given = episode(support, query)
        (explained, plain), updates = head.apply(
            variables, given, True, method="forward", mutable=["batch_stats"]
        )
        weights = head.explain(variables, explained, plain).weights
        weighted = [explained * one for one in (weights, weights.dense())]

        def loss(support, query):
            return fewshot.head_loss(head, variables, episode(support, query))

        (_, (_, metrics)), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(support, query)
        running = {"mean": z["cam_bn_mean_after"], "var": z["cam_bn_var_after"]}
        after = {**variables, "batch_stats": {"attention": {"bn": running}}}
        return {
            "explained": explained,
            "plain": plain,
            "guided": [head.apply(variables, one, True, method="scores") for one in weighted],
            "running": updates["batch_stats"]["attention"]["bn"],
            "metrics": metrics,
            "gradients": gradients,
            "evaluation": head.apply(after, given),
        }


@pytest.fixture(params=[ARCHIVES[0], pytest.param(ARCHIVES[1], marks=pytest.mark.slow)], scope="module")
def case(request, golden):
    case = Case(golden / f"{request.param}.npz")
    case.found = case.compute(case.reference["support"], case.reference["query"])
    return case


@pytest.mark.golden
def test_golden_can_head_scores(case):
    z, found = case.reference, case.found
    assert error(found["plain"], z["scores_plain"]) <= 1e-5
    for one in found["guided"]:
        assert error(one, z["scores_lrp"]) <= 1e-4
    assert error(found["evaluation"], z["test_scores"]) <= 1e-5
    attention = found["explained"].query_attention[np.arange(len(z["query"])), z["query_labels"]]
    classifier = case.variables["params"]["classifier"]
    logits = z["query"] * attention[..., None] @ classifier["kernel"] + classifier["bias"]
    assert error(logits, z["global_logits"]) <= 1e-5


@pytest.mark.golden
def test_golden_can_head_running_statistics(case):
    z, running = case.reference, case.found["running"]
    assert error(running["mean"], z["cam_bn_mean_after"]) <= 1e-5
    # The original adds unbiased variances of all pairs, which are n / (n - 1) times ours.
    pairs = case.way * len(z["query"])
    unbiased = 0.81 + (running["var"] - 0.81) * pairs / (pairs - 1)
    assert error(unbiased, z["cam_bn_var_after"]) <= 1e-5


@pytest.mark.golden
def test_golden_can_head_losses_and_gradients(case):
    z, metrics, gradients = case.reference, case.found["metrics"], case.found["gradients"]
    assert error(metrics["loss_auxiliary"], z["loss_global"]) <= 1e-5
    assert error(metrics["loss_guided"], z["loss_lrp"]) <= 1e-4
    assert error(metrics["loss"], z["loss"]) <= 1e-4
    assert error(gradients[0], z["grad_support"]) <= 1e-4
    assert error(gradients[1], z["grad_query"]) <= 1e-4
