"""A planted shortcut: what a plain training makes of it, and what each loss on explanations repairs.

    python -m experiments.shortcut --out runs/shortcut

Clothes (the embedded domain `fashion`) carry their class's color while a network is trained: as a watermark, as a
frame or as their background; crops of photographs (foolbox's: pip install 'jxai[demo]') carry a watermark. Judged are
pictures without it and with another class's color, and the share of LRP's |relevance| that lies on it. Each training
is logged when it is done: a run that was stopped goes on. Leaves a table, its numbers and a picture of heat maps for
each shortcut, `watermark.md`, `watermark.json` and `watermark.png`.

Weights of losses are chosen on other pictures and other seeds, where `--scale` multiplies them:

    python -m experiments.shortcut --choosing --seeds 100 --scale 3 --repeats 0 --out runs/choosing
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.measure import alternate
from experiments.pieces import check_names, finish, leave
from experiments.shortcut import trainings
from experiments.shortcut.pictures import NUM_CLASSES, SHORTCUTS, Pictures, planted
from experiments.shortcut.trainings import LOSSES
from jxai import viz
from jxai.cli.running import command_line, folders
from jxai.intervals import mean_and_interval
from jxai.results_log import ResultsLog

_COLUMNS = {
    "without": "accuracy without the shortcut",
    "misled": "with another class's",
    "own": "with its own",
    "share": "relevance on it",
}
# The network to be reached, plainly trained on pictures without the shortcut; and one for which it is no evidence.
_CLEAN, _RANDOM = "clean", "random"
_REFERENCES = {_CLEAN: "plain, never saw the shortcut", _RANDOM: "plain, colors of classes at random"}


@dataclasses.dataclass(frozen=True)
class Options:
    """What is trained, and where results go."""

    shortcuts: tuple[str, ...] = tuple(SHORTCUTS)
    losses: tuple[str, ...] = tuple(LOSSES)
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the trainings of each cell; the first one's heat maps are drawn."""
    num_steps: int = 400
    """Updates, of thirty pictures each."""
    choosing: bool = False
    """Whether other pictures are judged, on which weights may be chosen."""
    scale: float = 1.0
    """What the weights of all losses are multiplied by."""
    repeats: int = 20
    """Steps that are timed for their cost; 0 times none."""
    out: Path = Path("runs/shortcut")
    progress: bool = True


@functools.cache
def _shown(shortcut: str, choosing: bool) -> Pictures:
    return SHORTCUTS[shortcut].pictures(choosing)


def _arrays(shortcut: str, choosing: bool, *, at_random: bool = False) -> trainings.Arrays:
    """What is trained on: with the shortcut, where the rate says so, and without it."""
    shown = _shown(shortcut, choosing)
    classes = shown.trained_labels
    if at_random:
        classes = np.random.default_rng(5).integers(0, NUM_CLASSES, len(classes))
    x, where = planted(shortcut, shown.trained, classes)
    with_it = np.random.default_rng(0).random(len(x)) < SHORTCUTS[shortcut].rate
    x = np.where(with_it[:, None, None, None], x, shown.trained)
    return trainings.Arrays(*map(jnp.asarray, (x, shown.trained, shown.trained_labels, where)))


def trained(
    shortcut: str, name: str, weight: float, seed: int, *, num_steps: int, choosing: bool = False
) -> tuple[Any, dict[str, float]]:
    """One network, and how it does.

    Args:
        shortcut: one of `SHORTCUTS`.
        name: one of `LOSSES`, or for plain ones "clean", which never saw the shortcut, and "random", which saw it
            with any class.
        weight: of the loss.
        seed: of everything.
        num_steps: updates.
        choosing: which pictures are judged.

    Returns:
        (its parameters, numbers by name).
    """
    params = teacher_of(shortcut, seed, num_steps, choosing)
    if name != _CLEAN:
        arrays, loss = (
            _arrays(shortcut, choosing, at_random=name == _RANDOM),
            "plain" if name == _RANDOM else name,
        )
        params = trainings.trained(loss, weight, jax.random.key(seed), arrays, params, num_steps=num_steps)
    shown = _shown(shortcut, choosing)
    own, where = planted(shortcut, shown.judged, shown.judged_labels)
    misled, _ = planted(shortcut, shown.judged, trainings.others(shown.judged_labels))
    found = trainings.judged(params, shown.judged, own, misled, shown.judged_labels, where)
    return params, {of: float(value) for of, value in found.items()}


@functools.cache
def teacher_of(shortcut: str, seed: int, num_steps: int, choosing: bool) -> Any:
    """A network of the same seed that was trained plainly on pictures without a shortcut.

    Args:
        shortcut: whose pictures.
        seed: its own.
        num_steps: updates.
        choosing: which pictures are trained on.

    Returns:
        Its parameters.
    """
    key, arrays = jax.random.key(seed), _arrays(shortcut, choosing)
    arrays = arrays._replace(x=arrays.clean)
    nothing = trainings.init(key, arrays.x.shape[1])
    return trainings.trained("plain", 0.0, key, arrays, nothing, num_steps=num_steps)


def costs(shortcut: str, names: tuple[str, ...], *, repeats: int) -> dict[str, float]:
    """The shortest time of a step of each loss over the plain step's, in steps that take turns.

    Args:
        shortcut: whose pictures.
        names: of `LOSSES`.
        repeats: steps of each.

    Returns:
        Ratios by name.
    """
    key, arrays = jax.random.key(0), _arrays(shortcut, False)
    params = trainings.init(key, arrays.x.shape[1])
    state = trainings.OPTIMIZER.init(params)
    steps = {
        name: functools.partial(trainings.step, name, LOSSES[name][1], key, params, state, arrays, params)
        for name in dict.fromkeys(("plain", *names))
    }
    times = alternate(steps, repeats)
    return {name: seconds / times["plain"] for name, seconds in times.items()}


def table(found: dict[str, list[dict[str, float]]], cost: dict[str, float]) -> str:
    """Trainings with one shortcut as Markdown: mean ± 95 % interval over seeds.

    Args:
        found: by loss, one of `judged` a seed.
        cost: of a step, by loss.

    Returns:
        The text.
    """
    lines = [
        f"| trained with | {' | '.join(_COLUMNS.values())} | a step's time over the plain one's |",
        "|---|" + "---:|" * (len(_COLUMNS) + 1),
    ]
    for name, seeds in found.items():
        cells = []
        for column in _COLUMNS:
            mean, half = mean_and_interval(np.array([one[column] for one in seeds]))
            cells.append(f"{mean:.3f} ± {half:.3f}" if len(seeds) > 1 else f"{mean:.3f}")
        ratio = f"{cost[name]:.1f}" if name in cost else ""
        label = _REFERENCES[name] if name in _REFERENCES else LOSSES[name][0]
        lines.append(f"| {label} | {' | '.join(cells)} | {ratio} |")
    return "\n".join(lines) + "\n"


def _drawn(shortcut: str, choosing: bool) -> tuple[np.ndarray, np.ndarray]:
    """(Pictures that carry another class's color, labels)."""
    shown = _shown(shortcut, choosing)
    rows = [row % len(shown.judged) for row in SHORTCUTS[shortcut].drawn]  # fewer pictures choose
    misled, _ = planted(shortcut, shown.judged[rows], trainings.others(shown.judged_labels)[rows])
    return misled, shown.judged_labels[rows]


def draw(maps: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray, path: Path) -> Path:
    """Pictures that carry another class's color, and what each network looks at in them.

    Args:
        maps: relevance of their own class, by loss.
        images: in [0, 1], (N, H, W, 3).
        labels: (N,).
        path: where the PNG goes.

    Returns:
        The path.
    """
    block = np.ones((1, 128 // images.shape[1], 128 // images.shape[1], 1))
    large = np.kron((images * 255).round().astype(np.uint8), block.astype(np.uint8))
    spread = {name: np.kron(of, block) for name, of in maps.items()}
    captions = [(f"class {label}", "another's color") for label in labels]
    return viz.method_sheet(large, spread, captions=captions, path=path)


def main(options: Options) -> None:
    """Train what is missing; print and write the tables, draw the pictures."""
    check_names("shortcuts", options.shortcuts, SHORTCUTS)
    check_names("losses", options.losses, LOSSES)
    settings = {"num_steps": options.num_steps, "choosing": options.choosing}
    weights = {name: LOSSES[name][1] * options.scale for name in options.losses} | dict.fromkeys(
        _REFERENCES, 0.0
    )

    def record(shortcut: str, name: str, seed: int) -> dict[str, Any]:
        params, numbers = trained(
            shortcut, name, weights[name], seed, num_steps=options.num_steps, choosing=options.choosing
        )
        if seed != options.seeds[0]:
            return {"numbers": numbers, "maps": None}
        maps = trainings.relevance(params, *map(jnp.asarray, _drawn(shortcut, options.choosing)))
        return {"numbers": numbers, "maps": np.asarray(maps).sum(axis=-1, keepdims=True).tolist()}

    with folders.in_use(options.out):
        log = ResultsLog(options.out / "shortcut.jsonl", settings)
        for shortcut in options.shortcuts:
            keys = {
                (name, seed): f"{shortcut} {name} {weights[name]:g} {seed}"
                for seed in options.seeds
                for name in weights
            }
            pieces = {
                key: functools.partial(record, shortcut, name, seed) for (name, seed), key in keys.items()
            }
            finish(log, pieces, unit="training", progress=options.progress)
            found = {
                name: [log.records[keys[name, seed]]["numbers"] for seed in options.seeds] for name in weights
            }
            maps = {name: np.array(log.records[keys[name, options.seeds[0]]]["maps"]) for name in weights}
            cost = costs(shortcut, options.losses, repeats=options.repeats) if options.repeats else {}
            print(f"\nShortcut: {shortcut}\n")
            stored = {"settings": settings, "weights": weights, "trainings": found, "costs": cost}
            leave(options.out / shortcut, table(found, cost), stored)
            print(draw(maps, *_drawn(shortcut, options.choosing), options.out / f"{shortcut}.png"))


if __name__ == "__main__":
    command_line.run(main, Options, about=__doc__)
