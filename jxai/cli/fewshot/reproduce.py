"""Reproduce a table: train what is missing, evaluate it, print it beside the published numbers.

    jxai reproduce letters
    jxai reproduce cross-domain --systems graph graph-guided --shots 5
    jxai reproduce multi-domain --plan
    jxai reproduce letters --seeds 8 --together

Goes on where it stopped, run by run and within a run: a finished run leaves `results/TABLE/SHOTshot-SYSTEM-SEED.json`
and is not done again. The table and the learning curves are written beside the results, of what is finished so far.
With `--together` the seeds of a row are trained at once, into the folders that they have alone: either way goes on
with what the other began.
"""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jxai import sealing, training, viz
from jxai.cli.fewshot import run_record
from jxai.cli.fewshot.configs import TABLES, Config, Table, from_json
from jxai.cli.fewshot.evaluate import evaluate
from jxai.cli.fewshot.fitting import Run
from jxai.cli.fewshot.tables import Scores, accuracy_table
from jxai.cli.fewshot.train import train, train_together
from jxai.cli.running import command_line, folders, made_with
from jxai.cli.running.hosts import Hosts, HostsOption, ended_by_sigterm, from_first, is_first, together
from jxai.cli.running.options import Positional
from jxai.errors import InputError

Result = dict[str, Any]
"""What a finished run's JSON holds."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Which runs, and where they go."""

    table: Positional[str] = "letters"
    """One of the tables."""
    systems: tuple[str, ...] = ()
    """Some rows; all by default."""
    seeds: tuple[int, ...] = (0,)
    """Which; with `together`, one number alone is how many, from 0 on."""
    together: bool = False
    """Train all seeds of a row at once."""
    at_once: int | None = None
    """With `together`: how many seeds a device computes at the same time, at most; fewer take less memory."""
    shots: tuple[int, ...] = ()
    """Some settings; all of the table's by default."""
    targets: tuple[str, ...] = ()
    """Some columns; all by default."""
    episodes: int | None = None
    """Of the evaluation, a target; the table's number by default. Its transductive one has no more."""
    runs: Path = Path("runs/reproduce")
    """Where checkpoints go, in a folder of the table's name."""
    results: Path = Path("runs/results")
    """Where each finished run's JSON, the table and the curves go, in a folder of the table's name."""
    name: str | None = None
    """What the table's and the curves' files are called; "table", or "part" for some rows, settings or columns."""
    plan: bool = False
    """List the runs and their commands, and do nothing."""
    progress: bool = True
    hosts: HostsOption = Hosts()


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a table: what is trained, and on what it is judged."""

    system: str
    config: Config
    targets: tuple[str, ...]
    name: str

    def result(self, options: Options) -> Path:
        """Where its JSON is or will be."""
        return options.results / options.table / f"{self.name}.json"

    def folder(self, options: Options) -> Path:
        """Where its checkpoints are."""
        return options.runs / options.table / self.name


def jobs(table: Table, options: Options) -> Iterator[Job]:
    """The chosen runs of a table, the first seed's first.

    Args:
        table: the table.
        options: which.

    Yields:
        The runs.

    Raises:
        ValueError: an unknown system, target or setting; no seeds, or not different ones of at least 0; options
            that do not go together.
    """
    systems = _chosen("systems", options.systems, tuple(table.systems))
    shots = _chosen("shots", options.shots, table.shots)
    targets = _chosen("targets", options.targets, table.targets)
    for seed in _seeds(options):
        for shot in shots:
            for system in systems:
                config = dataclasses.replace(table.systems[system], seed=seed, shot=shot)
                name = f"{shot}shot-{system}-{seed}"
                if not table.leave_out:
                    yield Job(system, config, targets, name)
                    continue
                for target in targets:
                    sources = tuple(source for source in config.sources if source != target)
                    without = dataclasses.replace(config, sources=sources)
                    yield Job(system, without, (target,), f"{name}-without-{target}")


def reproduce(table: Table, options: Options) -> str:
    """Train and evaluate every chosen run that is not finished yet.

    Args:
        table: the table.
        options: which runs, and where they go.

    Returns:
        The table, as Markdown; nothing in processes but the first.

    Raises:
        ValueError: an unknown system, target or setting, or a finished run of another configuration in the folder.
        OSError: results cannot be written.
    """
    chosen = list(jobs(table, options))
    folder = options.results / options.table
    if is_first():
        with folders.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    finished: dict[str, dict] = {}  # of the first process
    for group in _groups(chosen, options):
        missing = []
        for job in group:
            # The first process knows what is finished: only that one writes, and the folder may be its own.
            result = finished_result(job, table, options) if is_first() else None
            if not from_first(np.array(result is not None)):
                missing.append(job)
            elif is_first() and result is not None:
                finished[job.name] = result
        if missing and finished:  # a run takes long, and may be stopped: what there is shall be seen
            _write(table, options, chosen, finished)
        for job, result in results(missing, table, options):
            if is_first():
                folders.write_whole(job.result(options), json.dumps(sealing.seal(result)) + "\n")
                finished[job.name] = result
    return _write(table, options, chosen, finished) if is_first() else ""


def _write(table: Table, options: Options, chosen: Sequence[Job], finished: Mapping[str, dict]) -> str:
    """Write the table and the curves of what is finished; the table's text."""
    folder = options.results / options.table
    targets = options.targets or table.targets
    name = options.name or ("part" if options.systems or options.shots or options.targets else "table")
    sections = []
    for shot in dict.fromkeys(job.config.shot for job in chosen):
        of_shot = [job for job in chosen if job.config.shot == shot and job.name in finished]
        for inference in ("inductive", "transductive"):
            judged = [job for job in of_shot if inference in table.inferences(job.system)]
            if not judged:
                continue
            heading = f"{shot}-shot" if inference == "inductive" else f"{shot}-shot, {inference}"
            rows: dict[str, dict[int, dict[str, Scores]]] = {}
            for job in judged:
                of_job = finished[job.name][inference]
                found = {target: Scores.from_json(of_job[target]) for target in job.targets}
                rows.setdefault(job.system, {}).setdefault(job.config.seed, {}).update(found)
            sections.append(
                accuracy_table(
                    heading,
                    rows,
                    targets=targets,
                    pairs=table.pairs,
                    published={
                        name: by_shot[shot] for name, by_shot in table.published.items() if shot in by_shot
                    }
                    if inference == "inductive"
                    else None,
                )
            )
    text = "\n\n".join([*sections, *([table.note] if table.note else [])])
    folders.write_whole(folder / f"{name}.md", text + "\n")
    curves: dict[int, dict[str, list]] = {}
    for job in chosen:
        if job.name in finished:
            of_shot = curves.setdefault(job.config.shot, {})
            of_shot.setdefault(job.system, []).append(finished[job.name]["curve"])
    for shot, of_shot in curves.items():
        path = folder / f"{name}-curves-{shot}shot.png"
        with folders.writing(path):
            viz.learning_curves(
                of_shot,
                path=path,
                metrics=("loss_plain", "accuracy", "validation_accuracy"),
                pairs={one: other for one, other in table.pairs.items() if {one, other} <= of_shot.keys()},
                smoothing=chosen[0].config.steps / 40,
                title=f"{shot}-shot",
            )
    return text


def finished_result(job: Job, table: Table, options: Options) -> dict | None:
    """What a finished run left.

    Args:
        job: the run.
        table: its table.
        options: where it is.

    Returns:
        Its JSON; None where it is to be made: none is there, a damaged one or another evaluation's.

    Raises:
        ValueError: it is of another configuration.
    """
    path = job.result(options)
    if not path.exists():
        return None
    try:
        result = sealing.unseal(json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        print(f"note: {path} is damaged ({error}): this run is judged anew", file=sys.stderr)
        return None
    if from_json(Config, result["config"]) != job.config:
        raise InputError(
            f"expected the result of this configuration, got another in {path}: remove it and its run "
            f"{job.folder(options)}, or give other folders"
        )
    complete = all(
        name in result.get(inference, {}) and len(result[inference][name]["correct"]) == count
        for inference, count in table.inferences(job.system, episodes=options.episodes).items()
        for name in job.targets
    )
    return result if complete else None


def _groups(chosen: Sequence[Job], options: Options) -> list[list[Job]]:
    """The runs that are trained at once: those of a row, or each by itself."""
    if not options.together:
        return [[job] for job in chosen]
    groups: dict[Config, list[Job]] = {}
    for job in chosen:
        groups.setdefault(dataclasses.replace(job.config, seed=0), []).append(job)
    return list(groups.values())


def results(group: Sequence[Job], table: Table, options: Options) -> Iterator[tuple[Job, Result]]:
    """Train runs and evaluate them, one after the other; what is trained already is only evaluated.

    Args:
        group: a run; with `together`, those of a row.
        table: the table.
        options: as in `reproduce`.

    Yields:
        Each run, and what its JSON holds.
    """
    if not group:
        return
    start = time.perf_counter()
    runs = [
        Run(
            job.config,
            job.folder(options),
            encoder_folder=encoder_folder(job.config, options),
            progress=options.progress,
        )
        for job in group
    ]
    trained = train_together(runs, at_once=options.at_once) if options.together else [train(runs[0])]
    seconds = (time.perf_counter() - start) / len(runs)
    for job, run, result in zip(group, runs, trained, strict=True):
        start = time.perf_counter()
        with ended_by_sigterm():
            found = evaluate(
                run.folder,
                episodes=table.inferences(job.system, episodes=options.episodes),
                domains=job.targets,
                named=(*job.config.sources, *job.config.pretraining.sources),
                progress=(options.progress or "lines") if is_first() else False,
            )
        yield (
            job,
            {
                "config": dataclasses.asdict(job.config),
                "made_with": {
                    **made_with.start(),
                    "fingerprints": run_record.fingerprints(job.config, job.targets),
                },
                "seconds": {
                    "training": round(seconds, 1),
                    "evaluation": round(time.perf_counter() - start, 1),
                },
                "validation": {"best": result.best_accuracy, "step": result.best_step},
                **{
                    inference: {name: scores.to_json() for name, scores in by_domain.items()}
                    for inference, by_domain in found.items()
                },
                "curve": _curve(training.read_metrics(run.folder / "metrics.jsonl")),
            },
        )


def encoder_folder(config: Config, options: Options) -> Path:
    """Where the pretrained encoder is that all runs share which would train the same one."""
    what = ("encoder", "width", "image_size", "short_side", "augment", "augment_on_device")
    parts = {name: getattr(config, name) for name in what}
    sources = config.pretraining.sources or config.sources
    pretraining = dataclasses.asdict(config.pretraining) | {"sources": sources}
    text = json.dumps([parts, pretraining])
    digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    return options.runs / f"encoder-{digest}-{config.seed}"


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


def _seeds(options: Options) -> tuple[int, ...]:
    """The seeds that are meant; an error where the options about them are wrong."""
    seeds = options.seeds
    if not options.together:
        if options.at_once is not None:
            raise InputError(
                "expected --at-once with --together, got it alone: add --together, or leave it out"
            )
    else:
        _check_together(options)
        seeds = tuple(range(*seeds)) if len(seeds) == 1 else seeds
    if not seeds or min(seeds) < 0:
        raise InputError(f"expected seeds of at least 0, got {seeds or 'none'}: list them, as --seeds 0 1 2")
    if twice := [str(seed) for seed in dict.fromkeys(seeds) if seeds.count(seed) > 1]:
        raise InputError(f"expected different seeds, got {', '.join(twice)} more than once: list each once")
    return seeds


def _check_together(options: Options) -> None:
    """That what is given beside --together goes with it."""
    hosts = {"--distributed": options.hosts.distributed, "--coordinator": options.hosts.coordinator}
    if given := [flag for flag, value in hosts.items() if value]:
        raise InputError(
            f"expected --together in a single process, got {given[0]}: its devices share the seeds, leave that out"
        )
    if options.at_once is not None and options.at_once < 1:
        raise InputError(
            f"expected --at-once of at least 1, got {options.at_once}: leave it out for all seeds"
        )


def _chosen(what: str, wanted: Sequence[Any], known: Sequence[Any]) -> tuple[Any, ...]:
    """Those wanted, or all."""
    if unknown := [str(one) for one in wanted if one not in known]:
        raise InputError(
            f"expected {what} among {', '.join(map(str, known))}, got {', '.join(unknown)}: choose of these"
        )
    return tuple(wanted) or tuple(known)


def main(options: Options) -> None:
    """Run what is missing and print the table."""
    if options.table not in TABLES:
        raise InputError(
            f"expected a table among {', '.join(TABLES)}, got {options.table!r}: name one of them"
        )
    table = TABLES[options.table]()
    if options.plan:
        from jxai.cli.fewshot.plan import plan

        print(plan(table, list(jobs(table, options)), options.table))
        return
    with together(options.hosts):
        text = reproduce(table, options)
        if is_first():
            print(f"**{table.title}**\n\n{text}")


def command() -> None:
    """Read the command line, then `main`."""
    command_line.run(main, Options, about=command_line.choices(__doc__, Tables=TABLES))
