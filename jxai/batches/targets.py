"""What of a function's outputs is explained, for every estimator: one number an image, as a column of scores.

A class is a column already. A function of the outputs becomes one column; with arrays of the images beside it, one
column an image, since whoever explains may take images in any order and number (chunks, noisy copies).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from jxai.batches.checks import check_finite, check_inputs
from jxai.checks import as_array, shown
from jxai.errors import InputError, InputTypeError

# Classes (N,), a function of the outputs, or a tuple of one and of the arrays (N, ...) that it takes beside them.
Target = ArrayLike | Callable[..., jax.Array] | tuple


def as_scores(
    f: Callable[[jax.Array], Any], x: jax.Array, target: Target, *, below: Callable = lambda x: x
) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """A function to scores (N, K), and the class of each image in them; refuses what `check_inputs` does.

    Args:
        f: from a batch (N, ...) to scores (N, K), or to what the target's function takes.
        x: (N, ...), floats.
        target: classes (N,), a function of f's outputs to one number an image (N,), or a tuple of such a function and
            of arrays (N, ...) which it takes after the outputs.
        below: what is computed of x before f, where f starts inside of a model.

    Returns:
        (f', classes): both as they are where classes are given; f' treats each image alone where f and the function
        do.

    Raises:
        TypeError: as `check_inputs`; or the function gives no floats.
        ValueError: as `check_inputs`; or the function does not give (N,), or an array has another length.
    """
    function, *given = target if isinstance(target, tuple) and target and callable(target[0]) else (target,)
    if not callable(function):
        classes = as_array(target)
        check_inputs(lambda x: f(below(x)), x, classes)
        return f, classes
    check_finite("x", x)
    arrays = [as_array(one) for one in given]
    for array in arrays:
        if array.shape[:1] != x.shape[:1]:
            raise InputError(
                f"expected arrays of the target's function of shape ({len(x)}, ...), got {array.shape}: one entry an "
                "image"
            )

    def scores(z: jax.Array) -> jax.Array:
        outputs, number = f(z), len(z)

        def column(*own: jax.Array) -> jax.Array:
            found: Any = function(
                outputs, *(jnp.broadcast_to(one[None], (number, *one.shape)) for one in own)
            )
            shape, dtype = getattr(found, "shape", None), jnp.dtype(getattr(found, "dtype", object))
            if shape != (number,):
                got = shown(found) if shape is None else f"shape {shape}"
                raise InputError(
                    f"expected the target's function to give shape ({number},), got {got}: one number an image"
                )
            if not jnp.issubdtype(dtype, jnp.floating):
                raise InputTypeError(
                    f"expected the target's function to give floats, got {dtype}: explain what has a gradient"
                )
            return found

        return jnp.moveaxis(jax.vmap(column)(*arrays), 0, 1) if arrays else column()[:, None]

    jax.eval_shape(lambda x: scores(below(x)), jax.ShapeDtypeStruct(x.shape, x.dtype))
    with jax.ensure_compile_time_eval():
        classes = jnp.arange(len(x)) if arrays else jnp.zeros(len(x), int)
    return scores, classes
