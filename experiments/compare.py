"""Plain against guided training: the same encoder, episodes and budget, over seeds and shots, on every domain.

    python experiments/compare.py
    python experiments/compare.py --systems frozen-plain frozen-guided --shots 5 --seeds 0 --name frozen

Trains what is missing and evaluates it, run by run: a finished run leaves `results/latin/SHOTshot-SYSTEM-SEED.json`
and is not done again; a run that was stopped goes on. Prints the table, and writes it with the learning curves
beside the results.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import command_line
from configs import CONFIGS, Config, from_json
from evaluate import evaluate
from jxai import data, fewshot, training, viz
from tables import Scores, comparison_table
from train import Run, train

# What each system changes in the configuration.
SYSTEMS: dict[str, dict[str, Any]] = {
    "plain": {"guidance": fewshot.PLAIN},
    "guided": {"guidance": fewshot.Guidance()},
    "lambda-0.25": {"guidance": fewshot.Guidance(guided_weight=0.25)},
    "strength-0.5": {"guidance": fewshot.Guidance(strength=0.5)},
    "frozen-plain": {"guidance": fewshot.PLAIN, "train_encoder": False},
    "frozen-guided": {"guidance": fewshot.Guidance(), "train_encoder": False},
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Which runs, and where they go."""

    config: str = "latin"
    """One of the configurations of experiments/configs."""
    systems: tuple[str, ...] = ("plain", "guided")
    """Keys of SYSTEMS; differences are to the first one."""
    seeds: tuple[int, ...] = (0, 1, 2)
    shots: tuple[int, ...] = (1, 5)
    episodes: int = 1000
    """Of the evaluation, a domain."""
    domains: tuple[str, ...] = tuple(data.DOMAINS)
    runs: Path = Path("runs/compare")
    """Where checkpoints go."""
    results: Path = Path(__file__).parent / "results" / "latin"
    """Where each finished run's JSON, the table and the curves go."""
    name: str = "table"
    """What the table's and the curves' files are called."""
    progress: bool = True


def compare(config: Config, options: Options) -> str:
    """Train and evaluate every run that is not finished yet.

    Args:
        config: what all runs share; seed, shots and what the system changes are set for each.
        options: which runs, and where they go.

    Returns:
        The table, as Markdown.

    Raises:
        ValueError: an unknown system, or a finished run of another configuration in the folder.
    """
    if unknown := set(options.systems) - set(SYSTEMS):
        raise ValueError(
            f"expected systems among {', '.join(SYSTEMS)}, got {', '.join(unknown)}: choose of these"
        )
    options.results.mkdir(parents=True, exist_ok=True)
    finished: dict[str, dict[str, list[dict]]] = {
        f"{shot}-shot": {name: [] for name in options.systems} for shot in options.shots
    }
    for seed in options.seeds:
        for shot in options.shots:
            for name in options.systems:
                path = options.results / f"{shot}shot-{name}-{seed}.json"
                of_run = dataclasses.replace(config, seed=seed, shot=shot, **SYSTEMS[name])
                if not path.exists():
                    result = _run(of_run, options, name=name)
                    path.with_suffix(".tmp").write_text(json.dumps(result) + "\n")
                    path.with_suffix(".tmp").rename(path)
                finished[f"{shot}-shot"][name].append(_finished(path, of_run, options))
    table = comparison_table(
        {
            shots: {name: [_scores(result) for result in results] for name, results in systems.items()}
            for shots, systems in finished.items()
        }
    )
    (options.results / f"{options.name}.md").write_text(table + "\n")
    curves = {
        f"{shots} {name}": [result["curve"] for result in results]
        for shots, systems in finished.items()
        for name, results in systems.items()
    }
    viz.learning_curves(
        curves,
        path=options.results / f"{options.name}-curves.png",
        metrics=("loss_plain", "accuracy", "validation_accuracy"),
        smoothing=config.steps / 40,
    )
    return table


def run_folder(runs: Path, *, seed: int, shot: int, name: str) -> Path:
    """Where a run's checkpoints are."""
    return runs / f"{shot}shot-{name}-{seed}"


def _finished(path: Path, config: Config, options: Options) -> dict:
    """A finished run's JSON, if it is of this configuration and evaluation."""
    result = json.loads(path.read_text())
    episodes = {len(found["correct"]) for found in result["domains"].values()}
    if (
        from_json(Config, result["config"]) != config
        or episodes != {options.episodes}
        or not set(options.domains) <= set(result["domains"])
    ):
        raise ValueError(
            f"expected the result of this configuration, with {options.episodes} episodes of each of "
            f"{', '.join(options.domains)}, got another in {path}: remove it and its run in {options.runs}, or "
            "give other folders"
        )
    return result | {"domains": {name: result["domains"][name] for name in options.domains}}


def _run(config: Config, options: Options, *, name: str) -> dict:
    """Train and evaluate one run; what its JSON holds."""
    folder = run_folder(options.runs, seed=config.seed, shot=config.shot, name=name)
    start = time.perf_counter()
    run = Run(
        config, folder, encoder_folder=options.runs / f"encoder-{config.seed}", progress=options.progress
    )
    result = train(run)
    trained = time.perf_counter()
    scores = evaluate(folder, episodes=options.episodes, domains=options.domains, progress=options.progress)
    return {
        "config": dataclasses.asdict(config),
        "seconds": {
            "training": round(trained - start, 1),
            "evaluation": round(time.perf_counter() - trained, 1),
        },
        "validation": {"best": result.best_accuracy, "step": result.best_step},
        "domains": {domain: found.to_json() for domain, found in scores.items()},
        "curve": _curve(training.read_metrics(folder / "metrics.jsonl")),
    }


def _curve(lines: Sequence[dict]) -> list[dict]:
    """The metrics' lines, validation apart from training, in few digits."""
    curve = []
    for line in lines:
        validation = line["phase"] == "validation"
        names = (
            {"accuracy": "validation_accuracy"} if validation else {n: n for n in ("accuracy", "loss_plain")}
        )
        curve.append({"step": line["step"]} | {new: round(line[old], 4) for old, new in names.items()})
    return curve


def _scores(result: dict) -> dict[str, Scores]:
    return {domain: Scores.from_json(found) for domain, found in result["domains"].items()}


def main(options: Options) -> None:
    """Run what is missing and print the table."""
    if options.config not in CONFIGS:
        raise ValueError(
            f"expected a configuration among {', '.join(CONFIGS)}, got {options.config!r}: name one"
        )
    print(compare(CONFIGS[options.config](), options))


if __name__ == "__main__":
    command_line.run(main, Options)
