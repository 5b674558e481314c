"""A few-shot prediction down to its support: how much of it each head's relevance leaves there, and a sheet.

    python -m experiments.support --out runs/support

Every head is trained plainly on embedded Latin letters, for half a minute, and predicts letters of alphabets that it
never saw. Measured, over all queries of some episodes, is where the relevance of the predicted class's score
lies, and of its difference to the runner-up's. Leaves `support.md`, `support.json` and a sheet a head and shot.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pieces import check_names, finish, leave
from experiments.seeds.trainings import LONGER, OPTIMIZER, OPTIMIZERS
from jxai import data, fewshot, models, training, viz
from jxai.cli.running import command_line, folders
from jxai.intervals import mean_and_interval
from jxai.results_log import ResultsLog

HEADS: dict[str, fewshot.Head] = {
    "relation": fewshot.RelationHead(features=32, nonnegative=True),
    "graph": fewshot.GraphHead(features=64, growth=24, widths=(48, 48, 24, 24)),
    "cross attention": fewshot.CrossAttentionHead(),
    "prototype": fewshot.PrototypeHead(),
    "matching": fewshot.MatchingHead(),
    "adapted": fewshot.AdaptedHead(step_size=10.0),
}
# From scratch these learn next to nothing in so few steps: they begin with the encoder of the prototype's training.
_LATER = ("graph", "adapted")
_WAY, _SIDE, _QUERIES = 5, 32, 8
_COLUMNS = {
    "accuracy": "accuracy",
    "support": "support's sum",
    "query": "query's sum",
    "rest": "elsewhere",
    "share": "support's share",
    "own": "of it, the predicted class's",
    "contrast": "of the lead: support's share",
    "contrast_own": "of it, the predicted class's",
    "contrast_rival": "the runner-up's",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What is trained, and where results go."""

    heads: tuple[str, ...] = tuple(HEADS)
    shots: tuple[int, ...] = (1, 5)
    num_steps: int = 300
    """Updates of the training, of an episode each."""
    num_episodes: int = 10
    """Explained, of each domain."""
    domains: tuple[str, ...] = ("hebrew", "thai")
    drawn: int = 2
    """Queries a sheet."""
    seed: int = 0
    out: Path = Path("runs/support")
    progress: bool = True


def trained(name: str, encoder: Any, *, shot: int, num_steps: int, seed: int) -> Any:
    """The variables of encoder and head after a plain training on Latin letters.

    Args:
        name: one of `HEADS`.
        encoder: in front of it.
        shot: labeled pictures a class.
        num_steps: updates, of an episode each; times `LONGER`.
        seed: of everything.

    Returns:
        See `fewshot.init_variables`.
    """
    head, optimizer = HEADS[name], OPTIMIZERS.get(name, OPTIMIZER)

    def loss(variables: Any, episode: fewshot.Episode, key: jax.Array, step: jax.Array) -> Any:
        del key, step
        return fewshot.guided_loss(encoder, head, variables, episode, guidance=fewshot.PLAIN)

    key = jax.random.key(seed)
    start = fewshot.init_variables(encoder, head, key, image_size=_SIDE)
    if name in _LATER:
        before = trained("prototype", encoder, shot=shot, num_steps=num_steps, seed=seed)
        start = {kind: {**parts, "encoder": before[kind]["encoder"]} for kind, parts in start.items()}
    state = training.TrainState.create(key, start, optimizer=optimizer)
    step = jax.jit(training.make_step(loss, optimizer))
    episodes = data.episode_dataset(
        data.load("latin", split="base"), way=_WAY, shot=shot, num_query=_QUERIES, seed=seed
    )
    for number in range(num_steps * LONGER.get(name, 1)):
        state, _ = step(state, jax.tree.map(jnp.asarray, episodes[number]))
    return state.variables


@functools.partial(jax.jit, static_argnums=(0, 1))
def explained(encoder: Any, head: fewshot.Head, variables: Any, episode: fewshot.Episode) -> dict[str, Any]:
    """Where relevance lies, a number a query, by column; and the maps that a sheet shows.

    Args:
        encoder: in front of the head.
        head: the head.
        variables: of both.
        episode: of images.

    Returns:
        {"numbers": {column: (queries,)}, "of_support", "of_query", "predicted"}.
    """
    of_support, of_query, scores = fewshot.episode_relevance(encoder, head, variables, episode)
    predicted = scores.argmax(axis=-1)
    top = scores.max(axis=-1)
    rival = jnp.argsort(scores, axis=-1)[:, -2]
    against = fewshot.episode_relevance(encoder, head, variables, episode, contrast=rival)
    labels = episode.support_labels[None]

    def shares(of_support: jax.Array, of_query: jax.Array) -> tuple[jax.Array, ...]:
        on_each = jnp.abs(of_support.sum(axis=-1)).sum(axis=(2, 3))
        on_query = jnp.abs(of_query.sum(axis=-1)).sum(axis=(1, 2))
        on_support = on_each.sum(axis=1)
        parts = [jnp.where(labels == one[:, None], on_each, 0).sum(axis=1) for one in (predicted, rival)]
        return on_support / (on_support + on_query), *(part / on_support for part in parts)

    share, own, _ = shares(of_support, of_query)
    contrast, contrast_own, contrast_rival = shares(*against[:2])
    net = [x.sum(axis=tuple(range(1, x.ndim))) / top for x in (of_support, of_query)]
    numbers = {
        "accuracy": (predicted == episode.query_labels).astype(jnp.float32),
        "support": net[0],
        "query": net[1],
        "rest": 1 - net[0] - net[1],
        "share": share,
        "own": own,
        "contrast": contrast,
        "contrast_own": contrast_own,
        "contrast_rival": contrast_rival,
    }
    return {"numbers": numbers, "of_support": against[0], "of_query": against[1], "predicted": predicted}


def draw(
    source: data.Source, episode: fewshot.Episode, found: dict[str, Any], rows: np.ndarray, **given: Any
) -> Path:
    """The sheet of some queries, of their contrast to the runner-up.

    Args:
        source: where the episode is from, for the names of its classes.
        episode: normalized, of NumPy arrays.
        found: what `explained` gave.
        rows: the queries.
        **given: path and title.

    Returns:
        The path.
    """
    low, high = episode.support.min(), episode.support.max()

    def bytes_of(images: Any) -> np.ndarray:
        return np.rint((np.asarray(images) - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)

    split = (episode.way, -1)
    of_support = np.asarray(found["of_support"])[rows]
    classes = np.asarray(episode.query_classes).reshape(split)[:, 0]
    return viz.support_sheet(
        bytes_of(episode.support).reshape(*split, *episode.support.shape[1:]),
        bytes_of(episode.query[rows]),
        np.asarray(episode.query_labels)[rows],
        of_support.reshape(len(rows), *split, *of_support.shape[2:]),
        np.asarray(found["of_query"])[rows],
        np.asarray(found["predicted"])[rows],
        class_names=[source.class_names[c] for c in classes],
        **given,
    )


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """All heads as Markdown: means, and half of a 95 % interval over episodes of the share on support.

    Args:
        found: by "head, shot" and column, a number an episode.

    Returns:
        The text.
    """
    lines = [
        "| head | " + " | ".join(_COLUMNS.values()) + " |",
        "|---|" + "---:|" * len(_COLUMNS),
    ]
    for name, columns in found.items():
        cells = []
        for column in _COLUMNS:
            mean, half = mean_and_interval(np.array(columns[column]))
            cells.append(f"{mean:.2f} ± {half:.2f}" if "share" in _COLUMNS[column] else f"{mean:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(options: Options) -> None:
    """Train, explain and draw what is missing; print and write the table."""
    check_names("heads", options.heads, HEADS)
    encoder = models.encoder("conv4np", image_size=_SIDE, width=32)
    settings = {key: getattr(options, key) for key in ("num_steps", "num_episodes", "seed")}
    settings["domains"] = list(options.domains)
    pieces = {
        f"{name}, {shot}-shot": functools.partial(_one, encoder, name, shot, options)
        for name in options.heads
        for shot in options.shots
    }
    with folders.in_use(options.out):
        log = ResultsLog(options.out / "support.jsonl", settings)
        finish(log, pieces, unit="training", progress=options.progress)
        found = {key: log.records[key]["numbers"] for key in pieces}
        leave(options.out / "support", table(found), {"settings": settings, "found": found})


def _one(encoder: Any, name: str, shot: int, options: Options) -> dict[str, Any]:
    head, began = HEADS[name], time.perf_counter()
    variables = trained(name, encoder, shot=shot, num_steps=options.num_steps, seed=options.seed)
    seconds = time.perf_counter() - began
    numbers: dict[str, list[float]] = {column: [] for column in _COLUMNS}
    for domain in options.domains:
        source = data.load(domain)
        episodes = data.episode_dataset(
            source,
            way=_WAY,
            shot=shot,
            num_query=_QUERIES,
            seed=options.seed,
            num_episodes=options.num_episodes,
        )
        for index in range(options.num_episodes):
            episode = jax.tree.map(lambda leaf: np.asarray(leaf[0]), episodes[index])
            found = explained(encoder, head, variables, jax.tree.map(jnp.asarray, episode))
            for column, values in found["numbers"].items():
                numbers[column].append(float(np.nanmean(np.asarray(values))))
            if not index:
                rows = np.arange(0, _WAY * _QUERIES, _QUERIES)[: options.drawn]
                path = options.out / f"{name.replace(' ', '-')}-{shot}shot-{domain}.png"
                title = f"{domain}: {_WAY}-way {shot}-shot, {name} head, against the runner-up"
                draw(source, episode, found, rows, path=path, title=title)
    return {"numbers": numbers, "training_seconds": seconds}


if __name__ == "__main__":
    command_line.run(main, Options, about=__doc__)
