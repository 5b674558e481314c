"""What long work shows: a bar where a person watches a terminal, else a line a minute, so that logs stay readable."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, Literal, Self, TypeVar

Progress = bool | Literal["lines"]
"""True: a bar on a terminal, lines elsewhere. "lines": lines anywhere. False: nothing."""

_SECONDS = 60.0  # between lines, and between what is no longer one work


class _Work:
    """Stages that follow one another are one work: a line a minute, however short each stage is."""

    said = seen = float("-inf")

    @classmethod
    def begins(cls) -> float:
        """A stage begins: where nothing went before it, the work; returns the time."""
        now = time.monotonic()
        if not 0 <= now - cls.seen < _SECONDS:
            cls.said = now
        cls.seen = now
        return now

    @classmethod
    def is_due(cls) -> bool:
        """The work goes on: whether a line is due."""
        cls.seen = time.monotonic()
        return cls.seen - cls.said >= _SECONDS


Item = TypeVar("Item")


class Bar:
    """Shows how far something is; entered and left like a file."""

    def __init__(
        self, total: int, *, unit: str, name: str = "", initial: int = 0, progress: Progress = True
    ) -> None:
        """Begin.

        Args:
            total: steps in all.
            unit: what a step is called.
            name: what the whole is called.
            initial: steps that were made before.
            progress: how it is shown.
        """
        self._bar: Any = None
        self._total, self._unit, self._name, self._done = total, unit, name, initial
        self._shown, self._lines = "", bool(progress)
        self._began, self._spoke = _Work.begins(), False
        if progress is True and sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ModuleNotFoundError:  # lines do too
                return
            self._bar = tqdm(total=total, initial=initial, desc=name, unit=unit, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, steps: int = 1) -> None:
        """So many steps more are made."""
        self._done += steps
        if self._bar is not None:
            self._bar.update(steps)
        elif self._lines and _Work.is_due():
            self._line()

    def name(self, name: str) -> None:
        """What it is called from now on."""
        self._name = name
        if self._bar is not None:
            self._bar.set_description(name)

    def show(self, values: Mapping[str, str]) -> None:
        """What stands behind it."""
        self._shown = ", ".join(f"{name} {value}" for name, value in values.items())
        if self._bar is not None:
            self._bar.set_postfix(values)

    def say(self, line: str) -> None:
        """A line on the standard error that the bar does not cut."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)

    def close(self) -> None:
        """Leave it as it is; the end of what took long enough for a line gets one too."""
        if self._bar is not None:
            self._bar.close()
        elif self._lines and self._spoke:
            self._line()
        self._lines = False

    def _line(self) -> None:
        self._spoke = True
        _Work.said = _Work.seen = time.monotonic()
        minutes = (_Work.said - self._began) / 60
        name = f"{self._name}: " if self._name else ""
        shown = f", {self._shown}" if self._shown else ""
        print(
            f"{name}{self._unit} {self._done} of {self._total}, {minutes:.0f} min{shown}",
            file=sys.stderr,
            flush=True,
        )


def tracked(
    items: Iterable[Item], *, unit: str, name: str = "", progress: Progress = True, total: int | None = None
) -> Iterator[Item]:
    """The items, one after the other, while a bar shows which.

    Args:
        items: what is gone through.
        unit: what one is called.
        name: what the whole is called.
        progress: how it is shown.
        total: how many there are, where `items` does not say.

    Yields:
        The items.
    """
    count = total if total is not None else len(items) if isinstance(items, Sized) else 0
    with Bar(count, unit=unit, name=name, progress=progress) as bar:
        for item in items:
            yield item
            bar.update()
