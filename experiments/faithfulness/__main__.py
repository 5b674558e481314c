"""Which metric finds the method that finds the trigger? Metrics of explanations against BackX and F-Fidelity.

    python -m experiments.faithfulness --out experiments/results/faithfulness

A small network learns letters of the embedded domain `latin`, once plain and once with each trigger (a patch; a
blended pattern) a seed, and a copy of each is tuned on random masks for F-Fidelity. Fifteen methods and random maps
explain held-out pictures: their class, or the trigger's in pictures that bear it. Leaves `faithfulness.md` with every
method's score by every metric and the correlation of every metric's order of methods (random left out) with that of
BackX's trigger recall, of its recovery and of F-Fidelity, and `faithfulness.json`. A network's scores are logged when
they are there (`faithfulness.jsonl`): a run that was stopped goes on. Minutes on two cores.
"""

import dataclasses
import functools
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.faithfulness import agreement, networks
from experiments.faithfulness.networks import TARGET, TRIGGERS, Letters, Network, Trigger, train
from experiments.faithfulness.scores import CONTROL, DIRECTIONS, KNOWN, METHODS, Asked, Scorer
from experiments.pieces import check_names, finish, leave
from jxai import metrics
from jxai.cli.running import command_line, folders
from jxai.cli.running.seeds import key_of
from jxai.errors import InputError
from jxai.intervals import mean_and_interval
from jxai.results_log import ResultsLog

NO_TRIGGER = "no trigger"
_NETWORKS: dict[str, Trigger | None] = {NO_TRIGGER: None, **{one.name: one for one in TRIGGERS}}


@dataclasses.dataclass(frozen=True)
class Options:
    """How much is trained and explained, and where the tables go."""

    networks: tuple[str, ...] = tuple(_NETWORKS)
    """Which: of what they learn beside the letters."""
    num_seeds: int = 3
    num_classes: int = 10
    num_pictures: int = 24
    """Explained, a network."""
    num_steps: int = 400
    """Of training; tuning has half as many."""
    share: float = 0.1
    """Of the pictures that bear the trigger in training."""
    beta: float = 0.1
    """Largest share of pixels masked in tuning and by F-Fidelity."""
    out: Path = Path("runs/faithfulness")
    json: bool = False
    """Print the numbers as JSON, not the tables."""
    progress: bool = True


def measure(scorer: Scorer, seed: int, trigger: Trigger | None, options: Options) -> dict[str, Any]:
    """Train a network, tune a copy, explain pictures by every method and score them.

    Args:
        scorer: compiled methods and metrics.
        seed: of everything.
        trigger: what it learns beside the letters, or None.
        options: how much.

    Returns:
        Accuracies, and scores by method and metric, of JSON's types.
    """
    name = NO_TRIGGER if trigger is None else trigger.name
    keys = jax.random.split(jax.random.fold_in(key_of(seed), zlib.crc32(name.encode())), 5)
    learned, held = networks.letters(options.num_classes)
    network = Network(options.num_classes)
    if trigger is not None:
        bearing = trigger.planted(learned.x)
        poisoned = metrics.poisoned(
            keys[0], learned.x, bearing, learned.label, target=TARGET, share=options.share
        )
        learned = Letters(poisoned.x, poisoned.label)
    params = train(network, keys[1], learned, num_steps=options.num_steps)
    rates = {"beta": options.beta, "learning_rate": 1e-3}
    tuned = train(network, keys[2], learned, params, num_steps=options.num_steps // 2, **rates)
    bearing = held.x if trigger is None else trigger.planted(held.x)

    def predicted(params: Any, x: jax.Array) -> jax.Array:
        return networks.apply(network, params, x).argmax(axis=1)

    masked = metrics.randomly_masked(keys[3], held.x, share=options.beta)
    accuracy = {
        f"{kind}, {which}": float((predicted(of, x) == held.label).mean())
        for kind, of in (("trained", params), ("tuned", tuned))
        for which, x in (("whole", held.x), ("masked", masked))
    }
    if trigger is None:
        good = predicted(params, held.x) == held.label
    else:
        of = {"target": TARGET}
        for kind, which in (("trained", params), ("tuned", tuned)):
            found = metrics.backdoor(
                lambda x, p=which: networks.apply(network, p, x), held.x, bearing, held.label, **of
            )
            accuracy[f"{kind}, attack success"] = float(found.attack_success)
        good = (held.label != TARGET) & (predicted(params, bearing) == TARGET)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(good))
    if len(order) < options.num_pictures:
        raise InputError(
            f"expected {options.num_pictures} pictures that the network classifies as it should, got {len(order)}: "
            "train longer, or explain fewer"
        )
    rows = jnp.asarray(order[: options.num_pictures])
    target = held.label[rows] if trigger is None else jnp.full(len(rows), TARGET, jnp.int32)
    mask = TRIGGERS[0].mask if trigger is None else trigger.mask
    asked = Asked(
        params, tuned, bearing[rows], held.x[rows], jnp.broadcast_to(mask, (len(rows), 32, 32)), target
    )
    scores = {}
    for method in METHODS:
        found = scorer(keys[4], asked, method)
        left = found if trigger is not None else {one: of for one, of in found.items() if one not in KNOWN}
        scores[method] = {one: [float(f"{value:.6g}") for value in of] for one, of in left.items()}
    return {"accuracy": accuracy, "scores": scores}


def summary(records: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the tables show: by network, accuracies, means with intervals, agreement.

    Args:
        records: by network, one of `measure` a seed.

    Returns:
        Of JSON's types but for the agreements, which are tuples.
    """
    found: dict[str, Any] = {}
    for name, of in records.items():
        columns = [one for one in DIRECTIONS if one in of[0]["scores"][CONTROL]]
        scores = {
            column: np.array([[seed["scores"][method][column] for seed in of] for method in METHODS])
            for column in columns
        }
        judged = {column: values[[one != CONTROL for one in METHODS]] for column, values in scores.items()}
        references = [one for one in ("trigger recall", "trigger recovery", "F-Fidelity") if one in columns]
        found[name] = {
            "accuracy": {
                key: float(np.mean([seed["accuracy"][key] for seed in of])) for key in of[0]["accuracy"]
            },
            "scores": {
                method: {
                    column: [float(f"{one:.4g}") for one in mean_and_interval(values[place].ravel())]
                    for column, values in scores.items()
                }
                for place, method in enumerate(METHODS)
            },
            "agreement": agreement.agreements(judged, DIRECTIONS, references),
        }
    return found


def page(found: dict[str, Any], options: Options) -> str:
    """The tables as Markdown.

    Args:
        found: of `summary`.
        options: how much was measured.

    Returns:
        The text.
    """
    lines = [
        f"{options.num_pictures} held-out pictures a network, {options.num_seeds} seeds, "
        f"{options.num_classes} letters. "
        f"Triggers in {options.share:.0%} of what is learned, masks of at most {options.beta:.0%} of the pixels. "
        "Correlations are Spearman's over the methods, random left out; intervals are 95 %, over seeds and pictures.",
    ]
    for name, of in found.items():
        accuracy = ", ".join(f"{key} {value:.3f}" for key, value in of["accuracy"].items())
        columns = list(of["scores"][CONTROL])
        arrows = {column: "↑" if DIRECTIONS[column] == "higher" else "↓" for column in columns}
        lines += ["", f"## {name[0].upper()}{name[1:]}", "", f"Accuracy: {accuracy}.", ""]
        lines += [agreement.table(of["agreement"]), ""]
        lines += ["| method | " + " | ".join(f"{one} {arrows[one]}" for one in columns) + " |"]
        lines += ["|---|" + "---:|" * len(columns)]
        for method in METHODS:
            cells = [f"{of['scores'][method][one][0]:.3g}".replace("-", "−") for one in columns]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(options: Options) -> None:
    """Measure what is missing; write and print the tables."""
    check_names("networks", options.networks, _NETWORKS)
    settings = dataclasses.asdict(options)
    for name in ("networks", "num_seeds", "out", "json", "progress"):
        del settings[name]
    scorer = Scorer(Network(options.num_classes), beta=options.beta)
    keys = {(name, seed): f"{name} {seed}" for seed in range(options.num_seeds) for name in options.networks}
    pieces = {
        key: functools.partial(measure, scorer, seed, _NETWORKS[name], options)
        for (name, seed), key in keys.items()
    }
    with folders.in_use(options.out):
        log = ResultsLog(options.out / "faithfulness.jsonl", settings)
        finish(log, pieces, unit="network", progress=options.progress)
        records = {
            name: [log.records[keys[name, seed]] for seed in range(options.num_seeds)]
            for name in options.networks
        }
        found = summary(records)
        stored = {"settings": log.settings, "networks": found}
        leave(options.out / "faithfulness", page(found, options), stored, as_json=options.json)


if __name__ == "__main__":
    command_line.run(main, Options, about=__doc__, explains=True)
