"""The head that takes one step on the support before it answers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closed_forms import close, explained, per_entry, stabilized

from jxai import fewshot
from jxai.fewshot.heads.conditioned import vectors


def drawn(head, features):
    variables = head.init(jax.random.key(0), features)
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + 0.1 * random.normal(size=x.shape), variables)


def test_the_layer_is_where_a_step_of_gradient_descent_leads(tiny):
    head = fewshot.AdaptedHead(way=3, step_size=0.7)
    with jax.enable_x64(True):
        episode, variables = tiny.features(dtype=np.float64), drawn(head, tiny.features())
        support, query = vectors(episode.support), vectors(episode.query)
        labels = episode.support_labels

        def loss(layer):
            scores = support @ layer["kernel"] + layer["bias"]
            return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

        layer = variables["params"]["fc"]
        adapted = jax.tree.map(lambda x, g: x - 0.7 * g, layer, jax.grad(loss)(layer))
        scores = head.apply(variables, episode)
        np.testing.assert_allclose(scores, query @ adapted["kernel"] + adapted["bias"], rtol=1e-10)
        assert loss(adapted) < loss(layer)

        # Training goes through the step: the gradient is that of the adapted layer's loss.
        def outer(variables):
            return head.loss(head.apply(variables, episode), episode.query_labels)

        direction = jax.tree.map(lambda x: np.random.default_rng(1).normal(size=x.shape), variables)
        _, slope = jax.jvp(outer, (variables,), (direction,))
        ends = [outer(optax.apply_updates(variables, optax.tree.scale(t, direction))) for t in (1e-6, -1e-6)]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def test_from_zero_it_is_the_prototypes_less_their_mean(tiny):
    """η / way · q·(p_c − mean p), for softmax is even where the layer is zero."""
    head = fewshot.AdaptedHead(way=3, step_size=1.5)
    episode = tiny.features()
    zero = jax.tree.map(jnp.zeros_like, drawn(head, episode))
    means = fewshot.prototypes(vectors(episode.support), episode.support_labels, 3)
    expected = 1.5 / 3 * vectors(episode.query) @ (means - means.mean(axis=0)).T
    np.testing.assert_allclose(head.apply(zero, episode), expected, rtol=1e-4, atol=1e-6)


def test_a_support_has_half_of_what_its_error_brings(tiny):
    """Of q·W + Σ η/n e_i (s_i·q) + b: the first to the query, of the second half to each; the errors are constant."""
    head = fewshot.AdaptedHead(way=3)
    with jax.enable_x64(True):
        episode = tiny.features(seed=5, dtype=np.float64)
        (of_support, of_query, scores), variables = explained(head, episode)
        layer = variables["params"]["fc"]
        support, query = (vectors(x) for x in (episode.support, episode.query))
        labels = np.eye(3)[episode.support_labels]
        errors = (labels - jax.nn.softmax(support @ layer["kernel"] + layer["bias"])) / len(support)
        products = errors[:, 1, None] * support * query[:, None]
        before, moved = query * layer["kernel"][:, 1], products.sum(axis=1)
        # The release's rules: a sum in proportion with ε, a layer's bias to its inputs.
        z = np.asarray(scores[:, 1])
        factor = stabilized(z)
        of_layer = before.sum(axis=1) + layer["bias"][1]
        inputs = before.sum(axis=1)
        of_before = before * (of_layer / inputs * stabilized(inputs))[:, None]
        close(of_support, per_entry(factor[:, None, None] * 0.5 * products, episode.support))
        close(of_query, per_entry(factor[:, None] * (of_before + 0.5 * moved), episode.query))


def test_more_classes_than_its_layer_has_are_refused(tiny):
    with pytest.raises(ValueError, match=r"at most 2 classes, got 3: make AdaptedHead\(way=3\)"):
        fewshot.AdaptedHead(way=2).init(jax.random.key(0), tiny.features())
    wide = fewshot.AdaptedHead(way=5)
    assert wide.apply(drawn(wide, tiny.features()), tiny.features()).shape == (6, 3)
    for options in ({"step_size": 0.0}, {"way": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            fewshot.AdaptedHead(**options).init(jax.random.key(0), tiny.features())
