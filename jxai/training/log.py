"""Metrics of a training as JSON lines, and for TensorBoard on request."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax

from jxai import extras
from jxai.checks import as_path, check_count, shown
from jxai.errors import InputError, InputTypeError
from jxai.sealing import is_sealed, seal, unseal, write_whole

# What a line says besides metrics.
_ABOUT = ("step", "phase", "digest")


class MetricsWriter:
    """Appends one JSON object a line: {"step": ..., "phase": "train" or "validation", metrics ..., "digest": ...}.

    The digest is of the rest of the line, for `read_metrics` to compare. With several processes the first one
    writes; the others' calls do nothing.
    """

    def __init__(self, path: str | Path, *, tensorboard: str | Path | None = None) -> None:
        """Opens the file, going on where it ends.

        Args:
            path: the file; its folder is made if it does not exist.
            tensorboard: a folder for TensorBoard's event files (needs `pip install jxai[tensorboard]`); None
                for none.

        Raises:
            TypeError: `path` is no path.
            ModuleNotFoundError: `tensorboard` is given and tensorboardX is not installed.
            OSError: the file cannot be written.
        """
        self.path = as_path("path", path)
        self._events: Any = None
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("a").close()
        if tensorboard is not None:
            with extras.named():
                from tensorboardX import SummaryWriter
            self._events = SummaryWriter(str(tensorboard))

    def write(self, metrics: Mapping[str, float], *, step: int, phase: str = "train") -> None:
        """Writes one line; it is in the file when this returns.

        Args:
            metrics: {name: number}; NaN and infinities become null, which JSON can hold.
            step: updates made so far.
            phase: "train" or "validation".

        Raises:
            TypeError: metrics that are no numbers by name.
            ValueError: one is called "step", "phase" or "digest", or `step` is no integer of at least 0.
            OSError: the file cannot be written.
        """
        check_count("step", step, least=0)
        try:
            numbers = {str(name): float(value) for name, value in metrics.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise InputTypeError(
                f"expected metrics as numbers by name, got {shown(metrics)}: {error}"
            ) from error
        if taken := [name for name in _ABOUT if name in numbers]:
            raise InputError(f"expected other names than {', '.join(_ABOUT)}, got {taken[0]!r}: rename it")
        if not self._writes:
            return
        line = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        with self._writing(), self.path.open("a", encoding="utf-8") as file:
            file.write(_line({"step": int(step), "phase": str(phase), **line}))
        if self._events is not None:
            for name, value in numbers.items():
                self._events.add_scalar(f"{phase}/{name}", value, step)

    def resume(self, step: int) -> None:
        """Drops what was written after a step, as training goes on from there, and a last line cut short.

        TensorBoard's event files stay as they are: it shows the newer value of a step written twice.

        Args:
            step: the restored step; lines of later steps are dropped.

        Raises:
            OSError: the file cannot be written.
            ValueError: it holds other things than metrics.
        """
        if not self._writes:
            return
        lines = read_metrics(self.path)
        for line in lines:
            if not isinstance(line.get("step"), int):
                raise InputError(f"expected metrics in {self.path}, got {shown(line)}: give another file")
        kept = "".join(_line(line) for line in lines if line["step"] <= step)
        if kept.encode() != self.path.read_bytes():
            with self._writing():
                write_whole(self.path, kept)

    def close(self) -> None:
        """Writes out what TensorBoard's writer holds back."""
        if self._events is not None:
            self._events.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what writing raises into an error that says what to do."""
        try:
            yield
        except OSError as error:
            raise OSError(
                f"expected to write metrics to {self.path}, got {error}: give a folder that can be written, "
                "with space, and start again; a training goes on from its last checkpoint"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: str | Path, *, phase: str | None = None) -> list[dict[str, Any]]:
    """The lines of a metrics file, without their digests.

    Args:
        path: a file of `MetricsWriter`.
        phase: "train" or "validation" for these lines alone; None for all.

    Returns:
        One dict a line, in the file's order; a last line that a kill cut short is left out.

    Raises:
        ValueError: another line than the last is no object of JSON, or any is not as it was written; the message
            names it.
    """
    content = Path(path).read_bytes()
    lines = content.splitlines()
    read = []
    for number, line in enumerate(lines, start=1):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
            found = None
        if isinstance(found, dict):
            read.append((number, found))
        elif number < len(lines) or content.endswith(b"\n"):
            shown = line[:60].decode(errors="replace")
            raise InputError(f"expected JSON lines in {path}, got {shown!r} in line {number}: remove it")
    # Files of earlier versions have no digests at all.
    if any(is_sealed(found) for _, found in read):
        read = [(number, _unsealed(path, number, found)) for number, found in read]
    return [found for _, found in read if phase is None or found.get("phase") == phase]


def _unsealed(path: str | Path, number: int, found: dict[str, Any]) -> dict[str, Any]:
    try:
        return unseal(found)
    except ValueError as error:
        raise InputError(
            f"expected metrics as they were written in {path}, got {error} in line {number}: remove that line"
        ) from error


def _line(metrics: Mapping[str, Any]) -> str:
    return json.dumps(seal(metrics)) + "\n"
