"""The SmoothTaylor paper's numbers, and ours beside them as Markdown and JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jxai.intervals import mean_and_interval
from jxai.results_log import ResultsLog

# Goh et al., 2020, tables I to IV: AUPC and AUTVC over the first 1000 pictures, lower is better for both.
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "densenet121": {
        "ig-black": (23.63, 1.52),
        "ig-noise-1": (21.51, 1.62),
        "ig-noise-5": (21.54, 1.52),
        "ig-noise-10": (21.46, 1.45),
        "ig-noise-20": (21.43, 1.39),
        "st-0.5-10": (21.74, 1.55),
        "st-0.5-100": (21.25, 1.23),
        "st-0.5-150": (21.20, 1.19),
        "st-0.5-200": (21.13, 1.16),
        "st-0.3-150": (21.19, 1.24),
        "st-0.7-150": (21.30, 1.15),
        "st-1-100": (21.88, 1.17),
        "st-2-100": (23.54, 1.19),
        "adaptive-aupc": (19.55, 1.14),
        "adaptive-autvc": (22.14, 0.99),
    },
    "resnet152": {
        "ig-black": (22.87, 1.51),
        "ig-noise-1": (21.05, 1.54),
        "ig-noise-5": (20.99, 1.43),
        "ig-noise-10": (21.02, 1.37),
        "ig-noise-20": (21.02, 1.32),
        "st-0.5-10": (21.43, 1.43),
        "st-0.5-100": (21.00, 1.14),
        "st-0.5-150": (20.95, 1.10),
        "st-0.5-200": (20.86, 1.07),
        "st-0.3-150": (20.79, 1.16),
        "st-0.7-150": (21.32, 1.04),
        "st-1-100": (22.16, 1.04),
        "st-2-100": (24.48, 1.27),
        "adaptive-aupc": (19.30, 1.05),
        "adaptive-autvc": (22.52, 0.85),
    },
}

LABELS: dict[str, str] = {
    "ig-black": "IG, black",
    "ig-noise-1": "IG, noise, N = 1",
    "ig-noise-5": "IG, noise, N = 5",
    "ig-noise-10": "IG, noise, N = 10",
    "ig-noise-20": "IG, noise, N = 20",
    "st-0.5-10": "SmoothTaylor, σ = 0.5, R = 10",
    "st-0.5-100": "SmoothTaylor, σ = 0.5, R = 100",
    "st-0.5-150": "SmoothTaylor, σ = 0.5, R = 150",
    "st-0.5-200": "SmoothTaylor, σ = 0.5, R = 200",
    "st-0.3-150": "SmoothTaylor, σ = 0.3, R = 150",
    "st-0.7-150": "SmoothTaylor, σ = 0.7, R = 150",
    "st-1-100": "SmoothTaylor, σ = 1, R = 100",
    "st-2-100": "SmoothTaylor, σ = 2, R = 100",
    "adaptive-aupc": "SmoothTaylor, adaptive on AUPC, R = 150",
    "adaptive-autvc": "SmoothTaylor, adaptive on AUTVC, R = 150",
}

# Rows that are drawn, with their labels in the picture.
FIGURE_ROWS: dict[str, str] = {
    "ig-black": "IG, black",
    "ig-noise-20": "IG, 20 × noise",
    "st-0.5-150": "SmoothTaylor, σ 0.5",
    "adaptive-aupc": "adaptive on AUPC",
    "adaptive-autvc": "adaptive on AUTVC",
}

_METRICS = ("AUPC", "AUTVC")
_BASE = "ig-black"


def table(logs: Mapping[str, ResultsLog]) -> str:
    """Markdown: means beside the published ones, and differences to Integrated Gradients from black.

    Args:
        logs: by network; each record has AUPC and AUTVC by row.

    Returns:
        A table and one of paired differences for each network.
    """
    return "\n\n".join(_of_network(network, log) for network, log in logs.items() if log.records)


def as_json(logs: Mapping[str, ResultsLog]) -> dict[str, Any]:
    """The table's numbers.

    Args:
        logs: by network.

    Returns:
        By network: its settings, its number of pictures, and by row means and half widths of 95 % intervals, of the
        values and of the paired differences to Integrated Gradients from black.
    """
    found = {}
    for network, log in logs.items():
        if not log.records:
            continue
        values = _values(log)
        rows = {}
        for row, of_row in values.items():
            own = {name: _pair(of_row[:, i]) for i, name in enumerate(_METRICS)}
            difference = {name: _pair((of_row - values[_BASE])[:, i]) for i, name in enumerate(_METRICS)}
            rows[row] = {**own, f"minus {_BASE}": difference}
        found[network] = {"settings": log.settings, "pictures": len(log.records), "rows": rows}
    return found


def _of_network(network: str, log: ResultsLog) -> str:
    values, published = _values(log), PUBLISHED.get(network, {})
    settings = ", ".join(f"{name} {value}" for name, value in log.settings.items() if name != "network")
    lines = [
        f"**{network}**, {len(log.records)} pictures, predicted class ({settings}); ± is half a 95 % interval",
        "",
    ]
    heads = ["row", "AUPC ↓", "AUTVC ↓"] + ["published AUPC", "published AUTVC"] * bool(published)
    heads += ["AUPC − IG, black", "lower in", "AUTVC − IG, black", "lower in"]
    lines += [_line(heads), "| --- |" + " ---: |" * (len(heads) - 1)]
    for row, of_row in values.items():
        cells = [LABELS[row], *(_shown(of_row[:, i]) for i in range(2))]
        if published:
            cells += [f"{number:.2f}" for number in published[row]]
        difference = of_row - values[_BASE]
        for i in range(2):
            lower = f"{(difference[:, i] < 0).sum()} of {len(difference)}"
            cells += ["", ""] if row == _BASE else [_shown(difference[:, i], signed=True), lower]
        lines.append(_line(cells))
    scales = [
        f"{LABELS[row]}: σ from {np.min(found):.2f} to {np.max(found):.2f}, median {np.median(found):.2f}"
        for row in next(iter(log.records.values()))["noise_scale"]
        for found in [[record["noise_scale"][row] for record in log.records.values()]]
    ]
    return "\n".join([*lines, "", "; ".join(scales)])


def _values(log: ResultsLog) -> dict[str, np.ndarray]:
    """Row to (pictures, 2)."""
    records = list(log.records.values())
    return {
        row: np.array([record["rows"][row] for record in records])
        for row in LABELS
        if row in records[0]["rows"]
    }


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _pair(values: np.ndarray) -> list[float]:
    return [round(number, 4) for number in mean_and_interval(values)]


def _shown(values: np.ndarray, *, signed: bool = False) -> str:
    mean, half = mean_and_interval(values)
    width = f" ± {half:.2f}" if len(values) > 1 else ""
    return f"{mean:{'+' if signed else ''}.2f}{width}".replace("-", "−")
