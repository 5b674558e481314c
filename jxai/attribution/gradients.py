"""Explanations at one point: the gradient, and its product with the input.

`f` maps a batch (N, ...) to scores (N, K) and treats each input alone; `target` is one class an image, (N,), or what
`gradient` says.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jxai.attribution.inputs import as_inputs
from jxai.batches.targets import Target
from jxai.checks import check_functions, finite, keep_nan
from jxai.compiled import run_compiled

Scores = Callable[[jax.Array], jax.Array]
# An explanation at a point: of (f, x, target) to an array of x's shape. `gradient` is one, and so is
# functools.partial(jxai.lrp.relevance, composite=...).
Explain = Callable[[Scores, jax.Array, jax.Array], jax.Array]


def gradient(f: Scores, x: Any, target: Target) -> Any:
    """∇f_t(x): the gradient of each image's target score.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: x @ jnp.array([[1.0, 0.0], [2.0, -1.0]])
        >>> gradient(f, jnp.ones((1, 2)), [0])
        Array([[1., 2.]], dtype=float32)

    Args:
        f: from inputs (N, ...) to scores (N, K); or to any outputs, if `target` is a function of them.
        x: inputs, (N, ...), floats; or a tree of arrays (N, ...): a dictionary, or a tuple of f's arguments. Its
            integers are token ids, explained where f looks them up in a constant table (`E[ids]`, `nn.Embed`), or go
            along as they are.
        target: (N,), integers in [0, K), of maps (N, ..., K) the class's sum over them; or a function of f's outputs
            to one number an image, (N,), such as the mean score of a region of a segmentation map; or a tuple of such
            a function and of arrays (N, ...) that it takes after the outputs, such as each image's region, or one
            class against another (`contrast`); where f gives one number an image, (N,), None or whatever classes.

    Returns:
        Of x's shape and dtype, or structure: token ids have the sums over their embeddings' channels, other integers
        zeros, both float32.

    Raises:
        TypeError: `x` holds no floats and no token ids, or `target` no integers.
        ValueError: shapes do not fit, `x` is not finite or a target is out of range (values are not seen under jit).

    References:
        Simonyan et al., *Deep Inside Convolutional Networks*, 2014.
    """
    inputs = as_inputs(f, x, target)
    target = inputs.target

    def of_target() -> jax.Array:
        scores, pullback = jax.vjp(inputs.f(), inputs.x)
        (found,) = pullback(jax.nn.one_hot(target, scores.shape[-1], dtype=scores.dtype))
        # What is constant in x has a gradient where the score has no value.
        return keep_nan(found, inputs.x, jnp.take_along_axis(scores, target[:, None], axis=1))

    return inputs.attributions(finite("gradients", run_compiled(of_target)))


def input_x_gradient(f: Scores, x: Any, target: Target, *, explain: Explain = gradient) -> Any:
    """x ⊙ ∇f_t(x).

    Args:
        f: from inputs (N, ...) to scores (N, K).
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of f's outputs, as in `gradient`.
        explain: what takes the gradient's place.

    Returns:
        Of x's shape and dtype.

    Raises:
        TypeError: `x` holds no floats, or `target` no integers.
        ValueError: as `gradient` says.

    References:
        Shrikumar et al., *Not Just a Black Box*, 2016.
    """
    check_functions(explain=explain)
    inputs = as_inputs(f, x, target)
    return inputs.attributions(inputs.x * explain(inputs.f(), inputs.x, inputs.target))
