"""The graph network's head: layers and relevance a second time in NumPy; its values stand in test_graph_golden."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import quick_jit

from jxai import fewshot, guidance
from jxai.fewshot.heads.graph_layers import Adjacency
from jxai.fewshot.heads.head import KEPT

WAY, SHOT, QUERIES, CHANNELS = 3, 2, 2, 6
HEAD = fewshot.GraphHead(way=WAY, features=5, growth=4, widths=(6, 4))


def draw(init):
    """Variables in float64; running averages are positive."""
    random = np.random.default_rng(3)
    shapes = jax.eval_shape(init)
    return {
        "params": jax.tree.map(lambda leaf: random.normal(size=leaf.shape), shapes["params"]),
        "batch_stats": jax.tree.map(lambda leaf: random.random(leaf.shape) + 0.5, shapes["batch_stats"]),
    }


def episode(seed=0, way=WAY, shot=SHOT):
    random = np.random.default_rng(seed)
    support, query = (random.normal(size=(way * n, CHANNELS)) for n in (shot, QUERIES))
    return fewshot.Episode(support, np.repeat(np.arange(way), shot), query, way=way)


@pytest.fixture(scope="module", autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def variables():
    return draw(lambda: HEAD.init(jax.random.key(0), episode()))


@functools.partial(quick_jit, static_argnums=0, static_argnames="train")
def forward(head, variables, episode, *, train=False):
    """(explained, scores), updates, with what is kept for the explanation."""
    return head.apply(variables, episode, train, method="forward", mutable=["batch_stats", KEPT])


explain = quick_jit(
    lambda head, variables, explained, scores: head.explain(variables, explained, scores), static_argnums=0
)


# A second time, in NumPy.


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def batch_norm(p, z):
    axes = tuple(range(z.ndim - 1))
    return (z - z.mean(axes)) / np.sqrt(z.var(axes) + 1e-5) * p["scale"] + p["bias"]


def leaky(z):
    return np.where(z < 0, 0.01 * z, z)


def slow_adjacency(p, x):
    """On all pairs, those of a node with itself too."""
    z = np.abs(x[:, :, None] - x[:, None])
    for k in range(1, len([name for name in p if name.startswith("bn")]) + 1):
        z = leaky(batch_norm(p[f"bn{k}"], dense(p[f"conv{k}"], z)))
    z = dense(p["convlast"], z)[..., 0]
    z[:, np.arange(x.shape[1]), np.arange(x.shape[1])] = -1e8
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def slow_forward(params, episode):
    """Nodes, every layer's input and adjacency, and all nodes' scores."""
    support, labels, query = episode.support, episode.support_labels, episode.query
    x = batch_norm(params["fc_bn"], dense(params["fc"], np.concatenate([support, query])))
    graphs = []
    for i in range(QUERIES):
        rows = [*range(len(support)), *(len(support) + c * QUERIES + i for c in range(WAY))]
        graphs.append(x[rows])
    nodes = np.stack(graphs)
    one_hot = np.zeros((nodes.shape[1], WAY))
    one_hot[np.arange(len(labels)), labels] = 1
    x = np.concatenate([nodes, np.broadcast_to(one_hot, (QUERIES, *one_hot.shape))], -1)
    layers = []
    for name in ("0", "1", "_last"):
        a = slow_adjacency(params["w" + name], x)
        layers.append((params["l" + name]["fc"]["kernel"], x, a))
        z = dense(params["l" + name]["fc"], np.concatenate([x, a @ x], -1))
        if name == "_last":
            return nodes, layers, z
        x = np.concatenate([x, leaky(batch_norm(params["l" + name]["bn"], z))], -1)


def stabilized(z):
    return z + np.where(z < 0, -0.01, 0.01)


def slow_layer(kernel, x, a, relevance):
    """Relevance of one graph's nodes: the dense layer, then each half of the aggregation by its own denominator."""
    both = np.concatenate([x, a @ x], -1)
    of_both = both * ((relevance / stabilized(both @ kernel)) @ kernel.T)
    own, aggregated = np.split(of_both, 2, axis=-1)
    return x * (own / stabilized(x)) + x * (a.T @ (aggregated / stabilized(a @ x)))


def slow_relevance(layers, start, complete_flow):
    f, way, growth = HEAD.features, HEAD.way, HEAD.growth
    of_nodes = np.zeros((*start.shape[:2], f))
    for g in range(len(start)):
        given = [(kernel, x[g], a[g]) for kernel, x, a in layers]
        last = slow_layer(*given[2], start[g])
        second = slow_layer(*given[1], last[:, f + way + growth :])
        of_first = second[:, f + way :] + complete_flow * last[:, f + way : f + way + growth]
        first = slow_layer(*given[0], of_first)
        of_nodes[g] = last[:, :f] + second[:, :f] + first[:, :f]
    return of_nodes


@pytest.mark.parametrize("complete_flow", [False, True])
def test_relevance_is_that_of_the_slow_version(variables, complete_flow):
    head = HEAD.clone(complete_flow=complete_flow)
    (explained, scores), updates = forward(head, variables, episode())
    nodes, layers, of_nodes = slow_forward(variables["params"], episode())
    np.testing.assert_allclose(explained.features, nodes, rtol=1e-9)
    of_queries = of_nodes[:, -WAY:]
    np.testing.assert_allclose(scores, np.swapaxes(of_queries, 0, 1).reshape(-1, WAY), rtol=1e-7)
    expected = slow_relevance(layers, np.asarray(fewshot.log_odds(of_nodes)), complete_flow)
    # With the adjacencies that the plain pass keeps, and without.
    given = variables if complete_flow else {**variables, KEPT: updates[KEPT]}
    explanation = explain(head, given, explained, scores)
    np.testing.assert_allclose(explanation.start, fewshot.log_odds(of_nodes), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(explanation.relevance, expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(
        explanation.weights, guidance.relevance_weights(explanation.relevance), rtol=1e-9, atol=1e-12
    )


def test_adjacencies_are_those_of_all_pairs_in_statistics_too():
    module, x = Adjacency((5, 4)), np.random.default_rng(0).normal(size=(2, 4, 3))
    variables = draw(lambda: module.init(jax.random.key(0), x, False))
    ours, updates = quick_jit(lambda x: module.apply(variables, x, False, mutable="batch_stats"))(x)
    np.testing.assert_allclose(ours, slow_adjacency(variables["params"], x), rtol=1e-9)
    z = dense(variables["params"]["conv1"], np.abs(x[:, :, None] - x[:, None]))
    before, after = variables["batch_stats"]["bn1"], updates["batch_stats"]["bn1"]
    for name, now in (("mean", z.mean((0, 1, 2))), ("var", z.var((0, 1, 2)))):
        np.testing.assert_allclose(after[name], 0.9 * before[name] + 0.1 * now, rtol=1e-9)


def test_adjacencies_are_computed_once_for_scores_and_explanation(variables):
    (explained, scores), updates = forward(HEAD, variables, episode())
    assert len(jax.tree.leaves(updates[KEPT])) == 3
    kept = {**variables, KEPT: updates[KEPT]}
    with_kept, without = (
        str(jax.make_jaxpr(functools.partial(HEAD.explain, given))(explained, scores)).count("dot_general")
        for given in (kept, variables)
    )
    assert without - with_kept >= 3 * (1 + len(HEAD.widths) + 1)


def test_supports_come_in_any_order_and_number(variables):
    given = episode()
    support, labels = (
        np.concatenate([given.support, given.support[:1] + 1]),
        np.append(given.support_labels, 2),
    )
    (_, expected), _ = forward(HEAD, variables, given.replace(support=support, support_labels=labels))
    order = np.random.default_rng(1).permutation(len(labels))
    permuted = given.replace(support=support[order], support_labels=labels[order])
    (_, ours), _ = forward(HEAD, variables, permuted)
    np.testing.assert_allclose(ours, expected, rtol=1e-9)


def test_fewer_classes_than_the_head_knows(variables):
    (explained, scores), _ = forward(HEAD, variables, episode(way=2, shot=1))
    assert explained.shape == (QUERIES, 4, HEAD.features) and scores.shape == (2 * QUERIES, 2)
    np.testing.assert_allclose(explained.context, np.eye(3)[:2])


@pytest.mark.parametrize("running", [True, False])
def test_running_statistics_are_for_evaluation_alone(variables, running):
    head = HEAD.clone(running_statistics=running)
    query = episode().query
    changed = np.concatenate([query[0::QUERIES], query[1::QUERIES] + 1]).reshape(QUERIES, WAY, -1)
    changed = np.swapaxes(changed, 0, 1).reshape(query.shape)  # the second graph's queries alone
    for train in (False, True):
        ours, other = (
            np.asarray(forward(head, variables, episode().replace(query=q), train=train)[0][1])
            for q in (query, changed)
        )
        assert np.allclose(ours[::QUERIES], other[::QUERIES], rtol=1e-9) == (running and not train)


def test_maps_are_averaged(variables):
    given, random = episode(), np.random.default_rng(4)

    def maps(x):
        noise = random.normal(size=(len(x), 2, 3, CHANNELS))
        return x[:, None, None] + noise - noise.mean((1, 2), keepdims=True)

    (_, expected), _ = forward(HEAD, variables, given)
    of_maps = given.replace(support=maps(given.support), query=maps(given.query))
    (_, ours), _ = forward(HEAD, variables, of_maps)
    np.testing.assert_allclose(ours, expected, rtol=1e-8)


def test_weights_scale_the_nodes_alone(variables):
    (explained, _), _ = forward(HEAD, variables, episode())
    weights = jnp.asarray(np.random.default_rng(1).normal(size=explained.shape))
    for weighted in (explained * weights, weights * explained):
        np.testing.assert_array_equal(weighted.features, explained.features * weights)
        np.testing.assert_array_equal(weighted.context, explained.context)


@pytest.mark.parametrize(
    ("way", "queries", "message"),
    [(4, 4, r"at most 3 classes, got 4: make GraphHead\(way=4\)"), (3, 7, "multiple of 3 queries.*got 7")],
)
def test_what_does_not_fit_is_refused(way, queries, message):
    support, query = np.zeros((way, CHANNELS)), np.zeros((queries, CHANNELS))
    with pytest.raises(ValueError, match=message):
        HEAD.init(jax.random.key(0), fewshot.Episode(support, np.arange(way), query, way=way))
