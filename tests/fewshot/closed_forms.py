"""What relevance of an episode is compared with: heads on features alone, and how they hand on to them."""

import flax.linen as nn
import jax
import numpy as np
from compiling import quick_jit

from jxai import fewshot

explain = quick_jit(
    fewshot.episode_relevance, static_argnums=(0, 1), static_argnames=("composite", "chunk_size")
)


def close(ours, expected, rtol=1e-6):
    np.testing.assert_allclose(ours, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


EMPTY = {"params": {"encoder": {}, "head": {}}, "batch_stats": {"encoder": {}, "head": {}}}


class Identity(nn.Module):
    """Pictures that are features already."""

    @nn.compact
    def __call__(self, x, *, train):
        return x


def explained(head, episode):
    """(explanation of an episode of features, the head's variables), in float64; all queries at class 1."""
    single = jax.tree.map(lambda x: np.float32(x) if x.dtype == np.float64 else x, episode)
    variables = quick_jit(head.init)(jax.random.key(0), single)
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: np.float64(x) + 0.1 * np.abs(random.normal(size=x.shape)), variables)
    whole = {kind: {"encoder": {}, "head": variables.get(kind, {})} for kind in EMPTY}
    target = np.full(len(episode.query), 1)
    return explain(Identity(), head, whole, episode, target=target), variables


def means(maps):
    return np.mean(maps, axis=(1, 2))


def per_entry(of_vectors, maps):
    """Relevance of pooled vectors (..., N, C), handed to the maps (N, h, w, C) in proportion."""
    total = maps.sum(axis=(1, 2), keepdims=True)
    return of_vectors[..., None, None, :] * maps / np.where(total == 0, 1, total)


def stabilized(z, epsilon=0.01):
    return z / (z + np.where(z >= 0, epsilon, -epsilon))
