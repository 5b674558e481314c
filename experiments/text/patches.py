"""What graying the most relevant patches does to ViT-S: 64 of 256 patches of the twenty photographs.

    python -m experiments.text.patches --out runs/text

The score is the mean logit of the pixels that ViT-S (`models.focus`) takes for the subject of the whole photograph.
Each method ranks the patches by the relevance of their pixels; the first ones become the photograph's mean color, and
a method is good if the score drops. Random is the mean over several draws, and what the others are compared with,
photograph by photograph. Leaves `patches.md` and `patches.json`. About five minutes on two cores.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxai import attribution, lrp, models
from jxai.cli.explaining.inputs import InputSpace
from jxai.cli.explaining.photographs import photographs
from jxai.cli.running import command_line, folders, made_with
from jxai.cli.running.seeds import key_of
from jxai.data.preprocess import MEAN, STD
from jxai.intervals import mean_and_interval
from jxai.progress import Bar, Progress

_GAMMA = lrp.CPLRP(gamma=0.05, convolution_gamma=0.25)
METHODS: dict[str, lrp.Composite | Callable] = {
    "CP-LRP with γ (0.25 convolution, 0.05 dense)": _GAMMA,
    "AttnLRP": lrp.AttnLRP(),
    "CP-LRP": lrp.CPLRP(),
    "gradient × input": attribution.input_x_gradient,
    "gradient": attribution.gradient,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How many photographs and patches, and where the table goes."""

    count: int | None = None
    """At most so many photographs, the first ones."""
    deleted: int = 64
    """Patches that become gray."""
    num_draws: int = 8
    """Of random, a photograph."""
    out: Path = Path("runs/text")
    seed: int = 0
    progress: bool = True


def measure(
    model: models.Loaded, key: jax.Array, images: jax.Array, options: Options, *, progress: Progress = True
) -> dict[str, np.ndarray]:
    """Drops of the score.

    Args:
        model: `models.focus()`, or another one with scores (N, H, W) of images.
        key: of the random ranks.
        images: normalized, (N, H, W, 3).
        options: how many patches and draws.
        progress: how far it is, as it is shown.

    Returns:
        By method, random the last: a drop an image, (N,).
    """
    patch = model.module.patch_size
    rows, columns = (side // patch for side in images.shape[1:3])

    @jax.jit
    def subject(model: models.Loaded, x: jax.Array) -> jax.Array:
        inside = model(x) > 0
        return inside / jnp.maximum(inside.sum(axis=(1, 2), keepdims=True), 1)

    def score(model: models.Loaded, x: jax.Array, weights: jax.Array) -> jax.Array:
        return (model(x) * weights).sum(axis=(1, 2))[:, None]

    @jax.jit
    def drops(model: models.Loaded, x: jax.Array, weights: jax.Array, ranked: jax.Array) -> jax.Array:
        """Of one image, by scores of its patches (D, rows * columns): (D,)."""
        ranks = jnp.argsort(jnp.argsort(-ranked, axis=-1), axis=-1).reshape(-1, rows, columns)
        gone = jnp.repeat(jnp.repeat(ranks < options.deleted, patch, 1), patch, 2)[..., None]
        gray = jnp.where(gone, x.mean(axis=(1, 2), keepdims=True), x)
        after = jax.lax.map(lambda one: score(model, one[None], weights)[0, 0], gray)
        return score(model, x, weights)[0, 0] - after

    def explain(method: Any) -> Callable:
        def run(model: models.Loaded, x: jax.Array, weights: jax.Array) -> jax.Array:
            def f(x: jax.Array) -> jax.Array:
                return score(model, x, weights)

            target = jnp.zeros(1, jnp.int32)
            if isinstance(method, lrp.Composite):
                found = lrp.relevance(f, x, target, composite=method)
            else:
                found = method(f, x, target)
            if method is attribution.gradient:
                found = abs(found)  # its sign says nothing of a patch's importance
            tiles = found.reshape(1, rows, patch, columns, patch, -1)
            return tiles.sum(axis=(2, 4, 5)).reshape(1, -1)

        return jax.jit(run)

    explainers = {name: explain(method) for name, method in METHODS.items()}
    found: dict[str, list[float]] = {name: [] for name in [*explainers, "random"]}
    with Bar(len(images), unit="photograph", progress=progress) as bar:
        for place, image in enumerate(images):
            x = image[None]
            weights = subject(model, x)
            ranked = {name: run(model, x, weights) for name, run in explainers.items()}
            draws = (options.num_draws, rows * columns)
            ranked["random"] = jax.random.uniform(jax.random.fold_in(key, place), draws)
            for name, scores in ranked.items():
                found[name].append(float(drops(model, x, weights, scores).mean()))
            bar.update(1)
    return {name: np.array(values) for name, values in found.items()}


def table(found: dict[str, np.ndarray], deleted: int) -> str:
    """The drops as Markdown, with each method's paired difference from random.

    Args:
        found: what was measured.
        deleted: how many patches.

    Returns:
        The text.
    """
    count = len(found["random"])
    lines = [f"Drop of the subject's mean logit, {deleted} patches gray, {count} photographs.", ""]
    lines += ["| patches ranked by | drop | above random, paired 95 % interval |", "|---|---:|---:|"]
    for name, values in found.items():
        mean, half = mean_and_interval(values - found["random"])
        paired = "" if name == "random" else f"{mean:+.2f} ± {half:.2f}"
        lines.append(f"| {name} | {values.mean():.2f} | {paired} |")
    return "\n".join(lines) + "\n"


def main(options: Options) -> None:
    """Measure; print and write the table."""
    model = models.focus()
    space = InputSpace(224, 224, MEAN, STD)
    pictures = [one.picture for one in photographs(space)][: options.count]
    images = jnp.asarray(space(np.stack(pictures)))
    progress: Progress = True if options.progress else "lines"
    found = measure(model, key_of(options.seed), images, options, progress=progress)
    told = table(found, options.deleted)
    print(told)
    stored = {"made_with": made_with.start(), "drops": {name: one.tolist() for name, one in found.items()}}
    with folders.in_use(options.out):
        folders.write_whole(options.out / "patches.md", told)
        folders.write_whole(options.out / "patches.json", json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    command_line.run(main, Options, about=__doc__, explains=True)
