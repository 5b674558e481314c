"""The reports of the sections as one table: what, measured, its rival, the goal, and whether it is reached."""

import json
import re
from pathlib import Path
from typing import Any

from experiments.benchmarks.sections import SECTIONS, Row

DONE = "done"
"""The state of a part that has come to its end."""


def slug(words: str) -> str:
    """Words as a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def reached(one: Row) -> bool | None:
    """Whether a row's goal is; None where it has none."""
    if one["goal"] is None:
        return None
    value = one["ratio"] if "rival" in one else one["value"]
    if value is None:  # not finite
        return False
    bound = float(one["goal"].rsplit(maxsplit=1)[1])
    return value <= bound if one["goal"].startswith("at most") else value >= bound


def quantity(value: float | None, unit: str) -> str:
    """A number with its unit; seconds below one as milliseconds."""
    if value is None:
        return "not finite"
    if unit.split(" ")[0] == "s" and value < 1:
        value, unit = 1e3 * value, f"m{unit}"
    return f"{value:.3g} {unit}".rstrip()


def cells(one: Row) -> list[str]:
    """What, measured, rival, ratio, goal, reached."""
    what = one["name"] if one["precision"] is None else f"{one['name']} ({one['precision']})"
    rival = f"{one['rival']} {quantity(one['rival_value'], one['unit'])}" if "rival" in one else ""
    ratio = f"{one['ratio']:.2f}" if one.get("ratio") is not None else ""
    verdict = {None: "", True: "yes", False: "**no**"}[reached(one)]
    return [what, quantity(one["value"], one["unit"]), rival, ratio, one["goal"] or "", verdict]


def text(one: Row) -> str:
    """A row on a line of a terminal."""
    return " | ".join(cell for cell in cells(one) if cell)


def complete(report: dict[str, Any]) -> bool:
    """Whether all parts have come to their ends."""
    return bool(report["parts"]) and all(state == DONE for state in report["parts"].values())


def table(folder: Path, digest: str) -> str:
    """All that is stored of a card.

    Args:
        folder: of its JSON files.
        digest: of the sources as they are now; what others measured is marked.

    Returns:
        Markdown.
    """
    lines: list[str] = []
    reports = {name: folder / f"{name}.json" for name in SECTIONS}
    stored = {name: json.loads(path.read_text()) for name, path in reports.items() if path.exists()}
    for name, report in stored.items():
        lines += ["", f"**{SECTIONS[name].title}**" + (f" ({where(report)})" if "machine" in report else "")]
        if report["code"] != digest:
            lines[-1] += ", measured with older code"
        if report["results"]:
            lines += ["", "| what | measured | rival, same run | times | goal | reached |"]
            lines.append("| --- | ---: | ---: | ---: | --- | --- |")
            lines += ["| " + " | ".join(cells(one)) + " |" for one in report["results"]]
        missing = [f"{part}: {state}" for part, state in report["parts"].items() if state != DONE]
        if "ended" in report:
            missing.append(report["ended"])
        lines += ["", *(f"- {one}" for one in missing)] if missing else []
    goals = [reached(one) for report in stored.values() for one in report["results"]]
    known = [one for one in goals if one is not None]
    return "\n".join([f"{sum(known)} of {len(known)} goals reached on {folder.name}.", *lines])


def where(report: dict[str, Any]) -> str:
    """The machine of a report, in words."""
    told = report["machine"]
    words = [told.get("card", told["device"])]
    words += [f"driver {told['driver']}"] if "driver" in told else []
    words += [f"jax {told['jax']}"] + ([f"torch {told['torch']}"] if "torch" in told else [])
    return ", ".join([*words, f"code {report['code']}"])
