"""Relevance of the queries' pixels for every class."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import fewshot, lrp

explain = jax.jit(fewshot.pixel_relevance, static_argnums=(0, 1), static_argnames="composite")


@pytest.fixture(scope="module")
def explained(tiny):
    episode = tiny.episode()
    episode.query[:, :3] = 0  # a dark band
    return episode, explain(tiny.encoder, tiny.head, tiny.variables, episode)


def test_shapes_and_scores(tiny, explained):
    episode, (relevance, scores) = explained
    assert relevance.shape == (len(episode.query), tiny.way, *episode.query.shape[1:])
    support, query = (
        fewshot.encode(tiny.encoder, tiny.variables, images) for images in (episode.support, episode.query)
    )
    expected, _ = tiny.head.apply(
        fewshot.part(tiny.variables, "head"),
        support,
        episode.support_labels,
        query,
        tiny.way,
        mutable=["batch_stats"],
    )
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


def test_classes_at_once_equal_one_vjp_through_both_parts(tiny, explained):
    episode, (relevance, scores) = explained
    of_encoder, of_head = (fewshot.part(tiny.variables, name) for name in ("encoder", "head"))
    support = tiny.encoder.apply(of_encoder, episode.support, train=False)

    def whole(query):
        features = tiny.encoder.apply(of_encoder, query, train=False)
        return tiny.head.apply(
            of_head, support, episode.support_labels, features, tiny.way, mutable=["batch_stats"]
        )[0]

    @jax.jit
    def one_class(target):
        _, pullback = lrp.vjp(whole, episode.query, composite=tiny.head.composite)
        return pullback(fewshot.log_odds(scores) * jax.nn.one_hot(target, tiny.way))[0]

    for target in range(tiny.way):
        expected = np.asarray(one_class(target))
        np.testing.assert_allclose(
            relevance[:, target], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
        )


def test_dark_pixels_get_nothing(explained):
    # The released rules hand relevance out in proportion to the input: none where a pixel is zero.
    episode, (relevance, _) = explained
    largest = np.abs(relevance).max()
    assert largest > 0 and np.isfinite(relevance).all()
    assert np.abs(np.moveaxis(relevance, 1, -1)[episode.query == 0]).max() <= 1e-6 * largest


class PositiveHead(fewshot.Head):
    """Scores whose rules absorb nothing: the mean product with the prototype, no bias, nothing negative."""

    def explained(self, support, support_labels, query, way):
        members = jax.nn.one_hot(support_labels, way, axis=0)
        prototypes = jnp.tensordot(members / members.sum(1, keepdims=True), support, axes=1)
        return query[:, None] * jax.lax.stop_gradient(prototypes)

    def scores(self, explained, train=False):
        return explained.mean((2, 3, 4))


def test_relevance_is_conserved_down_to_the_pixels(tiny):
    # z-plus without bias, batch norm passed, means: each hands on all it gets, so a class's pixels sum to its start.
    variables = fewshot.init_variables(tiny.encoder, PositiveHead(), jax.random.key(0), image_size=tiny.side)
    relevance, scores = explain(tiny.encoder, PositiveHead(), variables, tiny.episode())
    start = fewshot.log_odds(scores)
    np.testing.assert_allclose(relevance.sum((2, 3, 4)), start, rtol=1e-3, atol=1e-5)


def test_the_encoders_rules_are_the_ones_asked_for(tiny, explained):
    episode, (released, scores) = explained
    epsilon = lrp.Composite(((nn.Conv, lrp.Epsilon(0.1)), (nn.BatchNorm, lrp.Pass())))
    relevance, same_scores = explain(tiny.encoder, tiny.head, tiny.variables, episode, composite=epsilon)
    np.testing.assert_allclose(same_scores, scores, rtol=1e-5)
    assert not np.allclose(relevance, released, rtol=0.1, atol=0.1 * np.abs(released).max())
    with pytest.raises(ValueError, match="Conv at 'conv0' in nothing"):
        explain(tiny.encoder, tiny.head, tiny.variables, episode, composite=lrp.Composite((), name="nothing"))
