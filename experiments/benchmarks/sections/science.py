"""The letters table with many seeds, each row's trained at once: `jxai reproduce letters --seeds 8 --together`.

A part is a row at one number of shots. Its results are those of `jxai reproduce`; from a report they go where that
looks for them, and it prints the table of what is there:

    export PYTHONPATH=.:experiments:experiments/benchmarks
    python -m experiments.benchmarks.sections.science experiments/results/gpu/CARD/science.json runs/letters
    jxai reproduce letters --seeds 8 --together --results runs

Needs neither Grain nor TensorFlow Datasets, and no package of the command line's.
"""

import dataclasses
import functools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.sections import Parts, Row, row
from experiments.benchmarks.sections.frameworks import use
from jxai.cli.fewshot.configs import TABLES, Pretraining, Table
from jxai.cli.fewshot.reproduce import Options, Result, jobs, results
from jxai.cli.fewshot.tables import Scores

_NUM_SEEDS = 8


def parts(dry: bool) -> Parts:
    """The papers' systems first, five shots before one."""
    table = TABLES["letters"]()
    systems = ["prototype"] if dry else [*table.systems]
    if dry:
        small: dict[str, Any] = {"width": 4, "head_width": 4, "queries": 2, "steps": 2, "eval_every": 2}
        small |= {"validation_episodes": 2, "pretraining": Pretraining(steps=2, batch_size=4)}
        config = dataclasses.replace(table.systems["prototype"], **small)
        table = Table("dry", {"prototype": config}, targets=("pictograms",), episodes=2)
    # Here, since pretrained encoders are shared by all rows while the process lasts.
    runs = Path(tempfile.gettempdir()) / "jxai-science"
    if dry:
        shutil.rmtree(runs, ignore_errors=True)
    return {
        f"{system}, {shot}-shot": functools.partial(
            of_row, table, system, shot, runs, 2 if dry else _NUM_SEEDS
        )
        for shot in ((1,) if dry else (5, 1))
        for system in systems
    }


def of_row(table: Table, system: str, shot: int, runs: Path, num_seeds: int) -> Iterable[Row]:
    """Train and evaluate all seeds; a row with what `jxai reproduce` keeps of each."""
    precision = use("device's default")
    options = Options(
        "letters",
        systems=(system,),
        shots=(shot,),
        seeds=(num_seeds,),
        together=True,
        runs=runs,
        progress=False,
    )
    found: dict[str, Result] = {
        job.name: result for job, result in results(list(jobs(table, options)), table, options)
    }
    for target in table.targets:
        means = [
            float(np.mean(Scores.from_json(result["inductive"][target]).percent)) for result in found.values()
        ]
        yield row(
            f"{system}, {shot}-shot on {target}, mean of {num_seeds} seeds",
            float(np.mean(means)),
            "%",
            precision=precision,
            data={"of_seeds": means},
        )
    seconds = [result["seconds"] for result in found.values()]
    for what in ("training", "evaluation"):
        yield row(
            f"{system}, {shot}-shot: {what} of {num_seeds} seeds",
            sum(one[what] for one in seconds),
            "s",
            precision=precision,
            data={"results": found} if what == "training" else None,
        )


def unpack(report: Path, folder: Path) -> int:
    """Write each run's JSON of a report where `jxai reproduce` looks for it.

    Args:
        report: `science.json` of a card.
        folder: made if it does not exist.

    Returns:
        How many runs there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Result] = {}
    for one in json.loads(report.read_text())["results"]:
        found |= (one.get("data") or {}).get("results", {})
    for name, result in found.items():
        (folder / f"{name}.json").write_text(json.dumps(result) + "\n")
    return len(found)


if __name__ == "__main__":
    print(f"{unpack(Path(sys.argv[1]), Path(sys.argv[2]))} runs")
