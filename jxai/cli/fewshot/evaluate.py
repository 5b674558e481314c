"""Accuracy of trained few-shot systems on every domain, on the same episodes for each.

    jxai evaluate runs/plain runs/guided

Prints one table; with two runs or more, each difference to the first one with its paired interval. `--transductive`
lets the most confident queries join the support. 2000 episodes a domain by default: about two minutes a run on two
cores with the embedded benchmark.
"""

import dataclasses
import functools
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jxai import data, fewshot, training
from jxai.checks import printable
from jxai.cli.fewshot import run_record
from jxai.cli.fewshot.configs import Config, Inference, from_json
from jxai.cli.fewshot.system import DOMAIN_CHOICES, build, load_for_evaluation
from jxai.cli.fewshot.tables import Scores, Seeds, accuracy_table
from jxai.cli.running import command_line
from jxai.cli.running.hosts import in_shares, is_first
from jxai.cli.running.options import Positional
from jxai.errors import InputError
from jxai.progress import Progress, tracked

# Episodes computed at once where there is memory and nothing to lose; of a CPU `episode_accuracies` says more.
_ON_ACCELERATORS = 16


@dataclasses.dataclass(frozen=True)
class Options:
    """What to evaluate, and on what."""

    folders: Positional[tuple[Path, ...]]
    """Folders of `jxai train`."""
    episodes: int = 2000
    """A domain."""
    domains: tuple[str, ...] = tuple(data.DOMAINS)
    which: str = "best"
    """The best checkpoint on validation episodes, or the latest."""
    transductive: bool = False
    """Whether the most confident queries join the support, in two rounds."""
    data: tuple[str, ...] = ()
    """Folders and data sets that the runs' configurations name, to compare them with what the runs were trained on:
    beside the package's domains and those of `--domains`, nothing is read that only a configuration names."""


def evaluate(
    folder: Path,
    *,
    episodes: Mapping[Inference, int],
    domains: Sequence[str] = tuple(data.DOMAINS),
    which: Any = "best",
    named: Sequence[str] = (),
    progress: Progress = True,
) -> dict[Inference, dict[str, Scores]]:
    """Evaluate a run on domains, at the shots that it was trained with.

    For the classes that a domain is judged by see `load_for_evaluation`. Episode i of a domain is the same for every
    run.

    Args:
        folder: the run's.
        episodes: {inference: how many a domain}; "transductive": the most confident queries join the support.
        domains: names of domains.
        which: "best" or "latest" checkpoint, or a step.
        named: folders and data sets that may be read, besides `domains`, to compare them with what the run was
            trained on.
        progress: how far it is, as it is shown.

    Returns:
        {inference: {domain: scores}}.

    Raises:
        FileNotFoundError: the folder is no run's.
        ValueError: the domains that the run was trained on have other data now, its configuration is not the
            checkpoint's, or one of the two is damaged.
    """
    config = verified_config(folder, which=which)
    if is_first():
        run_record.verify(folder, config, named=(*domains, *named))
    encoder, head = build(config)
    variables = training.load_variables(folder / "episodes", which=which)
    found: dict[Inference, dict[str, Scores]] = {inference: {} for inference in episodes}
    for name in tracked(
        domains, name=f"{printable(folder.name)}: evaluation", unit="domain", progress=progress
    ):
        source, support, query = episodes_for(
            config, name, count=max(episodes.values()), purpose="evaluation"
        )
        features = fewshot.encode(encoder, variables, source.normalized(config.image_size), head=head)
        shot, queries = (rows.shape[1] // config.way for rows in (support, query))
        for inference, count in episodes.items():
            accuracy = functools.partial(
                fewshot.episode_accuracies,
                head,
                variables,
                features,
                way=config.way,
                batch_size=4 if jax.default_backend() == "cpu" else _ON_ACCELERATORS,
                transduction=transduction(config, query.shape[1]) if inference == "transductive" else None,
            )
            accuracies = in_shares(accuracy, support[:count], query[:count])
            correct = np.rint(accuracies * query.shape[1]).astype(int)
            found[inference][name] = Scores(shot=shot, queries=queries, of=query.shape[1], correct=correct)
    return found


def episodes_for(
    config: Config, name: str, *, count: int, purpose: str
) -> tuple[data.Source, np.ndarray, np.ndarray]:
    """Episodes of a domain as a run of this configuration is judged by them.

    Args:
        config: the run's.
        name: the domain's.
        count: how many.
        purpose: other words draw other episodes.

    Returns:
        The source, and the episodes as indices into it: support (count, way·shot), queries (count, way·queries).
    """
    source = load_for_evaluation(config, name)
    shot, queries = setting(name, config)
    support, query = data.episode_table(
        source,
        way=config.way,
        shot=shot,
        num_query=queries,
        seed=zlib.crc32(purpose.encode()),
        repeat=config.repeat,
        num_episodes=count,
    )
    return source, support, query


def transduction(config: Config, num_queries: int) -> fewshot.Transduction:
    """The release's two rounds: the 35, then 70 most confident of 75 queries join the support, or as large a share.

    RelationNet's release goes on from the first round's support, the cross-attention network's starts anew; so do
    here the heads that no release has this for.
    """
    # These heads' scores leave out a term of the query's.
    unknown = config.head in ("prototype", "matching", "feat")
    return fewshot.Transduction(
        counts=tuple(round(count * num_queries / 75) for count in (35, 70)),
        restart=config.head != "relation",
        confidence="probability" if unknown else "score",
    )


def setting(domain: str, config: Config) -> tuple[int, int]:
    """(shots, queries a class) of an evaluation: as trained with 15 queries, or what domain or head has instead.

    A small embedded domain has less; the cross-attention network is judged by 16 on the papers' data sets.
    """
    shot = config.shot
    if domain not in data.DOMAINS:
        return shot, 16 if config.head == "cross-attention" else 15
    one, five = data.DOMAINS[domain].settings
    return {1: one, 5: five}.get(shot, (shot, 15))


def config_of(folder: Path) -> Config:
    """The configuration in a run's folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"expected the folder of a run with config.json, got {printable(folder)}: "
            "train with jxai train first"
        )
    try:
        return from_json(Config, json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"expected the configuration of a run in {printable(path)}, got {printable(error)}"
        ) from error


def verified_config(folder: Path, *, which: Any = "best") -> Config:
    """The configuration in a run's folder, after it was compared with the checkpoint's.

    Args:
        folder: the run's.
        which: "best" or "latest" checkpoint, or a step.

    Returns:
        The configuration.

    Raises:
        FileNotFoundError: the folder is no run's.
        ValueError: its configuration is not the checkpoint's, or one of the two is damaged.
    """
    config = config_of(folder)
    made_with = from_json(Config, training.read_config(folder / "episodes", which=which))
    # A finished run may have been made longer since.
    if dataclasses.replace(made_with, steps=config.steps) != config:
        fields = (field.name for field in dataclasses.fields(config))
        differing = [name for name in fields if getattr(made_with, name) != getattr(config, name)]
        raise InputError(
            f"expected in {printable(folder / 'config.json')} what the checkpoints were made with, got others in "
            f"{', '.join(differing)}: change them back"
        )
    return config


def main(options: Options) -> None:
    """Evaluate and print a table for each number of shots."""
    if not options.folders:
        raise InputError("expected folders of jxai train, got none: name some, such as runs/letters/relation")
    groups: dict[int, dict[str, dict[int, dict[str, Scores]]]] = {}
    inference: Inference = "transductive" if options.transductive else "inductive"
    for folder in options.folders:
        found = evaluate(
            folder,
            episodes={inference: options.episodes},
            domains=options.domains,
            which=options.which,
            named=options.data,
        )
        config = config_of(folder)
        groups.setdefault(config.shot, {})[str(folder)] = {config.seed: found[inference]}
    for shot, rows in groups.items():
        first, *others = rows
        pairs = dict.fromkeys(others, first)
        print(f"{_settings(rows)}, {options.episodes} episodes a domain, {inference}:\n")
        print(accuracy_table(f"{shot}-shot", rows, targets=options.domains, pairs=pairs) + "\n")


def _settings(rows: Mapping[str, Seeds]) -> str:
    """Way, shot and queries of the episodes, each of them that occurs."""
    scores = [one for seeds in rows.values() for of_seed in seeds.values() for one in of_seed.values()]
    found = dict.fromkeys((one.of // one.queries, one.shot, one.queries) for one in scores)
    return " and ".join(f"{way}-way {shot}-shot, {queries} queries a class" for way, shot, queries in found)


def command() -> None:
    """Read the command line, then `main`."""
    command_line.run(
        main,
        Options,
        about=command_line.choices(__doc__, Domains=DOMAIN_CHOICES),
    )
