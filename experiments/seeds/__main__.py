"""Guidance over seeds."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from experiments.seeds import trainings
from experiments.seeds.variants import HEADS, VARIANTS
from jxai.cli.running import command_line, folders
from jxai.progress import Bar, Progress
from jxai.results_log import ResultsLog

FINDING_DOMAINS, FINDING_SEEDS = ("latin", "hebrew", "thai"), (100, 101)


@dataclasses.dataclass(frozen=True)
class Options:
    """What is trained, and where results go."""

    heads: tuple[str, ...] = HEADS
    shots: tuple[int, ...] = (1, 5)
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
        return f"{self.shot}-shot {self.head} {self.variant} {self.seed}"


def wanted(options: Options) -> Iterator[Run]:
    """The finding trainings, then those of the table."""
    for seed in FINDING_SEEDS:
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
    """Train what is missing."""
    settings = {name: getattr(options, name) for name in ("num_steps", "encoder_steps", "episodes")}
    steps = {name: settings[name] for name in ("num_steps", "encoder_steps")}
    progress: Progress = True if options.progress else "lines"
    with folders.in_use(options.out):
        log = ResultsLog(options.out / "seeds.jsonl", settings)
        runs = list(wanted(options))
        with Bar(len(runs), unit="training", progress=progress) as bar:
            for run in runs:
                bar.name(run.key)
                if not log.done(run.key):
                    start, cpu = time.perf_counter(), time.process_time()
                    variables = trainings.trained(run.head, run.variant, run.shot, run.seed, **steps)
                    right = trainings.judged(
                        run.head, variables, run.shot, run.seed, run.domains, episodes=options.episodes
                    )
                    took = {"seconds": time.perf_counter() - start, "processor": time.process_time() - cpu}
                    log.append({"key": run.key, "right": right, **took})
                bar.update()


if __name__ == "__main__":
    command_line.run(main, Options, about=__doc__)
