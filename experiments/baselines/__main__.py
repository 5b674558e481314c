"""SimpleShot, linear and cosine probes, FEAT and ProtoNet, plain and guided, on the embedded benchmark.

    python -m experiments.baselines --out runs/baselines
    python -m experiments.baselines --out runs/fine-tuned --methods linear-probe fine-tuned --episodes 10

An encoder is trained as a classifier of Latin letters, plainly and with the loss of features weighted by their own
relevance: SimpleShot and the probes take the features of either, and fine-tuning, which is slow and only done where
it is named, goes on from either in each episode. ProtoNet and FEAT go on from the plain one in
episodes, plainly and guided by their own explanations. All are judged on the same episodes, those of `jxai evaluate`.
Each method is logged when it is judged: a run that was stopped goes on. Leaves `table.md` and `baselines.json`. About
twenty minutes on two cores that do other work too.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.baselines import trainings
from experiments.pieces import check_names
from jxai import data, fewshot
from jxai.cli.fewshot.configs import Config
from jxai.cli.fewshot.evaluate import episodes_for
from jxai.cli.fewshot.tables import Scores, Seeds, accuracy_table
from jxai.cli.running import command_line, folders, made_with
from jxai.intervals import mean_and_interval
from jxai.progress import Bar, Progress
from jxai.results_log import ResultsLog

_MEAN = "mean"

FUNCTIONS: dict[str, tuple[Callable[..., jax.Array], bool]] = {
    "SimpleShot-UN": (functools.partial(fewshot.nearest_centroid, normalize=False), False),
    "SimpleShot-L2N": (fewshot.nearest_centroid, False),
    "SimpleShot-CL2N": (fewshot.nearest_centroid, True),
    "linear-probe": (fewshot.linear_probe, False),
    "cosine-probe": (fewshot.cosine_probe, False),
}
"""By name: a function of an episode of features, and whether their center is subtracted before."""

FINE_TUNED: dict[str, tuple[float | None, str]] = {
    "fine-tuned": (None, "linear-probe"),
    "fine-tuned-cosine": (2.0, "cosine-probe"),
}
"""By name: the scale of cosines, or None for a linear classifier; and the probe of the encoder as it was."""

# FEAT's temperature among 64, 16 and 4: the best plain one on Latin's validation classes after 150 steps with
# seed 100, which no table has; the released 64 wants longer trainings.
_TEMPERATURE = 4.0
HEADS: dict[str, fewshot.Head] = {
    "ProtoNet": fewshot.PrototypeHead(),
    "FEAT": fewshot.FEATHead(temperature=_TEMPERATURE),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What is trained, on what it is judged, and where results go."""

    methods: tuple[str, ...] = (*FUNCTIONS, *HEADS)
    shots: tuple[int, ...] = (1, 5)
    domains: tuple[str, ...] = tuple(data.DOMAINS)
    num_seeds: int = 3
    """Of everything that is trained: 0, 1, …"""
    width: int = 32
    """Channels of the encoder's blocks."""
    pretraining_steps: int = 400
    """Updates as a classifier, of sixteen pictures each."""
    steps: int = 200
    """Updates in episodes."""
    episodes: int = 300
    """Of the evaluation, a domain."""
    out: Path = Path("runs/baselines")
    progress: bool = True


class Judge:
    """The pictures of every domain and the episodes that every method of a shot is judged by."""

    def __init__(self, options: Options):
        self.options = options
        self.sources: dict[str, data.Source] = {}
        self.rows: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}
        for shot in options.shots:
            config = Config(sources=("latin",), shot=shot)
            for name in options.domains:
                found = episodes_for(config, name, count=options.episodes, purpose="evaluation")
                self.sources[name], self.rows[shot, name] = found[0], found[1:]

    def features(self, encoder: Any) -> dict[str, jax.Array]:
        """Of every domain's pictures, (n, width), by its name."""
        width = self.options.width
        return {
            name: trainings.features_of(encoder, source, width=width) for name, source in self.sources.items()
        }

    def scores(
        self, head: fewshot.Head, variables: Any, features: dict[str, Any], shot: int
    ) -> dict[str, Any]:
        """A method's scores on every domain, as JSON."""
        found = {}
        for name, of_domain in features.items():
            support, query = self.rows[shot, name]
            accuracies = fewshot.episode_accuracies(
                head, variables, of_domain, support, query, way=trainings.WAY
            )
            found[name] = _as_json(accuracies, support, query)
        return found

    def fine_tuned(self, encoder: Any, scale: float | None, shot: int) -> dict[str, Any]:
        """Scores on every domain, as JSON, of an encoder that is fine-tuned in each episode."""
        found = {}
        for name, source in self.sources.items():
            support, query = self.rows[shot, name]
            accuracies = trainings.fine_tuned(
                encoder, source, support, query, width=self.options.width, scale=scale
            )
            found[name] = _as_json(accuracies, support, query)
        return found


def _as_json(accuracies: np.ndarray, support: np.ndarray, query: np.ndarray) -> Any:
    correct = np.rint(accuracies * query.shape[1]).astype(int)
    shots, queries = (rows.shape[1] // trainings.WAY for rows in (support, query))
    return Scores(shot=shots, queries=queries, of=query.shape[1], correct=correct).to_json()


def judged(
    options: Options, seed: int, judge: Judge, done: Callable[[str], bool]
) -> Iterator[tuple[str, Any]]:
    """Train and judge what is missing of one seed.

    Args:
        options: what.
        seed: of all trainings.
        judge: what judges.
        done: whether there is a record of a name.

    Yields:
        (name, scores by domain); the name is that of `name_of`.
    """
    base = data.load("latin", split="base")
    make = functools.partial(
        trainings.pretrained, base, width=options.width, num_steps=options.pretraining_steps
    )
    encoder = functools.cache(lambda kind: make(kind, seed))
    nothing = {part: {"encoder": {}, "head": {}} for part in ("params", "batch_stats")}
    for kind in trainings.GUIDED:
        wanted = [
            (shot, method, name_of(shot, method, kind, seed))
            for shot in options.shots
            for method in options.methods
        ]
        wanted = [one for one in wanted if not done(one[-1])]
        functions = [one for one in wanted if one[1] in FUNCTIONS]
        if functions:
            plain = judge.features(encoder(kind))
            of_base = trainings.features_of(encoder(kind), base, width=options.width)
            center = trainings.center_of(of_base)
            for shot, method, name in functions:
                function, centered = FUNCTIONS[method]
                features = {key: of - center for key, of in plain.items()} if centered else plain
                yield name, judge.scores(trainings.Scorer(function), nothing, features, shot)
        for shot, method, name in wanted:
            if method in FINE_TUNED:
                yield name, judge.fine_tuned(encoder(kind), FINE_TUNED[method][0], shot)
            if method not in HEADS:
                continue
            variables = trainings.trained(
                base,
                HEADS[method],
                kind,
                encoder("plain"),
                seed,
                shot=shot,
                width=options.width,
                num_steps=options.steps,
            )
            features = judge.features(fewshot.part(variables, "encoder"))
            yield name, judge.scores(HEADS[method], variables, features, shot)


def name_of(shot: int, method: str, kind: str, seed: int) -> str:
    """What a record is called.

    Args:
        shot: supports a class.
        method: one of `FUNCTIONS`, `FINE_TUNED` or `HEADS`.
        kind: "plain" or "guided".
        seed: of the trainings.

    Returns:
        The name.
    """
    return f"{shot}shot {method} {kind} {seed}"


def with_mean(scores: dict[str, Scores]) -> dict[str, Scores]:
    """Scores by domain, before them their mean: of the domains' i-th episodes, which are independent.

    Args:
        scores: by domain.

    Returns:
        The same with "mean".
    """
    mean = np.mean([one.percent for one in scores.values()], axis=0)
    first = next(iter(scores.values()))
    return {_MEAN: Scores(first.shot, first.queries, of=100, correct=mean), **scores}


def rows_of(options: Options, shot: int, records: dict[str, Any]) -> dict[str, Seeds]:
    """A table's rows: each method, plain and guided.

    Args:
        options: which.
        shot: supports a class.
        records: of the log.

    Returns:
        {row: {seed: {domain: scores}}}.
    """
    rows: dict[str, Seeds] = {}
    for method in options.methods:
        for kind in trainings.GUIDED:
            of_seeds = {}
            for seed in range(options.num_seeds):
                found = records[name_of(shot, method, kind, seed)]["scores"]
                of_seeds[seed] = with_mean({name: Scores.from_json(one) for name, one in found.items()})
            rows[method if kind == "plain" else f"{method}-guided"] = of_seeds
    return rows


def summary(rows: dict[str, Seeds]) -> dict[str, dict[str, Any]]:
    """Each method's mean over domains, guided minus plain, and both differences' intervals.

    Args:
        rows: of `rows_of`.

    Returns:
        {method: numbers in percent}: means with intervals over episodes, the difference with the paired interval over
        episodes (averaged over seeds) and with that over seeds.
    """
    found = {}
    for method, plain in rows.items():
        if f"{method}-guided" not in rows:
            continue
        values = {
            kind: np.array([of[_MEAN].percent for of in seeds.values()])
            for kind, seeds in (("plain", plain), ("guided", rows[f"{method}-guided"]))
        }
        difference = values["guided"] - values["plain"]
        found[method] = {
            **{kind: mean_and_interval(of.mean(axis=0)) for kind, of in values.items()},
            "difference": mean_and_interval(difference.mean(axis=0)),
            "over_seeds": [
                None if math.isnan(of) else of for of in mean_and_interval(difference.mean(axis=1))
            ],
            "by_seed": difference.mean(axis=1).tolist(),
        }
    return found


def told(options: Options, records: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The tables as Markdown, and their summary as JSON.

    Args:
        options: which.
        records: of the log.

    Returns:
        (text, {shot: summary}).
    """
    parts, found = [], {}
    for shot in options.shots:
        rows = rows_of(options, shot, records)
        pairs = {name: name.removesuffix("-guided") for name in rows if name.endswith("-guided")}
        pairs |= {name: probe for name, (_, probe) in FINE_TUNED.items()}
        parts.append(accuracy_table(f"{shot}-shot", rows, targets=(_MEAN, *options.domains), pairs=pairs))
        found[f"{shot}-shot"] = of_shot = summary(rows)
        lines = [
            f"| {shot}-shot, mean over domains | plain | guided | guided − plain, ± over episodes | ± over seeds |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for method, of in of_shot.items():
            cells = [f"{mean:.2f} ± {half:.2f}" for mean, half in (of["plain"], of["guided"])]
            over_seeds = of["over_seeds"][1]
            cells += ["{:+.2f} ± {:.2f}".format(*of["difference"])]
            cells += ["" if over_seeds is None else f"± {over_seeds:.2f}"]
            lines.append("| " + " | ".join([method, *cells]) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n", found


def main(options: Options) -> None:
    """Train and judge what is missing; print and write the tables."""
    check_names("methods", options.methods, (*FUNCTIONS, *FINE_TUNED, *HEADS))
    names = ("width", "pretraining_steps", "steps", "episodes", "domains")
    settings = {name: getattr(options, name) for name in names} | {"temperature": _TEMPERATURE}
    progress: Progress = True if options.progress else "lines"
    with folders.in_use(options.out):
        log = ResultsLog(options.out / "baselines.jsonl", settings)
        judge = Judge(options)
        count = options.num_seeds * len(options.shots) * len(options.methods) * len(trainings.GUIDED)
        with Bar(count, unit="method", progress=progress) as bar:
            for seed in range(options.num_seeds):
                for name, scores in judged(options, seed, judge, log.done):
                    log.append({"key": name, "scores": scores})
                    bar.name(name)
                    bar.update()
        text, found = told(options, log.records)
        print(text)
        stored = {"made_with": made_with.start(), "settings": log.settings, "summary": found}
        folders.write_whole(options.out / "table.md", text)
        folders.write_whole(options.out / "baselines.json", json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    command_line.run(main, Options, about=__doc__)
