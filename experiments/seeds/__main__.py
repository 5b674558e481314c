"""Guidance over seeds: every head, plain and guided, with intervals that hold for other seeds; and what changes it.

    python -m experiments.seeds --out runs/seeds

Small networks learn `latin` at 24 pixels, in a few seconds each. First every variant of `variants.py` at 1-shot on
the seeds and domains of the finding, then plain and guided on seeds 0, 1, …, at both settings, and with them what
`--proposed` names, judged on domains that did not find it. Plain, guided and every variant of a seed share the
pretrained encoder, the episodes of training and those that judge. Each training is logged when it is done: a run that
was stopped goes on. Leaves `table.md` beside the log `seeds.jsonl`.
"""

import dataclasses
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.pieces import check_names, finish
from experiments.seeds import tables, trainings
from experiments.seeds.tables import FINDING_DOMAINS, FINDING_SEEDS
from experiments.seeds.variants import HEADS, VARIANTS
from jxai.cli.running import command_line, folders
from jxai.errors import InputError
from jxai.results_log import ResultsLog


@dataclasses.dataclass(frozen=True)
class Options:
    """What is trained, and where results go."""

    heads: tuple[str, ...] = HEADS
    shots: tuple[int, ...] = (1, 5)
    finding: tuple[int, ...] = FINDING_SEEDS
    """Seeds on which all variants are trained, of those of the finding."""
    num_seeds: int = 5
    """Trainings a cell, of seeds 0, 1, ..."""
    proposed: tuple[str, ...] = ()
    """Variants that are trained on those seeds too."""
    num_steps: int = 200
    """Updates, of one episode each."""
    encoder_steps: int = 250
    """Updates of the encoder before."""
    episodes: int = 300
    """That judge a training, over all its domains together."""
    out: Path = Path("runs/seeds")
    progress: bool = True


@dataclasses.dataclass(frozen=True)
class Run:
    """One training."""

    head: str
    variant: str
    shot: int
    seed: int
    domains: tuple[str, ...]

    @property
    def key(self) -> str:
        """Its name in the log."""
        return tables.key(self.head, self.variant, self.shot, self.seed)


def wanted(options: Options) -> Iterator[Run]:
    """The finding trainings, then those of the table."""
    for seed in options.finding:
        for head in options.heads:
            for name, variant in VARIANTS.items():
                if head in variant.only:
                    yield Run(head, name, 1, seed, FINDING_DOMAINS)
    for seed in range(options.num_seeds):
        for shot in options.shots:
            for head in options.heads:
                for name in ("plain", "guided", *options.proposed):
                    if head in VARIANTS[name].only:
                        yield Run(head, name, shot, seed, tuple(trainings.DOMAINS))


def main(options: Options) -> None:
    """Train what is missing; print and write the tables."""
    check_names("heads", options.heads, HEADS)
    if options.proposed:
        check_names("variants", options.proposed, VARIANTS)
    if options.episodes % len(trainings.DOMAINS) or options.episodes % len(FINDING_DOMAINS):
        raise InputError(
            f"expected episodes as a multiple of {len(trainings.DOMAINS)}, got {options.episodes}: each has as "
            "many"
        )
    settings = {name: getattr(options, name) for name in ("num_steps", "encoder_steps", "episodes")}
    with folders.in_use(options.out):
        log = ResultsLog(options.out / "seeds.jsonl", settings)
        pieces = {run.key: functools.partial(finished, run, options) for run in wanted(options)}
        finish(log, pieces, unit="training", progress=options.progress)
        text = told(log.records, options.proposed)
        print(text)
        folders.write_whole(options.out / "table.md", text)


def finished(run: Run, options: Options) -> dict[str, Any]:
    """Train and judge.

    Args:
        run: what.
        options: how long.

    Returns:
        Its record: right answers of every episode by domain, and the seconds that it took.
    """
    start, processor = time.perf_counter(), time.process_time()
    variables = trainings.trained(
        run.head,
        run.variant,
        run.shot,
        run.seed,
        num_steps=options.num_steps,
        encoder_steps=options.encoder_steps,
    )
    right = trainings.judged(run.head, variables, run.shot, run.seed, run.domains, episodes=options.episodes)
    return {
        "key": run.key,
        "right": right,
        "seconds": time.perf_counter() - start,
        "processor": time.process_time() - processor,
    }


def told(records: tables.Records, proposed: tuple[str, ...]) -> str:
    """All tables as Markdown.

    Args:
        records: of the log, by key.
        proposed: variants that are confirmed.

    Returns:
        The text.
    """
    minutes = sum(record["processor"] for record in records.values()) / 60
    blocks = [
        "Accuracy in percent; [95 % interval] of a difference paired over seeds and episodes, by a bootstrap of both "
        f"(`fewshot.hierarchical_interval`); bold where 0 lies outside. {len(records)} trainings, {minutes:.0f} "
        "core-minutes.",
        *(tables.guidance_table(records, shot) for shot in (1, 5)),
        f"Found on {', '.join(FINDING_DOMAINS)}, seeds {' and '.join(map(str, FINDING_SEEDS))}: each seed's mean "
        "difference.",
        tables.finding_table(records),
    ]
    if proposed:
        blocks.append(f"Confirmed on {', '.join(tables.CONFIRMING_DOMAINS)}, other seeds:")
        blocks += [tables.confirming_table(records, name, shot) for name in proposed for shot in (1, 5)]
    return "\n\n".join(block for block in blocks if block) + "\n"


if __name__ == "__main__":
    command_line.run(main, Options, about=__doc__)
