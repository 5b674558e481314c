"""Pages of what a sentence encoder, a vision transformer and a reader of bytes look at, to be looked at.

    python -m experiments.text.pages --out runs/pages

`minilm.html`: which words make two sentences similar, and `minilm-pairs.png`, pair by pair. `focus.html`: which
patches of a photograph speak for what ViT-S takes for its subject, by AttnLRP and CP-LRP with γ. `magika.html`: which
bytes say that a file is a program in Python. Each needs the package that carries its weights, and says so.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jxai import lrp, models, text, viz
from jxai.cli.explaining.inputs import InputSpace
from jxai.cli.explaining.photographs import photographs
from jxai.cli.running import command_line, folders
from jxai.data.preprocess import MEAN, STD
from jxai.models.magika import byte_features

SENTENCES = ("The cat sits on the mat in the sun.", "A kitten is resting on a warm rug.")
PROGRAM = '''import sys


def greet(name):
    """Says hello."""
    print(f"Hello, {name}!")


if __name__ == "__main__":
    greet(sys.argv[1])
'''
_PHOTOGRAPH = 17  # of the twenty: a bald eagle
_METHODS = {"AttnLRP": lrp.AttnLRP(), "CP-LRP, γ = 0.05": lrp.CPLRP(gamma=0.05)}


@dataclasses.dataclass(frozen=True)
class Options:
    """Which pages, and where they go."""

    pages: tuple[str, ...] = ("minilm", "focus", "magika")
    out: Path = Path("runs/pages")


def minilm(out: Path) -> list[Path]:
    """Both sides of a similarity, and its pairs of words.

    Args:
        out: the folder.

    Returns:
        The files.
    """
    model = models.minilm()
    model.tokenizer.no_padding()
    ids = [model.tokenizer.encode(sentence).ids for sentence in SENTENCES]
    sides = [text.pieces(one, tokenizer=model.tokenizer) for one in ids]
    batch = [jnp.asarray(one, jnp.int32)[None] for one in ids]
    found = jax.jit(text.similarity)(model, *batch)
    pairs = jax.jit(text.token_pairs)(model, *batch)[0]
    words = [side.joined(side.words) for side in sides]
    parts = []
    cosine = float(found.score[0])
    for which, side, own, relevance in zip(
        ("first", "second"), sides, words, (found.first, found.second), strict=True
    ):
        joined = text.join(relevance[0], side.words)
        parts.append(
            viz.text_maps(
                np.asarray(joined), tokens=own, names=[f"{which} sentence, cosine {cosine:.3f}"]
            ).html
        )
    joined = text.join(text.join(pairs, sides[0].words, axis=0), sides[1].words, axis=1)
    page = viz.TextMaps("\n".join(parts)).page(title="MiniLM: which words make two sentences similar")
    folders.write_whole(out / "minilm.html", page)
    path = out / "minilm-pairs.png"
    viz.token_matrix(np.asarray(joined), rows=words[0], columns=words[1], path=path, title="pairs of words")
    return [out / "minilm.html", path]


def focus(out: Path) -> list[Path]:
    """Patches of a photograph for the mean logit of what the network takes for its subject.

    Args:
        out: the folder.

    Returns:
        The files.
    """
    model = models.focus()
    space = InputSpace(224, 224, MEAN, STD)
    picture = photographs(space)[_PHOTOGRAPH].picture
    x = jnp.asarray(space(picture[None]))
    subject = jax.jit(lambda model, x: model(x) > 0)(model, x)

    def explain(model: models.Loaded, x: jax.Array, composite: lrp.Composite) -> jax.Array:
        weights = subject.astype(x.dtype) / subject.sum()
        return lrp.relevance(
            lambda x: (model(x) * weights).sum(axis=(1, 2))[:, None],
            x,
            jnp.zeros(1, jnp.int32),
            composite=composite,
        )

    run = jax.jit(explain, static_argnames="composite")
    maps = np.stack([np.asarray(run(model, x, composite))[0] for composite in _METHODS.values()])
    patches = viz.patch_means(maps, patch=14)
    shown = []
    for name, one in zip(_METHODS, patches, strict=True):
        mixed = viz.overlay(picture, one, scale=viz.shared_scale(one))
        drawn = viz.inline(
            np.stack([one, one]), pictures=np.stack([picture, mixed]), captions=[name, ""], width=200
        )
        shown.append(drawn._repr_html_())
    folders.write_whole(
        out / "focus.html",
        viz.TextMaps("\n".join(shown)).page(title="ViT-S: which patches speak for the subject"),
    )
    return [out / "focus.html"]


def magika(out: Path) -> list[Path]:
    """Bytes of a short program for the type that is found.

    Args:
        out: the folder.

    Returns:
        The files.
    """
    model = models.magika()
    ids = jnp.asarray(byte_features(PROGRAM.encode()))
    ids = ids.reshape(1, -1)
    scores = np.asarray(jax.jit(lambda model, ids: model(ids))(model, ids))[0]
    target = int(scores.argmax())

    def explain(model: models.Loaded, ids: jax.Array, method: lrp.Composite) -> jax.Array:
        def classes(x: jax.Array) -> jax.Array:
            return model.apply(model.encode(x), method="classify")

        return text.token_relevance(classes, model.embed(ids), jnp.asarray([target]), method=method)

    run = jax.jit(explain, static_argnames="method")
    maps = {name: np.asarray(run(model, ids, method))[0] for name, method in _METHODS.items()}
    known = np.flatnonzero(np.asarray(ids)[0] < 256)
    known = known[known < ids.shape[1] // 2]  # a short file stands at both ends
    page = viz.text_maps(
        np.stack(list(maps.values()))[:, known],
        tokens=[chr(byte) for byte in np.asarray(ids)[0, known]],
        names=list(maps),
        scale=[float(abs(one[known]).max()) for one in maps.values()],
    ).page(title=f"Magika: which bytes say {model.module.labels[target]!r}")
    folders.write_whole(out / "magika.html", page)
    return [out / "magika.html"]


PAGES: dict[str, Callable[[Path], list[Path]]] = {"minilm": minilm, "focus": focus, "magika": magika}


def main(options: Options) -> None:
    """Make the pages; print where they are."""
    with folders.in_use(options.out):
        for name in options.pages:
            for path in PAGES[name](options.out):
                print(path)


if __name__ == "__main__":
    command_line.run(main, Options, about=__doc__, explains=True)
