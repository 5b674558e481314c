"""Scores of episodes, and the Markdown tables that compare runs."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jxai import data, fewshot
from jxai.checks import printable


@dataclasses.dataclass(frozen=True)
class Scores:
    """How a run did on a domain.

    Attributes:
        shot: support images a class.
        queries: query images a class.
        of: query images an episode.
        correct: how many of them were right, (episodes,).
    """

    shot: int
    queries: int
    of: int
    correct: np.ndarray

    @property
    def percent(self) -> np.ndarray:
        """Accuracy of each episode in percent, (episodes,)."""
        return 100 * self.correct / self.of

    def to_json(self) -> dict[str, Any]:
        """As JSON, with the mean and its 95 % interval for readers."""
        mean, half = fewshot.mean_and_interval(self.percent)
        return {
            "shot": self.shot,
            "queries": self.queries,
            "of": self.of,
            "mean_percent": round(mean, 3),
            "interval": None if math.isnan(half) else round(half, 3),
            "correct": self.correct.tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Scores":
        """The inverse of `to_json`."""
        return cls(value["shot"], value["queries"], value["of"], np.asarray(value["correct"]))


# A row's scores by seed and target.
Seeds = Mapping[int, Mapping[str, Scores]]


def accuracy_table(
    heading: str,
    rows: Mapping[str, Seeds],
    *,
    targets: Sequence[str],
    pairs: Mapping[str, str] | None = None,
    published: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """Systems by targets: accuracy in percent, mean ± 95 % interval, and what differs within pairs.

    With several seeds, an episode's accuracy is its mean over the seeds; intervals are over episodes, those of
    differences paired, and each seed's difference stands behind them.

    Args:
        heading: of the first column, such as "5-shot".
        rows: the systems' scores.
        targets: the columns; a row without one has an empty cell.
        pairs: {row: the one that its difference is to}; a row of differences follows the former.
        published: {row: {target: text}}; a row of them follows.

    Returns:
        Markdown.
    """
    notes = {
        target: data.DOMAINS[target].settings_note
        for target in targets
        if target in data.DOMAINS and data.DOMAINS[target].settings_note
    }
    numbers = {target: number for number, target in enumerate(notes, start=1)}
    columns = [f"{target} ({numbers[target]})" if target in numbers else target for target in targets]
    columns = [_cell(column) for column in columns]
    lines = [[heading, *columns], ["---", *["---:"] * len(columns)]]
    for name, seeds in rows.items():
        lines.append([_cell(name), *(_accuracy(seeds, target) for target in targets)])
        if published and name in published:
            lines.append(["*published*", *(published[name].get(target, "") for target in targets)])
        if pairs and name in pairs and pairs[name] in rows:
            theirs = rows[pairs[name]]
            lines.append(
                [f"*− {_cell(pairs[name])}*", *(_difference(seeds, theirs, target) for target in targets)]
            )
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    for target, note in notes.items():
        text += f"\n\n({numbers[target]}) {note}."
    return text


def _cell(name: str) -> str:
    """A name, such as a folder's, that stays in its cell."""
    return printable(name).replace("|", "\\|")


def _accuracy(seeds: Seeds, target: str) -> str:
    found = [scores[target].percent for scores in seeds.values() if target in scores]
    if not found:
        return ""
    mean, half = fewshot.mean_and_interval(np.mean(found, axis=0))
    return f"{mean:.2f}" if math.isnan(half) else f"{mean:.2f} ± {half:.2f}"


def _difference(ours: Seeds, theirs: Seeds, target: str) -> str:
    differences = [
        ours[seed][target].percent - theirs[seed][target].percent
        for seed in ours
        if target in ours[seed] and target in theirs.get(seed, {})
    ]
    if not differences:
        return ""
    mean, half = fewshot.mean_and_interval(np.mean(differences, axis=0))
    each = f" ({', '.join(f'{seed.mean():+.1f}' for seed in differences)})" if len(differences) > 1 else ""
    return f"{mean:+.2f} ± {half:.2f}{each}"
