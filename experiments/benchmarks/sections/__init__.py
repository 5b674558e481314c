"""The sections of the measurement on an accelerator (`gpu.py`), in the order of their worth.

A section is a module of this package with

    def parts(dry: bool) -> dict[str, Callable[[], Iterable[Row]]]

whose values measure and give rows one by one. A row is written when it is given, a part is what is run again after
being cut off, so a part is short and complete by itself. Rivals are imported inside of parts: a part that finds its
rival missing (`ModuleNotFoundError`) is skipped, one that fails fails alone, and the table says so. With `dry` all
sizes are tiny: every line of code runs on a CPU in seconds.
"""

import dataclasses
import importlib
from collections.abc import Callable, Iterable
from typing import Any

Row = dict[str, Any]
"""As `row` gives it."""
Parts = dict[str, Callable[[], Iterable[Row]]]


@dataclasses.dataclass(frozen=True)
class Section:
    """What `gpu.py` knows of a section without importing it."""

    title: str
    seconds: int
    """After which it is ended."""


SECTIONS = {
    "right": Section("Right: golden values, explicit matrices, invariances, by precision", 90),
    "guided": Section("Guided step", 150),
    "lrp": Section("LRP", 160),
    "attribution": Section("Attribution", 130),
    "text": Section("A language model", 135),
    "throughput": Section("Training throughput, one seed and many", 60),
    "science": Section("Science: the letters table, all seeds at once", 70),
    "growth": Section("bfloat16, and how cost grows", 60),
}


def parts(name: str, *, dry: bool) -> Parts:
    """The parts of a section.

    Args:
        name: a key of `SECTIONS`.
        dry: tiny sizes.

    Returns:
        By name, in the order in which they run.
    """
    return importlib.import_module(f"{__name__}.{name}").parts(dry)


def row(
    name: str,
    value: float,
    unit: str = "",
    *,
    goal: str | None = None,
    rival: tuple[str, float] | None = None,
    precision: str | None = None,
    data: Any = None,
) -> Row:
    """A line of a report.

    Args:
        name: what was measured, unique in its section.
        value: the number.
        unit: of the number, and of the rival's.
        goal: "at most N" or "at least N", or None. Without a rival it is of the value; with one, "at least" is of
            how many times the rival's number is ours (seconds: ours is so many times as fast), "at most" of how
            many times ours is the rival's.
        rival: its name and its number, from the same run.
        precision: of products, in words; None where the row has none.
        data: anything more that goes into the JSON.

    Returns:
        What is written.
    """
    found: Row = {"name": name, "value": float(value), "unit": unit, "goal": goal, "precision": precision}
    if rival is not None:
        found |= {"rival": rival[0], "rival_value": float(rival[1]), "ratio": None}
        if goal is not None:
            found["ratio"] = float(value / rival[1] if goal.startswith("at most") else rival[1] / value)
    if data is not None:
        found["data"] = data
    return found
