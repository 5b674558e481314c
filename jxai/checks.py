"""What every package asks of plain arguments: counts, numbers, names, random keys, arrays that are finite.

Types and shapes are checked always, values only where they are known: not of tracers under `jit`, `vmap` or `grad`.
`docs/hostile.md` says what that promises.
"""

import contextlib
import contextvars
import math
import operator
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike

from jxai.errors import InputError, InputTypeError

Tree = TypeVar("Tree")


def check_count(name: str, value: Any, *, least: int = 1) -> int:
    """The value as an int; a ValueError where it is none or below `least`.

    An array of JAX is none: shapes and loops hang on counts, and a function that is compiled with it loses its value.
    """
    try:
        number = None if isinstance(value, bool | jax.Array) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise InputError(f"expected {name} of at least {least}, got {shown(value)}: give such an integer")
    return number


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> None:
    """Refuse what is no finite number within the bounds (none, a lower one, or two); a tracer is not looked at."""
    if isinstance(value, Tracer):
        return
    try:
        number = math.nan if isinstance(value, str | bytes) or np.ndim(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    inside = (
        math.isfinite(number)
        and (above is None or number > above)
        and (least is None or number >= least)
        and (below is None or number < below)
        and (most is None or number <= most)
    )
    if not inside:
        low, high = (least if above is None else above), (most if below is None else below)
        if low is not None and high is not None:
            asked = f"in {'[' if above is None else '('}{low:g}, {high:g}{']' if below is None else ')'}"
        elif low is not None:
            asked = f"of at least {low:g}" if above is None else f"above {low:g}"
        else:
            asked = "finite"
        raise InputError(f"expected {name} {asked}, got {shown(value)}: give such a number")


def check_functions(**functions: Any) -> None:
    """Refuse what cannot be called; functions by the names of their arguments."""
    for name, function in functions.items():
        if not callable(function):
            raise InputTypeError(f"expected `{name}` as a function, got {shown(function)}: give one")


def check_known(name: str, value: Any) -> None:
    """Refuse a number that a caller's `jit`, `vmap` or `grad` traces, where shapes or constants hang on it."""
    if isinstance(value, Tracer):
        raise InputTypeError(
            f"expected {name} as a known number, got a traced one: shapes hang on it, so close over it"
        )


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Refuse what is none of the choices."""
    if not any(value is choice or (type(value) is type(choice) and value == choice) for choice in choices):
        known = ", ".join(map(str, choices))
        raise InputError(f"expected {name} among {known}, got {shown(value)}: choose one")


def check_key(key: Any) -> jax.Array:
    """The key as it is; an error where it is no single random key."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise InputTypeError(f"expected a random key, got {shown(key)}: make one with jax.random.key")
    if key.shape != ():
        raise InputError(f"expected one random key, got keys of shape {key.shape}: take one, or fold them in")
    return key


def as_path(name: str, value: Any) -> Path:
    """The value as a path; a TypeError where it is none."""
    try:
        return Path(os.fspath(value))
    except TypeError as error:
        raise InputTypeError(
            f"expected {name} as a path, got {shown(value)}: give a text or a Path"
        ) from error


def as_array(value: Any, dtype: DTypeLike | None = None) -> jax.Array:
    """The value as an array of JAX that stays known where it was known, also while a caller's `jax.jit` traces.

    A TypeError where it is no array of numbers, or of complex ones where `dtype` is real.
    """
    try:
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
            return jnp.asarray(value, dtype)
        # What float32 cannot hold becomes infinite, and is told where it matters.
        with jax.ensure_compile_time_eval(), np.errstate(over="ignore", invalid="ignore"):
            array = jnp.asarray(value)
            if (
                dtype is not None
                and jnp.iscomplexobj(array)
                and not jnp.issubdtype(dtype, jnp.complexfloating)
            ):
                raise TypeError("complex numbers")
            return array if dtype is None else jnp.asarray(value, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputTypeError(
            f"expected an array of numbers, got {shown(value)}: {_first_line(error)}"
        ) from error


def values(array: jax.Array) -> np.ndarray | None:
    """The values on the host, or None where they cannot be looked at: of a tracer."""
    return None if isinstance(array, Tracer) else np.asarray(array)


_refused = contextvars.ContextVar("whether values that are not finite are refused", default=True)


@contextlib.contextmanager
def not_finite_as_nan() -> Iterator[None]:
    """Within it what is not finite gives NaN where it comes from, as under `jit`, and no error."""
    token = _refused.set(False)
    try:
        yield
    finally:
        _refused.reset(token)


def count_not_finite(x: jax.Array) -> int:
    """How many values are NaN or infinite, on x's device; 0 where they are not known."""
    if isinstance(x, Tracer) or not _refused.get():
        return 0
    with jax.ensure_compile_time_eval():
        return int((~jnp.isfinite(x)).sum())


def finite(name: str, tree: Tree) -> Tree:
    """Arrays as they are; a ValueError where one of them is known not to be finite.

    At the end of a public function: that its input is finite does not keep the user's function, or a sum of huge
    numbers, from NaN and infinity.
    """
    for leaf in jax.tree.leaves(tree):
        if bad := count_not_finite(leaf):
            raise InputError(
                f"expected finite {name}, got {bad} of {leaf.size} values that are NaN or infinite: look for inputs "
                "where the function is not finite, or for numbers too large for their type"
            )
    return tree


def keep_nan(result: jax.Array, *given: Any) -> jax.Array:
    """The result as it is, but NaN for every image with a value that is not finite in what was given.

    Known values are refused before; under `jit` nobody can look, and sorting, comparing and choosing the largest make
    numbers of NaN. XLA's own `max`, `maximum` and so ReLU do on a CPU, once they are compiled.

    Args:
        result: (N, ...), floats.
        *given: arrays (N, ...): heatmaps, images, scores.

    Returns:
        Of the result's shape and dtype.
    """
    for array in map(jnp.asarray, given):
        good = jnp.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        result = jnp.where(good.reshape(-1, *[1] * (result.ndim - 1)), result, jnp.nan)
    return result


def keep_nan_of(tree: Any, result: jax.Array) -> jax.Array:
    """The result as it is, but NaN all over where a float of the tree is not finite, as `keep_nan` says.

    Args:
        tree: of arrays: variables, and what all of the result depends on.
        result: floats.

    Returns:
        Of the result's shape and dtype.
    """
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    good = [jnp.isfinite(leaf).all() for leaf in floats]
    return jnp.where(jnp.stack(good).all(), result, jnp.nan) if good else result


def shown(value: Any) -> str:
    """What an error says of a value."""
    shape = getattr(value, "shape", ())
    if shape != ():
        return f"an array of shape {shape}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def printable(text: Any, most: int = 400) -> str:
    """Foreign text, such as a file's name, for one line of a message or a terminal.

    Whatever is no letter, digit, sign or space becomes an escape (`\\x1b`): control characters, line ends, what turns
    the direction of writing, halves of surrogates. What is longer than `most` loses its middle.
    """
    text = str(text)
    if len(text) > most:
        text = f"{text[: most // 2]}...{text[-most // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason(error: BaseException) -> str:
    """What an error of somebody else says, as part of a message."""
    said = printable(error)
    return said if isinstance(error, ValueError | OSError) and said else f"{type(error).__name__}: {said}"


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def as_numpy(name: str, value: Any) -> np.ndarray:
    """The value as an array of NumPy; an error where it is none of finite real numbers."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputTypeError(
            f"expected {name} as an array, got {shown(value)}: {_first_line(error)}"
        ) from error
    if not (array.dtype.kind in "biu" or jnp.issubdtype(array.dtype, jnp.floating)):
        raise InputTypeError(f"expected {name} of real numbers, got {array.dtype}: convert them")
    if bad := int((~np.isfinite(array)).sum()):
        raise InputError(
            f"expected finite {name}, got {bad} of {array.size} values that are not: look for them"
        )
    return array
