"""The loop of the robustness metrics: what is seen at inputs beside an input, against what is seen at the input."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jxai.batches.chunks import map_chunks, rows_in_flight
from jxai.batches.draws import row_keys
from jxai.checks import check_functions, check_number, finite, keep_nan
from jxai.compiled import Compiled, is_traced, run_compiled
from jxai.errors import InputError
from jxai.ops.convolution import with_fast_convolutions

Explain = Callable[[jax.Array, jax.Array], jax.Array]
Move = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Seen(NamedTuple):
    """What is known of inputs; every leaf is (n, ...).

    Attributes:
        x: the inputs.
        explanation: theirs.
        more: a tree of whatever else a metric asks of them.
    """

    x: jax.Array
    explanation: jax.Array
    more: Any = ()


class Distance(NamedTuple):
    """How far a neighbor is, (n,) each, or (n, k) where k metrics look at it.

    Attributes:
        above: the numerator, at least 0.
        below: the denominator, at least 0.
        counts: whether the neighbor counts.
    """

    above: jax.Array
    below: jax.Array
    counts: jax.Array | bool = True


def over_neighbors(
    explain: Explain,
    move: Move,
    distance: Callable[[Seen, Seen], Distance],
    x: jax.Array,
    target: jax.Array,
    *,
    num_neighbors: int,
    more: Callable[[jax.Array], Any] = lambda inputs: (),
    mean: bool | Sequence[bool] = False,
    explained: jax.Array | None = None,
    chunk_size: int | None = None,
) -> jax.Array:
    """Largest ratio of an input's neighbors that count, or the mean of their ratios.

    An input keeps its place in the batch that `explain` gets, which stands in the compiled program once; where it is
    compiled itself (`jxai.compiled.Compiled`), its own program is asked.

    Args:
        explain: from inputs (n, ...) and classes (n,) to explanations (n, ...).
        move: of (inputs (n, ...), their places (n,) in `x`, a neighbor's number from 1) to the neighbors (n, ...).
        distance: of what is seen at inputs and at neighbors. A ratio is 0 where `above` is 0.
        x: inputs, (N, ...).
        target: (N,), integers.
        num_neighbors: of each input.
        more: of inputs (n, ...), what `distance` finds in `Seen.more`.
        mean: whether to take the mean, or the largest; of all k metrics, or of each.
        explained: the explanations of `x` where they are known, which a program of its own need not find again.
        chunk_size: as in `rows_in_flight`.

    Returns:
        (N,) or (N, k), float32; NaN where no neighbor counts, and under `jit` where something is not finite.

    Raises:
        ValueError: `explain` gives no array (N, ...), or what is known not to be finite.
    """
    own = not is_traced() and isinstance(explain, Compiled)
    if not own:
        check_explanation(explain, x, target)

    def see(inputs: jax.Array, classes: jax.Array, known: jax.Array | None = None) -> Seen:
        explanation = explain(inputs, classes) if known is None else known
        return jax.tree.map(_wide, Seen(inputs, explanation, run_compiled(more, inputs)))

    def add(found: _Found, start: Seen, seen: Seen, number: jax.Array) -> _Found:
        above, below, counts = distance(start, seen)
        counts &= number > 0
        ratio = jnp.where(counts & (above != 0), above / below, 0)
        # XLA's maximum may lose NaN
        largest = jnp.where(jnp.isnan(ratio) | (ratio > found.result), ratio, found.result)
        result = jnp.where(jnp.asarray(mean), found.result + ratio, largest)
        good = found.good & jnp.isfinite(above) & jnp.isfinite(below)
        return _Found(result, found.counted + counts.astype(found.counted.dtype), good)

    def nothing(seen: Seen) -> _Found:
        zeros = jnp.zeros(jax.eval_shape(distance, seen, seen).above.shape, jnp.float32)
        return _Found(zeros, zeros.astype(jnp.int32), jnp.ones(zeros.shape, bool))

    def looped(images: jax.Array) -> _Found:
        inputs, classes = x[images], target[images]
        plain = with_fast_convolutions(see)

        def step(carry: tuple[Seen, _Found], number: jax.Array) -> tuple[tuple[Seen, _Found], None]:
            start, found = carry
            # The first one is the input itself.
            moved = jnp.where(number == 0, inputs, move(inputs, images, number)).astype(x.dtype)
            seen = plain(moved, classes)
            start = jax.tree.map(lambda new, old: jnp.where(number == 0, new, old), seen, start)
            return (start, add(found, start, seen, number)), None

        shapes = jax.eval_shape(plain, inputs, classes)
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        (_, found), _ = jax.lax.scan(step, (empty, nothing(shapes)), jnp.arange(num_neighbors + 1))
        return found

    def asked(images: jax.Array) -> _Found:
        """The same, by the program that `explain` has: none is compiled with the method in it."""
        inputs, classes = x[images], target[images]
        start = see(inputs, classes, None if explained is None else explained[images])
        _check_shape(start.explanation.shape, len(images))
        found = nothing(start)
        for number in jnp.arange(1, num_neighbors + 1):
            moved = run_compiled(move, inputs, images, number).astype(x.dtype)
            found = run_compiled(add, found, start, see(moved, classes), number)
        return found

    rows = rows_in_flight(x, chunk_size)
    if own:
        places = [jnp.arange(first, min(first + rows, len(x))) for first in range(0, len(x), rows)]
        found = jax.tree.map(lambda *parts: jnp.concatenate(parts), *map(asked, places))
    else:
        found = map_chunks(looped, len(x), rows)
    counted = jnp.maximum(found.counted, 1).astype(found.result.dtype)
    result = jnp.where(jnp.asarray(mean), found.result / counted, found.result)
    spoilt = jnp.where(found.good, 0.0, jnp.nan)
    result = jnp.where(found.counted > 0, result, jnp.nan)
    return keep_nan(result, finite("explanations", spoilt), x)


class _Found(NamedTuple):
    """Of the neighbors so far: the largest ratio or the sum, how many count, whether all is finite."""

    result: jax.Array
    counted: jax.Array
    good: jax.Array


def check_explanation(explain: Explain, x: jax.Array, target: jax.Array) -> None:
    """Refuse a function that gives no array with one explanation an input."""
    check_functions(explain=explain)
    _check_shape(getattr(jax.eval_shape(explain, x, target), "shape", None), len(x))


def _check_shape(shape: tuple[int, ...] | None, count: int) -> None:
    if not shape or shape[0] != count:
        raise InputError(
            f"expected `explain` to give an array ({count}, ...), got {shape}: one explanation an input"
        )


def uniform_moves(key: jax.Array, radius: float) -> Move:
    """Neighbors uniform in the box of `radius` around an input.

    Args:
        key: a random key; the move of a neighbor depends on (key, input's place, neighbor's number) alone.
        radius: half the box's side, above 0.

    Returns:
        A `move` of `over_neighbors`.
    """
    check_number("radius", radius, above=0)

    def move(inputs: jax.Array, images: jax.Array, number: jax.Array) -> jax.Array:
        keys = row_keys(key, images, jnp.broadcast_to(number, images.shape))
        draws = jax.vmap(lambda one: jax.random.uniform(one, inputs.shape[1:], minval=-1, maxval=1))(keys)
        return inputs + radius * draws

    return move


def norm(values: jax.Array) -> jax.Array:
    """Euclidean norms of (n, ...), (n,); of numbers whose squares would leave float32, too."""
    flat = jnp.abs(values).reshape(len(values), -1)
    largest = flat.max(axis=1)
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.sqrt(((flat / scale[:, None]) ** 2).sum(axis=1))


def _wide(values: jax.Array) -> jax.Array:
    return values.astype(jnp.float32) if jnp.issubdtype(values.dtype, jnp.floating) else values
