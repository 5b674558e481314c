"""Expected gradients: Integrated Gradients with its baseline drawn from a set of references."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jxai.attribution.gradients import Explain, Scores, gradient
from jxai.attribution.inputs import as_inputs
from jxai.batches.chunks import sum_over_roots
from jxai.batches.draws import row_keys
from jxai.batches.targets import Target
from jxai.checks import check_count


def expected_gradients(
    f: Scores,
    key: jax.Array,
    x: Any,
    target: Target,
    *,
    references: Any,
    num_samples: int = 200,
    explain: Explain = gradient,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """Mean of (x − x') ⊙ ∇f_t(x' + α(x − x')) over references x', drawn uniformly, and α ~ U(0, 1).

    Its sum over an image tends to f_t(x) less the references' mean score.

    Args:
        f: from inputs (N, ...) to scores (N, K).
        key: a random key; sample s of image n depends on (key, n, s) alone.
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        references: inputs of the data's distribution, (B, ...) of x's sizes.
        num_samples: gradients an image.
        explain: what takes the gradient's place; the product stays.
        chunk_size: inputs in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; sums are float32 at least.

    Raises:
        TypeError: `x` or `references` holds no floats, or `target` no integers.
        ValueError: shapes do not fit, a count is less than 1, values are not finite or a target is out of range
            (values are not seen under jit).

    References:
        Erion et al., *Improving performance of deep learning models with axiomatic attribution priors and expected
        gradients*, 2021, equation 4.
    """
    check_count("num_samples", num_samples)
    inputs = as_inputs(f, x, target)
    x, references = inputs.x, inputs.references(references)
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        of_reference, of_position = jax.random.split(key)
        reference = references[jax.random.randint(of_reference, (), 0, len(references))]
        return reference.astype(wide), jax.random.uniform(of_position, (1,) * (x.ndim - 1), wide)

    def terms(images: jax.Array, samples: jax.Array) -> jax.Array:
        start, alpha = jax.vmap(draw)(row_keys(key, images, samples))
        path = x[images].astype(wide) - start
        at = (start + alpha * path).astype(x.dtype)
        return path * inputs.explained(explain, at, images).astype(wide)

    total = sum_over_roots(terms, x, num_roots=num_samples, chunk_size=chunk_size, mesh=mesh)
    return inputs.attributions(total / num_samples)
