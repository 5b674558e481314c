"""Shapley values by sampling orders in which features come."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jxai.attribution.games import as_game
from jxai.attribution.gradients import Scores
from jxai.batches.draws import row_keys
from jxai.batches.targets import Target
from jxai.checks import check_count, check_key


def shapley_sampling(
    f: Scores,
    key: jax.Array,
    x: Any,
    target: Target,
    *,
    feature_mask: Any = None,
    baseline: Any = 0.0,
    num_permutations: int = 25,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """Mean over random orders of what the score gains when a feature comes to those before it.

    Whatever the orders, their sum is f_t(x) − f_t(baseline).

    Args:
        f: from inputs (N, ...) to scores (N, K).
        key: a random key; order r of image n depends on (key, n, r) alone.
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        feature_mask: as in `feature_ablation`.
        baseline: as in `feature_ablation`.
        num_permutations: orders an image; each takes a score a feature, and one more.
        chunk_size: inputs in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; a feature's value is dealt out evenly to its entries, so that their sum is the value.

    Raises:
        TypeError: as `feature_ablation`.
        ValueError: as `feature_ablation`; or a count is less than 1.

    References:
        Castro et al., *Polynomial calculation of the Shapley value based on sampling*, 2009, section 3; Štrumbelj
        and Kononenko, *An Efficient Explanation of Individual Classifications using Game Theory*, 2010.
    """
    check_key(key)
    check_count("num_permutations", num_permutations)
    game = as_game(
        f, x, target, feature_mask=feature_mask, baseline=baseline, chunk_size=chunk_size, mesh=mesh
    )
    before = game.of_all(present=True)

    def terms(images: jax.Array, roots: jax.Array) -> jax.Array:
        order, come = roots // (game.count + 1), (roots % (game.count + 1))[:, None]
        ranks = jax.vmap(lambda key: jax.random.permutation(key, game.count))(row_keys(key, images, order))
        # The score with the first few features counts for the last of them and against the one that comes next;
        # what is the same in all scores cancels, and is better left out.
        score = (game.value(images, ranks < come) - before[images])[:, None]
        return jnp.where(ranks == come - 1, score, 0) - jnp.where(ranks == come, score, 0)

    return game.dealt(game.total(terms, num_permutations * (game.count + 1)) / num_permutations)
