"""Methods by metrics on the same inputs: one call, one table.

A method is a function (f, x, target) or (f, key, x, target) to attributions (N, H, W, C), as `jxai.attribution` has
them, or to heat maps (N, H, W); it takes a key where an argument is named `key`. Of embeddings these are (N, T, C)
and (N, T), of a table (N, D), of a tree a tree, which metrics see as a table. A metric is a function of a `Case` to a
number an input, or the name of one of `NAMED`. A method explains a batch once, for all metrics.

What is random depends on the key, the method's or the metric's name and the batch's place, so that methods and
metrics may be added or left out without a change of the others; other batches are other noise.

Each computation is a program of its own. One program a method for all its metrics was not tried: scores come out of
loops over chunks of inputs, which a compiler would have to merge. Metrics that ask for the same inputs are one
computation instead (`jxai.metrics.shared`).
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jxai.batches.checks import is_tree
from jxai.checks import as_array, check_count, check_key, shown
from jxai.compiled import run_compiled
from jxai.errors import InputError, InputTypeError
from jxai.metrics.case import LOCATED, NAMED, Metric
from jxai.metrics.directions import DIRECTIONS
from jxai.metrics.evaluated import Evaluation
from jxai.metrics.inputs import Scores, as_batch, places_of
from jxai.metrics.judging import Found, Judge, Method, grouped
from jxai.metrics.trees import as_table
from jxai.progress import Bar, Progress
from jxai.results_log import ResultsLog

CONTROL = "random"
"""The name of the heat maps of pure noise that every method is to be better than."""


def evaluate(
    f: Callable[..., Any],
    key: jax.Array,
    x: Any,
    target: ArrayLike,
    *,
    methods: Mapping[str, Method],
    metrics: Mapping[str, Metric] | Sequence[str] = ("insertion", "deletion", "pixel_flipping", "sparseness"),
    directions: Mapping[str, str] | None = None,
    mask: ArrayLike | None = None,
    control: bool = True,
    names: Sequence[str] | None = None,
    batch_size: int = 8,
    mesh: Mesh | None = None,
    log: ResultsLog | Path | str | None = None,
    progress: Progress = True,
) -> Evaluation:
    """Judge methods by metrics on the same inputs.

    Every method explains every input once, whatever the number of metrics, and metrics of the same inputs share them.
    Programs are compiled once a method or metric; the last batch is filled up, and needs none of its own.

    Args:
        f: from inputs (n, ...) to scores (n, K); a tuple's entries are its arguments.
        key: a random key.
        x: images, (N, H, W, C), embeddings, (N, T, C), a table, (N, D), or a tree of floats, (N, ...) each, whose
            attributions are such a tree, too: metrics take it by `as_table`. Token ids are embedded first.
        target: the classes explained, (N,) integers.
        methods: functions by name; see the module.
        metrics: functions of a `Case` by name, to (n,) numbers, to a pair of (n,) numbers and a curve (n, points), or
            to None where the metric means nothing for the method; or names of `NAMED`.
        directions: "higher" or "lower" for names that `DIRECTIONS` does not have: what is better.
        mask: where the object is, booleans, (N, H, W), (N, T) or (N, D), for metrics of localization.
        control: adds noise as a method, "random".
        names: of the images, N, for errors and tables of each image; by default their places.
        batch_size: images explained at a time, on each device.
        mesh: devices, each of which takes batches of its own: the same scores as of one device.
        log: file in which scores are kept as they are found: the same call goes on where it was stopped, and one
            with more methods, metrics or images adds theirs. It knows the key, the scores of an image of noise, and
            each batch's images, targets and masks, and names, not what is behind a name: another file for a method
            with other options. A `ResultsLog` has settings of the caller's instead of the key and the scores.
        progress: how far it is, as it is shown.

    Returns:
        Scores by method and metric, which print as a table.

    Raises:
        TypeError: a method or metric is no function, targets are no integers, or inputs no floats.
        ValueError: an unknown metric, one without a direction, that needs a mask or, as `road` does, images, shapes
            that do not fit, attributions that are not finite (the method and the images are named), or a log of
            another key or other scores.
    """
    rows = _rows(methods)
    if is_tree(x):
        table = as_table(f, x)
        f, x, rows = table.f, table.values, {name: table.method(method) for name, method in rows.items()}
    if control:
        rows = _with_control(rows)
    x, target = as_batch(x, target, f=f)
    check_key(key)
    check_count("batch_size", batch_size)
    if x.ndim < 2:
        raise InputError(f"expected inputs of features, such as (N, D), got {x.shape}: add their axis")
    mask = _as_mask(mask, x)
    columns = _columns(metrics, mask)
    known = _known_directions(columns, directions)
    names = tuple(names or ())
    if names and len(names) != len(x):
        raise InputError(f"expected {len(x)} names, got {len(names)}: one an image, or none")
    if log is not None and not isinstance(log, ResultsLog):
        log = ResultsLog(Path(log), _settings(f, key, x, batch_size))
    of_image = names or tuple(map(str, range(len(x))))
    judge = Judge(f, key, x, target, mask, batch_size=batch_size, names=of_image, mesh=mesh)
    starts = range(0, len(x), batch_size)
    digests = {start: _digest(x, target, mask, slice(start, start + batch_size)) for start in starts}
    at_once = 1 if mesh is None else mesh.size
    found: dict[tuple[str, str, int], Found] = {}

    def record_of(method: str, column: str, start: int) -> str:
        return f"{method} / {column} / {start} / {digests[start]}"

    with Bar(len(rows) * len(starts) * len(columns), unit="score", progress=progress) as bar:
        for name, method in rows.items():
            bar.name(name)
            missing: dict[int, list[str]] = {}
            for start in starts:
                for column in columns:
                    record = None if log is None else log.records.get(record_of(name, column, start))
                    if record is None:
                        missing.setdefault(start, []).append(column)
                    else:
                        found[name, column, start] = _as_found(record)
                        bar.update(1)
            left = list(missing)
            for place in range(0, len(left), at_once):
                of_round = left[place : place + at_once]
                # A round has a batch for every device.
                filled = of_round + of_round[-1:] * (at_once - len(of_round))
                attributions = judge.explained(name, method, filled)
                wanted = [c for c in columns if any(c in missing[start] for start in of_round)]
                for group in grouped({column: columns[column] for column in wanted}):
                    results = judge.scored(group, name, method, attributions, filled)
                    for start, result in zip(of_round, results, strict=False):
                        count = min(batch_size, len(x) - start)
                        for column in (c for c in result if c in missing[start]):
                            values, curve = (None if one is None else one[:count] for one in result[column])
                            found[name, column, start] = Found(values, curve)
                            if log is not None:
                                kept = _as_record(Found(values, curve))
                                log.append({"key": record_of(name, column, start), **kept})
                            bar.update(1)
            judge.leave(name)
    parts = {
        (name, column): [found[name, column, start] for start in starts]
        for name in rows
        for column in columns
    }
    whole = {both: of for both, of in parts.items() if all(one.values is not None for one in of)}
    scores: dict[str, dict[str, np.ndarray]] = {name: {} for name in rows}
    curves: dict[str, dict[str, np.ndarray]] = {}
    for (name, column), of in whole.items():
        scores[name][column] = np.concatenate([one.values for one in of if one.values is not None])
        if of[0].curve is not None:
            drawn = [one.curve for one in of if one.curve is not None]
            curves.setdefault(name, {})[column] = np.concatenate(drawn)
    return Evaluation(scores, known, CONTROL if control else None, curves, names)


def _as_record(found: Found) -> dict[str, Any]:
    return {kind: None if array is None else array.tolist() for kind, array in found._asdict().items()}


def _as_found(record: Mapping[str, Any]) -> Found:
    arrays = (record.get(kind) for kind in Found._fields)
    return Found(*(None if array is None else np.asarray(array, np.float32) for array in arrays))


def _rows(methods: Any) -> dict[str, Method]:
    """Methods by name, as functions (f, key, x, target)."""
    if not isinstance(methods, Mapping) or not methods:
        raise InputTypeError(f"expected methods by name, got {shown(methods)}: give a dictionary")
    rows: dict[str, Method] = {}
    for name, method in methods.items():
        if not callable(method):
            raise InputTypeError(
                f"expected a function (f, x, target) or (f, key, x, target) as {name!r}, got {shown(method)}: of a "
                "composite lambda f, x, target: lrp.relevance(f, x, target, composite=...)"
            )
        keyed = _takes_key(method)
        _check_arguments(
            method, 4 if keyed else 3, f"a function (f, x, target) or (f, key, x, target) as {name!r}"
        )
        rows[name] = method if keyed else _without_key(method)
    return rows


def _with_control(rows: Mapping[str, Method]) -> dict[str, Method]:
    """And the control."""
    if CONTROL in rows:
        raise InputError(f"expected no method named {CONTROL!r}, got one: rename it, or set control to False")
    return {**rows, CONTROL: random_heatmaps}


def _check_arguments(function: Any, number: int, expected: str) -> None:
    """Refuse what cannot be called with so many arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of C
        return
    try:
        signature.bind(*[None] * number)
    except TypeError as error:
        raise InputTypeError(
            f"expected {expected}, got one of ({', '.join(signature.parameters)}), {error}: wrap it in a lambda"
        ) from error


def _takes_key(method: Method) -> bool:
    try:
        return "key" in inspect.signature(method).parameters
    except (TypeError, ValueError):  # of C
        return False


def _without_key(method: Method) -> Method:
    return lambda f, key, x, target: method(f, x, target)


def random_heatmaps(f: Scores, key: jax.Array, x: jax.Array, target: jax.Array) -> jax.Array:
    """The control: a normal draw a pixel, a token or a column."""
    shape = places_of(x)
    return jax.random.normal(key, shape if shape == x.shape else (*shape, 1))


def _columns(metrics: Any, mask: Any) -> dict[str, Metric]:
    """Metrics by name."""
    if isinstance(metrics, str) or not metrics:
        raise InputError(
            f"expected metrics by name or a list of names, got {shown(metrics)}: give a dictionary, or a list such "
            'as ("deletion",)'
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
        _check_arguments(metric, 1, f"a function of one Case as {name!r}")
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
    if array.dtype != bool or array.shape != places_of(x):
        raise InputError(
            f"expected a mask of booleans {places_of(x)}, got {array.dtype} {array.shape}: one an image"
        )
    return array


def _settings(f: Scores, key: jax.Array, x: jax.Array, batch_size: int) -> dict[str, Any]:
    """What all records of a log depend on."""
    noise = jax.random.uniform(jax.random.key(0), (1, *x.shape[1:])).astype(x.dtype)
    arrays = {"scores of noise": run_compiled(f, noise), "key": jax.random.key_data(key)}
    return {name: _hashed(array) for name, array in arrays.items()} | {"batch_size": batch_size}


def _digest(x: jax.Array, target: jax.Array, mask: jax.Array | None, rows: slice) -> str:
    """Of a batch's images, targets and masks."""
    return _hashed(*(array[rows] for array in (x, target, mask) if array is not None))


def _hashed(*arrays: jax.Array) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
