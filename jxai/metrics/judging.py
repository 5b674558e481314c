"""Batches explained and scored for `evaluate`: a program a method and a metric, and a batch a device.

What asks a method again, such as the metrics of robustness, runs outside of a program on one device, so that the
method's own program answers: a method is compiled once, not once a metric. On several devices it is compiled with
the metric, for each.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jxai.checks import as_array, not_finite_as_nan
from jxai.compiled import is_traced, prepared
from jxai.errors import InputError
from jxai.metrics.case import Case, Explainer, Metric, Part
from jxai.metrics.inputs import Scores, places_of

Method = Callable[..., Any]


class Columns(NamedTuple):
    """Metrics that come out of one computation.

    Attributes:
        name: what its noise is named after.
        of: the computation, of a case.
        parts: each metric's name in what `of` gives; None where it gives the metric alone.
    """

    name: str
    of: Callable[[Case], Any]
    parts: Mapping[str, str | None]


class Found(NamedTuple):
    """What a metric says of a batch.

    Attributes:
        values: (n,); None where the metric means nothing for the method.
        curve: (n, points), if it gives one.
    """

    values: np.ndarray | None
    curve: np.ndarray | None = None


def grouped(columns: Mapping[str, Metric]) -> list[Columns]:
    """The computations that these metrics take, each once."""
    found: dict[Any, Columns] = {}
    for column, metric in columns.items():
        if isinstance(metric, Part):
            group = found.setdefault(metric.of, Columns(metric.group, metric.of, {}))
            found[metric.of] = group._replace(parts={**group.parts, column: metric.name})
        else:
            found[column] = Columns(column, metric, {column: None})
    return list(found.values())


class Judge:
    """Explains and scores rounds of batches, a batch a device; each method and each computation is traced once.

    A batch's noise depends on its own place, not on the device or the round.
    """

    def __init__(
        self,
        f: Scores,
        key: jax.Array,
        x: jax.Array,
        target: jax.Array,
        mask: jax.Array | None,
        *,
        batch_size: int,
        names: Sequence[str],
        mesh: Mesh | None,
    ) -> None:
        """Take what stays the same; arguments as in `evaluate`."""
        self._f, self._key, self._x, self._target, self._mask = f, key, x, target, mask
        self._batch, self._names, self._mesh = min(batch_size, len(x)), names, mesh
        self._programs: dict[tuple, Callable] = {}
        self._explaining: dict[tuple, tuple[Scores, Callable]] = {}
        self._untraced: set[tuple] = set()

    def explained(self, name: str, method: Method, starts: Sequence[int]) -> jax.Array:
        """Attributions of the batches that begin at these inputs, (batches, n, ..., C or 1)."""
        rows = self._rows(starts)
        given = self._keys(f"method {name}", starts), self._x[rows], self._target[rows]

        def explain(key: jax.Array, x: jax.Array, target: jax.Array) -> jax.Array:
            return self._explain(name, method, self._f, key, x, target)

        if self._mesh is None:
            found = jnp.stack([explain(*(array[place] for array in given)) for place in range(len(starts))])
        else:
            if ("method", name) not in self._programs:
                self._programs["method", name] = prepared(self._spread(explain), *given)
            found = self._programs["method", name](*given)
        finite = np.isfinite(np.asarray(found)).all(axis=tuple(range(2, found.ndim)))
        if not finite.all():
            images = [self._names[row] for row in sorted({int(row) for row in rows[~finite]})]
            raise InputError(
                f"expected finite attributions of {name!r}, got others for the images {', '.join(images)}: look at "
                "the weights and scores there, or leave them or the method out"
            )
        return found

    def scored(
        self, columns: Columns, name: str, method: Method, attributions: jax.Array, starts: Sequence[int]
    ) -> list[dict[str, Found]]:
        """What the metrics say of each of these batches."""
        rows, asked = self._rows(starts), []

        def measure(
            noise: jax.Array, own: jax.Array, x: Any, target: Any, attributions: Any, mask: Any
        ) -> Any:
            def explain(f: Scores, x: jax.Array, target: jax.Array) -> jax.Array:
                return self._explain(name, method, f, own, x, target)

            explainer = Explainer(name, own, explain, self._f, asked)
            found = columns.of(Case(self._f, noise, x, target, attributions, explainer, mask))
            return {one: found if part is None else found[part] for one, part in columns.parts.items()}

        def untraced(*given: Any) -> Any:
            with not_finite_as_nan():
                each = [measure(*jax.tree.map(lambda one, i=i: one[i], given)) for i in range(len(starts))]
            return jax.tree.map(lambda *parts: np.stack([*map(np.asarray, parts)]), *each)

        keys = self._keys(f"metric {columns.name}", starts), self._keys(f"method {name}", starts)
        mask = None if self._mask is None else self._mask[rows]
        given = *keys, self._x[rows], self._target[rows], attributions, mask
        what = columns.name, tuple(columns.parts)
        shape = what, attributions.shape  # of pixels or of channels
        run: Callable[..., Any] | None = self._programs.get(shape) or self._programs.get((what, name))
        if what in self._untraced:
            run = untraced
        elif run is None:
            try:
                run = prepared(self._spread(measure), *given)
            except jax.errors.JAXTypeError:  # of a user's metric, which need not be traceable
                run = None
            if run is None or (asked and self._mesh is None):
                self._untraced.add(what)
                run = untraced
            else:
                # A program that asks the method for something is the method's own.
                self._programs[(what, name) if asked else shape] = run
        found = jax.tree.map(np.asarray, run(*given))
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in range(len(starts))]
        return [{column: self._found(column, one[column]) for column in columns.parts} for one in each]

    def leave(self, name: str) -> None:
        """Let go of a method's own programs: an operating system bounds how many a process may hold."""
        for programs in (self._programs, self._explaining):
            for what in [what for what in programs if name in what]:
                del programs[what]

    def _explain(
        self, name: str, method: Method, f: Scores, key: jax.Array, x: jax.Array, target: jax.Array
    ) -> jax.Array:
        """Attributions by the program that the method has for this function and these shapes."""

        def explain(key: jax.Array, x: jax.Array, target: jax.Array) -> jax.Array:
            return self._checked(name, method, f, key, x, target)

        if is_traced():
            return explain(key, x, target)
        what = name, id(f), x.shape
        if what not in self._explaining:
            # With the function, so that no other one takes its place in memory.
            self._explaining[what] = f, prepared(explain, key, x, target)
        return self._explaining[what][1](key, x, target)

    def _found(self, column: str, given: Any) -> Found:
        if given is None:
            return Found(None)
        values, curve = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        numbers = np.asarray(values, np.float32)
        if numbers.shape != (self._batch,):
            raise InputError(
                f"expected {column!r} to give a number an image, {(self._batch,)}, got {numbers.shape}: of a curve "
                "take metrics.curve_area, or give (numbers, curve)"
            )
        if curve is None:
            return Found(numbers)
        points = np.asarray(curve, np.float32)
        if points.ndim != 2 or len(points) != self._batch:
            raise InputError(
                f"expected {column!r} to give a curve an image, ({self._batch}, points), got {points.shape}"
            )
        return Found(numbers, points)

    def _rows(self, starts: Sequence[int]) -> np.ndarray:
        """The images of batches; the last one is filled up with its last image."""
        return (np.array(starts)[:, None] + np.arange(self._batch)).clip(max=len(self._x) - 1)

    def _keys(self, name: str, starts: Sequence[int]) -> jax.Array:
        named = jax.random.fold_in(self._key, zlib.crc32(name.encode()))
        return jnp.stack([jax.random.fold_in(named, start) for start in starts])

    def _spread(self, function: Callable) -> Callable:
        """A function of a batch, on batches: one a device of the mesh, or the only one there is."""

        def one(*given: Any) -> Any:
            found = function(*jax.tree.map(lambda array: array[0], given))
            return jax.tree.map(lambda array: jnp.asarray(array)[None], found)

        if self._mesh is None:
            return one
        spec = PartitionSpec(self._mesh.axis_names)
        return jax.shard_map(one, mesh=self._mesh, in_specs=spec, out_specs=spec, check_vma=False)

    @staticmethod
    def _checked(
        name: str, method: Method, f: Scores, key: jax.Array, x: jax.Array, target: jax.Array
    ) -> jax.Array:
        found = as_array(method(f, key, x, target))
        places = places_of(x)
        if found.shape == places and places != x.shape:
            found = found[..., None]
        if found.shape not in (x.shape, (*places, 1)):
            raise InputError(
                f"expected attributions {x.shape} or heat maps {places} of {name!r}, got {found.shape}"
            )
        return found
