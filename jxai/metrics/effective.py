"""Effective complexity: how many pixels a prediction needs."""

import jax
import jax.numpy as jnp

from jxai.batches.checks import as_finite
from jxai.batches.chunks import map_chunks, rows_in_flight
from jxai.batches.draws import row_keys
from jxai.checks import check_count, check_number, finite, keep_nan
from jxai.errors import InputError
from jxai.metrics.inputs import Scores, as_batch, as_feature_map, target_scores
from jxai.metrics.pixels import removal_ranks


def effective_complexity(
    f: Scores,
    key: jax.Array,
    x: jax.Array,
    heatmap: jax.Array,
    target: jax.Array,
    references: jax.Array,
    *,
    tolerance: float = 0.1,
    num_steps: int = 100,
    num_samples: int = 10,
    chunk_size: int | None = None,
) -> jax.Array:
    """Fewest of the most relevant pixels that, alone kept, keep the score. Lower is better.

    min k such that E[((f(x') − f(x)) / f(x))²] < tolerance², x' being x at the k pixels of largest |h| and an image
    of the data elsewhere. The paper leaves the loss open; this one is the relative change of the score. Quantus
    counts large values of the heatmap instead, without a network: `effective_pixels`.

    Args:
        f: from images (N, H, W, C) to scores (N, K).
        key: a random key; which reference a sample takes depends on (key, image's place, sample's place) alone.
        x: images, (N, H, W, C).
        heatmap: (N, H, W), (N, T) or (N, D); of equal magnitudes the first in reading order comes first.
        target: the class whose score is read, (N,) integers.
        references: images of the data, (R, H, W, C).
        tolerance: relative change of the score that is allowed, above 0.
        num_steps: numbers k that are tried besides 0, s·H·W // num_steps, at least 1; by default each is 1 % of the
            pixels.
        num_samples: references drawn for an image, at least 1.
        chunk_size: images in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,), float32, a number of pixels: 0 where other images have the score, too, H·W where nothing less does.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target is out of range, a count below 1 or
            `tolerance` not above 0.

    References:
        On Quantitative Aspects of Model Interpretability, Nguyen and Martínez, 2020.
    """
    x, target = as_batch(x, target, f=f)
    heatmap, references = as_feature_map(heatmap, x), as_finite("references", references)
    if references.shape[1:] != x.shape[1:]:
        raise InputError(
            f"expected `references` of shape (R, *{x.shape[1:]}), got {references.shape}: images like `x`"
        )
    check_number("tolerance", tolerance, above=0)
    check_count("num_steps", num_steps)
    check_count("num_samples", num_samples)
    num_images, num_pixels, num_points = len(x), heatmap[0].size, num_steps + 1
    ranks = removal_ranks(jnp.abs(heatmap))
    counts = jnp.asarray([step * num_pixels // num_steps for step in range(num_points)], jnp.int32)

    def scores(rows: jax.Array) -> jax.Array:
        image, point, sample = (
            rows // (num_points * num_samples),
            rows // num_samples % num_points,
            rows % num_samples,
        )
        draw = jax.vmap(lambda one: jax.random.randint(one, (), 0, len(references)))
        other = references[draw(row_keys(key, image, sample))].astype(x.dtype)
        kept = ranks[image] < counts[point].reshape(-1, *[1] * (ranks.ndim - 1))
        return target_scores(
            f,
            jnp.where(kept.reshape(*kept.shape, *[1] * (x.ndim - kept.ndim)), x[image], other),
            image,
            target,
        )

    score = map_chunks(scores, num_images * num_points * num_samples, rows_in_flight(x, chunk_size))
    score = finite("scores", score.reshape(num_images, num_points, num_samples))
    # With all pixels kept a sample is x itself.
    change = (score - score[:, -1:]) / jnp.abs(score[:, -1:])
    loss = jnp.where(score == score[:, -1:], 0, change**2).mean(axis=2)
    enough = (loss < tolerance**2).at[:, -1].set(True)
    return keep_nan(counts[enough.argmax(axis=1)].astype(jnp.float32), heatmap, x, score)
