"""Relevance of the queries' pixels for every class."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import quick_jit

from jxai import fewshot, lrp

explain = quick_jit(fewshot.pixel_relevance, static_argnums=(0, 1), static_argnames="composite")


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
    encoded = episode.replace(support=support, query=query)
    expected, _ = tiny.head.apply(fewshot.part(tiny.variables, "head"), encoded, mutable=["batch_stats"])
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


def test_relevance_is_that_of_a_querys_own_scores_through_both_parts(system):
    """Each query and class alone, in one pullback through head and encoder."""
    with jax.enable_x64(True):
        variables = jax.tree.map(np.float64, system.variables)
        episode = system.episode(dtype=np.float64)
        relevance, scores = explain(system.encoder, system.head, variables, episode)
        of_encoder, of_head = (fewshot.part(variables, name) for name in ("encoder", "head"))

        def whole(query):
            support, query = (
                system.encoder.apply(of_encoder, images, train=False) for images in (episode.support, query)
            )
            encoded = episode.replace(support=support, query=query)
            return system.head.apply(of_head, encoded, mutable=["batch_stats"])[0]

        @quick_jit
        def one_by_one(images):
            found, pullback = lrp.vjp(whole, images, composite=system.head.composite)
            starts = jnp.eye(found.size).reshape(found.size, *found.shape) * fewshot.log_odds(found)
            (relevance,) = jax.vmap(pullback)(starts)
            relevance = relevance.reshape(*found.shape, *images.shape)
            return found, jnp.stack([relevance[q, :, q] for q in range(len(found))])

        expected_scores, expected = one_by_one(episode.query)
        np.testing.assert_allclose(scores, expected_scores, rtol=1e-8, atol=1e-10)
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(relevance, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


def test_dark_pixels_get_nothing(explained):
    # The released rules hand relevance out in proportion to the input: none where a pixel is zero.
    episode, (relevance, _) = explained
    largest = np.abs(relevance).max()
    assert largest > 0 and np.isfinite(relevance).all()
    assert np.abs(np.moveaxis(relevance, 1, -1)[episode.query == 0]).max() <= 1e-6 * largest


class PositiveHead(fewshot.Head):
    """Scores whose rules absorb nothing: the mean product with the prototype, no bias, nothing negative."""

    def explained(self, episode, train=False):
        means = fewshot.prototypes(episode.support, episode.support_labels, episode.way)
        return episode.query[:, None] * jax.lax.stop_gradient(means)

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
