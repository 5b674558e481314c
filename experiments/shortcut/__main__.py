"""A planted shortcut: what a plain training makes of it, and what each loss on explanations repairs.

    python -m experiments.shortcut --out runs/shortcut

Clothes (the embedded domain `fashion`) carry their class's color while a network is trained: as a watermark, as a
frame or as their background. Judged are pictures without it and with another class's color, and the share of LRP's
|relevance| that lies on it. Each training is logged when it is done: a run that was stopped goes on. Leaves
`shortcut.md`, `shortcut.json` and the picture `shortcut.png`. About half an hour on two cores.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.measure import alternate
from experiments.shortcut import trainings
from experiments.shortcut.pictures import SHORTCUTS, Clothes, clothes, planted
from experiments.shortcut.trainings import LOSSES
from jxai import viz
from jxai.cli.running import command_line, folders, made_with
from jxai.errors import InputError
from jxai.intervals import mean_and_interval
from jxai.progress import Bar, Progress
from jxai.results_log import ResultsLog

_COLUMNS = {
    "without": "accuracy without the shortcut",
    "misled": "with another class's",
    "own": "with its own",
    "share": "relevance on it",
}
_DRAWN = (3, 45, 205, 365)  # of the judged pictures
_CLEAN = "clean"  # the network to be reached: plainly trained on pictures without the shortcut


@dataclasses.dataclass(frozen=True)
class Options:
    """What is trained, and where results go."""

    shortcuts: tuple[str, ...] = SHORTCUTS
    losses: tuple[str, ...] = tuple(LOSSES)
    num_seeds: int = 3
    """Trainings a cell, of seeds 0, 1, …"""
    num_steps: int = 200
    """Updates, of thirty pictures each."""
    drawn: str = "watermark"
    """The shortcut whose heat maps are drawn, of seed 0."""
    repeats: int = 20
    """Steps that are timed for their cost; 0 times none."""
    out: Path = Path("runs/shortcut")
    progress: bool = True


def trained(
    shortcut: str, name: str, seed: int, shown: Clothes, *, num_steps: int
) -> tuple[Any, dict[str, float]]:
    """One network, and how it does.

    Args:
        shortcut: one of `SHORTCUTS`.
        name: one of `LOSSES`, or "clean" for a plain one that never saw the shortcut.
        seed: of everything.
        shown: the pictures.
        num_steps: updates.

    Returns:
        (its parameters, numbers by name).
    """
    key = jax.random.key(seed)
    x, where = planted(shortcut, shown.trained, shown.trained_labels)
    arrays = tuple(map(jnp.asarray, (x, shown.trained, shown.trained_labels, where)))
    params = teacher_of(seed, num_steps)
    if name != _CLEAN:
        params = trainings.trained(name, key, arrays, params, num_steps=num_steps)
    own, judged_where = planted(shortcut, shown.judged, shown.judged_labels)
    misled, _ = planted(shortcut, shown.judged, trainings.others(shown.judged_labels))
    found = trainings.judged(params, shown.judged, own, misled, shown.judged_labels, judged_where)
    return params, {name: float(value) for name, value in found.items()}


@functools.cache
def teacher_of(seed: int, num_steps: int) -> Any:
    """A network of the same seed that was trained plainly on pictures without a shortcut.

    Args:
        seed: its own.
        num_steps: updates.

    Returns:
        Its parameters.
    """
    shown, key = clothes(), jax.random.key(seed)
    nowhere = jnp.zeros(shown.trained.shape[:3], bool)
    arrays = (*map(jnp.asarray, (shown.trained, shown.trained, shown.trained_labels)), nowhere)
    return trainings.trained("plain", key, arrays, trainings.init(key), num_steps=num_steps)


def costs(names: tuple[str, ...], shown: Clothes, *, repeats: int) -> dict[str, float]:
    """The shortest time of a step of each loss over the plain step's, in steps that take turns.

    Args:
        names: of `LOSSES`.
        shown: the pictures.
        repeats: steps of each.

    Returns:
        Ratios by name.
    """
    key = jax.random.key(0)
    x, where = planted(SHORTCUTS[0], shown.trained, shown.trained_labels)
    arrays = tuple(map(jnp.asarray, (x, shown.trained, shown.trained_labels, where)))
    params = trainings.init(key)
    state = trainings.OPTIMIZER.init(params)
    steps = {
        name: functools.partial(trainings.step, name, LOSSES[name][1], key, params, state, arrays, params)
        for name in dict.fromkeys(("plain", *names))
    }
    times = alternate(steps, repeats)
    return {name: seconds / times["plain"] for name, seconds in times.items()}


def table(found: dict[str, dict[str, list[dict[str, float]]]], cost: dict[str, float]) -> str:
    """All trainings as Markdown: mean ± 95 % interval over seeds.

    Args:
        found: by shortcut and loss, one of `judged` a seed.
        cost: of a step, by loss.

    Returns:
        The text.
    """
    lines: list[str] = []
    for shortcut, of in found.items():
        lines += [f"\nShortcut: {shortcut}\n"]
        lines += [f"| trained with | {' | '.join(_COLUMNS.values())} | a step's time over the plain one's |"]
        lines += ["|---|" + "---:|" * (len(_COLUMNS) + 1)]
        for name, seeds in of.items():
            cells = []
            for column in _COLUMNS:
                mean, half = mean_and_interval(np.array([one[column] for one in seeds]))
                cells.append(f"{mean:.3f} ± {half:.3f}" if len(seeds) > 1 else f"{mean:.3f}")
            ratio = f"{cost[name]:.1f}" if name in cost else ""
            label = "plain, never saw the shortcut" if name == _CLEAN else LOSSES[name][0]
            lines.append(f"| {label} | {' | '.join(cells)} | {ratio} |")
    return "\n".join(lines).strip() + "\n"


def draw(maps: dict[str, np.ndarray], shortcut: str, shown: Clothes, path: Path) -> Path:
    """Four pictures that carry another class's color, and what each network looks at in them.

    Args:
        maps: relevance of their own class, by loss.
        shortcut: which.
        shown: the pictures.
        path: where the PNG goes.

    Returns:
        The path.
    """
    rows = list(_DRAWN)
    misled, _ = planted(shortcut, shown.judged[rows], trainings.others(shown.judged_labels)[rows])
    large = np.kron((misled * 255).round().astype(np.uint8), np.ones((1, 4, 4, 1), np.uint8))
    spread = {name: np.kron(of, np.ones((1, 4, 4, 1))) for name, of in maps.items()}
    names = [f"class {label}" for label in shown.judged_labels[rows]]
    return viz.method_sheet(large, spread, captions=[(name, "another's color") for name in names], path=path)


def main(options: Options) -> None:
    """Train what is missing; print and write the table, draw the picture."""
    for kind, names, known in (
        ("shortcuts", options.shortcuts, SHORTCUTS),
        ("losses", options.losses, LOSSES),
    ):
        if unknown := [name for name in names if name not in known]:
            raise InputError(f"expected {kind} among {', '.join(known)}, got {', '.join(unknown)}")
    shown = clothes()
    settings = {"num_steps": options.num_steps, "weights": {name: LOSSES[name][1] for name in LOSSES}}
    progress: Progress = True if options.progress else "lines"
    rows = list(_DRAWN)
    with folders.in_use(options.out):
        log = ResultsLog(options.out / "shortcut.jsonl", settings)
        wanted = [
            (shortcut, name, seed)
            for shortcut in options.shortcuts
            for name in (*options.losses, _CLEAN)
            for seed in range(options.num_seeds)
        ]
        with Bar(len(wanted), unit="training", progress=progress) as bar:
            for shortcut, name, seed in wanted:
                bar.name(f"{shortcut}, {name}")
                key = f"{shortcut} {name} {seed}"
                if not log.done(key):
                    params, numbers = trained(shortcut, name, seed, shown, num_steps=options.num_steps)
                    misled, _ = planted(
                        shortcut, shown.judged[rows], trainings.others(shown.judged_labels)[rows]
                    )
                    maps = trainings.relevance(
                        params, jnp.asarray(misled), jnp.asarray(shown.judged_labels[rows])
                    )
                    log.append(
                        {
                            "key": key,
                            "numbers": numbers,
                            "maps": np.asarray(maps).tolist() if not seed else None,
                        }
                    )
                bar.update()
        found: dict[str, dict[str, list[dict[str, float]]]] = {}
        for shortcut, name, seed in wanted:
            of = found.setdefault(shortcut, {}).setdefault(name, [])
            of.append(log.records[f"{shortcut} {name} {seed}"]["numbers"])
        cost = costs(options.losses, shown, repeats=options.repeats) if options.repeats else {}
        told = table(found, cost)
        print(told)
        stored = {"made_with": made_with.start(), "settings": settings, "trainings": found, "costs": cost}
        folders.write_whole(options.out / "shortcut.md", told)
        folders.write_whole(options.out / "shortcut.json", json.dumps(stored, indent=1) + "\n")
        if options.drawn in options.shortcuts:
            maps = {
                name: np.array(log.records[f"{options.drawn} {name} 0"]["maps"]) for name in options.losses
            }
            print(draw(maps, options.drawn, shown, options.out / "shortcut.png"))


if __name__ == "__main__":
    command_line.run(main, Options, about=__doc__)
