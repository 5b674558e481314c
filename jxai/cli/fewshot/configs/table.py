"""A table of accuracies: which systems, how they are trained, on what they are judged."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from jxai.cli.fewshot.configs.few_shot import Config

# Accuracies and half intervals in percent as printed elsewhere: {system: {shot: {target: text}}}.
Published = Mapping[str, Mapping[int, Mapping[str, str]]]
Inference = Literal["inductive", "transductive"]


@dataclasses.dataclass(frozen=True)
class Table:
    """Systems by targets.

    Attributes:
        title: one line.
        systems: the rows: a configuration each, whose seed, shot and, with `leave_out`, sources are set by run.
        targets: domains to judge on; one that training draws from shows its novel classes.
        shots: settings.
        pairs: {system: the one that its differences are to}.
        leave_out: every target is judged by a run that never saw it: it is left out of the sources.
        episodes: of the evaluation, a target.
        transductive: {system: episodes, a target, on which it is judged transductively too}.
        published: what others have measured.
        note: conditions and expected times.
    """

    title: str
    systems: Mapping[str, Config]
    targets: tuple[str, ...]
    shots: tuple[int, ...] = (1, 5)
    pairs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    leave_out: bool = False
    episodes: int = 2000
    transductive: Mapping[str, int] = dataclasses.field(default_factory=dict)
    published: Published = dataclasses.field(default_factory=dict)
    note: str = ""

    def inferences(self, system: str, *, episodes: int | None = None) -> dict[Inference, int]:
        """How a system is judged, and on how many episodes a target; on no more than `episodes`, where given."""
        wanted: dict[Inference, int] = {"inductive": episodes or self.episodes}
        if system in self.transductive:
            wanted["transductive"] = min(self.transductive[system], wanted["inductive"])
        return wanted


def guided_pairs(systems: Mapping[str, Config]) -> dict[str, str]:
    """Differences of "X-guided" to "X", for every X of which there are both."""
    return {f"{name}-guided": name for name in systems if f"{name}-guided" in systems}
