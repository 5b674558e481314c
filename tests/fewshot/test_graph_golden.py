"""The graph network's head against the original program's values (tests/golden, written by it in float32)."""

import functools

import jax
import numpy as np
import pytest
from compiling import quick_jit

from jxai import fewshot

ARCHIVES = ("gnn_head_1shot", "gnn_head_5shot")
BLOCKS = ("w_last", "l_last", "w0", "w1", "l0", "l1")


def error(ours, reference):
    reference = np.asarray(reference)
    return np.max(np.abs(np.asarray(ours).reshape(reference.shape) - reference)) / np.max(np.abs(reference))


def params_of(reference):
    """Arrays such as "w0_conv1_kernel" and "fc_bn_scale" as the tree of the head's parameters."""
    params = {}
    for key, value in reference.items():
        name, _, leaf = key.rpartition("_")
        if leaf not in ("kernel", "scale", "bias") or key.startswith("grad"):
            continue
        block = next((b for b in BLOCKS if name.startswith(b + "_")), None)
        node = params if block is None else params.setdefault(block, {})
        node.setdefault(name if block is None else name[len(block) + 1 :], {})[leaf] = value
    return params


class Case:
    """Everything that an archive says, in our shapes, and what we make of it."""

    def __init__(self, path):
        z = self.reference = dict(np.load(path))
        self.way, images = z["features"].shape[:2]
        num_query = z["scores"].shape[0] // self.way
        self.shot = images - num_query
        self.labels = [np.repeat(np.arange(self.way), n) for n in (self.shot, num_query)]
        self.head = fewshot.GraphHead(
            way=self.way,
            features=z["fc_bias"].size,
            growth=z["l0_fc_bias"].size,
            widths=tuple(z[f"w0_conv{k}_bias"].size for k in (1, 2, 3, 4)),
        )
        params = params_of(z)
        shapes = jax.eval_shape(self.init)
        assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes["params"])
        statistics = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes["batch_stats"])
        self.variables = {"params": params, "batch_stats": statistics}
        self.explained = quick_jit(self.explanation)(z["features"], self.variables)

    @functools.cached_property
    def loss_and_gradients(self):
        # Which side of zero |x| and the leaky ReLUs are on decides single entries of the gradient by up to 3e-3, and
        # float32 may fall on the other side; float64 does not.
        with jax.enable_x64(True):
            loss = jax.value_and_grad(self.loss, argnums=(0, 1), has_aux=True)
            doubles = jax.tree.map(np.float64, (self.reference["features"], self.variables))
            return jax.device_get(quick_jit(loss)(*doubles))

    def init(self):
        return self.head.init(jax.random.key(0), self.episode(self.reference["features"]))

    def episode(self, features):
        support, query = (
            part.reshape(-1, features.shape[-1])
            for part in (features[:, : self.shot], features[:, self.shot :])
        )
        return fewshot.Episode(support, self.labels[0], query, self.labels[1], way=self.way)

    def by_class(self, nodes):
        """Nodes ordered as the original has them: of each class its supports, then its query."""
        support, query = nodes[:, : -self.way], nodes[:, -self.way :]
        support = support.reshape(len(nodes), self.way, self.shot, -1)
        return np.concatenate([support, query[:, :, None]], axis=2).reshape(nodes.shape)

    def explanation(self, features, variables):
        explained, scores = self.head.apply(
            variables, self.episode(features), method="forward", mutable=["batch_stats"]
        )[0]
        # Without what the plain pass keeps: the same comes out.
        explanation = self.head.explain(variables, explained, scores)
        weighted = self.head.apply(
            variables, explained * explanation.weights, True, method="scores", mutable=["batch_stats"]
        )[0]
        return explained.features, scores, explanation.weights, weighted

    def loss(self, features, variables):
        return fewshot.head_loss(self.head, variables, self.episode(features))


@pytest.fixture(params=[ARCHIVES[0], pytest.param(ARCHIVES[1], marks=pytest.mark.slow)], scope="module")
def case(request, golden):
    return Case(golden / f"{request.param}.npz")


@pytest.mark.golden
def test_golden_gnn_head_forward(case):
    z = case.reference
    nodes, scores, *_ = case.explained
    assert error(case.by_class(nodes), z["nodes"][..., : nodes.shape[-1]]) <= 1e-5
    assert error(scores, z["scores"]) <= 1e-5


@pytest.mark.golden
def test_golden_gnn_head_explanation(case):
    z = case.reference
    *_, weights, weighted = case.explained
    assert error(case.by_class(weights), z["weights"]) <= 1e-4
    assert error(weighted, z["scores_lrp"]) <= 1e-4


@pytest.mark.slow  # its gradient is a compilation of seconds
@pytest.mark.golden
def test_golden_gnn_head_losses_and_gradients(case):
    z = case.reference
    (loss, (_, metrics)), (features, variables) = case.loss_and_gradients
    assert error(metrics["loss_plain"], z["loss_plain"]) <= 1e-4
    assert error(metrics["loss_guided"], z["loss_lrp"]) <= 1e-4
    assert error(loss, z["loss"]) <= 1e-4
    assert error(features, z["grad_features"]) <= 1e-4
    assert error(variables["params"]["l_last"]["fc"]["kernel"], z["grad_l_last_fc_kernel"]) <= 1e-4
