"""One photograph explained by every rule: EfficientNet-Lite0 with its ImageNet weights, docs/pictures/rules.png.

    pip install 'jxai[demo]'
    python -m experiments.rules_gallery --flow docs/pictures/flow.png

Draws the photograph's true class under each composite, and prints how much of its score each hands to the pixels.
Takes about three minutes on two cores, most of it compilation.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxai import lrp, viz
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0
from jxai.cli.explaining.methods import composites
from jxai.cli.explaining.photographs import CLASS_NAMES, Photograph, photographs
from jxai.cli.running import command_line
from jxai.errors import InputError
from jxai.models.pretrained import efficientnet_lite0
from jxai.progress import tracked
from jxai.viz.panels import Panel, draw_panels

_COLUMNS = 5
_LEGEND = "relevance of a pixel for\nthe true class; each panel\nhas a scale of its own"


@dataclasses.dataclass(frozen=True)
class Options:
    """Which photograph, which rules, and where the picture goes."""

    photograph: int = 17
    """Foolbox's number of it, from 0 to 19."""
    rules: tuple[str, ...] = ()
    """Some of the labels; by default all."""
    out: Path = Path("docs/pictures/rules.png")
    flow: Path | None = None
    """Where a picture of what each operation absorbs under EpsilonPlus goes, if anywhere."""
    progress: bool = True


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Relevance of one photograph under one rule.

    Attributes:
        label: the rule's.
        relevance: of the pixels, (H, W, C).
        share: sum of the relevance as a share of the score; None where a gradient is drawn, which has no such sum.
    """

    label: str
    relevance: np.ndarray
    share: float | None


# Label to composite; None is the gradient of `jax.grad` times the input.
RULES: Mapping[str, lrp.Composite | None] = {"gradient × input": None, **composites()}


def explain(
    f: Callable[[jax.Array], jax.Array], photograph: Photograph, label: str, *, score: float
) -> Explanation:
    """Explain the photograph's true class.

    Args:
        f: from a batch of images to scores.
        photograph: what is explained.
        label: one of `RULES`.
        score: the true class's.

    Returns:
        The relevance and its sum.
    """
    x, target = jnp.asarray(EFFICIENTNET_LITE0(photograph.picture)[None]), jnp.array([photograph.label])
    composite = RULES[label]
    if composite is None:
        relevance = x * jax.grad(lambda x: f(x)[0, photograph.label])(x)
    else:
        relevance = lrp.relevance(f, x, target, composite=composite)
    conserves = composite is None or composite.relevance
    share = float(np.asarray(relevance, np.float64).sum()) / score if conserves else None
    return Explanation(label, np.asarray(relevance[0]), share)


def conservation(f: Callable[[jax.Array], Any], photograph: Photograph) -> lrp.Conservation:
    """Where the relevance of the true class goes under EpsilonPlus, operation by operation."""

    def start(scores: jax.Array) -> jax.Array:
        return scores * jax.nn.one_hot(photograph.label, scores.shape[-1])

    def follow(x: jax.Array) -> lrp.Conservation:
        return lrp.conservation(f, x, composite=lrp.EpsilonPlus(), start=start)

    return jax.jit(follow)(jnp.asarray(EFFICIENTNET_LITE0(photograph.picture)[None]))


def draw(
    photograph: Photograph, caption: tuple[str, str], explanations: Sequence[Explanation], path: Path
) -> Path:
    """Draw the photograph and its explanations, row by row; the legend follows the last.

    Args:
        photograph: what is explained.
        caption: two lines above it.
        explanations: one a panel; each has a scale of its own.
        path: where the PNG goes.

    Returns:
        The path.
    """
    panels = [Panel(photograph.picture, *caption, photograph=True)]
    for one in explanations:
        scale = viz.shared_scale(one.relevance)
        below = "gradient" if one.share is None else f"sum / score = {one.share:.2g}".replace("-", "−")
        panels.append(Panel(viz.heatmap(one.relevance, scale=scale), one.label, below))
    return draw_panels(panels, path, columns=_COLUMNS, legend=_LEGEND)


def main(options: Options) -> None:
    """Explain, print the sums, draw."""
    pictures = photographs()
    labels = options.rules or tuple(RULES)
    if unknown := sorted(set(labels) - set(RULES)):
        raise InputError(f"expected rules among {', '.join(RULES)}, got {', '.join(unknown)}")
    if not 0 <= options.photograph < len(pictures):
        raise InputError(f"expected a photograph from 0 to {len(pictures) - 1}, got {options.photograph}")
    photograph = pictures[options.photograph]
    model, variables, _ = efficientnet_lite0()

    def f(x: jax.Array) -> Any:
        return model.apply(variables, x, train=False)

    scores = f(jnp.asarray(EFFICIENTNET_LITE0(photograph.picture)[None]))[0]
    best, score = int(scores.argmax()), float(scores[photograph.label])
    probability = float(jax.nn.softmax(scores)[best])
    caption = (
        f"predicted: {CLASS_NAMES[best]}",
        f"score {float(scores[best]):.2f}, probability {probability:.2f}",
    )
    print(f"{photograph.class_name}, score {score:.2f}; {', '.join(caption)}")
    progress = tracked(labels, name="rules", unit="rule", progress=options.progress or "lines")
    explanations = [explain(f, photograph, label, score=score) for label in progress]
    print("\n| rule | sum / score |\n| --- | ---: |")
    for one in explanations:
        print(f"| {one.label} | {'a gradient' if one.share is None else f'{one.share:.3g}'} |")
    print(f"\n{draw(photograph, caption, explanations, options.out)}")
    if options.flow is not None:
        title = f"EfficientNet-Lite0, {photograph.class_name}, EpsilonPlus"
        print(viz.relevance_flow(conservation(f, photograph), path=options.flow, title=title))


if __name__ == "__main__":
    command_line.run(main, Options, explains=True)
