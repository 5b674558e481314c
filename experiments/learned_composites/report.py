"""What the tables show: means, paired differences, numbers layer by layer."""

from typing import Any

import numpy as np

from jxai.intervals import mean_and_interval

DIRECTIONS = {
    "AUPC": "lower",
    "deletion": "lower",
    "insertion": "higher",
    "insertion from 0": "higher",
    "F-Fidelity": "higher",
}
LEARNED, SEARCHED, PRESET = "learned, chosen", "grid, chosen", "preset, chosen"


def _kind(name: str) -> str:
    """Which of the chosen ones a composite may be."""
    kind = name.partition(": ")[0]
    return {"learned": LEARNED, "grid": SEARCHED}.get(kind, PRESET)


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one domain's networks.

    Of each kind of composites (presets, searched, learned) the one with the least objective on the pictures that are
    learned on is chosen, network by network, before it is judged.

    Args:
        records: one a seed.

    Returns:
        Means and intervals over held-out pictures, each the mean over networks, of JSON's types: "scores" by
        composite and metric, "differences" of the chosen learned one from the others, positive where the learned one
        is better, "chosen" by kind, a name a network, and "numbers" by family, layer and field, one a network.
    """
    names = list(records[0]["composites"])
    chosen = {
        kind: [
            min(
                (name for name in names if _kind(name) == kind),
                key=lambda one: of["composites"][one]["objective"],
            )
            for of in records
        ]
        for kind in (PRESET, SEARCHED, LEARNED)
    }
    rows = {name: [name] * len(records) for name in names} | chosen

    def values(name: str, metric: str) -> np.ndarray:
        """A number a picture."""
        each = [of["composites"][one]["scores"][metric] for of, one in zip(records, rows[name], strict=True)]
        return np.mean(each, axis=0)

    def told(numbers: np.ndarray) -> list[float]:
        return [float(f"{one:.4g}") for one in mean_and_interval(numbers)]

    signs = {metric: 1 if way == "higher" else -1 for metric, way in DIRECTIONS.items()}
    return {
        "accuracy": float(np.mean([of["accuracy"]["trained"] for of in records])),
        "objective": {
            name: float(
                np.mean([of["composites"][one]["objective"] for of, one in zip(records, each, strict=True)])
            )
            for name, each in rows.items()
        },
        "scores": {name: {one: told(values(name, one)) for one in DIRECTIONS} for name in rows},
        "differences": {
            name: {one: told(signs[one] * (values(LEARNED, one) - values(name, one))) for one in DIRECTIONS}
            for name in rows
            if name != LEARNED
        },
        "chosen": chosen,
        "numbers": {
            family: {
                place: {
                    field: [of["numbers"][family]["learned"][place][field] for of in records]
                    for field in fields
                }
                for place, fields in given["learned"].items()
            }
            for family, given in records[0]["numbers"].items()
        },
        "stopped": [
            f"{family}, network {number}"
            for number, of in enumerate(records)
            for family, given in of["numbers"].items()
            if len(given["objective"]) < max(len(one["objective"]) for one in of["numbers"].values())
        ],
    }


def page(found: dict[str, Any], num_pictures: int, num_seeds: int) -> str:
    """The tables as Markdown.

    Args:
        found: by domain, one of `summary`.
        num_pictures: held-out ones that were explained.
        num_seeds: networks.

    Returns:
        The text.
    """
    arrows = [f"{one} {'↑' if way == 'higher' else '↓'}" for one, way in DIRECTIONS.items()]
    lines = [
        f"{num_pictures} held-out pictures, {num_seeds} networks a domain. Intervals are 95 %, over pictures, each "
        'the mean over networks. "Chosen" is, network by network, the one of the least objective on the pictures '
        "that composites were learned on.",
    ]
    for domain, of in found.items():
        lines += ["", f"## {domain[0].upper()}{domain[1:]}", "", f"Accuracy {of['accuracy']:.3f}.", ""]
        lines += [
            f"| composite | objective ↓ | {' | '.join(arrows)} |",
            "|---|" + "---:|" * (len(arrows) + 1),
        ]
        for name, scores in of["scores"].items():
            cells = [f"{of['objective'][name]:.3g}"] + [f"{mean:.3g}" for mean, _ in scores.values()]
            lines.append(f"| {name} | {' | '.join(cells)} |".replace("-", "−").replace("−−−", "---"))
        lines += ["", "How much better the learned one, chosen, is (positive: better), paired:", ""]
        lines += [f"| than | {' | '.join(DIRECTIONS)} |", "|---|" + "---:|" * len(DIRECTIONS)]
        for name, differences in of["differences"].items():
            cells = [f"{mean:+.3f} ± {half:.3f}".replace("-", "−") for mean, half in differences.values()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines += ["", "What was learned, network by network:", ""]
        lines += ["| family | layer | number | values |", "|---|---|---|---:|"]
        for family, places in of["numbers"].items():
            for place, fields in places.items():
                for field, values in fields.items():
                    lines.append(
                        f"| {family} | {place} | {field} | {', '.join(f'{one:.2g}' for one in values)} |"
                    )
        chosen = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in of["chosen"].items())
        lines += ["", f"Chosen: {chosen}."]
        if of["stopped"]:
            lines += ["", f"Stopped where a number was not finite: {'; '.join(of['stopped'])}."]
    return "\n".join(lines) + "\n"
