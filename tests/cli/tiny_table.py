"""A table that is run in seconds: `tiny_table.py FOLDER STEPS`. Two rows, of one tiny configuration."""

import dataclasses
import functools
import sys
from pathlib import Path

from jxai.cli.fewshot import reproduce
from jxai.cli.fewshot.configs import TABLES, Pretraining, Table
from jxai.cli.fewshot.configs.systems import plain_and_guided


def tiny(steps: int = 4) -> Table:
    config = dataclasses.replace(
        TABLES["letters-quick"]().systems["relation-guided"],
        width=8,
        head_width=8,
        queries=3,
        pretraining=Pretraining(steps=4, save_every=1),
        steps=steps,
        eval_every=1,
        validation_episodes=4,
    )
    return Table(
        "tiny",
        plain_and_guided("relation", config),
        targets=("hebrew", "thai"),
        pairs={"relation-guided": "relation"},
        episodes=6,
        shots=(1,),
    )


if __name__ == "__main__":
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    TABLES["tiny"] = functools.partial(tiny, steps)
    reproduce.main(
        reproduce.Options("tiny", runs=folder / "runs", results=folder / "results", progress=False)
    )
