"""What of a function's outputs is explained, for every estimator: one number an image, as a column of scores.

A class is a column already; of maps of scores (N, ..., K) it is the class's sum over the map; of one number an image,
(N,), as a regression gives, that number, whatever class is named. A function of the outputs becomes one column; with
arrays of the images beside it, one column an image, since whoever explains may take images in any order and number
(chunks, noisy copies).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from jxai.batches.checks import check_classes, check_finite, check_scores
from jxai.checks import as_array, check_functions, shown
from jxai.errors import InputError, InputTypeError

# Classes (N,), a function of the outputs, a tuple of one and of the arrays (N, ...) that it takes beside them, or
# None where the outputs are one number an image.
Target = ArrayLike | Callable[..., jax.Array] | tuple | None
# Of f's outputs, and for how many images they are, to scores.
Reading = Callable[[Any, int], jax.Array]


def as_scores(
    f: Callable[[jax.Array], Any], x: jax.Array, target: Target, *, below: Callable = lambda x: x
) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """A function to scores (N, K), and the class of each image in them; refuses what `check_inputs` does.

    Args:
        f: from a batch (N, ...) to scores (N, K), or to what `as_reading` takes.
        x: (N, ...), floats.
        target: as in `as_reading`.
        below: what is computed of x before f, where f starts inside of a model.

    Returns:
        (f', classes): both as they are where classes of scores are given; f' treats each image alone where f and the
        target's function do.

    Raises:
        TypeError: as `check_inputs`; or the function gives no floats.
        ValueError: as `check_inputs`; or as `as_reading`.
    """
    check_functions(f=f)
    check_finite("x", x)
    check_target(target, len(x))
    outputs = jax.eval_shape(lambda x: f(below(x)), jax.ShapeDtypeStruct(x.shape, x.dtype))
    read, classes = as_reading(outputs, len(x), target, x.shape)
    return (f if read is None else lambda z: read(f(z), len(z))), classes


def check_target(target: Target, number: int) -> None:
    """Refuse, before f is called, classes or arrays of another number of images."""
    function, given = _parts(target)
    for array in map(as_array, given):
        if array.shape[:1] != (number,):
            raise InputError(
                f"expected arrays of the target's function of shape ({number}, ...), got {array.shape}: one entry an "
                "image"
            )
    if function is None and target is not None:
        check_classes(as_array(target), number)


def as_reading(
    outputs: Any, number: int, target: Target, image: tuple[int, ...] | None = None
) -> tuple[Reading | None, jax.Array]:
    """How scores are read from outputs, and the class of each image in them.

    Args:
        outputs: the shapes of f's outputs for the images: scores (N, K); or maps of them (N, ..., K), of which a
            class counts with its sum; or one number an image (N,); or a tree that holds one such array; or what the
            target's function takes.
        number: N.
        target: classes (N,), a function of f's outputs to one number an image (N,), or a tuple of such a function and
            of arrays (N, ...) which it takes after the outputs; where outputs are one number an image, None or
            whatever classes.
        image: the inputs' shape, where it is one array: maps that are images' with their classes first are refused.

    Returns:
        (reading, classes); None for the reading of scores (N, K) as they are.

    Raises:
        TypeError: the function gives no floats.
        ValueError: the function does not give (N,), outputs do not fit the classes, or hold more than one array.
    """
    function, given = _parts(target)
    if function is None and target is not None:
        return _of_classes(outputs, as_array(target), image)
    read = _by(_only_number if function is None else function, [as_array(one) for one in given])
    jax.eval_shape(lambda outputs: read(outputs, number), outputs)
    with jax.ensure_compile_time_eval():
        return read, jnp.arange(number) if given else jnp.zeros(number, int)


def _parts(target: Target) -> tuple[Callable[..., Any] | None, tuple]:
    """The target's function, or None, and the arrays beside it."""
    function, *given = target if isinstance(target, tuple) and target and callable(target[0]) else (target,)
    return (function, tuple(given)) if callable(function) else (None, ())


def _of_classes(
    outputs: Any, classes: jax.Array, image: tuple[int, ...] | None
) -> tuple[Reading | None, jax.Array]:
    leaves = jax.tree.leaves(outputs)
    if len(leaves) > 1:
        names = ", ".join(
            jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(outputs)
        )
        raise InputError(
            f"expected `f` to give scores of shape ({len(classes)}, K), got {len(leaves)} arrays ({names}): give "
            "`target` as a function of them that chooses, such as lambda outputs: outputs[...][:, 0]"
        )
    scores = leaves[0] if leaves else outputs
    shape = getattr(scores, "shape", ())
    if shape == (len(classes),):
        return _by(_only_number, []), jnp.zeros_like(classes)
    if len(shape) <= 2 or shape[0] != len(classes):
        check_scores(scores, classes)
        return (None if scores is outputs else lambda outputs, _: jax.tree.leaves(outputs)[0]), classes
    if image is not None and len(image) == len(shape) == 4 and shape[2:] == image[1:3] != shape[1:3]:
        raise InputError(
            f"expected maps of scores (N, H, W, K) of images {image}, got {shape}: move their classes last, or give "
            "`target` as a function of the maps"
        )

    def read(outputs: Any, _: int) -> jax.Array:
        maps = jax.tree.leaves(outputs)[0]
        return maps.sum(axis=tuple(range(1, maps.ndim - 1)))

    check_scores(jax.eval_shape(lambda outputs: read(outputs, len(classes)), outputs), classes)
    return read, classes


def _only_number(outputs: Any) -> jax.Array:
    """The one number an image that outputs are."""
    leaves = jax.tree.leaves(outputs)
    shape = getattr(leaves[0], "shape", ()) if len(leaves) == 1 else ()
    if len(shape) > 1 and shape[1:] != (1,) * (len(shape) - 1):
        raise InputError(
            f"expected `f` to give one number an image where `target` is None, got shape {shape}: give classes, or a "
            "function of the outputs"
        )
    return leaves[0].reshape(len(leaves[0])) if len(shape) > 1 else leaves[0] if len(leaves) == 1 else outputs


def _by(function: Callable[..., Any], arrays: list[jax.Array]) -> Reading:
    def scores(outputs: Any, number: int) -> jax.Array:
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

    return scores
