"""Several seeds trained together, beside one after the other, where compilation takes most of a training's time.

    python -m experiments.benchmarks.together --json runs/benchmarks/together.json

A short training of ProtoNet on Latin letters, guided, and its evaluation, as `jxai reproduce letters` does them; one
seed is trained alone, by which the time of all of them one after the other is counted. Two minutes on two cores.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import tempfile
import time
from pathlib import Path

import tyro

from experiments.benchmarks.measure import report, result
from jxai.cli.fewshot import reproduce
from jxai.cli.fewshot.configs import TABLES, Pretraining, Table


@dataclasses.dataclass(frozen=True)
class Options:
    """How much is trained."""

    seeds: int = 4
    steps: int = 20
    json: Path | None = None
    """Where the results go as JSON."""


def seconds(seeds: int, steps: int, *, together: bool) -> float:
    """The time of training and evaluating so many seeds, into a folder that is thrown away.

    Args:
        seeds: how many.
        steps: of each training.
        together: at once, or one alone.

    Returns:
        Seconds by the clock.
    """
    few = {"queries": 2, "steps": steps, "eval_every": steps, "validation_episodes": 2}
    base = TABLES["letters"]().systems["prototype-guided"]
    config = dataclasses.replace(base, pretraining=Pretraining(steps=2, batch_size=4), **few)
    table = Table("short", {"prototype-guided": config}, targets=("pictograms",), episodes=2)
    with tempfile.TemporaryDirectory() as folder:
        options = reproduce.Options(
            "letters",
            shots=(1,),
            seeds=(seeds,) if together else (0,),
            together=together,
            runs=Path(folder),
            progress=False,
        )
        start = time.perf_counter()
        for _ in reproduce.results(list(reproduce.jobs(table, options)), table, options):
            pass
        return time.perf_counter() - start


def _in_own_process(seeds: int, steps: int, *, together: bool) -> float:
    """`seconds`, with nothing compiled before."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(seconds, seeds, steps, together=together).result()


def main(options: Options) -> None:
    """Measure and report."""
    alone = _in_own_process(1, options.steps, together=False)
    at_once = _in_own_process(options.seeds, options.steps, together=True)
    results = [
        result("one seed alone", alone, "s"),
        result(f"{options.seeds} seeds together", at_once, "s"),
        result("one after the other over together", options.seeds * alone / at_once, "x", "above 1"),
    ]
    report(results, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
