"""What a trained few-shot system looks at: a sheet a domain, and how much of the relevance falls on ink.

jxai pictures runs/quickstart/runs/letters-quick/1shot-cross-attention-guided-0
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jxai import data, fewshot, training, viz
from jxai.checks import printable
from jxai.cli.fewshot.configs import Config
from jxai.cli.fewshot.evaluate import episodes_for, verified_config
from jxai.cli.fewshot.system import DOMAIN_CHOICES, build
from jxai.cli.running import command_line, folders
from jxai.progress import Progress, tracked


@dataclasses.dataclass(frozen=True)
class Options:
    """Which run, and where its sheets go."""

    folder: tyro.conf.Positional[Path]
    """A folder of `jxai train`."""
    out: Path | None = None
    """By default `sheets` in the run's folder."""
    domains: tuple[str, ...] = tuple(data.DOMAINS)
    rows: int = 3
    """Query images a sheet."""
    support: bool = False
    """Whether a second sheet a domain explains the same queries down to their support."""


def draw_sheets(
    folder: Path,
    out: Path,
    *,
    domains: Sequence[str] = tuple(data.DOMAINS),
    rows: int = 3,
    support: bool = False,
    progress: Progress = True,
) -> list[Path]:
    """Draw one sheet a domain: an episode's support, and for some queries the pixel relevance of every class.

    With `support`, a second one shows the predicted class's lead over the runner-up in each of these queries, and in
    every support picture.

    Args:
        folder: the run's.
        out: folder of the sheets, `DOMAIN.png`.
        domains: names of domains.
        rows: query images a sheet, each of another class.
        support: whether there is a second sheet a domain, `DOMAIN-support.png`.
        progress: how far it is, as it is shown.

    Returns:
        The sheets' paths.
    """
    config = verified_config(folder)
    variables = training.load_variables(folder / "episodes", which="best")
    paths = []
    for name in tracked(domains, name=f"{printable(folder.name)}: sheets", unit="sheet", progress=progress):
        source, of_support, of_query = episodes_for(config, name, count=1, purpose="pictures")
        of_support, of_query = of_support[0], of_query[0]
        episode = _episode(config, source, of_support, of_query)
        shot, queries = (len(numbers) // config.way for numbers in (of_support, of_query))
        shown = np.arange(0, config.way * queries, queries)[:rows]
        classes = source.labels[of_support.reshape(config.way, -1)[:, 0]]
        split = (config.way, shot, *episode.support.shape[1:])
        pictures = (
            source.images(of_support, config.image_size).reshape(split),
            source.images(of_query[shown], config.image_size),
            np.asarray(episode.query_labels)[shown],
        )
        names = [source.class_names[c] for c in classes]
        title = f"{name}: {config.way}-way {shot}-shot, what {folder.name} looks at"
        relevance, scores = _explain(config, variables, episode)
        paths.append(
            viz.episode_sheet(
                *pictures,
                np.asarray(relevance)[shown],
                np.asarray(_probabilities(config, scores))[shown],
                class_names=names,
                path=out / f"{name}.png",
                title=title,
            )
        )
        if support:
            ranked = np.argsort(np.asarray(scores)[shown], axis=-1)
            found = _down_to_support(
                *build(config),
                variables,
                episode,
                queries=shown,
                target=ranked[:, -1],
                contrast=ranked[:, -2],
            )
            paths.append(
                viz.support_sheet(
                    *pictures,
                    np.asarray(found[0]).reshape(len(shown), *split),
                    np.asarray(found[1]),
                    ranked[:, -1],
                    class_names=names,
                    path=out / f"{name}-support.png",
                    title=f"{title}, against the runner-up",
                )
            )
    return paths


def ink_table(
    folders: Sequence[Path],
    *,
    domains: Sequence[str] = tuple(data.DOMAINS),
    episodes: int = 4,
    progress: Progress = True,
) -> str:
    """The share of absolute relevance of the queries' true class that falls on ink rather than background.

    Args:
        folders: runs of one configuration but for the guidance.
        domains: names of domains.
        episodes: how many a domain; every query of each is explained.
        progress: how far it is, as it is shown.

    Returns:
        Markdown: by domain, the area of the ink (the share of evenly spread relevance), a random network of the
        same shape, then the runs; percent on ink, and in brackets on ink and the pixels next to it.
    """
    config = verified_config(folders[0])
    systems: dict[str, Any] = {"random network": _random_variables(config)}
    for folder in folders:
        systems[folder.name] = training.load_variables(folder / "episodes", which="best")
    lines = [["domain", "ink's area", *systems], ["---", *["---:"] * (1 + len(systems))]]
    for name in tracked(domains, name="relevance on ink", unit="domain", progress=progress):
        source, support, query = episodes_for(config, name, count=episodes, purpose="pictures")
        shares: dict[str, list[Any]] = {system: [] for system in systems}
        areas = []
        for of_support, of_query in zip(support, query, strict=True):
            episode = _episode(config, source, of_support, of_query)
            pictures = source.images(of_query, config.image_size)
            areas.append([[viz.ink_mask(pictures, margin=margin).mean()] for margin in (0, 1)])
            labels = np.asarray(episode.query_labels)
            for system, variables in systems.items():
                relevance, _ = _explain(config, variables, episode)
                true_class = np.asarray(relevance)[np.arange(len(labels)), labels]
                shares[system].append(
                    [viz.ink_share(true_class, pictures, margin=margin) for margin in (0, 1)]
                )
        means = [np.nanmean(np.concatenate(share, axis=1), axis=1) for share in (areas, *shares.values())]
        lines.append([name, *(f"{100 * on_ink:.1f} ({100 * around:.1f})" for on_ink, around in means)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _probabilities(config: Config, scores: jax.Array) -> jax.Array:
    """As the head's loss takes its scores: RelationNet's each on its own."""
    return jax.nn.sigmoid(scores) if config.head == "relation" else jax.nn.softmax(scores)


def _random_variables(config: Config) -> dict[str, Any]:
    encoder, head = build(config)
    return fewshot.init_variables(encoder, head, jax.random.key(config.seed), image_size=config.image_size)


def _episode(config: Config, source: data.Source, support: np.ndarray, query: np.ndarray) -> fewshot.Episode:
    images = [data.normalize(source.images(rows, config.image_size)) for rows in (support, query)]
    labels = [np.repeat(np.arange(config.way), len(rows) // config.way) for rows in (support, query)]
    return fewshot.Episode(
        jnp.asarray(images[0]),
        jnp.asarray(labels[0]),
        jnp.asarray(images[1]),
        jnp.asarray(labels[1]),
        way=config.way,
    )


def _explain(config: Config, variables: Any, episode: fewshot.Episode) -> tuple[jax.Array, jax.Array]:
    encoder, head = build(config)
    return _relevance(encoder, head, variables, episode)


_relevance = jax.jit(fewshot.pixel_relevance, static_argnums=(0, 1))
_down_to_support = jax.jit(fewshot.episode_relevance, static_argnums=(0, 1))


def main(options: Options) -> None:
    """Draw, measure and say where."""
    out = options.out or options.folder / "sheets"
    with folders.in_use(out):
        paths = draw_sheets(
            options.folder, out, domains=options.domains, rows=options.rows, support=options.support
        )
        print(*paths, sep="\n")
    print(ink_table([options.folder], domains=options.domains))


def command() -> None:
    """Read the command line, then `main`."""
    command_line.run(
        main,
        Options,
        about=command_line.choices(__doc__, Domains=DOMAIN_CHOICES),
        explains=True,
    )
