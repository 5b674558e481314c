"""How many steps Integrated Gradients needs: its convergence delta for each quadrature rule, on EfficientNet-Lite0.

    pip install 'jxai[demo]'
    python -m experiments.convergence --figure docs/pictures/convergence.png

Explains the predicted class of photographs from a black picture. Leaves in the folder of results `convergence.md`,
the mean of |Σ attributions − (f(x) − f(x₀))| / |f(x) − f(x₀)| over the photographs, and a picture of it. Each
photograph is logged when it is there (`convergence.jsonl`): a run that was stopped goes on. About ten minutes on two
cores.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxai import attribution
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0 as SPACE
from jxai.cli.explaining.line_labels import label_ends, line_styles
from jxai.cli.explaining.methods import Classifier
from jxai.cli.explaining.network import load_network
from jxai.cli.explaining.picture_files import Picture, read_pictures
from jxai.cli.running import command_line, folders
from jxai.errors import InputError
from jxai.progress import Bar
from jxai.results_log import ResultsLog
from jxai.viz.figure import new_figure, save

RULES = ("right", "trapezoid", "midpoint", "gauss-legendre")
_HEIGHT = 3.8  # of the picture, in inches
_FLOOR = 2.0**-24  # float32's resolution: deltas below are drawn there


@dataclasses.dataclass(frozen=True)
class Options:
    """Which rules and counts of steps, on how many photographs."""

    rules: tuple[str, ...] = RULES
    steps: tuple[int, ...] = (10, 50, 300, 1000)
    count: int = 3
    """Photographs, the first ones; each costs about three minutes."""
    out: Path = Path("runs/convergence")
    """Folder of the log and the table."""
    figure: Path | None = None
    """Where the picture goes; by default beside the table."""
    progress: bool = True


@functools.partial(jax.jit, static_argnames=("rule", "num_steps"))
def relative_delta(f: Classifier, x: jax.Array, *, rule: str, num_steps: int) -> jax.Array:
    """What Integrated Gradients' sum misses of the predicted class's score, as a share of the score's change.

    Args:
        f: the network.
        x: images, (N, H, W, C); the baseline is black.
        rule: one of `RULES`.
        num_steps: intervals or nodes.

    Returns:
        |delta| / |f(x) − f(x₀)|, (N,).
    """
    target = jnp.argmax(f(x), axis=1)
    options: dict[str, Any] = {"baseline": SPACE.low, "num_steps": num_steps, "method": rule}
    attributions = attribution.integrated_gradients(f, x, target, **options)
    delta = attribution.convergence_delta(f, x, target, attributions, baseline=SPACE.low)
    change = attributions.sum(axis=(1, 2, 3)) - delta
    return jnp.abs(delta) / jnp.abs(change)


def table(found: Mapping[str, np.ndarray], steps: tuple[int, ...]) -> str:
    """Rules by numbers of steps.

    Args:
        found: by rule, (steps, photographs).
        steps: the numbers.

    Returns:
        Markdown, the best of a column in bold.
    """
    means = {rule: values.mean(axis=1) for rule, values in found.items()}
    best = np.min(list(means.values()), axis=0)
    lines = [["rule", *(f"{number} steps" for number in steps)], ["---", *["---:"] * len(steps)]]
    for rule, row in means.items():
        cells = [
            f"**{mean:.2g}**" if mean == least else f"{mean:.2g}"
            for mean, least in zip(row, best, strict=True)
        ]
        lines.append([rule, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(found: Mapping[str, np.ndarray], steps: tuple[int, ...], *, title: str, path: Path) -> Path:
    """Draw the table: a thick line a rule, a dot a photograph.

    Args:
        found: by rule, (steps, photographs).
        steps: the numbers.
        title: printed on top.
        path: where the PNG goes.

    Returns:
        The path.
    """
    figure = new_figure(6.4, _HEIGHT)
    axis = figure.subplots()
    axis.set(xscale="log", yscale="log")
    styles = line_styles(len(found))
    shown = [np.maximum(values, _FLOOR) for values in found.values()]
    for values, style in zip(shown, styles, strict=True):
        axis.plot(steps, values.mean(axis=1), linewidth=1.8, **style)
        axis.plot(steps, values, ".", markersize=5, alpha=0.5, color=style["color"], clip_on=False)
    axis.set_xlim(0.9 * min(steps), max(steps))
    axis.set_ylim(*axis.get_ylim())  # the names' lines are not to move it
    axis.set_xticks(steps, [str(number) for number in steps])
    axis.minorticks_off()
    axis.set_xlabel("steps")
    axis.set_ylabel("|delta| / |f(x) − f(x₀)|")
    axis.set_title(title, fontsize=10, parse_math=False)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    ends = [values[-1].mean() for values in shown]
    label_ends(axis, ends, list(found), styles, height=0.78 * _HEIGHT)
    return save(figure, path, dpi=130)


def main(options: Options) -> None:
    """Measure what is missing; write and print the table, draw it."""
    unknown = [rule for rule in options.rules if rule not in RULES]
    if unknown or not options.rules:
        raise InputError(f"expected rules among {', '.join(RULES)}, got {', '.join(unknown) or 'none'}")
    if not options.steps or min(options.steps) < 1:
        raise InputError(f"expected steps of at least 1, got {options.steps}: raise them")
    steps = tuple(sorted(set(options.steps)))
    pictures = read_pictures(())
    if not 1 <= options.count <= len(pictures):
        raise InputError(
            f"expected a count from 1 to {len(pictures)}, got {options.count}: so many photographs"
        )
    with folders.in_use(options.out):
        measure(options, steps, pictures)


def measure(options: Options, steps: tuple[int, ...], pictures: Sequence[Picture]) -> None:
    """Measure what is missing, in a folder that nobody else writes in.

    Args:
        options: rules and where the results go.
        steps: in order, each once.
        pictures: the photographs.
    """
    log = ResultsLog(
        options.out / "convergence.jsonl", {"network": "EfficientNet-Lite0", "baseline": "black"}
    )
    keys = {
        (rule, number, index): f"{rule} {number} {index}"
        for number in steps
        for rule in dict.fromkeys(options.rules)
        for index in range(options.count)
    }
    missing = {which: key for which, key in keys.items() if not log.done(key)}
    work = sum(number for _, number, _ in keys)
    left = sum(number for _, number, _ in missing)
    with Bar(work, initial=work - left, unit="gradient", progress=options.progress or "lines") as bar:
        classifier = load_network().classifier if missing else None
        for (rule, number, index), key in missing.items():
            x = jnp.asarray(SPACE(pictures[index].pixels[None]))
            delta = relative_delta(classifier, x, rule=rule, num_steps=number)
            log.append({"key": key, "delta": float(delta[0])})
            bar.name(f"{rule}, {number} steps")
            bar.update(number)
    found = {
        rule: np.array(
            [[log.records[keys[rule, n, i]]["delta"] for i in range(options.count)] for n in steps]
        )
        for rule in dict.fromkeys(options.rules)
    }
    text = (
        "Integrated Gradients of the predicted class from a black picture, EfficientNet-Lite0: "
        f"|delta| / |f(x) − f(x₀)|, mean of {options.count} photographs, best in bold.\n\n{table(found, steps)}"
    )
    path = options.out / "convergence.md"
    folders.write_whole(path, text + "\n")
    print(f"{text}\n\n{path}")
    title = f"Integrated Gradients, EfficientNet-Lite0, {options.count} photographs"
    print(draw(found, steps, title=title, path=options.figure or options.out / "convergence.png"))


if __name__ == "__main__":
    command_line.run(main, Options, explains=True)
