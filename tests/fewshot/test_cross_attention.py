"""The cross-attention head: closed forms a second time, its attention, statistics, gradients and hard features."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import fewshot, lrp
from jxai.fewshot.heads.cross_attention import largest_product

CLASSES = 7


def draw(way=3, shot=2, each=2, shape=(2, 3, 4), seed=0, dtype=np.dtype(np.float32)):
    """(head, variables, episode of features); labels are in no order."""
    random = np.random.default_rng(seed)
    labels = [random.permutation(np.repeat(np.arange(way), n)) for n in (shot, each)]
    # As behind a ReLU, but for a few entries.
    maps = [np.maximum(random.normal(size=(len(n), *shape)), -0.05).astype(dtype) for n in labels]
    head = fewshot.CrossAttentionHead(CLASSES, hidden=3)
    positions = shape[0] * shape[1]
    sizes = {"fc1": (positions, 3), "fc2": (3, positions)}
    dense = {
        name: {"kernel": random.normal(size=size), "bias": 0.3 * random.normal(size=size[1])}
        for name, size in sizes.items()
    }
    bn = {"scale": 1 + random.random(3), "bias": random.normal(size=3)}
    classifier = {"kernel": random.normal(size=(shape[2], CLASSES)), "bias": random.normal(size=CLASSES)}
    variables = {
        "params": {"attention": {**dense, "bn": bn}, "classifier": classifier},
        "batch_stats": {"attention": {"bn": {"mean": random.normal(size=3), "var": 1 + random.random(3)}}},
    }
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), variables)
    classes = random.integers(CLASSES, size=len(labels[1]))
    episode = fewshot.Episode(maps[0], labels[0], maps[1], labels[1], way=way, query_classes=classes)
    return head, variables, episode


def unit(x):
    return x / np.linalg.norm(x)


def stabilized(z):
    return z + np.where(z < 0, -0.01, 0.01)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


class Slow:
    """All of the head in NumPy, one query and class at a time, as METHODS has it."""

    def __init__(self, head, variables, episode, train):
        support, labels, query, way = episode.support, episode.support_labels, episode.query, episode.way
        self.way, self.queries, self.shape = way, len(query), query.shape[1:]
        network = jax.tree.map(np.float64, variables["params"]["attention"])
        running = jax.tree.map(np.float64, variables["batch_stats"]["attention"]["bn"])
        self.prototype = [support[labels == c].mean(0, dtype=np.float64) for c in range(way)]
        self.query = np.asarray(query, np.float64)
        self.statistics = []

        def flat(x):
            return [unit(vector) for vector in x.reshape(-1, x.shape[-1])]

        a = {
            pair: np.array(
                [[p @ q for q in flat(self.query[pair[0]])] for p in flat(self.prototype[pair[1]])]
            )
            for pair in np.ndindex(self.queries, way)
        }

        def attention(a):
            hidden = {pair: a[pair].mean(0) @ network["fc1"]["kernel"] + network["fc1"]["bias"] for pair in a}
            stacked = np.array(list(hidden.values()))
            mean, var = (stacked.mean(0), stacked.var(0)) if train else (running["mean"], running["var"])
            self.statistics.append((mean, var))
            found = {}
            for pair, h in hidden.items():
                h = (h - mean) / np.sqrt(var + 1e-5) * network["bn"]["scale"] + network["bn"]["bias"]
                k = np.maximum(h, 0) @ network["fc2"]["kernel"] + network["fc2"]["bias"]
                found[pair] = 1 + softmax((a[pair] * k).mean(1) / 0.025).reshape(self.shape[:2])
            return found

        self.prototype_attention = attention(a)
        self.query_attention = attention({pair: matrix.T for pair, matrix in a.items()})

    def attended(self, pair):
        p = self.prototype[pair[1]] * self.prototype_attention[pair][..., None]
        return p, self.query[pair[0]] * self.query_attention[pair][..., None]

    def evaluation(self):
        scores = np.zeros((self.queries, self.way))
        for pair in np.ndindex(scores.shape):
            p, q = self.attended(pair)
            scores[pair] = 7 * unit(p.mean((0, 1))) @ unit(q.mean((0, 1)))
        return scores

    def explanation(self):
        """(start, relevance, weights) from the evaluation's scores."""
        scores = self.evaluation()
        p = np.array([softmax(row) for row in scores])
        start = np.log((self.way - 1) * (p + 0.01) / (1.01 - p))
        relevance, weights = np.zeros((2, self.queries, self.way, *self.shape))
        for pair in np.ndindex(scores.shape):
            p, x = self.attended(pair)
            product = unit(p.mean((0, 1))) * unit(x.mean((0, 1)))
            r_channels = product * start[pair] / stabilized(product.sum())
            w_channels = 1 + r_channels / np.abs(r_channels).max()
            rows = x.mean(1)
            r_rows = rows * r_channels / stabilized(rows.sum(0))
            r = x * (r_rows / stabilized(x.sum(1)))[:, None]
            relevance[pair] = r
            weights[pair] = w_channels * (1 + r / np.abs(r).max(-1, keepdims=True))
        return start, relevance, weights

    def training(self, weights):
        scores = np.zeros((self.queries, *self.shape[:2], self.way))
        for index in np.ndindex(scores.shape):
            query, *position, c = index
            p, x = self.attended((query, c))
            product = unit(p.mean((0, 1))) * unit(x[tuple(position)])
            scores[index] = 7 * (product * weights[query, c][tuple(position)]).sum()
        return scores


@functools.partial(jax.jit, static_argnums=0)
def run(head, variables, episode):
    """All that one training step knows, and the gradients of its guided loss."""
    (explained, plain), _ = head.apply(variables, episode, True, method="forward", mutable=["batch_stats"])
    explanation = head.explain(variables, explained, plain)
    weights = explanation.weights
    guided = [head.apply(variables, explained * w, True, method="scores") for w in (weights, weights.dense())]

    def loss(variables, support, query):
        return fewshot.head_loss(head, variables, episode.replace(support=support, query=query))

    (_, (running, metrics)), gradients = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(
        variables, episode.support, episode.query
    )
    return {
        "explained": explained,
        "plain": plain,
        "explanation": explanation,
        "guided": guided,
        "running": running,
        "metrics": metrics,
        "gradients": gradients,
        "evaluation": head.apply(variables, episode),
    }


# One position leaves nothing to attend to; way, shot and the map's sides all differ.
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"way": 5, "shot": 1, "each": 1, "shape": (1, 1, 3)},
        pytest.param({"way": 2, "shape": (3, 1, 5)}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_everything_a_second_time(sizes):
    head, variables, episode = draw(**sizes)
    found = run(head, variables, episode)
    close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5)
    close(found["evaluation"], Slow(head, variables, episode, train=False).evaluation())
    slow = Slow(head, variables, episode, train=True)
    explained, explanation = found["explained"], found["explanation"]
    close(found["plain"], slow.training(np.ones(explained.shape)))
    start, relevance, weights = slow.explanation()
    close(explanation.start, start)
    assert explanation.relevance.shape == explanation.weights.shape == explained.shape
    close(explanation.relevance, relevance, atol=2e-5 * np.abs(relevance).max())
    close(explanation.weights.dense(), weights, atol=1e-3)
    for one in found["guided"]:
        close(one, slow.training(weights), atol=2e-3)
    # Prototypes' call first, then queries', each with its own batch.
    running = dict(variables["batch_stats"]["attention"]["bn"])
    for mean, var in slow.statistics:
        running = {"mean": 0.9 * running["mean"] + 0.1 * mean, "var": 0.9 * running["var"] + 0.1 * var}
    jax.tree.map(close, found["running"], {"attention": {"bn": running}})


def test_relevance_is_that_of_the_engine():
    """The rules of the head's composite on the query's map, with attention given, give the closed form."""
    head, variables, episode = draw()
    found = run(head, variables, episode)
    explained, explanation = found["explained"], found["explanation"]

    @jax.jit
    def engine(explained, start):
        def scores(query):
            return head.apply(variables, dataclasses.replace(explained, query=query), method="scores")

        pullback = lrp.vjp(scores, explained.query, composite=head.composite)[1]
        return jax.vmap(lambda start: pullback(start)[0])(jnp.eye(3)[:, None] * start)

    relevance = np.swapaxes(engine(explained, explanation.start), 0, 1)
    largest = np.abs(explanation.relevance).max()
    np.testing.assert_allclose(relevance, explanation.relevance, rtol=1e-3, atol=1e-5 * largest)


def test_attention_of_equal_positions_is_equal():
    head, variables, episode = draw()
    equal = episode.replace(support=np.ones_like(episode.support))
    explained = run(head, variables, equal)["explained"]
    np.testing.assert_allclose(explained.prototype_attention, 1 + 1 / 6, rtol=1e-5)
    attention = explained.query_attention
    np.testing.assert_allclose(attention.sum((2, 3)), 6 + 1, rtol=1e-5)
    assert attention.min() >= 1 and attention.std() > 0.01


def test_losses():
    head, variables, episode = draw()
    found = run(head, variables, episode)
    query, query_labels, classes = episode.query, episode.query_labels, episode.query_classes
    metrics = found["metrics"]
    assert head.loss_weights(5, guided=True) == (0, 0.5) and head.loss_weights(5, guided=False) == (0.5, 0)
    np.testing.assert_allclose(
        metrics["loss"], metrics["loss_auxiliary"] + 0.5 * metrics["loss_guided"], rtol=1e-6
    )

    def cross_entropy(scores, labels):
        scores = np.moveaxis(np.asarray(scores, np.float64), -1, 0)
        log_p = scores - np.log(np.exp(scores).sum(0))
        return -np.mean([log_p[c, i] for i, c in enumerate(labels)])

    for kind, scores in (("plain", found["plain"]), ("guided", found["guided"][0])):
        expected = cross_entropy(scores, query_labels)
        np.testing.assert_allclose(metrics[f"loss_{kind}"], expected, rtol=1e-5)
    classifier = variables["params"]["classifier"]
    own = (
        query * np.asarray(found["explained"].query_attention)[np.arange(len(query)), query_labels][..., None]
    )
    expected = cross_entropy(own @ classifier["kernel"] + classifier["bias"], classes)
    np.testing.assert_allclose(metrics["loss_auxiliary"], expected, rtol=1e-5)


def test_gradient_flows_through_the_whole_explanation():
    with jax.enable_x64(True):
        head, variables, episode = draw(dtype=np.dtype(np.float64))
        where = (variables, episode.support, episode.query)
        gradient = run(head, variables, episode)["gradients"]

        @jax.jit
        def value(where):
            variables, support, query = where
            given = episode.replace(support=support, query=query)
            return run(head, variables, given)["metrics"]["loss"]

        random, step = np.random.default_rng(5), 1e-6
        for _ in range(3):
            direction = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), where)
            slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
            there = value(jax.tree.map(lambda a, d: a + step * d, where, direction))
            back = value(jax.tree.map(lambda a, d: a - step * d, where, direction))
            np.testing.assert_allclose(slope, (there - back) / (2 * step), rtol=1e-5)


@pytest.mark.parametrize("zero", ["all", "a query", "a class", "a position"])
def test_features_of_zeros_give_no_nan(zero):
    head, variables, episode = draw()
    support, labels, query = episode.support, episode.support_labels, episode.query
    if zero in ("all", "a query"):
        query[slice(None) if zero == "all" else 0] = 0
    if zero in ("all", "a class"):
        support[labels == 1 if zero == "a class" else slice(None)] = 0
    if zero == "a position":
        query[:, 1, 2] = 0
    found = run(head, variables, episode)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert all(np.abs(leaf).max() < 1e4 for leaf in jax.tree.leaves(found["gradients"]))


def test_strength_scales_both_weights():
    head, variables, episode = draw()
    found = run(head, variables, episode)

    @jax.jit
    def weights(strength):
        explanation = head.explain(variables, found["explained"], found["plain"], strength=strength)
        return explanation.weights, explanation.weights.dense()

    (full, dense), (half, _) = weights(1.0), weights(0.5)
    np.testing.assert_allclose(half.channels - 1, (full.channels - 1) / 2, atol=1e-6)
    np.testing.assert_allclose(half.scale, full.scale / 2, rtol=1e-5)
    np.testing.assert_array_equal(weights(0.0)[1], 1)
    assert dense.min() >= -1e-5 and dense.max() <= 4 + 1e-5


def test_largest_product_and_its_gradient():
    random = np.random.default_rng(0)
    x, y = (random.normal(size=(2, n, 37)).astype(np.float32) for n in (4, 5))
    x[0, 0] = 0
    g = random.normal(size=(2, 4, 5)).astype(np.float32)
    g[0, 0] = 0  # no one asks for the gradient of a maximum of 0
    found, pullback = jax.vjp(jax.jit(largest_product), x, y)
    np.testing.assert_array_equal(found, np.abs(x[:, :, None] * y[:, None]).max(-1))
    of_x, of_y = np.zeros_like(x), np.zeros_like(y)
    for b, i, j in np.ndindex(found.shape):
        c = np.abs(x[b, i] * y[b, j]).argmax()
        sign = np.sign(x[b, i, c] * y[b, j, c]) * g[b, i, j]
        of_x[b, i, c] += sign * y[b, j, c]
        of_y[b, j, c] += sign * x[b, i, c]
    for ours, expected in zip(pullback(g), (of_x, of_y), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_the_classifier_is_there_from_the_start_and_wants_classes(tiny):
    def shapes(head):
        return jax.eval_shape(
            lambda key: fewshot.init_variables(tiny.encoder, head, key, image_size=tiny.side),
            jax.random.key(0),
        )

    def metrics(head):
        return jax.eval_shape(
            lambda variables: fewshot.guided_loss(tiny.encoder, head, variables, tiny.episode()), shapes(head)
        )[1][1]

    without, head = fewshot.CrossAttentionHead(), fewshot.CrossAttentionHead(CLASSES)
    assert set(shapes(without)["params"]["head"]) == {"attention"}
    assert "loss_auxiliary" not in metrics(without)
    assert shapes(head)["params"]["head"]["classifier"]["kernel"].shape == (4, CLASSES)
    with pytest.raises(ValueError, match=r"expected query_classes .* episodes of data\.episode_dataset"):
        metrics(head)


def test_errors():
    head, variables, episode = draw()
    pooled = episode.replace(support=episode.support.mean((1, 2)), query=episode.query.mean((1, 2)))
    with pytest.raises(ValueError, match=r"expected maps \(N, h, w, C\), got \(6, 4\)"):
        head.apply(variables, pooled)
    with pytest.raises(ValueError, match="num_classes of at least 1, got 0"):
        fewshot.CrossAttentionHead(0).init(jax.random.key(0), episode)
