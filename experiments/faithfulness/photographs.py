"""How far the metrics of `jxai judge` agree on photographs: correlations of their orders of methods.

    python -m experiments.faithfulness.photographs --scores experiments/results/judge.json

Prints, metric by metric, Spearman's correlation over the methods, the control left out, and 95 % intervals over the
photographs, which are resampled. Seconds: it reads what `jxai judge` left.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from experiments.faithfulness import agreement
from jxai.cli.running import command_line
from jxai.errors import InputError


@dataclasses.dataclass(frozen=True)
class Options:
    """Whose scores, and which metrics are held against the others."""

    scores: Path = Path("experiments/results/judge.json")
    references: tuple[str, ...] = ("insertion", "deletion", "road", "infidelity")
    control: str = "random"


def table(judged: dict, options: Options) -> str:
    """Agreement as Markdown.

    Args:
        judged: what `jxai judge` left: scores by method and metric, and directions.
        options: references and the control.

    Returns:
        The table, and which methods it is about.

    Raises:
        ValueError: a reference that nobody measured.
    """
    methods = [name for name in judged["scores"] if name != options.control]
    scores = {}
    for metric in judged["directions"]:
        # What not every method has, such as completeness, orders no methods.
        columns = [judged["scores"][name].get(metric, {}).get("values") for name in methods]
        if all(columns) and all(None not in column for column in columns):
            scores[metric] = np.array(columns, float)[:, None]
    unknown = [name for name in options.references if name not in scores]
    if unknown:
        raise InputError(f"expected references among {', '.join(scores)}, got {unknown[0]}: name such ones")
    found = agreement.agreements(scores, judged["directions"], options.references)
    count = next(iter(scores.values())).shape[-1]
    return f"{agreement.table(found)}\n\n{count} photographs; {', '.join(methods)}.\n"


def main(options: Options) -> None:
    """Read and print."""
    print(table(json.loads(options.scores.read_text("utf-8")), options), end="")


if __name__ == "__main__":
    command_line.run(main, Options, about=__doc__)
