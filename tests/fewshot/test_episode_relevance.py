"""A query explained down to its support: against one pullback of everything, and against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import EMPTY, Identity, close, explain, explained, means, per_entry, stabilized
from compiling import quick_jit

from jxai import fewshot, lrp


def test_all_of_a_score_arrives_or_is_absorbed(system):
    """As one pullback through encoder and head from one score alone; `check` sees to what it starts with."""
    with jax.enable_x64(True):
        variables = jax.tree.map(np.float64, system.variables)
        episode = jax.tree.map(jnp.asarray, system.episode(dtype=np.float64))
        of_encoder, of_head = (fewshot.part(variables, name) for name in ("encoder", "head"))

        def whole(images):
            features = [system.encoder.apply(of_encoder, one, train=False) for one in images]
            encoded = episode.replace(support=features[0], query=features[1])
            return system.head.apply(of_head, encoded, mutable=["batch_stats"])[0]

        @quick_jit
        def of_one(images, query, target):
            found, pullback = lrp.vjp(whole, images, composite=system.head.composite, check=True)
            start = jnp.zeros_like(found).at[query, target].set(found[query, target])
            return found, pullback(start)[0]

        images = (episode.support, episode.query)
        target, contrast = (jnp.asarray(np.roll(np.arange(6) % 3, shift)) for shift in (0, 1))
        of_support, of_query, scores = explain(
            system.encoder, system.head, variables, episode, target=target, contrast=contrast
        )
        assert of_support.shape == (6, *episode.support.shape) and of_query.shape == episode.query.shape
        for query in (1, 4):
            found, (for_support, for_query) = of_one(images, query, target[query])
            _, against = of_one(images, query, contrast[query])
            assert np.isfinite(for_support).all() and np.abs(for_support).max() > 0
            close(scores, found, 1e-8)
            close(of_support[query], for_support - against[0])
            close(of_query[query], for_query[query] - against[1][query])
        black = jax.tree.map(lambda x: x * 0 if x.ndim > 1 else x, episode)
        given = {"target": target, "contrast": contrast}
        found = explain(system.encoder, system.head, variables, black, **given)
        assert all(np.isfinite(one).all() for one in found) and np.abs(found[0]).max() < 1e-12


def test_a_prototype_has_its_share_of_the_product_and_all_of_its_norm(tiny):
    """2p·q − ‖p‖²: p·q to the query; to the prototype p·q − ‖p‖², and to each of its supports s·(q − p) / K."""
    with jax.enable_x64(True):
        episode = tiny.features(seed=5, dtype=np.float64)
        (of_support, of_query, scores), _ = explained(fewshot.PrototypeHead(), episode)
        support, query = means(episode.support), means(episode.query)
        own = episode.support_labels == 1
        p = support[own].mean(axis=0)
        factor = stabilized(2 * query @ p - p @ p)[:, None, None]
        expected = np.where(own[None, :, None], support * (query - p)[:, None] / own.sum(), 0)
        close(scores[:, 1], 2 * query @ p - p @ p)
        close(of_support, per_entry(factor * expected, episode.support))
        close(of_query, per_entry(factor[:, 0] * query * p, episode.query))


def test_a_support_has_half_of_its_cosine_by_its_attention(tiny):
    with jax.enable_x64(True):
        head = fewshot.MatchingHead(temperature=0.1)
        episode = tiny.features(seed=5, dtype=np.float64)
        (of_support, of_query, scores), _ = explained(head, episode)
        support, query = (
            x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(means, (episode.support, episode.query))
        )
        products = query[:, None] * support / head.temperature
        logits = products.sum(axis=-1)
        own = episode.support_labels == 1
        weights = np.exp(logits) * own
        share = weights / weights.sum(axis=1, keepdims=True) * scores[:, 1:2] / logits
        halves = 0.5 * share[..., None] * products
        close(of_support, per_entry(halves, episode.support))
        close(of_query, per_entry(halves.sum(axis=1), episode.query))


def test_attended_maps_have_half_of_the_cosine_each(tiny):
    """Gradient times input with attention and norms held, where ε is nothing beside the features."""
    with jax.enable_x64(True):
        head = fewshot.CrossAttentionHead(hidden=3)
        episode = tiny.features(seed=5, dtype=np.float64)
        episode = episode.replace(support=1e5 * episode.support, query=1e5 * episode.query)
        (of_support, of_query, _), variables = explained(head, episode)
        attended = head.apply(variables, episode, method="explained")

        def scores(support, maps):
            p = jnp.stack([support[episode.support_labels == label].mean(axis=0) for label in range(3)])
            at, of = attended.prototype_attention[:, 1], attended.query_attention[:, 1]
            pooled = jnp.einsum("hvc,qhv->qc", p[1], at), jnp.einsum("qhvc,qhv->qc", maps, of)
            length = [jax.lax.stop_gradient(jnp.linalg.norm(x, axis=1)) for x in pooled]
            return head.scale * jnp.einsum("qc,qc->q", *pooled) / length[0] / length[1]

        gradient = jax.jacrev(scores)(jnp.asarray(episode.support), jnp.asarray(episode.query))
        close(of_support, 0.5 * gradient * episode.support, 1e-5)
        of = jax.jacrev(scores, argnums=1)(jnp.asarray(episode.support), jnp.asarray(episode.query))
        close(of_query, 0.5 * jnp.stack([of[q, q] for q in range(6)]) * episode.query, 1e-5)


def test_a_prototypes_share_of_a_pair_goes_to_its_supports(tiny):
    """The head's own relevance of the pairs, in closed form for both halves, from one query's score."""
    with jax.enable_x64(True):
        head = fewshot.RelationHead(features=4, hidden=3)
        episode = tiny.features(seed=5, dtype=np.float64)
        (of_support, of_query, scores), variables = explained(head, episode)
        pairs = head.apply(variables, episode, method="explained")
        own = episode.support_labels == 1
        of = quick_jit(lambda pairs, start: head.relevance(variables, pairs, start))
        for query in (0, 3):
            start = jnp.zeros_like(scores).at[query, 1].set(scores[query, 1])
            of_pairs = of(pairs, start)
            of_prototype, of_own = np.split(of_pairs[query, 1], 2, axis=-1)
            total = episode.support[own].sum(axis=0)
            parts = episode.support * own[:, None, None, None] / np.where(total == 0, 1, total)
            close(of_support[query], parts * of_prototype)
            close(of_query[query], of_own)


@pytest.mark.slow
def test_nodes_hand_on_to_supports_by_the_first_layer(tiny):
    """The head's own relevance of the nodes, and LRP-ε on the matrix of its first dense layer; both graphs."""
    with jax.enable_x64(True):
        head = fewshot.GraphHead(way=3, features=5, growth=4, widths=(6, 4))
        episode = tiny.features(seed=5, dtype=np.float64)
        (of_support, of_query, scores), variables = explained(head, episode)
        nodes = head.apply(variables, episode, True, method="explained", mutable=["batch_stats"])[0]
        kernel = variables["params"]["fc"]["kernel"]
        support, query = means(episode.support), means(episode.query)

        def below(x, relevance):
            z = x @ kernel
            return x * ((relevance / (z + np.where(z >= 0, 0.01, -0.01))) @ kernel.T)

        of = quick_jit(lambda nodes, start: head.relevance(variables, nodes, start))
        for index in (0, 3):
            start = jnp.zeros_like(scores).at[index, 1].set(scores[index, 1])
            of_nodes = of(nodes, start)
            graph, place = index % 2, index // 2  # queries come class by class
            assert not np.any(of_nodes[1 - graph])
            close(of_support[index], per_entry(below(support, of_nodes[graph, :6]), episode.support))
            own = below(query[index][None], of_nodes[graph, 6 + place][None])
            close(of_query[index], per_entry(own, episode.query[index][None])[0])


def test_compiled_or_not_in_chunks_or_of_some_queries_it_is_the_same(tiny):
    given = (tiny.encoder, tiny.head, tiny.variables, tiny.episode())
    whole = explain(*given)
    some = explain(*given, queries=np.array([4, 1, 4]), chunk_size=2)
    for ours, expected in zip(some, whole, strict=True):
        close(ours, expected[np.array([4, 1, 4])], 1e-4)
    given = (Identity(), fewshot.PrototypeHead(), EMPTY, tiny.features())
    for ours, expected in zip(fewshot.episode_relevance(*given, chunk_size=4), explain(*given), strict=True):
        close(ours, expected, 1e-5)


def test_episodes_at_once(tiny):
    """And a class is the predicted one where none is asked for."""
    encoder, head = tiny.encoder, fewshot.PrototypeHead()
    empty = {kind: {**parts, "head": {}} for kind, parts in tiny.variables.items()}
    episodes = [tiny.episode(seed=seed) for seed in (0, 1)]
    both = quick_jit(jax.vmap(lambda episode: fewshot.episode_relevance(encoder, head, empty, episode)))(
        jax.tree.map(lambda *leaves: np.stack(leaves), *episodes)
    )
    for index, episode in enumerate(episodes):
        predicted = np.asarray(both[2][index].argmax(axis=-1), np.int32)
        alone = explain(encoder, head, empty, episode, target=predicted)
        for ours, expected in zip(both, alone, strict=True):
            close(ours[index], expected, 1e-4)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"target": np.full(6, 3)}, r"target in \[0, 3\), got values from 3"),
        ({}, {"contrast": np.full(6, -1)}, r"contrast in \[0, 3\)"),
        ({}, {"target": np.zeros(5, int)}, r"target of shape \(6,\)"),
        ({}, {"target": np.zeros(6)}, "target of integers"),
        ({}, {"queries": np.array([6])}, r"`queries` in \[0, 6\)"),
        ({}, {"queries": np.zeros(0, int)}, r"`queries` as integers \(Q,\)"),
        ({}, {"queries": np.array([0.5])}, r"`queries` as integers"),
        ({}, {"queries": np.array([1]), "target": np.zeros(6, int)}, r"target of shape \(1,\)"),
        ({}, {"chunk_size": 0}, "chunk_size"),
        ({"support": slice(0), "support_labels": slice(0)}, {}, "with support, got none"),
    ],
)
def test_what_is_refused(tiny, changes, options, message):
    episode = tiny.features()
    episode = episode.replace(**{name: getattr(episode, name)[part] for name, part in changes.items()})
    with pytest.raises((TypeError, ValueError), match=message):
        fewshot.episode_relevance(Identity(), fewshot.PrototypeHead(), EMPTY, episode, **options)


def test_values_that_are_not_finite_are_refused(tiny):
    episode = tiny.features()
    spoilt = episode.support.copy()
    spoilt[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        fewshot.episode_relevance(Identity(), fewshot.PrototypeHead(), EMPTY, episode.replace(support=spoilt))


def test_an_operation_of_the_support_without_a_rule_is_named(tiny):
    class Inverse(fewshot.Head):
        """Ridge regression on the support."""

        def explained(self, episode, train=False):
            support, query = (x.mean((1, 2)) for x in (episode.support, episode.query))
            labels = jax.nn.one_hot(episode.support_labels, episode.way)
            gram = support.T @ support + jnp.eye(support.shape[1])
            return query @ jnp.linalg.solve(gram, support.T @ labels)

        def scores(self, explained, train=False):
            return explained

    with pytest.raises(ValueError, match=r"lu|solve|triangular"):
        fewshot.episode_relevance(Identity(), Inverse(), EMPTY, tiny.features())
