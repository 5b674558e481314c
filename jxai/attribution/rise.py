"""RISE: the mean of random soft masks, each weighted by the score of what it leaves of the picture."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from jxai.attribution.gradients import Scores
from jxai.attribution.inputs import as_images
from jxai.batches.checks import as_baseline
from jxai.batches.chunks import sum_over_roots
from jxai.batches.draws import row_keys
from jxai.batches.targets import Target, as_scores
from jxai.checks import check_count, check_key, check_number, finite, keep_nan
from jxai.errors import InputError


def rise(
    f: Scores,
    key: jax.Array,
    x: jax.Array,
    target: Target,
    *,
    num_masks: int = 1000,
    cells: int = 7,
    probability: float = 0.5,
    baseline: ArrayLike = 0.0,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Σ_r f_t(x ⊙ M_r + x₀ ⊙ (1 − M_r)) M_r / (p R), of masks M_r drawn coarsely, enlarged and shifted.

    Scores count as they are: of probabilities, as the paper has them, maps are not negative.

    Args:
        f: from images (N, H, W, C) to scores (N, K).
        key: a random key; mask r of image n depends on (key, n, r) alone.
        x: images, (N, H, W, C), floats.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        num_masks: R, scores an image; the paper takes 4000 to 8000.
        cells: along each side of a coarse mask, at most the image's shorter side.
        probability: p, with which a cell is kept, in (0, 1).
        baseline: what stands where nothing is kept: a number, or an array that broadcasts to `x`.
        chunk_size: inputs in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; a pixel's importance is dealt out evenly to its channels.

    Raises:
        TypeError: `x` holds no floats, or `target` no integers.
        ValueError: `x` holds no images, a count or probability is out of range, values are not finite or a target is
            out of range (values are not seen under jit).

    References:
        Petsiuk et al., *RISE: Randomized Input Sampling for Explanation of Black-box Models*, 2018, equation 6 and
        section 3.2.
    """
    x = as_images(x)
    f, target = as_scores(f, x, target)
    check_key(key)
    if x.ndim != 4:
        raise InputError(f"expected images of shape (N, H, W, C), got {x.shape}: add or merge leading axes")
    check_count("num_masks", num_masks)
    height, width = x.shape[1:3]
    if check_count("cells", cells) > min(height, width):
        raise InputError(f"expected at most {min(height, width)} cells, got {cells}: a cell holds a pixel")
    check_number("probability", probability, above=0, below=1)
    nothing = as_baseline(baseline, x)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    tall, broad = -(-height // cells), -(-width // cells)

    def draw(key: jax.Array) -> jax.Array:
        """One mask, (H, W)."""
        of_cells, of_shift = jax.random.split(key)
        kept = jax.random.bernoulli(of_cells, probability, (cells, cells)).astype(wide)
        large = jax.image.resize(kept, ((cells + 1) * tall, (cells + 1) * broad), "bilinear")
        shift = jax.random.randint(of_shift, (2,), 0, jnp.array([tall, broad]))
        return jax.lax.dynamic_slice(large, (shift[0], shift[1]), (height, width))

    def terms(images: jax.Array, roots: jax.Array) -> jax.Array:
        masks = jax.vmap(draw)(row_keys(key, images, roots))
        kept, own = masks[..., None], x[images].astype(wide)
        z = (kept * own + (1 - kept) * nothing[images].astype(wide)).astype(x.dtype)
        scores = jnp.take_along_axis(f(z), target[images][:, None], axis=1)[:, 0].astype(wide)
        return scores[:, None, None] * masks

    total = sum_over_roots(terms, x, num_roots=num_masks, chunk_size=chunk_size, mesh=mesh)
    share = total[..., None] / (probability * num_masks * x.shape[-1])
    attributions = jnp.broadcast_to(share, x.shape).astype(x.dtype)
    return finite("attributions", keep_nan(attributions, x))
