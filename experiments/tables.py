"""Scores of episodes, and the Markdown tables that compare runs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jxai import data, fewshot


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
            "interval": round(half, 3),
            "correct": self.correct.tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Scores":
        """The inverse of `to_json`."""
        return cls(value["shot"], value["queries"], value["of"], np.asarray(value["correct"]))


# Systems by name, each a list of seeds' scores by domain.
Systems = Mapping[str, Sequence[Mapping[str, Scores]]]


def comparison_table(groups: Mapping[str, Systems]) -> str:
    """Domains by systems: accuracy in percent, mean ± 95 % interval, and differences to the first system.

    With several seeds, an episode's accuracy is its mean over the seeds; intervals are over episodes, those of
    differences paired, and each seed's difference stands behind them.

    Args:
        groups: {"1-shot": systems, ...}; each group has its own columns.

    Returns:
        Markdown.
    """
    header, ruler = ["domain"], ["---"]
    for group, systems in groups.items():
        first, *others = systems
        names = [first, *others, *(f"{other} − {first}" for other in others)]
        header += [f"{group} {name}".strip() for name in names]
        ruler += ["---:"] * len(names)
    rows, notes = [], {}
    for domain in dict.fromkeys(
        name for systems in groups.values() for seeds in systems.values() for name in seeds[0]
    ):
        cells = [domain]
        if domain in data.DOMAINS and (note := data.DOMAINS[domain].settings_note):
            cells = [f"{domain} ({len(notes) + 1})"]
            notes[domain] = note
        for systems in groups.values():
            first, *others = systems
            cells += [_cell([seed[domain].percent for seed in seeds]) for seeds in systems.values()]
            for other in others:
                pairs = zip(systems[other], systems[first], strict=True)
                cells.append(
                    _cell([ours[domain].percent - theirs[domain].percent for ours, theirs in pairs], True)
                )
        rows.append(cells)
    lines = [header, ruler, *rows]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    for number, note in enumerate(notes.values(), start=1):
        text += f"\n\n({number}) {note}."
    return text


def _cell(seeds: Sequence[np.ndarray], difference: bool = False) -> str:
    mean, half = fewshot.mean_and_interval(np.mean(seeds, axis=0))
    if not difference:
        return f"{mean:.2f} ± {half:.2f}"
    each = f" ({', '.join(f'{seed.mean():+.1f}' for seed in seeds)})" if len(seeds) > 1 else ""
    return f"{mean:+.2f} ± {half:.2f}{each}"
