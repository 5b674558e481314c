"""One photograph explained by every rule: EfficientNet-Lite0 with its ImageNet weights, docs/pictures/rules.png.

    pip install 'jxai[demo]'
    python experiments/rules_gallery.py --flow docs/pictures/flow.png

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
from tqdm import tqdm

import command_line
from jxai import lrp, viz
from jxai.models.pretrained import efficientnet_lite0
from jxai.viz.figure import new_figure, save
from photographs import CLASS_NAMES, Photograph, photographs, to_input

_COLUMNS = 5
_DPI = 112  # a panel of two inches shows every pixel of 224
_PANEL, _GAP, _TEXT, _MARGIN = 2.0, 0.12, 0.44, 0.15  # inches


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


def _everywhere(rule: lrp.Rule) -> lrp.Composite:
    return lrp.Composite(((lrp.Kind.CONVOLUTION, rule), (lrp.Kind.DENSE, rule)))


# Label to composite; None is the gradient of `jax.grad` times the input.
COMPOSITES: Mapping[str, lrp.Composite | None] = {
    "gradient × input": None,
    "LRP-0": _everywhere(lrp.Epsilon(1e-6)),
    "ε = 0.25": _everywhere(lrp.Epsilon(0.25)),
    "γ = 0.25": _everywhere(lrp.Gamma(0.25)),
    "EpsilonPlus": lrp.EpsilonPlus(),
    "EpsilonPlusFlat": lrp.EpsilonPlusFlat(),
    "w² + EpsilonPlus": lrp.Composite(((lrp.first, lrp.WSquare()),)) | lrp.EpsilonPlus(),
    "EpsilonGammaBox": lrp.EpsilonGammaBox(low=-127 / 128, high=1.0),
    "EpsilonAlpha2Beta1": lrp.EpsilonAlpha2Beta1(),
    "EpsilonAlpha2Beta1Flat": lrp.EpsilonAlpha2Beta1Flat(),
    "ExcitationBackprop": lrp.ExcitationBackprop(),
    "GuidedBackprop": lrp.GuidedBackprop(),
    "Deconvnet": lrp.Deconvnet(),
}


def explain(
    f: Callable[[jax.Array], jax.Array], photograph: Photograph, label: str, *, score: float
) -> Explanation:
    """Explain the photograph's true class.

    Args:
        f: from a batch of images to scores.
        photograph: what is explained.
        label: one of `COMPOSITES`.
        score: the true class's.

    Returns:
        The relevance and its sum.
    """
    x, target = jnp.asarray(to_input(photograph.picture)[None]), jnp.array([photograph.label])
    composite = COMPOSITES[label]
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

    return jax.jit(follow)(jnp.asarray(to_input(photograph.picture)[None]))


def draw(
    photograph: Photograph, caption: Sequence[str], explanations: Sequence[Explanation], path: Path
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
    panels: list[tuple[str, str, np.ndarray]] = [(caption[0], caption[1], photograph.picture)]
    for one in explanations:
        scale = viz.shared_scale(one.relevance)
        below = "gradient" if one.share is None else f"sum / score = {one.share:.2g}".replace("-", "−")
        panels.append((one.label, below, viz.heatmap(one.relevance, scale=scale)))
    columns = min(_COLUMNS, len(panels) + 1)
    rows = -(-(len(panels) + 1) // columns)
    width = 2 * _MARGIN + columns * (_PANEL + _GAP) - _GAP
    height = 2 * _MARGIN + rows * (_PANEL + _TEXT + _GAP) - _GAP
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # every panel has its place

    def place(index: int) -> tuple[float, float]:
        """Left and lower edge of a panel, inches."""
        row, column = divmod(index, columns)
        top = _MARGIN + row * (_PANEL + _TEXT + _GAP) + _TEXT
        return _MARGIN + column * (_PANEL + _GAP), height - top - _PANEL

    for index, (label, below, picture) in enumerate(panels):
        left, bottom = place(index)
        axis = figure.add_axes((left / width, bottom / height, _PANEL / width, _PANEL / height))
        axis.imshow(picture, interpolation="nearest", aspect="auto")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(color="#c8c8c8", linewidth=0.6)
        top = (bottom + _PANEL) / height
        figure.text(left / width, top + 0.23 / height, label, fontsize=11.5, parse_math=False)
        figure.text(left / width, top + 0.06 / height, below, fontsize=9, color="#606060", parse_math=False)
    _legend(figure, *place(len(panels)), width, height)
    return _shrink(save(figure, path, dpi=_DPI), photograph)


def _legend(figure: Any, left: float, bottom: float, width: float, height: float) -> None:
    """Which colour means what, in the place of a panel."""
    text = "relevance of a pixel for\nthe true class; each panel\nhas a scale of its own"
    figure.text(left / width, (bottom + 1.42) / height, text, fontsize=10, va="bottom")
    axis = figure.add_axes((left / width, (bottom + 1.15) / height, _PANEL / width, 0.16 / height))
    axis.imshow(viz.diverging_colours(np.linspace(-1, 1, 256))[None], aspect="auto")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color="#c8c8c8", linewidth=0.6)
    for position, word, side in ((0.0, "against", "left"), (0.5, "0", "center"), (1.0, "for", "right")):
        x = (left + position * _PANEL) / width
        figure.text(x, (bottom + 1.09) / height, word, fontsize=10, ha=side, va="top")


def _shrink(path: Path, photograph: Photograph) -> Path:
    """Keep 256 colours, of maps, letters and photograph: noise of three bytes a pixel does not compress."""
    from PIL import Image

    maps = viz.diverging_colours(np.linspace(-1, 1, 91))
    letters = np.repeat(np.linspace(0, 240, 16).astype(np.uint8)[:, None], 3, axis=1)
    rest = 256 - len(maps) - len(letters)
    few = Image.fromarray(photograph.picture).quantize(rest, method=Image.Quantize.MAXCOVERAGE, kmeans=4)
    own = np.array(few.getpalette(), np.uint8).reshape(-1, 3)[:rest]
    palette = np.concatenate([maps, letters, own])
    with Image.open(path) as opened:
        picture = np.asarray(opened.convert("RGB"))
    colours, index = np.unique(picture.reshape(-1, 3), axis=0, return_inverse=True)
    # Pillow's own search is approximate: white would not stay white.
    distance = sum((colours[:, c, None] - palette[None, :, c].astype(np.float32)) ** 2 for c in range(3))
    nearest = np.argmin(distance, axis=1).astype(np.uint8)
    indexed = Image.frombytes("P", picture.shape[1::-1], nearest[index.ravel()].tobytes())
    indexed.putpalette(palette.tobytes())
    indexed.save(path, optimize=True)
    return path


def main(options: Options) -> None:
    """Explain, print the sums, draw."""
    pictures = photographs()
    labels = options.rules or tuple(COMPOSITES)
    if unknown := sorted(set(labels) - set(COMPOSITES)):
        raise ValueError(f"expected rules among {', '.join(COMPOSITES)}, got {', '.join(unknown)}")
    if not 0 <= options.photograph < len(pictures):
        raise ValueError(f"expected a photograph from 0 to {len(pictures) - 1}, got {options.photograph}")
    photograph = pictures[options.photograph]
    model, variables, _ = efficientnet_lite0()

    def f(x: jax.Array) -> Any:
        return model.apply(variables, x, train=False)

    scores = f(jnp.asarray(to_input(photograph.picture)[None]))[0]
    best, score = int(scores.argmax()), float(scores[photograph.label])
    probability = float(jax.nn.softmax(scores)[best])
    predicted = CLASS_NAMES.get(best, f"class {best}")
    caption = (f"predicted: {predicted}", f"score {float(scores[best]):.2f}, probability {probability:.2f}")
    print(f"{photograph.class_name}, score {score:.2f}; {', '.join(caption)}")
    progress = tqdm(labels, desc="rules", unit="rule", disable=not options.progress)
    explanations = [explain(f, photograph, label, score=score) for label in progress]
    print("\n| rule | sum / score |\n| --- | ---: |")
    for one in explanations:
        print(f"| {one.label} | {'a gradient' if one.share is None else f'{one.share:.3g}'} |")
    print(f"\n{draw(photograph, caption, explanations, options.out)}")
    if options.flow is not None:
        title = f"EfficientNet-Lite0, {photograph.class_name}, EpsilonPlus"
        print(viz.relevance_flow(conservation(f, photograph), path=options.flow, title=title))


if __name__ == "__main__":
    command_line.run(main, Options)
