"""Methods by metrics on the same images: one call, one table.

A method is a function (f, x, target) or (f, key, x, target) to attributions (N, H, W, C), as `jxai.attribution` has
them, or to heat maps (N, H, W); it takes a key where an argument is named `key`. A metric is a function of a `Case`
to a number an image, or the name of one of `NAMED`. A method explains a batch once, for all metrics.

What is random depends on the key, the method's or the metric's name and the batch's place, so that methods and
metrics may be added or left out without a change of the others; other batches are other noise.
"""

import dataclasses
import hashlib
import inspect
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jxai.checks import as_array, check_count, check_key, shown
from jxai.compiled import prepared, run_compiled
from jxai.errors import InputError, InputTypeError
from jxai.metrics import score_tables
from jxai.metrics.case import LOCATED, NAMED, Case, Metric
from jxai.metrics.directions import DIRECTIONS
from jxai.metrics.inputs import Scores, as_batch
from jxai.progress import Bar, Progress
from jxai.results_log import ResultsLog

CONTROL = "random"
"""The name of the heat maps of pure noise that every method is to be better than."""

Method = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of methods by metrics, image by image.

    Attributes:
        scores: by method and metric, one number an image, (N,) float32.
        directions: "higher" or "lower" by metric: what is better.
        control: the method that is never the best, or None.
    """

    scores: Mapping[str, Mapping[str, np.ndarray]]
    directions: Mapping[str, str]
    control: str | None

    def means(self) -> dict[str, dict[str, float]]:
        """Means over images, by method and metric."""
        return {
            name: {metric: float(values.mean()) for metric, values in of.items()}
            for name, of in self.scores.items()
        }

    def table(self) -> str:
        """Methods by metrics as Markdown: mean ± 95 % interval over images, the best in bold, the control aside."""
        return score_tables.score_table(
            self.scores,
            methods={name: name for name in self.scores},
            columns={name: name for name in self.directions},
            control=self.control,
            directions=self.directions,
        )

    def differences(self, reference: str) -> str:
        """Each method less a reference on the same images, as Markdown: mean ± paired 95 % interval.

        Args:
            reference: a method's name, such as the control's.

        Returns:
            The table; bold where the interval leaves 0 out and the method is better.

        Raises:
            ValueError: no such method.
        """
        if reference not in self.scores:
            raise InputError(f"expected a reference among {', '.join(self.scores)}, got {shown(reference)}")
        return score_tables.difference_table(
            self.scores,
            methods={name: name for name in self.scores},
            columns={name: name for name in self.directions},
            reference=reference,
            directions=self.directions,
        )

    def to_json(self) -> dict[str, Any]:
        """Scores of each image, means, intervals and directions, of JSON's types; what is not finite is None."""
        return {
            "directions": dict(self.directions),
            "control": self.control,
            "scores": score_tables.summaries(self.scores),
        }

    def to_csv(self) -> str:
        """One line a method, metric and image, below the names of the columns."""
        lines = ["method,metric,image,score"]
        for method, of in self.scores.items():
            for metric, values in of.items():
                names = ",".join('"' + name.replace('"', '""') + '"' for name in (method, metric))
                lines += [f"{names},{place},{value!r}" for place, value in enumerate(values.tolist())]
        return "\n".join(lines) + "\n"

    def _repr_markdown_(self) -> str:
        return self.table()


def evaluate(
    f: Scores,
    key: jax.Array,
    x: ArrayLike,
    target: ArrayLike,
    *,
    methods: Mapping[str, Method],
    metrics: Mapping[str, Metric] | Sequence[str] = ("insertion", "deletion", "pixel_flipping", "sparseness"),
    directions: Mapping[str, str] | None = None,
    mask: ArrayLike | None = None,
    control: bool = True,
    batch_size: int = 8,
    log: Path | str | None = None,
    progress: Progress = True,
) -> Evaluation:
    """Judge methods by metrics on the same images.

    Every method explains every image once, whatever the number of metrics. Programs are compiled once a method or
    metric; the last batch is filled up, and needs none of its own.

    Args:
        f: from images (n, H, W, C) to scores (n, K).
        key: a random key.
        x: images, (N, H, W, C).
        target: the classes explained, (N,) integers.
        methods: functions by name; see the module.
        metrics: functions of a `Case` to (n,) numbers by name, or names of `NAMED`.
        directions: "higher" or "lower" for names that `DIRECTIONS` does not have: what is better.
        mask: where the object is, (N, H, W) booleans, for metrics of localization.
        control: adds noise as a method, "random".
        batch_size: images explained at a time.
        log: file in which scores are kept as they are found: the same call goes on where it was stopped, and one
            with more methods or metrics adds theirs. It knows images, targets, the key, the first image's scores and
            names, not what is behind a name: another file for a method with other options.
        progress: how far it is, as it is shown.

    Returns:
        Scores by method and metric, which print as a table.

    Raises:
        TypeError: a method or metric is no function, targets are no integers, or images no floats.
        ValueError: an unknown metric, one without a direction or that needs a mask, shapes that do not fit,
            attributions that are not finite (the method and the images are named), or a log of other images, targets
            or scores.
    """
    x, target = as_batch(x, target, f=f)
    check_key(key)
    check_count("batch_size", batch_size)
    if x.ndim != 4:
        raise InputError(f"expected images (N, H, W, C), got {x.shape}: metrics judge heat maps of pixels")
    mask = _as_mask(mask, x)
    columns = _columns(metrics, mask)
    known = _known_directions(columns, directions)
    rows = _rows(methods, control)
    kept = None if log is None else ResultsLog(Path(log), _settings(f, key, x, target, mask, batch_size))
    judge = _Judge(f, key, x, target, mask, batch_size)
    found = {name: {column: np.empty(len(x), np.float32) for column in columns} for name in rows}
    starts = range(0, len(x), batch_size)
    with Bar(len(rows) * len(starts) * len(columns), unit="score", progress=progress) as bar:
        for name, method in rows.items():
            bar.name(name)
            for start in starts:
                stop = min(start + batch_size, len(x))
                attributions = None
                for column, metric in columns.items():
                    record = f"{name} / {column} / {start}"
                    if kept is not None and kept.done(record):
                        values = kept.records[record]["values"]
                    else:
                        if attributions is None:
                            attributions = judge.explained(name, method, start)
                        values = judge.scored(column, metric, name, method, attributions, start)[
                            : stop - start
                        ]
                        if kept is not None:
                            kept.append({"key": record, "values": values.tolist()})
                    found[name][column][start:stop] = values
                    bar.update(1)
    return Evaluation(found, known, CONTROL if control else None)


def _rows(methods: Any, control: bool) -> dict[str, Method]:
    """Methods by name, as functions (f, key, x, target)."""
    if not isinstance(methods, Mapping) or not methods:
        raise InputTypeError(f"expected methods by name, got {shown(methods)}: give at least one")
    if control and CONTROL in methods:
        raise InputError(f"expected no method named {CONTROL!r}, got one: rename it, or set control to False")
    rows: dict[str, Method] = {}
    for name, method in methods.items():
        if not callable(method):
            raise InputTypeError(
                f"expected a function (f, x, target) or (f, key, x, target) as {name!r}, got {shown(method)}: of a "
                "composite lambda f, x, target: lrp.relevance(f, x, target, composite=...)"
            )
        rows[name] = method if _takes_key(method) else _without_key(method)
    return rows | ({CONTROL: _noise} if control else {})


def _takes_key(method: Method) -> bool:
    try:
        return "key" in inspect.signature(method).parameters
    except (TypeError, ValueError):  # of C
        return False


def _without_key(method: Method) -> Method:
    return lambda f, key, x, target: method(f, x, target)


def _noise(f: Scores, key: jax.Array, x: jax.Array, target: jax.Array) -> jax.Array:
    return jax.random.normal(key, (*x.shape[:3], 1))


def _columns(metrics: Any, mask: Any) -> dict[str, Metric]:
    """Metrics by name."""
    if isinstance(metrics, str) or not metrics:
        raise InputError(
            f"expected metrics by name or a list of names, got {shown(metrics)}: give at least one"
        )
    if not isinstance(metrics, Mapping):
        if unknown := [name for name in metrics if name not in NAMED]:
            raise InputError(
                f"expected metrics among {', '.join(NAMED)}, got {shown(unknown[0])}: give others as "
                "functions of a Case"
            )
        metrics = {name: NAMED[name] for name in metrics}
    for name, metric in metrics.items():
        if not callable(metric):
            raise InputTypeError(f"expected a function of a Case as {name!r}, got {shown(metric)}")
        if mask is None and metric in [NAMED[one] for one in LOCATED]:
            raise InputError(
                f"expected a mask for {name}, got none: say where the objects are, (N, H, W) booleans"
            )
    return dict(metrics)


def _known_directions(columns: Mapping[str, Metric], given: Mapping[str, str] | None) -> dict[str, str]:
    known = {**DIRECTIONS, **(given or {})}
    for name in columns:
        if known.get(name) not in ("higher", "lower"):
            raise InputError(
                f"expected what is better of {name!r}, got {shown(known.get(name))}: add "
                f'directions={{{name!r}: "higher"}} or "lower"'
            )
    return {name: known[name] for name in columns}


def _as_mask(mask: Any, x: jax.Array) -> jax.Array | None:
    if mask is None:
        return None
    array = as_array(mask)
    if array.dtype != bool or array.shape != x.shape[:3]:
        raise InputError(
            f"expected a mask of booleans {x.shape[:3]}, got {array.dtype} {array.shape}: one an image"
        )
    return array


class _Judge:
    """Explains and scores batches; each method and each metric is traced once."""

    def __init__(
        self,
        f: Scores,
        key: jax.Array,
        x: jax.Array,
        target: jax.Array,
        mask: jax.Array | None,
        batch_size: int,
    ) -> None:
        self._f, self._key, self._x, self._target, self._mask = f, key, x, target, mask
        self._batch = min(batch_size, len(x))
        self._explainers: dict[str, Callable] = {}
        self._metrics: dict[tuple[str, str | None], Callable] = {}

    def explained(self, name: str, method: Method, start: int) -> jax.Array:
        """Attributions of a batch, (n, H, W, C) or (n, H, W, 1)."""
        rows = self._rows(start)
        given = self._method_key(name, start), self._x[rows], self._target[rows]
        if name not in self._explainers:
            self._explainers[name] = prepared(self._explainer(name, method), *given)
        found = self._explainers[name](*given)
        finite = np.isfinite(np.asarray(found)).all(axis=(1, 2, 3))
        if not finite.all():
            images = sorted({int(row) for row in rows[~finite]})
            raise InputError(
                f"expected finite attributions of {name!r}, got others for the images "
                f"{', '.join(map(str, images))}: leave them or the method out"
            )
        return found

    def scored(
        self, column: str, metric: Metric, name: str, method: Method, attributions: jax.Array, start: int
    ) -> np.ndarray:
        """A number an image of a batch, (n,)."""
        rows, explainer, asked = self._rows(start), self._explainer(name, method), []

        def measure(
            noise: jax.Array, own: jax.Array, x: Any, target: Any, attributions: Any, mask: Any
        ) -> Any:
            def explain(images: jax.Array, classes: jax.Array) -> jax.Array:
                asked.append(name)
                return explainer(own, images, classes)

            return metric(Case(self._f, noise, x, target, attributions, explain, mask))

        keys = _named_key(self._key, f"metric {column}", start), self._method_key(name, start)
        mask = None if self._mask is None else self._mask[rows]
        given = *keys, self._x[rows], self._target[rows], attributions, mask
        shape = str(attributions.shape)  # of pixels or of channels
        known = self._metrics.get((column, shape)) or self._metrics.get((column, name))
        if known is None:
            try:
                known = prepared(measure, *given)
            except jax.errors.JAXTypeError:  # of a user's metric, which need not be traceable
                known = measure
            # A program that asks the method for more explanations is the method's own.
            self._metrics[column, name if asked or known is measure else shape] = known
        found = np.asarray(known(*given), np.float32)
        if found.shape != (self._batch,):
            raise InputError(
                f"expected {column!r} to give a number an image, {(self._batch,)}, got {found.shape}: of a curve "
                "take metrics.curve_area"
            )
        return found

    def _rows(self, start: int) -> np.ndarray:
        """The images of a batch; the last one is filled up with its last image."""
        return np.arange(start, start + self._batch).clip(max=len(self._x) - 1)

    def _method_key(self, name: str, start: int) -> jax.Array:
        return _named_key(self._key, f"method {name}", start)

    def _explainer(self, name: str, method: Method) -> Callable:
        def explain(key: jax.Array, images: jax.Array, classes: jax.Array) -> jax.Array:
            found = as_array(method(self._f, key, images, classes))
            if found.ndim == 3:
                found = found[..., None]
            channels = 1, images.shape[3]
            if found.ndim != 4 or found.shape[:3] != images.shape[:3] or found.shape[3] not in channels:
                raise InputError(
                    f"expected attributions {images.shape} or heat maps {images.shape[:3]} of {name!r}, got "
                    f"{found.shape}"
                )
            return found

        return explain


def _named_key(key: jax.Array, name: str, start: int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(name.encode())), start)


def _settings(
    f: Scores, key: jax.Array, x: jax.Array, target: jax.Array, mask: jax.Array | None, batch_size: int
) -> dict[str, Any]:
    """What all records of a log depend on."""
    first = run_compiled(f, x[:1])
    arrays = {"images": x, "targets": target, "mask": mask, "scores of the first image": first}
    arrays["key"] = jax.random.key_data(key)
    digests = {
        name: hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=8).hexdigest()
        for name, array in arrays.items()
        if array is not None
    }
    return {**digests, "shape": list(x.shape), "batch_size": batch_size}
